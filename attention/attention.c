/* Cuts a batch into items of work and asks the cache what each query sees; see attention.h. */
#include "attention/attention.h"

#include "attention/attend.h"

#define MAX_PARTIAL_FLOATS ((size_t)1 << 23) /* 32 heads of 128 that see 490,000 tokens */

const AttentionKernels *attention_kernels(SimdLevel level) {
    static const AttentionKernels *const KERNELS[SIMD_LEVEL_COUNT] = SIMD_ADDRESSES(attention_kernels);
    return KERNELS[level];
}

AttentionPath attention_path(const AttentionKernels *kernels, KvCodecId codec, size_t row_dim) {
    return kernels->path(codec, row_dim);
}

size_t attention_scratch_bytes(void) {
    return sizeof(AttentionScratch);
}

size_t attention_partial_bytes(void) {
    return MAX_PARTIAL_FLOATS * sizeof(float);
}

static AttentionShape shape_of(const AttentionBatch *batch) {
    const KvShape *shape = &batch->cache->layout.shape;
    return (AttentionShape){batch->n_heads / shape->n_kv_heads, shape->head_dim, batch->pairing, batch->scores};
}

/* Blocks of queries under each KV head: as few as their query heads allow. */
static size_t blocks_per_head(const AttentionBatch *batch) {
    size_t n_heads = shape_of(batch).q_per_kv, most = n_heads < ATTENTION_Q_HEADS ? ATTENTION_Q_HEADS / n_heads : 1;
    return (batch->n_tokens + most - 1) / most;
}

/* Queries of a block: the batch's, shared out evenly. */
static size_t block_tokens(const AttentionBatch *batch) {
    size_t n_blocks = blocks_per_head(batch);
    return (batch->n_tokens + n_blocks - 1) / n_blocks;
}

/* Floats of the partials of one tile, over all heads. */
static size_t tile_floats(const AttentionBatch *batch) {
    return batch->n_heads * PARTIAL_FLOATS(batch->cache->layout.row_dim);
}

/* The tiles that a single query is cut into, or 0: the batch goes block by block. */
static size_t split_tiles(const AttentionBatch *batch) {
    size_t position = batch->cache->n_tokens;
    size_t n_visible = position + 1 - kvcache_dropped(batch->cache, batch->layer, position);
    size_t n_tiles = (n_visible + TILE_TOKENS - 1) / TILE_TOKENS;
    bool splits = batch->n_tokens == 1 && n_tiles > 1 && n_tiles <= MAX_PARTIAL_FLOATS / tile_floats(batch);
    return splits ? n_tiles : 0;
}

size_t attention_n_items(const AttentionBatch *batch) {
    size_t n_tiles = split_tiles(batch);
    return batch->cache->layout.shape.n_kv_heads * (n_tiles > 0 ? n_tiles : blocks_per_head(batch));
}

/* The query heads of token `t` of the batch under a KV head. */
static AttentionQuery query_at(const AttentionBatch *batch, size_t t, size_t kv_head, KvSpan spans[KV_MAX_SPANS]) {
    AttentionShape shape = shape_of(batch);
    size_t first = (t * batch->n_heads + kv_head * shape.q_per_kv) * shape.head_dim;
    size_t position = batch->cache->n_tokens + t;
    size_t n_spans = kvcache_view(batch->cache, batch->layer, kv_head, position, spans);
    const float *shift = batch->shift_rotation == NULL ? NULL : batch->shift_rotation + t * shape.head_dim;
    return (AttentionQuery){batch->q + first,
                            shift,
                            spans,
                            n_spans,
                            batch->out + first,
                            kvcache_hidden(batch->cache, batch->layer, position)};
}

static void attend_block(const AttentionBatch *batch, size_t index, const AttentionKernels *kernels,
                         AttentionScratch *scratch) {
    KvCache *cache = batch->cache;
    size_t n_kv_heads = cache->layout.shape.n_kv_heads;
    AttentionShape shape = shape_of(batch);
    size_t begin = index / n_kv_heads * block_tokens(batch), end = begin + block_tokens(batch), n = 0;
    for (size_t t = begin; t < end && t < batch->n_tokens; t++, n++) {
        scratch->queries[n] = query_at(batch, t, index % n_kv_heads, scratch->spans[n]);
        kvcache_count_read(cache, batch->layer, scratch->spans[n], scratch->queries[n].n_spans,
                           scratch->queries[n].n_hidden);
    }
    if (n == 1)
        kernels->one(&shape, scratch->queries, scratch);
    else
        kernels->block(&shape, scratch->queries, n, scratch);
}

/* The partials of a KV head's query heads in the first tile. */
static float *partials_of(const AttentionBatch *batch, size_t kv_head) {
    return batch->partials + kv_head * shape_of(batch).q_per_kv * PARTIAL_FLOATS(batch->cache->layout.row_dim);
}

static void attend_tiles(const AttentionBatch *batch, size_t kv_head, size_t begin, size_t end,
                         const AttentionKernels *kernels, AttentionScratch *scratch) {
    AttentionShape shape = shape_of(batch);
    AttentionQuery query = query_at(batch, 0, kv_head, scratch->spans[0]);
    if (begin == 0)
        kvcache_count_read(batch->cache, batch->layer, query.spans, query.n_spans, query.n_hidden);
    kernels->tiles(&shape, &query, begin, end, partials_of(batch, kv_head), tile_floats(batch), scratch);
}

void attention_items(const AttentionBatch *batch, size_t begin, size_t end, const AttentionKernels *kernels,
                     AttentionScratch *scratch) {
    size_t n_tiles = split_tiles(batch);
    for (size_t i = begin, next; i < end; i = next) {
        next = i + 1;
        if (n_tiles == 0) {
            attend_block(batch, i, kernels, scratch);
        } else {
            size_t tile = i % n_tiles;
            next = at_most(i + n_tiles - tile, end);
            attend_tiles(batch, i / n_tiles, tile, tile + next - i, kernels, scratch);
        }
    }
}

void attention_merge(const AttentionBatch *batch, size_t begin, size_t end, const AttentionKernels *kernels,
                     AttentionScratch *scratch) {
    AttentionShape shape = shape_of(batch);
    size_t n_tiles = split_tiles(batch);
    for (size_t kv_head = begin; kv_head < end && n_tiles > 0; kv_head++) {
        AttentionQuery query = query_at(batch, 0, kv_head, scratch->spans[0]);
        kernels->merge(&shape, &query, n_tiles, partials_of(batch, kv_head), tile_floats(batch), scratch);
    }
}

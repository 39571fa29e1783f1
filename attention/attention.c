/* Cuts a batch into blocks of queries and asks the cache what each of them sees; see attention.h. */
#include "attention/attention.h"

#include "attention/attend.h"

Attend *attention_kernel(SimdLevel level) {
    static Attend *const KERNELS[SIMD_LEVEL_COUNT] = SIMD_TABLE(attend);
    return KERNELS[level];
}

size_t attention_scratch_bytes(void) {
    return sizeof(AttentionScratch);
}

static size_t group_heads(const AttentionBatch *batch) {
    return batch->n_heads / batch->cache->shape.n_kv_heads;
}

/* Blocks of the batch under each KV head, as many as the rows ask for, and their tokens, shared out evenly. */
static size_t blocks_per_head(const AttentionBatch *batch) {
    size_t rows = group_heads(batch), most = rows < ATTENTION_ROWS ? ATTENTION_ROWS / rows : 1;
    return (batch->n_tokens + most - 1) / most;
}

static size_t block_tokens(const AttentionBatch *batch) {
    size_t n_blocks = blocks_per_head(batch);
    return (batch->n_tokens + n_blocks - 1) / n_blocks;
}

size_t attention_n_blocks(const AttentionBatch *batch) {
    return blocks_per_head(batch) * batch->cache->shape.n_kv_heads;
}

void attention_block(const AttentionBatch *batch, size_t index, Attend *attend, AttentionScratch *scratch) {
    KvCache *cache = batch->cache;
    size_t n_kv_heads = cache->shape.n_kv_heads, head_dim = cache->shape.head_dim, kv_head = index % n_kv_heads;
    AttentionShape shape = {group_heads(batch), head_dim, batch->pairing};
    size_t begin = index / n_kv_heads * block_tokens(batch), end = begin + block_tokens(batch), n = 0;
    for (size_t t = begin; t < end && t < batch->n_tokens; t++, n++) {
        size_t first = (t * batch->n_heads + kv_head * shape.n_group) * head_dim;
        KvSpan *spans = scratch->spans[n];
        size_t n_spans = kvcache_view(cache, batch->layer, kv_head, cache->n_tokens + t, spans);
        const float *shift = batch->shift_rotation == NULL ? NULL : batch->shift_rotation + t * head_dim;
        scratch->queries[n] = (AttentionQuery){batch->q + first, shift, spans, n_spans, batch->out + first};
        kvcache_count_read(cache, batch->layer, spans, n_spans);
    }
    attend(&shape, scratch->queries, n, scratch);
}

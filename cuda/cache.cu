/* The cache's movements on a device; see cache.h. What each kernel does is what kvcache/kvcache.c does on the host, by
 * the same plans and places; each block of threads has a KV head, or one side of it. */
#include "cuda/cache.h"

#include "cuda/encode.cuh"

/* ---- A batch begins */

__global__ void begin_batch(CudaCache *cache, size_t n_before) {
    cache->n_tokens = n_before;
}

__global__ void begin_batch_at(CudaCache *cache, const size_t *n_before) {
    cache->n_tokens = *n_before;
}

void cuda_cache_begin(CudaCache *cache, size_t n_before, cudaStream_t stream) {
    CUDA_LAUNCH(begin_batch, dim3(1), dim3(1), 0, stream, cache, n_before);
}

void cuda_cache_begin_at(CudaCache *cache, const size_t *n_before, cudaStream_t stream) {
    CUDA_LAUNCH(begin_batch_at, dim3(1), dim3(1), 0, stream, cache, n_before);
}

/* A thread for each layer: divisions of 64 bits take a while, and no block of attention has to wait for them. */
__global__ void plan_layers(CudaCache *cache, size_t n_layers, bool committed) {
    size_t layer = blockIdx.x * blockDim.x + threadIdx.x;
    if (layer < n_layers)
        cache->n_runs[layer] = (uint32_t)kvcache_layout_view(&cache->layout, layer, cache->n_tokens + committed,
                                                             cache->n_tokens, cache->runs + layer * KV_MAX_RUNS);
}

void cuda_cache_plan(CudaCache *cache, size_t n_layers, bool committed, cudaStream_t stream) {
    CUDA_LAUNCH(plan_layers, dim3((unsigned)divide_up(n_layers, 32)), dim3(32), 0, stream, cache, n_layers, committed);
}

/* ---- Its keys and values come */

/* As encode_f16() of the host: a number beyond the largest half becomes it, so that it does not poison what follows. */
__device__ static uint16_t saturated(float x) {
    uint16_t half = f32_to_half(x);
    bool is_finite = (f32_bits(x) & 0x7fffffff) < 0x7f800000;
    return (half & 0x7fff) == 0x7c00 && is_finite ? half - 1 : half;
}

__device__ static void rotate_head(const CudaBatch &batch, const float *rotation, size_t token, float *x) {
    for (size_t i = threadIdx.x; i < batch.head_dim / 2; i += blockDim.x)
        rope_rotate_pair(x, i, batch.head_dim, batch.pairing, rotation + token * batch.head_dim + 2 * i);
}

__device__ static void take_row(const CudaBatch &batch, KvSide side, size_t token, size_t kv_head, const float *from) {
    const CudaCache *cache = batch.cache;
    uint16_t *to = (uint16_t *)(cache->memory + kv_array_at(&cache->layout.batch[side], kv_head, token));
    for (size_t i = threadIdx.x; i < batch.row_dim; i += blockDim.x)
        to[i] = i < batch.head_dim ? saturated(from[i]) : 0;
}

/* A token's keys under a KV head, with the queries that attend to them; or its values. */
__device__ static void take_side(const CudaBatch &batch, const CudaRows &rows, KvSide side, size_t token,
                                 size_t kv_head) {
    size_t row = (token * batch.n_kv_heads + kv_head) * batch.head_dim, q_per_kv = batch.n_heads / batch.n_kv_heads;
    if (side == KV_VALUES) {
        take_row(batch, side, token, kv_head, rows.v + row);
        return;
    }
    if (rows.rotation != NULL) {
        rotate_head(batch, rows.rotation, token, rows.k + row);
        for (size_t h = 0; h < q_per_kv; h++)
            rotate_head(batch, rows.rotation, token, rows.q + row * q_per_kv + h * batch.head_dim);
        __syncthreads();
    }
    take_row(batch, side, token, kv_head, rows.k + row);
}

/* Blocks: (token, KV head, side) */
__global__ void __launch_bounds__(128) take_batch(CudaBatch batch, CudaRows rows) {
    take_side(batch, rows, (KvSide)blockIdx.z, blockIdx.x, blockIdx.y);
}

/* ---- Groups move on to the next tier */

#define ENCODE_BLOCKS 2 /* of threads on a multiprocessor: as many registers as nothing has to be spilled for */

/* Which of a KV head's sides a block works on, and with what memory. */
typedef struct SideWork {
    CudaCache *cache;
    size_t layer, kv_head;
    KvSide side;
    float *values;  /* (group, row_dim) device */
    uint8_t *codes; /* (group, row_dim) shared */
} SideWork;

__device__ static uint8_t *record_at(const SideWork *work, size_t store, size_t group) {
    const KvStore *ring = &work->cache->layout.layers[work->layer].stores[store];
    return work->cache->memory + kv_array_at(&ring->array[work->side], work->kv_head, kv_store_slot(ring, group));
}

/* Returns how many numbers there are in the run. */
__device__ static size_t load_run(const SideWork *work, const KvRun *run, float *to) {
    const KvCacheLayout *layout = &work->cache->layout;
    const uint16_t *from = (const uint16_t *)(work->cache->memory +
                                              kvcache_layout_at(layout, work->layer, run, work->side, work->kv_head));
    size_t n = run->n_tokens * layout->row_dim;
    for (size_t i = threadIdx.x; i < n; i += blockDim.x)
        to[i] = half_to_f32(from[i]);
    return n;
}

/* Group `index` of those that leave the first tier. */
__device__ static void load_rows(const SideWork *work, size_t index) {
    const KvCacheLayout *layout = &work->cache->layout;
    size_t group = layout->policy.group, n_tokens = work->cache->n_tokens;
    size_t begin = kvcache_layer_policy(layout, work->layer)->sink + index * group;
    KvRun kept = kvcache_layout_kept(layout, work->layer, KV_TIER(0), n_tokens, begin, begin + group);
    KvRun fresh = kvcache_layout_fresh(KV_TIER(0), n_tokens, begin, begin + group);
    size_t n = load_run(work, &kept, work->values);
    load_run(work, &fresh, work->values + n);
    __syncthreads();
}

/* Group `index` of those that leave an encoded tier, rotated back. */
__device__ static void load_record(const SideWork *work, size_t store, size_t index) {
    const FragmentShape *shape = cuda_cache_shape(work->cache, work->layer, store, work->side);
    const uint8_t *record = record_at(work, store, index);
    for (uint32_t i = threadIdx.x; i < shape->n_tokens * shape->head_dim; i += blockDim.x)
        work->values[i] = fragment_number(shape, record, i / shape->head_dim, i % shape->head_dim);
    __syncthreads();
    if (shape->rotated)
        rotate_rows(work->values, shape->n_tokens, shape->head_dim);
}

/* As kv_codec_pad(). */
__device__ static void pad_rows(const SideWork *work, const FragmentShape *shape) {
    uint32_t head_dim = (uint32_t)work->cache->layout.shape.head_dim;
    if (head_dim == shape->head_dim)
        return;
    for (uint32_t token = threadIdx.x; token < shape->n_tokens; token += blockDim.x) {
        float *row = work->values + token * shape->head_dim;
        float padding = kv_padding(shape->kind, shape->rotated, row, head_dim);
        for (uint32_t i = head_dim; i < shape->head_dim; i++)
            row[i] = padding;
    }
    __syncthreads();
}

__device__ static void encode_entering(const SideWork *work, size_t tier, size_t begin, size_t end) {
    size_t group = work->cache->layout.policy.group;
    const FragmentShape *shape = cuda_cache_shape(work->cache, work->layer, KV_TIER(tier), work->side);
    for (size_t entered = begin; entered < end; entered += group) {
        if (tier == 1)
            load_rows(work, entered / group);
        else
            load_record(work, KV_TIER(tier - 1), entered / group);
        pad_rows(work, shape);
        if (shape->rotated)
            rotate_rows(work->values, shape->n_tokens, shape->head_dim);
        encode_group(shape, work->values, work->codes, record_at(work, KV_TIER(tier), entered / group));
    }
}

__device__ static void count_entered(const SideWork *work, size_t store, size_t n) {
    if (work->side == KV_KEYS && threadIdx.x == 0 && n > 0)
        atomicAdd(&work->cache->tokens_encoded[work->layer * KV_MAX_STORES + store], (unsigned long long)n);
}

/* Tiers follow one another: what enters a tier may leave it in the same batch. No KvPlan here: an array with a tier as
 * index would lie in local memory. */
__device__ static void encode_due_side(const CudaBatch &batch, KvSide side, size_t kv_head, uint8_t *codes) {
    CudaCache *cache = batch.cache;
    const KvLayerPolicy *policy = kvcache_layer_policy(&cache->layout, batch.layer);
    size_t group = cache->layout.policy.group, n_before = cache->n_tokens, n_after = n_before + batch.n_tokens;
    size_t sink_before = kv_plan_sink(policy, n_before), sink_after = kv_plan_sink(policy, n_after);
    size_t before = n_before - sink_before, after = n_after - sink_after; /* that have entered the tier */
    SideWork work = {cache, batch.layer, kv_head, side, NULL, codes};
    work.values = (float *)(cache->memory + kv_array_at(&cache->layout.scratch, kv_head, side));
    count_entered(&work, KV_SINK, sink_after - sink_before);
    count_entered(&work, KV_TIER(0), after - before);
    for (size_t tier = 1; tier < policy->n_tiers; tier++) {
        before = kv_plan_left(&policy->tiers[tier - 1], group, before);
        after = kv_plan_left(&policy->tiers[tier - 1], group, after);
        count_entered(&work, KV_TIER(tier), after - before);
        encode_entering(&work, tier, before, after);
    }
}

/* Blocks: (KV head, side) */
__global__ void __launch_bounds__(ENCODE_THREADS, ENCODE_BLOCKS) encode_due(CudaBatch batch) {
    CUDA_DYNAMIC_SHARED(uint8_t, codes);
    encode_due_side(batch, (KvSide)blockIdx.y, blockIdx.x, codes);
}

/* ---- The batch becomes part of the cache */

#define MOVE_THREADS ENCODE_THREADS
#define MOVE_UNITS   4 /* of a thread, read before any is written */

__device__ static void copy_rows(uint16_t *to, const uint16_t *from, size_t n) {
    for (size_t i = threadIdx.x; i < n; i += blockDim.x)
        to[i] = from[i];
}

/* Moves n units to a lower address; the two may overlap. Each round reads before it writes, and what a round writes
 * no later one reads. */
template <typename Unit> __device__ static void move_down(Unit *to, const Unit *from, size_t n) {
    for (size_t begin = 0; begin < n; begin += MOVE_THREADS * MOVE_UNITS) {
        Unit units[MOVE_UNITS];
        for (size_t u = 0; u < MOVE_UNITS; u++) {
            size_t i = begin + u * MOVE_THREADS + threadIdx.x;
            units[u] = from[i < n ? i : n - 1];
        }
        __syncthreads();
        for (size_t u = 0; u < MOVE_UNITS; u++) {
            size_t i = begin + u * MOVE_THREADS + threadIdx.x;
            if (i < n)
                to[i] = units[u];
        }
    }
    __syncthreads();
}

__device__ static void commit_side(const CudaBatch &batch, KvSide side, size_t kv_head) {
    const CudaCache *cache = batch.cache;
    const KvCacheLayout *layout = &cache->layout;
    const KvLayerLayout *stores = &layout->layers[batch.layer];
    KvMove move = kvcache_layout_move(layout, batch.layer, cache->n_tokens, batch.n_tokens);
    size_t dim = batch.row_dim;
    uint16_t *sink = (uint16_t *)(cache->memory + kv_array_at(&stores->stores[KV_SINK].array[side], kv_head, 0));
    uint16_t *tail = (uint16_t *)(cache->memory + kv_array_at(&stores->stores[KV_TIER(0)].array[side], kv_head, 0));
    const uint16_t *rows = (const uint16_t *)(cache->memory + kv_array_at(&layout->batch[side], kv_head, 0));
    copy_rows(sink + move.in_sink * dim, rows, move.to_sink * dim);
    const uint16_t *staying = tail + move.n_leaving * dim;
    if (move.n_leaving > 0 && dim % 8 == 0) /* rows begin at multiples of 16 bytes */
        move_down((uint4 *)tail, (const uint4 *)staying, move.n_staying * dim / 8);
    else if (move.n_leaving > 0)
        move_down(tail, staying, move.n_staying * dim);
    copy_rows(tail + move.n_staying * dim, rows + move.to_tail * dim, (batch.n_tokens - move.to_tail) * dim);
}

/* ---- Launches */

/* All for a token that is alone, in one launch. Its query sees what is in the stores then: the rows that leave the
 * first tier with it are encoded by now. Blocks: (KV head, side) */
__global__ void __launch_bounds__(ENCODE_THREADS, ENCODE_BLOCKS) append_token(CudaBatch batch, CudaRows rows) {
    CUDA_DYNAMIC_SHARED(uint8_t, codes);
    take_side(batch, rows, (KvSide)blockIdx.y, 0, blockIdx.x);
    __syncthreads(); /* with an empty window the group ends with this token */
    encode_due_side(batch, (KvSide)blockIdx.y, blockIdx.x, codes);
    if (batch.commits) {
        __syncthreads(); /* rows are encoded before they are written over */
        commit_side(batch, (KvSide)blockIdx.y, blockIdx.x);
    }
}

void cuda_cache_append(const CudaBatch *batch, const CudaRows *rows, cudaStream_t stream) {
    dim3 sides((unsigned)batch->n_kv_heads, KV_SIDES), threads(ENCODE_THREADS);
    size_t code_bytes = batch->group * batch->row_dim;
    if (batch->n_tokens == 1) {
        CUDA_LAUNCH(append_token, sides, threads, code_bytes, stream, *batch, *rows);
        return;
    }
    dim3 heads((unsigned)batch->n_tokens, (unsigned)batch->n_kv_heads, KV_SIDES);
    CUDA_LAUNCH(take_batch, heads, dim3(128), 0, stream, *batch, *rows);
    CUDA_LAUNCH(encode_due, sides, threads, code_bytes, stream, *batch);
}

/* Blocks: (KV head, side) */
__global__ void __launch_bounds__(MOVE_THREADS) commit_batch(CudaBatch batch) {
    commit_side(batch, (KvSide)blockIdx.y, blockIdx.x);
}

void cuda_cache_commit(const CudaBatch *batch, cudaStream_t stream) {
    dim3 sides((unsigned)batch->n_kv_heads, KV_SIDES);
    CUDA_LAUNCH(commit_batch, sides, dim3(MOVE_THREADS), 0, stream, *batch);
}

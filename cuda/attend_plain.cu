/* Attention for any shape and any number of queries, without tensor cores: each number is decoded where a thread needs
 * it, from the codes as they are stored. A block has one query head of one token, and each of its warps every fourth
 * token of the view, with an online softmax of its own in F32 (Milakov & Gimelshein 2018); in the end they are merged
 * in the order of warps. Lane l has elements l, l + 32, … of a row. */
#include "cuda/attention.h"

#include "cuda/encode.cuh"

#define PLAIN_WARPS   4
#define PLAIN_MAX_DIM 512
#define LANE_DIMS     (PLAIN_MAX_DIM / 32)

/* What a query is multiplied with decides how it is turned. */
typedef enum QueryForm { QUERY_PLAIN, QUERY_SHIFTED, QUERY_ROTATED, QUERY_FORMS } QueryForm;

/* Values that are rotated are summed apart from those that are not. */
typedef struct LaneState {
    float max, sum;
    float out[2][LANE_DIMS];
} LaneState;

typedef struct WarpState {
    float max, sum;
    float out[2][PLAIN_MAX_DIM];
} WarpState;

/* One side of a run: rows of halves, or records. */
typedef struct RunSide {
    const uint8_t *at;          /* its first slot */
    const FragmentShape *shape; /* NULL: rows */
} RunSide;

__device__ static float number_of(const RunSide *side, size_t token, uint32_t dim, size_t row_dim) {
    const FragmentShape *shape = side->shape;
    if (shape == NULL)
        return half_load(side->at + (token * row_dim + dim) * sizeof(uint16_t));
    const uint8_t *record = side->at + token / shape->n_tokens * shape->record_bytes;
    return fragment_number(shape, record, (uint32_t)(token % shape->n_tokens), dim);
}

__device__ static RunSide run_side(const CudaAttention *a, const KvRun *run, KvSide side, size_t kv_head) {
    const CudaCache *cache = a->cache;
    RunSide of = {cache->memory + kvcache_layout_at(&cache->layout, a->layer, run, side, kv_head), NULL};
    if (run->store >= KV_FIRST_ENCODED)
        of.shape = cuda_cache_shape(cache, a->layer, run->store, side);
    return of;
}

/* The query in all its forms, scaled so that scores are powers of 2, with zeros where rows have padding. */
__device__ static void load_query(const CudaAttention *a, size_t token, size_t head, uint32_t row_dim,
                                  float q[QUERY_FORMS][PLAIN_MAX_DIM]) {
    const float *from = a->q + (token * a->n_heads + head) * a->head_dim;
    float scale = 1.44269504f / sqrtf((float)a->head_dim); /* log2(e) */
    for (size_t i = threadIdx.x; i < row_dim; i += blockDim.x)
        for (int form = 0; form < QUERY_FORMS; form++)
            q[form][i] = i < a->head_dim ? from[i] * scale : 0;
    __syncthreads();
    if (a->shift_rotation != NULL && threadIdx.x == 0)
        rope_rotate(q[QUERY_SHIFTED], a->head_dim, a->pairing, a->shift_rotation + token * a->head_dim);
    if (is_power_of_two(row_dim))
        rotate_rows(q[QUERY_ROTATED], 1, row_dim);
    __syncthreads();
}

__device__ static void attend_token(LaneState *state, const float *q, const RunSide *keys, const RunSide *values,
                                    size_t token, uint32_t row_dim) {
    uint32_t lane = threadIdx.x % 32;
    float score = 0;
    for (uint32_t d = lane; d < row_dim; d += 32)
        score += q[d] * number_of(keys, token, d, row_dim);
    score = warp_sum(score);
    float max = fmaxf(state->max, score), kept = exp2f(state->max - max), weight = exp2f(score - max);
    bool rotated = values->shape != NULL && values->shape->rotated;
    state->max = max;
    state->sum = state->sum * kept + weight;
    for (uint32_t i = 0; i < LANE_DIMS; i++) {
        uint32_t d = lane + 32 * i;
        if (d >= row_dim)
            break;
        float value = weight * number_of(values, token, d, row_dim);
        state->out[0][i] = state->out[0][i] * kept + (rotated ? 0 : value);
        state->out[1][i] = state->out[1][i] * kept + (rotated ? value : 0);
    }
}

/* Span by span as kvcache_count_read() counts: FP16 runs need not be whole groups. */
__device__ static void count_read(const CudaAttention *a, const KvRun *run) {
    const KvStore *store = &a->cache->layout.layers[a->layer].stores[run->store];
    const KvEncoding *keys = &store->side[KV_KEYS], *values = &store->side[KV_VALUES];
    size_t size_bytes = run->n_tokens * (keys->record_bytes + values->record_bytes) / keys->group.n_tokens;
    atomicAdd(&a->cache->bytes_read[a->layer * KV_MAX_STORES + run->store], (unsigned long long)size_bytes);
}

__device__ static void save_state(const LaneState *state, uint32_t row_dim, WarpState *to) {
    to->max = state->max;
    to->sum = state->sum;
    for (uint32_t i = 0; i < LANE_DIMS; i++)
        if (threadIdx.x % 32 + 32 * i < row_dim)
            for (int part = 0; part < 2; part++)
                to->out[part][threadIdx.x % 32 + 32 * i] = state->out[part][i];
}

/* Warps that saw no token have a maximum of minus infinity, and a factor of 0: the query sees at least itself. */
__device__ static void merge_warps(WarpState warps[PLAIN_WARPS], uint32_t row_dim, uint32_t head_dim, float *out) {
    float max = warps[0].max, sum = 0;
    for (int w = 1; w < PLAIN_WARPS; w++)
        max = fmaxf(max, warps[w].max);
    for (int w = 0; w < PLAIN_WARPS; w++)
        sum += warps[w].sum * exp2f(warps[w].max - max);
    float *merged[2] = {warps[0].out[0], warps[0].out[1]};
    for (uint32_t d = threadIdx.x; d < row_dim; d += blockDim.x)
        for (int part = 0; part < 2; part++) {
            float total = 0;
            for (int w = 0; w < PLAIN_WARPS; w++)
                total += warps[w].out[part][d] * exp2f(warps[w].max - max);
            merged[part][d] = total / sum;
        }
    __syncthreads();
    if (is_power_of_two(row_dim))
        rotate_rows(merged[1], 1, row_dim);
    for (uint32_t d = threadIdx.x; d < head_dim; d += blockDim.x)
        out[d] = merged[0][d] + merged[1][d];
}

/* Blocks: (query head, token) */
__global__ void __launch_bounds__(PLAIN_WARPS * 32) attend_plain(CudaAttention a) {
    CUDA_SHARED(float, q, [QUERY_FORMS][PLAIN_MAX_DIM]);
    CUDA_SHARED(WarpState, warps, [PLAIN_WARPS]);
    CUDA_SHARED(KvRun, runs, [KV_MAX_RUNS]);
    CUDA_SHARED(size_t, n_runs, [1]);
    size_t head = blockIdx.x, token = blockIdx.y, q_per_kv = a.n_heads / a.n_kv_heads, warp = threadIdx.x / 32;
    const CudaCache *cache = a.cache;
    if (threadIdx.x == 0)
        n_runs[0] = kvcache_layout_view(&cache->layout, a.layer, cache->n_tokens, cache->n_tokens + token, runs);
    uint32_t row_dim = (uint32_t)cache->layout.row_dim;
    load_query(&a, token, head, row_dim, q);
    LaneState state = {-INFINITY, 0, {{0}}};
    for (size_t r = 0; r < n_runs[0]; r++) {
        RunSide keys = run_side(&a, &runs[r], KV_KEYS, head / q_per_kv);
        RunSide values = run_side(&a, &runs[r], KV_VALUES, head / q_per_kv);
        QueryForm form = runs[r].shifted                             ? QUERY_SHIFTED
                         : keys.shape != NULL && keys.shape->rotated ? QUERY_ROTATED
                                                                     : QUERY_PLAIN;
        for (size_t t = warp; t < runs[r].n_tokens; t += PLAIN_WARPS)
            attend_token(&state, q[form], &keys, &values, t, row_dim);
        if (threadIdx.x == 0 && head % q_per_kv == 0)
            count_read(&a, &runs[r]);
    }
    save_state(&state, row_dim, &warps[warp]);
    __syncthreads();
    merge_warps(warps, row_dim, (uint32_t)a.head_dim, a.out + (token * a.n_heads + head) * a.head_dim);
}

void cuda_attend_plain(const CudaAttention *attention, cudaStream_t stream) {
    dim3 grid((unsigned)attention->n_heads, (unsigned)attention->n_tokens);
    CUDA_LAUNCH(attend_plain, grid, dim3(PLAIN_WARPS * 32), 0, stream, *attention);
}

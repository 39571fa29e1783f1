/* Attention of a batch of queries on tensor cores. A block has consecutive queries under one KV head, a row for each of
 * their heads, and walks what any of them sees store by store (prefill_sections.cuh), a tile at a time, which it
 * decodes once for all rows (prefill_tile.cuh); a row sees of each tile the positions that are its own
 * (prefill_rows.cuh).
 *
 * Sections with rotated values come first, so that the sums over them are rotated back before others join. What is no
 * number among the values of a tile spoils all rows that go through it, those too that do not see the token. */
#include "cuda/attention.h"

#include "cuda/prefill_rows.cuh"

template <int STEPS, int WARPS, int TOKENS> struct PrefillShared {
    PrefillTile<STEPS, TOKENS> tile;
    PrefillQuery<STEPS> queries[WARPS];
    PrefillRange seen[WARPS * PREFILL_ROWS];
    PrefillSection section;
};

/* What a warp's rows see of a section. */
struct PrefillSight {
    PrefillRange own[2];         /* rows g and 8 + g */
    uint32_t begin, end;         /* of all rows together */
    uint32_t all_begin, all_end; /* what every row sees */
};

/* Rows see more and more recent tokens from one to the next. Those behind the last query's see as it does. */
__device__ __forceinline__ PrefillSight sight_of(const PrefillRange *seen, const PrefillQueries *queries, uint32_t warp,
                                                 uint32_t lane) {
    uint32_t row = warp * PREFILL_ROWS, last = queries->n - 1, q_per_kv = queries->q_per_kv;
    uint32_t oldest = row / q_per_kv, newest = (row + PREFILL_ROWS - 1) / q_per_kv;
    uint32_t g = (row + lane / 4) / q_per_kv, g8 = (row + 8 + lane / 4) / q_per_kv;
    PrefillSight sight = {{seen[g < last ? g : last], seen[g8 < last ? g8 : last]}, 0, 0, 0, 0};
    if (oldest > last) /* no rows */
        return sight;
    newest = newest < last ? newest : last;
    sight.begin = seen[oldest].begin;
    sight.end = seen[newest].end;
    sight.all_begin = seen[newest].begin;
    sight.all_end = seen[oldest].end;
    return sight;
}

template <int STEPS, int WARPS, int TOKENS>
__device__ __forceinline__ void attend_section(PrefillRows<STEPS> *rows, PrefillShared<STEPS, WARPS, TOKENS> *shared,
                                               const PrefillQueries *queries, uint32_t warp, uint32_t lane) {
    PrefillSight sight = sight_of(shared->seen, queries, warp, lane);
    for (uint32_t begin = 0; begin < shared->section.n_tokens; begin += TOKENS) {
        __syncthreads(); /* the last tile is done with */
        load_tile<WARPS>(&shared->tile, &shared->section, begin);
        __syncthreads();
        if (begin >= sight.end || begin + TOKENS <= sight.begin)
            continue;
        PrefillWindow windows[2];
#pragma unroll
        for (int half = 0; half < 2; half++) {
            windows[half].start = begin + lane % 4 * 2 - sight.own[half].begin;
            windows[half].n = sight.own[half].end - sight.own[half].begin;
        }
        bool is_masked = begin < sight.all_begin || begin + TOKENS > sight.all_end;
        attend_tile(rows, &shared->tile, &shared->queries[warp], is_masked, windows, lane);
    }
}

__device__ __forceinline__ bool has_rotated_values(const CudaAttention *a, size_t store) {
    return store >= KV_FIRST_ENCODED && cuda_cache_shape(a->cache, a->layer, store, KV_VALUES)->rotated;
}

__device__ __forceinline__ PrefillForm form_of(const PrefillSection *section, const PrefillQueries *queries) {
    return section->shape[KV_KEYS].rotated     ? PREFILL_ROTATED
           : section->n_unshifted < queries->n ? PREFILL_SHIFTED
                                               : PREFILL_PLAIN;
}

/* All stores with rotated values, or all others. */
template <int STEPS, int WARPS, int TOKENS>
__device__ __forceinline__ void attend_stores(PrefillRows<STEPS> *rows, PrefillShared<STEPS, WARPS, TOKENS> *shared,
                                              const CudaAttention *a, const PrefillQueries *queries) {
    const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const size_t n_stores = a->cache->layout.layers[a->layer].n_stores;
    PrefillForm form = PREFILL_NONE;
    bool rotated_before = false;
    for (size_t i = 0; i < 2 * n_stores; i++) {
        size_t store = i < n_stores ? i : i - n_stores;
        if constexpr (is_power_of_two_steps(STEPS))
            if (i == n_stores && rotated_before)
                rotate_back(rows, lane);
        if (has_rotated_values(a, store) != (i < n_stores))
            continue;
        rotated_before = true;
        __syncthreads();
        open_section(&shared->section, shared->seen, a->cache, a->layer, store, queries);
        if (shared->section.n_tokens == 0)
            continue;
        if (form_of(&shared->section, queries) != form) {
            form = form_of(&shared->section, queries);
            prepare_rows(&shared->queries[warp], a, queries, form, shared->section.n_unshifted, warp, lane);
        }
        attend_section(rows, shared, queries, warp, lane);
    }
}

/* Blocks (blocks of queries, KV heads); those of the last queries, which see most, begin first. */
template <int STEPS, int WARPS, int TOKENS>
__global__ void __launch_bounds__(WARPS * 32, WARPS == 4 ? 2 : 4) attend_prefill(CudaAttention a) {
    using Shared = PrefillShared<STEPS, WARPS, TOKENS>;
    CUDA_DYNAMIC_SHARED(Shared, shared);
    const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    PrefillQueries queries;
    queries.q_per_kv = (uint32_t)(a.n_heads / a.n_kv_heads);
    queries.kv_head = blockIdx.y;
    uint32_t most = WARPS * PREFILL_ROWS / queries.q_per_kv;
    queries.first = (size_t)(gridDim.x - 1 - blockIdx.x) * most;
    queries.n = (uint32_t)at_most(a.n_tokens - queries.first, most);

    PrefillRows<STEPS> rows;
    clear_rows(&rows);
    attend_stores(&rows, shared, &a, &queries);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        uint32_t row = warp * PREFILL_ROWS + 8 * half + lane / 4, query = row / queries.q_per_kv;
        size_t head = queries.kv_head * queries.q_per_kv + row % queries.q_per_kv;
        if (query < queries.n)
            store_out(&rows, half, lane, a.out + ((queries.first + query) * a.n_heads + head) * (16 * STEPS));
    }
}

/* ---- Launching */

bool cuda_attention_has_prefill(size_t head_dim, size_t q_per_kv) {
    return (head_dim == 64 || head_dim == 80 || head_dim == 96 || head_dim == 128 || head_dim == 256) &&
           q_per_kv >= 1 && q_per_kv <= 32;
}

template <int STEPS, int WARPS, int TOKENS>
static void launch_prefill(const CudaAttention *attention, cudaStream_t stream) {
    constexpr size_t shared_bytes = sizeof(PrefillShared<STEPS, WARPS, TOKENS>);
    static_assert(shared_bytes <= 64 << 10, "more than sm_75 has");
    size_t queries_of_block = WARPS * PREFILL_ROWS / (attention->n_heads / attention->n_kv_heads);
    dim3 blocks((unsigned)divide_up(attention->n_tokens, queries_of_block), (unsigned)attention->n_kv_heads);
    if (shared_bytes > 48 << 10)
        cudaFuncSetAttribute(attend_prefill<STEPS, WARPS, TOKENS>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             (int)shared_bytes);
    CUDA_LAUNCH((attend_prefill<STEPS, WARPS, TOKENS>), blocks, dim3(WARPS * 32), shared_bytes, stream, *attention);
}

void cuda_attend_prefill(const CudaAttention *attention, cudaStream_t stream) {
    switch (attention->head_dim) {
    case 64:
        return launch_prefill<4, 4, 64>(attention, stream);
    case 80:
        return launch_prefill<5, 4, 64>(attention, stream);
    case 96:
        return launch_prefill<6, 4, 64>(attention, stream);
    case 128:
        return launch_prefill<8, 4, 64>(attention, stream);
    default:
        return launch_prefill<16, 2, 32>(attention, stream);
    }
}

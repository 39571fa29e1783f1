/* Attention of one query on tensor cores, over all that the cache shows it in whatever codec: one launch for a layer.
 * The blocks of a KV head, as many as multiprocessors allow, share out its view by bytes, each warp a stretch of it
 * (fused_units.cuh, fused_stream.cuh); the last of them to be done puts all together (fused_merge.cuh). One kernel for
 * a head_dim and 8 or 16 heads has all codecs of keys and values, and all pairs of them. */
#include "cuda/attention.h"

#include "cuda/fused_merge.cuh"

/* While units are read, and after that. */
template <int STEPS, int TILES> struct FusedShared {
    struct Reading {
        FusedQuery<STEPS, 8 * TILES> query;
        WarpScales<STEPS> scales[FUSED_WARPS];
    };
    union {
        Reading reading;
        WarpSums<STEPS, TILES> merging; /* its sums are written when all warps have read their last unit */
    };
    static_assert(sizeof(Reading) <= sizeof(WarpSums<STEPS, TILES>::sums));
    FusedView view;
    bool is_last;
};

/* In the workspace: a counter for each head group, then parts. */
struct FusedGrid {
    uint32_t n_splits, groups_per_kv_head, n_counters; /* the last rounded up, so that parts are aligned */
};

static __device__ __host__ inline uint32_t fused_head_tiles(size_t head_dim, size_t q_per_kv) {
    return q_per_kv > 8 && head_dim <= 128 ? 2 : 1;
}

/* The units of a warp, run after run. */
template <int STEPS, int TILES>
__device__ __forceinline__ void attend_units(Stream<STEPS, TILES> *stream, FusedShared<STEPS, TILES> *shared,
                                             uint32_t warp, uint32_t lane) {
    const FusedView *view = &shared->view;
    UnitRange own = units_of_warp(view, lane, blockIdx.x * FUSED_WARPS + warp, gridDim.x * FUSED_WARPS);
    for (uint32_t i = 0; i < view->n_runs; i++) {
        uint32_t begin = warp_broadcast(own.begin, (int)i), end = warp_broadcast(own.end, (int)i);
        if (begin < end)
            turn_stream(stream, view->runs[i].side[KV_VALUES].shape.rotated, lane);
        for (uint32_t unit = begin; unit < end; unit++)
            attend_unit<STEPS, TILES>(stream, &view->runs[i], unit, &shared->reading.query,
                                      &shared->reading.scales[warp], lane);
    }
    turn_stream(stream, false, lane);
    add_minima(stream);
}

/* Whether this block is the last of its head group; then it sees what the others have written. */
__device__ __forceinline__ bool is_last_block(unsigned *counter, bool *shared, uint32_t thread) {
    __threadfence();
    __syncthreads();
    if (thread == 0)
        *shared = atomicInc(counter, gridDim.x - 1) == gridDim.x - 1; /* and 0 again, for the next launch */
    __syncthreads();
    __threadfence();
    return *shared;
}

/* Blocks (splits, KV heads, head groups of a KV head) of 8 warps. */
template <int STEPS, int TILES>
__global__ void __launch_bounds__(FUSED_WARPS * 32, 1) attend_fused(CudaAttention attention, FusedGrid grid) {
    using Shared = FusedShared<STEPS, TILES>;
    CUDA_SHARED(Shared, shared);
    const uint32_t thread = threadIdx.x, warp = thread / 32, lane = thread % 32;
    const uint32_t q_per_kv = (uint32_t)(attention.n_heads / attention.n_kv_heads), before = blockIdx.z * 8 * TILES;
    const uint32_t n_heads = q_per_kv - before < 8 * TILES ? q_per_kv - before : 8 * TILES;
    const size_t head_before = (size_t)blockIdx.y * q_per_kv + before;

    if (warp == FUSED_WARPS - 1) {
        fill_view(&shared.view, &attention, blockIdx.y, lane);
        if (blockIdx.x == 0 && blockIdx.z == 0)
            count_read(&shared.view, attention.cache, attention.layer, lane);
    }
    for (uint32_t head = warp; head < 8 * TILES; head += FUSED_WARPS)
        prepare_head<STEPS>(&shared.reading.query, head, lane,
                            head < n_heads ? attention.q + (head_before + head) * 16 * STEPS : NULL, attention.pairing,
                            attention.shift_rotation);
    __syncthreads(); /* view and query are there */

    Stream<STEPS, TILES> stream;
    begin_stream(&stream);
    attend_units(&stream, &shared, warp, lane);
    merge_warps(&stream, &shared.merging, warp, lane);

    float *out = attention.out + head_before * 16 * STEPS;
    if (gridDim.x == 1) {
        finish_alone(&shared.merging, out, n_heads, thread);
        return;
    }
    unsigned *counters = (unsigned *)attention.workspace;
    const uint32_t group = blockIdx.y * gridDim.z + blockIdx.z;
    FusedPart<STEPS, TILES> *parts =
        (FusedPart<STEPS, TILES> *)(counters + grid.n_counters) + (size_t)group * gridDim.x;
    write_part(parts + blockIdx.x, &shared.merging, thread);
    if (is_last_block(&counters[group], &shared.is_last, thread))
        merge_parts(parts, gridDim.x, out, n_heads, thread);
}

/* ---- Launching */

static FusedGrid fused_grid(size_t n_heads, size_t n_kv_heads, size_t head_dim, size_t n_multiprocessors) {
    size_t q_per_kv = n_heads / n_kv_heads;
    size_t groups = divide_up(q_per_kv, 8 * fused_head_tiles(head_dim, q_per_kv)), n = n_kv_heads * groups;
    FusedGrid grid;
    grid.n_splits = (uint32_t)at_least(n_multiprocessors / n, 1);
    grid.groups_per_kv_head = (uint32_t)groups;
    grid.n_counters = (uint32_t)round_up(n, 64);
    return grid;
}

size_t cuda_attention_workspace(size_t n_heads, size_t n_kv_heads, size_t head_dim, size_t n_multiprocessors) {
    FusedGrid grid = fused_grid(n_heads, n_kv_heads, head_dim, n_multiprocessors);
    size_t tiles = fused_head_tiles(head_dim, n_heads / n_kv_heads);
    size_t part_floats = divide_up(head_dim, 16) * tiles * 128 + 16 * tiles; /* FusedPart */
    return grid.n_counters * sizeof(unsigned) +
           n_kv_heads * grid.groups_per_kv_head * grid.n_splits * part_floats * sizeof(float);
}

bool cuda_attention_is_fused(size_t head_dim, size_t q_per_kv) {
    return (head_dim == 64 || head_dim == 80 || head_dim == 96 || head_dim == 128 || head_dim == 256) &&
           q_per_kv >= 1 && q_per_kv <= 16;
}

template <int STEPS, int TILES>
static void launch_fused(const CudaAttention *attention, const FusedGrid &grid, cudaStream_t stream) {
    static_assert(sizeof(FusedPart<STEPS, TILES>) == (STEPS * TILES * 128 + 16 * TILES) * sizeof(float));
    dim3 blocks(grid.n_splits, (unsigned)attention->n_kv_heads, grid.groups_per_kv_head);
    CUDA_LAUNCH((attend_fused<STEPS, TILES>), blocks, dim3(FUSED_WARPS * 32), 0, stream, *attention, grid);
}

void cuda_attend_fused(const CudaAttention *attention, cudaStream_t stream) {
    FusedGrid grid =
        fused_grid(attention->n_heads, attention->n_kv_heads, attention->head_dim, attention->n_multiprocessors);
    bool two = fused_head_tiles(attention->head_dim, attention->n_heads / attention->n_kv_heads) == 2;
    switch (attention->head_dim) {
    case 64:
        return two ? launch_fused<4, 2>(attention, grid, stream) : launch_fused<4, 1>(attention, grid, stream);
    case 80:
        return two ? launch_fused<5, 2>(attention, grid, stream) : launch_fused<5, 1>(attention, grid, stream);
    case 96:
        return two ? launch_fused<6, 2>(attention, grid, stream) : launch_fused<6, 1>(attention, grid, stream);
    case 128:
        return two ? launch_fused<8, 2>(attention, grid, stream) : launch_fused<8, 1>(attention, grid, stream);
    default:
        return launch_fused<16, 1>(attention, grid, stream);
    }
}

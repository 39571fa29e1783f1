/* What a query sees, cut into units of 32 tokens, and which of them a warp takes: consecutive ones, of about as many
 * bytes as every other warp. */
#ifndef STOWKV_CUDA_FUSED_UNITS_CUH
#define STOWKV_CUDA_FUSED_UNITS_CUH

#include "cuda/cache.h"
#include "cuda/primitives.cuh"

#define UNIT_TOKENS FRAGMENT_STRIP

/* One side of a run: records in fragment form, or rows of FP16 numbers (kind KV_CODE_HALF, all else 0). */
struct FusedSide {
    FragmentShape shape;
    const uint8_t *first; /* the oldest token's record, or row */
};

struct FusedRun {
    FusedSide side[KV_SIDES];
    uint32_t store, n_tokens, n_units;
    bool shifted;
    uint64_t bytes;              /* of all tokens */
    uint64_t unit_bytes, before; /* of a unit, and of all units of the runs before this */
};

struct FusedView {
    FusedRun runs[KV_MAX_RUNS];
    uint32_t n_runs;
    uint64_t bytes; /* of all units */
};

/* Units [begin, end) of a run. */
struct UnitRange {
    uint32_t begin, end;
};

__device__ __forceinline__ void fill_run(FusedRun *run, const CudaCache *cache, size_t layer, size_t kv_head,
                                         const KvRun *place) {
    uint32_t head_dim = (uint32_t)cache->layout.shape.head_dim, unit_bytes = 0;
    run->store = (uint32_t)place->store;
    run->n_tokens = (uint32_t)place->n_tokens;
    run->n_units = (run->n_tokens + UNIT_TOKENS - 1) / UNIT_TOKENS;
    run->shifted = place->shifted;
    run->bytes = 0;
    for (int i = 0; i < KV_SIDES; i++) {
        FusedSide *side = &run->side[i];
        KvSide which = i == KV_KEYS ? KV_KEYS : KV_VALUES;
        side->first = cache->memory + kvcache_layout_at(&cache->layout, layer, place, which, kv_head);
        if (!place->in_batch && place->store >= KV_FIRST_ENCODED) {
            side->shape = *cuda_cache_shape(cache, layer, place->store, which);
        } else {
            side->shape = FragmentShape{};
            side->shape.kind = KV_CODE_HALF;
            side->shape.n_tokens = UNIT_TOKENS;
            side->shape.record_bytes = UNIT_TOKENS * head_dim * 2;
        }
        unit_bytes += side->shape.record_bytes / (side->shape.n_tokens / UNIT_TOKENS);
        run->bytes += (uint64_t)run->n_tokens * side->shape.record_bytes / side->shape.n_tokens;
    }
    run->unit_bytes = unit_bytes;
}

/* By one warp. The query is the cache's next token; cuda_cache_plan() has said where its keys and values are. */
__device__ __forceinline__ void fill_view(FusedView *view, const CudaAttention *attention, size_t kv_head,
                                          uint32_t lane) {
    const CudaCache *cache = attention->cache;
    const size_t layer = attention->layer;
    const uint32_t n_runs = cache->n_runs[layer];
    if (lane == 0)
        view->n_runs = n_runs;
    if (lane < n_runs)
        fill_run(&view->runs[lane], cache, layer, kv_head, cache->runs + layer * KV_MAX_RUNS + lane);
    __syncwarp();
    uint64_t before = 0;
    for (uint32_t i = 0; i < view->n_runs; i++) {
        if (i == lane)
            view->runs[i].before = before;
        before += view->runs[i].unit_bytes * view->runs[i].n_units;
    }
    if (lane == 0)
        view->bytes = before;
}

/* Units of a run that begin before byte `limit` of all units. */
__device__ __forceinline__ uint32_t units_before(const FusedRun *run, uint64_t limit) {
    if (limit <= run->before)
        return 0;
    uint64_t n = (limit - run->before + run->unit_bytes - 1) / run->unit_bytes;
    return n < run->n_units ? (uint32_t)n : run->n_units;
}

/* Those of warp `index` of n in a run, which the lane of the run's number computes. */
__device__ __forceinline__ UnitRange units_of_warp(const FusedView *view, uint32_t run, uint32_t index, uint32_t n) {
    UnitRange range = {0, 0};
    if (run < view->n_runs) {
        range.begin = units_before(&view->runs[run], view->bytes * index / n);
        range.end = units_before(&view->runs[run], view->bytes * (index + 1) / n);
    }
    return range;
}

/* Counts what a KV head's attention reads, by one warp. */
__device__ __forceinline__ void count_read(const FusedView *view, const CudaCache *cache, size_t layer, uint32_t lane) {
    if (lane < view->n_runs)
        atomicAdd(&cache->bytes_read[layer * KV_MAX_STORES + view->runs[lane].store],
                  (unsigned long long)view->runs[lane].bytes);
}

#endif

/* What a block of queries sees, store by store: a section is all tokens of a store that any of the queries sees, in at
 * most two runs of slots, and each query sees a range of its positions. Both follow from kv_plan(): a group that leaves
 * a tier between two of the queries is in the sections of both stores, and each query sees it in one of them. */
#ifndef STOWKV_CUDA_PREFILL_SECTIONS_CUH
#define STOWKV_CUDA_PREFILL_SECTIONS_CUH

#include "cuda/cache.h"
#include "cuda/primitives.cuh"

/* Of the batch: consecutive queries, with all their heads under one KV head. Row r is head r % q_per_kv of query
 * r / q_per_kv. */
struct PrefillQueries {
    size_t first; /* in the batch */
    uint32_t n, q_per_kv;
    size_t kv_head;
};

struct PrefillSection {
    FragmentShape shape[KV_SIDES];     /* of rows: kind KV_CODE_HALF alone */
    const uint8_t *first[2][KV_SIDES]; /* of each run: its first record, or row */
    KvRun runs[2];
    uint32_t block_shift[KV_SIDES]; /* steps of 16 elements that share a scale, in log2 */
    size_t begin;                   /* the first token's position */
    uint32_t n_tokens, n_in_first;
    uint32_t n_unshifted; /* queries that see it as it is; the others must be turned back */
};

/* Tokens [begin, end) of a section. */
struct PrefillRange {
    uint32_t begin, end;
};

__device__ __forceinline__ FragmentShape shape_of(const CudaCache *cache, size_t layer, size_t store, KvSide side) {
    if (store >= KV_FIRST_ENCODED)
        return *cuda_cache_shape(cache, layer, store, side);
    FragmentShape rows = FragmentShape{};
    rows.kind = KV_CODE_HALF;
    return rows;
}

/* Blocks are the whole row, or a power of two. */
__device__ __forceinline__ uint32_t block_shift(const FragmentShape *shape) {
    uint32_t shift = 1;
    while (shape->n_blocks > 1 ? (uint32_t)FRAGMENT_STEP << shift < shape->block : shift < 31)
        shift++;
    return shift;
}

/* Tokens [begin, end) by position, by one thread. */
__device__ __forceinline__ void fill_section(PrefillSection *section, const CudaCache *cache, size_t layer,
                                             size_t store, size_t kv_head, size_t end) {
    const KvCacheLayout *layout = &cache->layout;
    size_t begin = section->begin, sink = kvcache_layer_policy(layout, layer)->sink, group = layout->policy.group, n;
    section->n_tokens = 0;
    if (end <= begin)
        return;
    if (store < KV_FIRST_ENCODED)
        n = kvcache_layout_rows(layout, layer, store, cache->n_tokens, begin, end, section->runs);
    else
        n = kvcache_layout_groups(layout, layer, store, (begin - sink) / group, (end - sink) / group, section->runs);
    section->n_tokens = (uint32_t)(end - begin);
    section->n_in_first = (uint32_t)section->runs[0].n_tokens;
    for (int i = 0; i < KV_SIDES; i++) {
        KvSide side = i == KV_KEYS ? KV_KEYS : KV_VALUES;
        section->shape[side] = shape_of(cache, layer, store, side);
        section->block_shift[side] = block_shift(&section->shape[side]);
        for (size_t r = 0; r < n; r++)
            section->first[r][side] =
                cache->memory + kvcache_layout_at(layout, layer, &section->runs[r], side, kv_head);
    }
}

/* Positions of a store that a query sees whose plan this is. */
struct PrefillPlaces {
    size_t begin, end;
    bool shifted;
};

__device__ __forceinline__ PrefillPlaces places_of(const CudaCache *cache, size_t layer, size_t store,
                                                   size_t position) {
    KvPlan plan = kvcache_layer_plan(&cache->layout, layer, position + 1);
    PrefillPlaces places = {0, plan.n_sink, false};
    if (store == KV_SINK)
        places.shifted = kv_plan_dropped(&plan) > 0;
    else {
        places.begin = kv_plan_begin(&plan, store - KV_TIER(0));
        places.end = kv_plan_end(&plan, store - KV_TIER(0));
    }
    return places;
}

/* Adds what a warp's queries read, as kvcache_count_read() counts. */
__device__ __forceinline__ void count_read(const CudaCache *cache, size_t layer, size_t store, size_t n_tokens) {
    const KvEncoding *side = cache->layout.layers[layer].stores[store].side;
    unsigned long long bytes = (unsigned long long)n_tokens *
                               (side[KV_KEYS].record_bytes + side[KV_VALUES].record_bytes) /
                               side[KV_KEYS].group.n_tokens;
    for (int mask = 16; mask > 0; mask /= 2)
        bytes += warp_xor(bytes, mask);
    if (threadIdx.x % 32 == 0 && bytes > 0)
        atomicAdd(&cache->bytes_read[layer * KV_MAX_STORES + store], bytes);
}

/* Fills the section of a store and what each query sees of it, by all threads of a block, at least as many as queries.
 * Nobody reads either any more. */
__device__ __forceinline__ void open_section(PrefillSection *section, PrefillRange *seen, // (n queries)
                                             const CudaCache *cache, size_t layer, size_t store,
                                             const PrefillQueries *queries) {
    const uint32_t query = threadIdx.x;
    PrefillPlaces own = {0, 0, false};
    if (query < queries->n)
        own = places_of(cache, layer, store, cache->n_tokens + queries->first + query);
    count_read(cache, layer, store, own.end - own.begin);
    if (query == 0) {
        /* a query within the sink knows nothing of where the tiers begin */
        size_t sink = store == KV_SINK ? 0 : kvcache_layer_policy(&cache->layout, layer)->sink;
        section->begin = at_least(own.begin, sink);
        section->n_unshifted = 0;
    }
    __syncthreads();
    if (query < queries->n) {
        seen[query].begin = (uint32_t)(at_least(own.begin, section->begin) - section->begin);
        seen[query].end = (uint32_t)(at_least(own.end, section->begin) - section->begin);
        if (!own.shifted)
            atomicMax(&section->n_unshifted, query + 1);
    }
    if (query == queries->n - 1)
        fill_section(section, cache, layer, store, queries->kv_head, own.end);
    __syncthreads();
}

#endif

/* A cache that the host fills with fragment records, and a copy of it in which all is NaN but what a query is shown:
 * for tests of a GPU's attention on the simulated one, whose memory may be the host's.
 *
 *     ShownCache s;
 *     shown_cache_open(&s, "sink=4,f16:32,int8:*", 64, &shape);
 *     … kvcache_append(&s.cache, …), kvcache_commit(…) …
 *     shown_cache_hide(&s);
 *     shown_cache_show(&s, layer, position);          // what a query at this position sees
 *     CudaCache device = shown_cache_device(&s);
 *     shown_cache_close(&s);
 */
#ifndef STOWKV_SHOWN_CACHE_H
#define STOWKV_SHOWN_CACHE_H

#include "cuda/cache.h"
#include "kvcache/kvcache.h"

typedef struct ShownCache {
    KvCache cache;
    uint8_t *memory, *shown;        /* as the host fills it; and what is shown of it */
    FragmentShape *shapes;          /* (n_layers, KV_MAX_STORES, KV_SIDES) */
    KvRun *runs;                    /* (n_layers, KV_MAX_RUNS) */
    uint32_t *n_runs;               /* (n_layers) */
    unsigned long long *bytes_read; /* (n_layers, KV_MAX_STORES) */
} ShownCache;

/* Fails the test where the policy cannot be had. */
void shown_cache_open(ShownCache *s, const char *policy, size_t group, const KvShape *shape);
void shown_cache_close(ShownCache *s);

void shown_cache_hide(ShownCache *s);
void shown_cache_show(ShownCache *s, size_t layer, size_t position);

/* As kernels take it; it points into `s`. */
CudaCache shown_cache_device(const ShownCache *s);

/* -1 to 1, the same sequence in each run. */
float random_float(void);

double norm_of(const float *x, size_t n); /* Euclidean */

/* malloc'd; fails the test where there is no memory. */
float *allocate_floats(size_t n);

#endif

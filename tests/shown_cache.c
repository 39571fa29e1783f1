/* See shown_cache.h. */
#include "tests/shown_cache.h"

#include "cuda/device_cache.h"
#include "kvcache/policy_check.h"
#include "kvcache/policy_text.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

float random_float(void) {
    static uint64_t state = 1;
    state = state * 6364136223846793005 + 1442695040888963407;
    return (float)((double)(state >> 33) * 0x1p-30 - 1);
}

float *allocate_floats(size_t n) {
    float *p = malloc(n * sizeof *p);
    assert_non_null(p);
    return p;
}

/* Filled with NaN. */
static void *allocate(size_t size_bytes) {
    void *p = aligned_alloc(64, (size_bytes + 63) / 64 * 64);
    assert_non_null(p);
    memset(p, 0xff, size_bytes);
    return p;
}

void shown_cache_open(ShownCache *s, const char *policy_text, size_t group, const KvShape *shape) {
    Error error = {0};
    KvPolicy policy = kv_policy_full();
    *s = (ShownCache){0};
    if (kv_policy_parse(policy_text, &policy, &error) < 0)
        fail_msg("%s", error.message);
    policy.group = group;
    if (kv_policy_check(&policy, shape->n_layers, shape->head_dim, shape->n_ctx, &error) < 0 ||
        kvcache_open(&s->cache, shape, &policy, &KV_FRAGMENT_RECORDS, &error) < 0)
        fail_msg("%s, head_dim %zu: %s", policy_text, shape->head_dim, error.message);
    s->memory = allocate(kvcache_bytes(&s->cache));
    s->shown = allocate(kvcache_bytes(&s->cache));
    kvcache_set_memory(&s->cache, s->memory);
    s->shapes = allocate(shape->n_layers * KV_MAX_STORES * KV_SIDES * sizeof *s->shapes);
    s->runs = allocate(shape->n_layers * KV_MAX_RUNS * sizeof *s->runs);
    s->n_runs = allocate(shape->n_layers * sizeof *s->n_runs);
    s->bytes_read = calloc(shape->n_layers * KV_MAX_STORES, sizeof *s->bytes_read);
    cuda_fragment_shapes(&s->cache.layout, s->shapes);
}

void shown_cache_close(ShownCache *s) {
    kvcache_close(&s->cache);
    void *const memory[] = {s->memory, s->shown, s->shapes, s->runs, s->n_runs, s->bytes_read};
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++)
        free(memory[i]);
}

void shown_cache_hide(ShownCache *s) {
    memset(s->shown, 0xff, kvcache_bytes(&s->cache));
}

void shown_cache_show(ShownCache *s, size_t layer, size_t position) {
    for (size_t kv_head = 0; kv_head < s->cache.layout.shape.n_kv_heads; kv_head++) {
        KvSpan spans[KV_MAX_SPANS];
        size_t n = kvcache_view(&s->cache, layer, kv_head, position, spans);
        for (size_t i = 0; i < n; i++)
            for (KvSide side = 0; side < KV_SIDES; side++) {
                const KvEncoding *encoding = &spans[i].side[side];
                memcpy(s->shown + (spans[i].records[side] - s->memory), spans[i].records[side],
                       spans[i].n_tokens * encoding->record_bytes / encoding->group.n_tokens);
            }
    }
}

CudaCache shown_cache_device(const ShownCache *s) {
    return (CudaCache){.layout = s->cache.layout,
                       .memory = s->shown,
                       .n_tokens = s->cache.n_tokens,
                       .shapes = s->shapes,
                       .runs = s->runs,
                       .n_runs = s->n_runs,
                       .bytes_read = s->bytes_read};
}

double norm_of(const float *x, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    return sqrt(sum);
}

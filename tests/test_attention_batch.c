/* A batch's attention, which decodes a tile once for a block of queries, and a single query's, whose tiles are spread
 * over threads, against that of each query by itself: the same to the bit, on every instruction set, for every kind of
 * policy. Batches cross the borders of groups and tiles. What the last query of all sees goes through the reference. */
#include "attention/attend.h"
#include "attention/attention.h"
#include "attention/reference.h"
#include "base/simd/detect.h"
#include "kvcache/codec/weave.h"
#include "kvcache/policy_check.h"
#include "kvcache/policy_text.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { N_TOKENS = 700, MAX_HEADS = 264, MAX_DIM = 128, MAX_BATCH = 256, N_LAYERS = 2 };

static float keys[N_TOKENS * MAX_DIM * 2], values[N_TOKENS * MAX_DIM * 2], q[MAX_BATCH * MAX_HEADS * MAX_DIM];
static float together[MAX_BATCH * MAX_HEADS * MAX_DIM], alone[MAX_BATCH * MAX_HEADS * MAX_DIM];
static float shift_rotation[MAX_BATCH * MAX_DIM];
static AttentionScratch *scratch;
static float *partials;

static uint64_t random_state = 1;

static size_t random_below(size_t n) {
    random_state = random_state * 6364136223846793005 + 1442695040888963407;
    return (size_t)(random_state >> 33) % n;
}

static void fill_random(float *out, size_t n, float size) {
    for (size_t i = 0; i < n; i++)
        out[i] = ((float)random_below(20001) / 1e4f - 1) * size;
}

/* What a cache is filled with, and how its batches are read. */
typedef struct Case {
    const char *policy;
    size_t group, head_dim, n_kv_heads, q_per_kv, n_batch;
    size_t lookback; /* of the last layer; 0: as the others */
    ScoreForm scores;
} Case;

static void open_cache(KvCache *cache, const Case *c, void **memory) {
    Error error = {0};
    KvPolicy policy = kv_policy_full();
    KvShape shape = {N_LAYERS, c->n_kv_heads, c->head_dim, N_TOKENS, c->n_batch, {{0}}, c->lookback};
    layer_set_add(&shape.local, N_LAYERS - 1);
    if (kv_policy_parse(c->policy, &policy, &error) < 0)
        fail_msg("%s", error.message);
    policy.group = c->group;
    if (kv_policy_check(&policy, N_LAYERS, c->head_dim, N_TOKENS, &error) < 0 ||
        kvcache_open(cache, &shape, &policy, &KV_WOVEN_RECORDS, &error) < 0)
        fail_msg("%s: %s", c->policy, error.message);
    size_t bytes = kvcache_bytes(cache);
    *memory = aligned_alloc(64, bytes);
    memset(*memory, 0xff, bytes); /* NaN wherever nothing was written */
    kvcache_set_memory(cache, *memory);
}

/* RoPE by minus the tokens dropped, with some frequencies. */
static void fill_shift(const KvCache *cache, size_t layer, size_t n_tokens) {
    size_t half = cache->layout.shape.head_dim / 2;
    for (size_t t = 0; t < n_tokens; t++)
        for (size_t i = 0; i < half; i++) {
            double angle = -(double)kvcache_shift(cache, layer, cache->n_tokens + t) * pow(0.8, (double)i);
            shift_rotation[(t * half + i) * 2] = (float)cos(angle);
            shift_rotation[(t * half + i) * 2 + 1] = (float)sin(angle);
        }
}

static AttentionShape shape_of(const AttentionBatch *batch) {
    const KvShape *shape = &batch->cache->layout.shape;
    return (AttentionShape){batch->n_heads / shape->n_kv_heads, shape->head_dim, batch->pairing, batch->scores};
}

static AttentionQuery query_at(const AttentionBatch *batch, size_t t, size_t kv_head, KvSpan spans[KV_MAX_SPANS]) {
    AttentionShape shape = shape_of(batch);
    size_t position = batch->cache->n_tokens + t;
    size_t n_spans = kvcache_view(batch->cache, batch->layer, kv_head, position, spans);
    size_t first = (t * batch->n_heads + kv_head * shape.q_per_kv) * shape.head_dim;
    const float *shift = batch->shift_rotation == NULL ? NULL : batch->shift_rotation + t * shape.head_dim;
    return (AttentionQuery){batch->q + first, shift,         spans,
                            n_spans,          alone + first, kvcache_hidden(batch->cache, batch->layer, position)};
}

static void attend_alone(const AttentionKernels *kernels, const AttentionBatch *batch, size_t t, size_t kv_head) {
    KvSpan spans[KV_MAX_SPANS];
    AttentionShape shape = shape_of(batch);
    AttentionQuery query = query_at(batch, t, kv_head, spans);
    kernels->one(&shape, &query, scratch);
}

/* The bounds of test_attention.c, for scores below 20 and quantized queries and weights. */
static void check_against_reference(const Case *c, const AttentionBatch *batch, SimdLevel level, size_t t,
                                    size_t kv_head) {
    static double expected[MAX_HEADS * MAX_DIM], magnitude[MAX_HEADS * MAX_DIM];
    KvSpan spans[KV_MAX_SPANS];
    Error error = {0};
    AttentionShape shape = shape_of(batch);
    AttentionQuery query = query_at(batch, t, kv_head, spans);
    double tolerance = 2 * ((double)shape.head_dim * 20 + N_TOKENS) * 0x1p-24 + 4 * 20 * 0x1p-16;
    if (attention_reference(&shape, &query, &KV_WOVEN_RECORDS, expected, magnitude, &error) < 0)
        fail_msg("%s", error.message);
    for (size_t i = 0; i < shape.q_per_kv * shape.head_dim; i++) {
        double largest = 0;
        for (size_t d = 0; d < shape.head_dim; d++)
            largest = fmax(largest, magnitude[i / shape.head_dim * shape.head_dim + d]);
        if (!(fabs((double)query.out[i] - expected[i]) <= largest * tolerance))
            fail_msg("%s, %s, group %zu, head_dim %zu, %zu heads: %.9g, expected %.9g", c->policy,
                     simd_level_name(level), c->group, c->head_dim, c->q_per_kv, (double)query.out[i], expected[i]);
    }
}

/* From the last item to the first, in parts of any number of items. */
static void attend_in_parts(const AttentionBatch *batch, const AttentionKernels *kernels) {
    for (size_t end = attention_n_items(batch), begin; end > 0; end = begin) {
        size_t n = 1 + random_below(4);
        begin = end > n ? end - n : 0;
        attention_items(batch, begin, end, kernels, scratch);
    }
    for (size_t kv_head = batch->cache->layout.shape.n_kv_heads; kv_head-- > 0;)
        attention_merge(batch, kv_head, kv_head + 1, kernels, scratch);
}

static void check_against_alone(const Case *c, const AttentionBatch *batch, SimdLevel level, const char *what) {
    size_t width = batch->n_heads * c->head_dim;
    for (size_t i = 0; i < batch->n_tokens * width; i++)
        if (memcmp(&together[i], &alone[i], sizeof *alone) != 0 || !isfinite(together[i]))
            fail_msg(
                "%s, %s, group %zu, head_dim %zu, %zu x %zu heads, layer %zu: token %zu of %zu behind %zu: %.9g %s, "
                "alone %.9g",
                c->policy, simd_level_name(level), c->group, c->head_dim, c->n_kv_heads, c->q_per_kv, batch->layer,
                i / width, batch->n_tokens, batch->cache->n_tokens, (double)together[i], what, (double)alone[i]);
}

static void check_batch(const Case *c, KvCache *cache, SimdLevel level, size_t layer, size_t n) {
    const AttentionKernels *kernels = attention_kernels(level);
    AttentionBatch batch = {cache,    layer,    n,        c->n_kv_heads * c->q_per_kv, ROPE_HALVES, q, shift_rotation,
                            together, partials, c->scores};
    fill_shift(cache, layer, n);
    for (size_t t = 0; t < n; t++)
        for (size_t kv_head = 0; kv_head < c->n_kv_heads; kv_head++)
            attend_alone(kernels, &batch, t, kv_head);
    if (cache->n_tokens + n == N_TOKENS)
        check_against_reference(c, &batch, level, n - 1, c->n_kv_heads - 1);
    attend_in_parts(&batch, kernels);
    check_against_alone(c, &batch, level, "in a batch");
    batch.n_tokens = 1;
    attend_in_parts(&batch, kernels);
    check_against_alone(c, &batch, level, "tile by tile");
}

/* All tokens in batches: the largest, or smaller ones now and then. */
static void check_case(const Case *c) {
    KvCache cache;
    void *memory;
    open_cache(&cache, c, &memory);
    size_t row = c->n_kv_heads * c->head_dim;
    fill_random(keys, N_TOKENS * row, 3);
    fill_random(values, N_TOKENS * row, 1);
    fill_random(q, c->n_batch * c->q_per_kv * row, 1);
    while (cache.n_tokens < N_TOKENS) {
        size_t first = cache.n_tokens, n = random_below(3) == 0 ? 1 + random_below(c->n_batch) : c->n_batch;
        n = n < N_TOKENS - first ? n : N_TOKENS - first;
        for (size_t layer = 0; layer < N_LAYERS; layer++) {
            for (size_t kv_head = 0; kv_head < c->n_kv_heads; kv_head++)
                kvcache_append(&cache, layer, kv_head, n,
                           &(KvRows){.keys = keys + first * row, .values = values + first * row});
            for (SimdLevel level = SIMD_SCALAR; level != SIMD_LEVEL_COUNT; level = cpu_next_level(level))
                check_batch(c, &cache, level, layer, n);
            for (size_t kv_head = 0; kv_head < c->n_kv_heads; kv_head++)
                kvcache_commit(&cache, layer, kv_head, n);
        }
        kvcache_advance(&cache, n);
    }
    kvcache_close(&cache);
    free(memory);
}

static void test_policies(void **state) {
    (void)state;
    const char *const policies[] = {"f16:*",
                                    "sink=16,f16:32",        /* compressed */
                                    "sink=5,f16:530",        /* compressed, tiles cut the window */
                                    "sink=16,f16:32,int8:*", /* quantized */
                                    "sink=16,f16:32,q4_0:*", /* rotated */
                                    "sink=3,f16:20,int8/int4:100,q4_0:300,int2:*", /* cascade */
                                    "f16:1,q8_0/f16:64,int4:330",                  /* and dropped in the end */
                                    "@0:f16:*;@1:sink=1,f16:33,fp8/q4_1:*"};       /* by layer */
    for (size_t i = 0; i < sizeof policies / sizeof *policies; i++) {
        check_case(&(Case){policies[i], 64, 64, 2, 3, 128, 0, {0, 0}});
        check_case(&(Case){policies[i], 32, 32, 1, 4, 256, 0, {0, 0}});
        check_case(&(Case){policies[i], 64, 64, 1, 1, 7, 0, {0, 0}});
    }
}

/* A layer that looks back on some tokens alone, under all kinds of policies, and a sink that goes out of its sight: of
 * 600, so that whole tiles are hidden. */
static void test_lookback(void **state) {
    (void)state;
    const char *const policies[] = {"f16:*",
                                    "sink=16,f16:32",
                                    "sink=16,f16:32,int8:*",
                                    "sink=5,f16:530",
                                    "sink=3,f16:20,int8/int4:100,q4_0:300,int2:*",
                                    "sink=600,f16:10,q8_0:*",
                                    "f16:1,fp8/nf4:*"};
    const size_t lookbacks[] = {1, 40, 333, 520};
    for (size_t i = 0; i < sizeof policies / sizeof *policies; i++)
        for (size_t j = i % 2; j < 4; j += 2)
            check_case(&(Case){policies[i], 32 << j / 2, 32, 1, 3, j == 1 ? 7 : 128, lookbacks[j], {0, 0}});
}

static void test_scores(void **state) {
    (void)state;
    check_case(&(Case){"sink=3,f16:20,int8:*", 64, 64, 1, 3, 100, 0, {200, 0}});
    check_case(&(Case){"sink=3,f16:20,q4_0:*", 64, 32, 1, 2, 100, 90, {0, 1.5f}});
    check_case(&(Case){"f16:*", 32, 24, 2, 1, 100, 0, {7, 0.5f}});
}

/* Head dimensions that are no multiple of a vector's lanes, and more query heads than a query block takes. */
static void test_shapes(void **state) {
    (void)state;
    const size_t dims[] = {8, 24, 48, 96, 128}, groups[] = {1, 2, 5, 8, 40};
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++) {
        check_case(&(Case){"sink=3,f16:10,int8:200", 32, dims[i], 2, groups[i], 100, 0, {0, 0}});
        check_case(&(Case){"sink=3,f16:10,int8:*", 64, dims[4 - i], 1, groups[i], 30, 0, {0, 0}});
    }
    check_case(&(Case){"sink=2,f16:9,int8:*", 32, 8, 1, ATTENTION_Q_HEADS + 4, 3, 0, {0, 0}});
}

/* Heads whose rows are padded, and of any even dimension. */
static void test_padding(void **state) {
    (void)state;
    check_case(&(Case){"f16:*", 64, 100, 2, 1, 60, 0, {0, 0}});
    check_case(&(Case){"sink=16,f16:32", 32, 90, 1, 3, 60, 0, {0, 0}});
    check_case(&(Case){"sink=3,f16:10,int8:*", 64, 100, 1, 4, 60, 0, {0, 0}});
    check_case(&(Case){"sink=3,f16:10,q4_0:*", 64, 100, 1, 4, 60, 0, {0, 0}}); /* rotated */
    check_case(&(Case){"rotate=off,sink=3,f16:20,int8/int4:100,q5_1:300,int2:*", 64, 100, 1, 3, 60, 0, {0, 0}});
    check_case(&(Case){"sink=3,f16:20,int8/int4:100,q4_0:300", 32, 52, 1, 3, 60, 0, {0, 0}});
    check_case(&(Case){"sink=3,f16:20,fp8/nf4:*", 64, 36, 1, 2, 60, 0, {0, 0}});
    check_case(&(Case){"@0:f16:*;@1:sink=1,f16:33,fp8/q4_1:*", 32, 20, 2, 3, 60, 0, {0, 0}});
    check_case(&(Case){"rotate=k,sink=3,f16:10,q8_0/binary:*", 32, 18, 1, 5, 60, 0, {0, 0}});
}

/* An infinity among the values of a token that is encoded by now reaches every query that sees it, whatever the codec:
 * its block decodes to NaN. */
static void check_nonfinite(const Case *c) {
    enum { TOKENS = 200, SPOILED = 70 };
    KvCache cache;
    void *memory;
    open_cache(&cache, c, &memory);
    fill_random(keys, TOKENS * c->head_dim, 1);
    fill_random(values, TOKENS * c->head_dim, 1);
    fill_random(q, TOKENS * c->q_per_kv * c->head_dim, 1);
    values[SPOILED * c->head_dim + 5] = INFINITY;
    AttentionBatch batch = {.cache = &cache, .n_tokens = 1, .n_heads = c->q_per_kv, .q = q, .out = together};
    for (; cache.n_tokens < TOKENS; kvcache_advance(&cache, 1)) {
        size_t at = cache.n_tokens * c->head_dim;
        for (size_t layer = 0; layer < N_LAYERS; layer++)
            kvcache_append(&cache, layer, 0, 1, &(KvRows){.keys = keys + at, .values = values + at});
        for (SimdLevel level = SIMD_SCALAR; level != SIMD_LEVEL_COUNT && cache.n_tokens + 1 == TOKENS;
             level = cpu_next_level(level)) {
            attend_alone(attention_kernels(level), &batch, 0, 0);
            for (size_t h = 0; h < c->q_per_kv; h++)
                if (isfinite(alone[h * c->head_dim + 5]))
                    fail_msg("%s, %s: an infinity is gone", c->policy, simd_level_name(level));
        }
        for (size_t layer = 0; layer < N_LAYERS; layer++)
            kvcache_commit(&cache, layer, 0, 1);
    }
    kvcache_close(&cache);
    free(memory);
}

static void test_nonfinite_values(void **state) {
    (void)state;
    for (const char *const *name = kv_codec_names(); *name != NULL; name++) {
        char policy[64];
        snprintf(policy, sizeof policy, "rotate=off,sink=4,f16:32,%s:*", *name);
        check_nonfinite(&(Case){policy, 64, 64, 1, 3, 1, 0, {0, 0}});
        check_nonfinite(&(Case){policy, 32, 20, 1, 3, 1, 0, {0, 0}});
    }
}

int main(void) {
    scratch = aligned_alloc(64, attention_scratch_bytes());
    memset(scratch, 0, attention_scratch_bytes());
    partials = aligned_alloc(64, attention_partial_bytes());
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_policies), cmocka_unit_test(test_lookback),
                                       cmocka_unit_test(test_scores),   cmocka_unit_test(test_shapes),
                                       cmocka_unit_test(test_padding),  cmocka_unit_test(test_nonfinite_values)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    free(scratch);
    free(partials);
    return failed;
}

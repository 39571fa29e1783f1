/* The fused attention of one query on the simulated GPU, against the reference in double precision, over caches that
 * the host fills with fragment records. What a query does not see is NaN. */
#include "attention/reference.h"
#include "cuda/attention.h"
#include "tests/cuda_shim/shim.h"
#include "tests/shown_cache.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MAX_TOKENS = 1200, N_BATCH = 96, N_LAYERS = 2, LAYER = 1 };

/* A cache, and a query at its end. What is 0 is ordinary: see begin_case(). */
typedef struct Case {
    const char *policy; /* of both layers */
    size_t group, head_dim, n_kv_heads, q_per_kv, n_multiprocessors, n_tokens;
    size_t n_ctx; /* n_tokens where 0 */
    RopePairing pairing;
    float key_size, value_size, query_size;
    bool outliers; /* some channels of keys are 8 times as large */
    bool one_hot;  /* every key is its own, and a query sees one token almost alone */
} Case;

typedef struct Bench {
    Case c;
    ShownCache s;
    float *keys, *values;   /* (n_tokens, n_kv_heads, head_dim) */
    float *q, *out, *again; /* (n_heads, head_dim) */
    float *shift_rotation;  /* (head_dim / 2, 2) */
    CudaCache device;
    void *workspace;
} Bench;

/* Keys of random signs have small products with each other, and a large one with themselves. */
static void fill_keys(Bench *bench) {
    const Case *c = &bench->c;
    for (size_t i = 0; i < c->n_tokens * c->n_kv_heads * c->head_dim; i++) {
        float x = random_float() * c->key_size;
        size_t channel = i % c->head_dim;
        bench->keys[i] = c->one_hot ? (x < 0 ? -1.0f : 1.0f) : c->outliers && channel % 17 == 3 ? 8 * x : x;
        bench->values[i] = random_float() * c->value_size;
    }
}

/* Query head h sees token `token` - h, if keys are one-hot. */
static void fill_query(Bench *bench, size_t token) {
    const Case *c = &bench->c;
    for (size_t h = 0; h < c->n_kv_heads * c->q_per_kv; h++)
        for (size_t d = 0; d < c->head_dim; d++) {
            size_t row = (token + MAX_TOKENS - h) % c->n_tokens * c->n_kv_heads + h / c->q_per_kv;
            bench->q[h * c->head_dim + d] =
                (c->one_hot ? bench->keys[row * c->head_dim + d] : random_float()) * c->query_size;
        }
}

static size_t n_heads_of(const Case *c) {
    return c->n_kv_heads * c->q_per_kv;
}

static void begin_case(Bench *bench, const Case *c) {
    *bench = (Bench){.c = *c};
    Case *own = &bench->c;
    own->n_ctx = own->n_ctx ? own->n_ctx : own->n_tokens;
    own->n_kv_heads = own->n_kv_heads ? own->n_kv_heads : 1;
    own->q_per_kv = own->q_per_kv ? own->q_per_kv : 4;
    own->n_multiprocessors = own->n_multiprocessors ? own->n_multiprocessors : 1;
    own->key_size = own->key_size != 0 ? own->key_size : 2;
    own->value_size = own->value_size != 0 ? own->value_size : 1;
    own->query_size = own->query_size != 0 ? own->query_size : 1.5f;
    assert_true(own->n_tokens <= MAX_TOKENS);
    assert_true(cuda_attention_is_fused(own->head_dim, own->q_per_kv));
    shown_cache_open(&bench->s, own->policy, own->group,
                     &(KvShape){N_LAYERS, own->n_kv_heads, own->head_dim, own->n_ctx, N_BATCH, {{0}}, 0});
    size_t rows = own->n_tokens * own->n_kv_heads * own->head_dim, heads = n_heads_of(own) * own->head_dim;
    bench->keys = allocate_floats(rows);
    bench->values = allocate_floats(rows);
    bench->q = allocate_floats(heads);
    bench->out = allocate_floats(heads);
    bench->again = allocate_floats(heads);
    bench->shift_rotation = allocate_floats(own->head_dim);
    size_t workspace =
        cuda_attention_workspace(n_heads_of(own), own->n_kv_heads, own->head_dim, own->n_multiprocessors);
    bench->workspace = calloc(1, workspace);
    fill_keys(bench);
}

static void end_case(Bench *bench) {
    shown_cache_close(&bench->s);
    void *const memory[] = {bench->keys,  bench->values,         bench->q,        bench->out,
                            bench->again, bench->shift_rotation, bench->workspace};
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++)
        free(memory[i]);
}

/* Appends n tokens to the layer, and commits all but those that are to be queried. */
static void append(Bench *bench, size_t n) {
    size_t row = bench->c.n_kv_heads * bench->c.head_dim, first = bench->s.cache.n_tokens * row;
    for (size_t kv_head = 0; kv_head < bench->c.n_kv_heads; kv_head++)
        kvcache_append(&bench->s.cache, LAYER, kv_head, n,
                       &(KvRows){.keys = bench->keys + first, .values = bench->values + first});
}

static void commit(Bench *bench, size_t n) {
    for (size_t kv_head = 0; kv_head < bench->c.n_kv_heads; kv_head++)
        kvcache_commit(&bench->s.cache, LAYER, kv_head, n);
    kvcache_advance(&bench->s.cache, n);
}

/* All but the last of n_tokens, which is in the batch. */
static void fill_cache(Bench *bench, size_t n_tokens) {
    while (bench->s.cache.n_tokens + 1 < n_tokens) {
        size_t left = n_tokens - 1 - bench->s.cache.n_tokens, n = left < N_BATCH ? left : N_BATCH;
        append(bench, n);
        commit(bench, n);
    }
    append(bench, 1);
}

/* RoPE by minus the tokens dropped, with some frequencies. */
static const float *fill_shift(Bench *bench) {
    size_t dropped = kvcache_dropped(&bench->s.cache, LAYER, bench->s.cache.n_tokens);
    for (size_t i = 0; i < bench->c.head_dim / 2; i++) {
        double angle = -(double)dropped * pow(0.8, (double)i);
        bench->shift_rotation[2 * i] = (float)cos(angle);
        bench->shift_rotation[2 * i + 1] = (float)sin(angle);
    }
    return dropped > 0 ? bench->shift_rotation : NULL;
}

static void run(Bench *bench, float *out, const float *shift_rotation) {
    const Case *c = &bench->c;
    bench->device = shown_cache_device(&bench->s);
    CudaAttention attention = {.cache = &bench->device,
                               .layer = LAYER,
                               .n_tokens = 1,
                               .n_heads = n_heads_of(c),
                               .n_kv_heads = c->n_kv_heads,
                               .head_dim = c->head_dim,
                               .pairing = c->pairing,
                               .q = bench->q,
                               .shift_rotation = shift_rotation,
                               .out = out,
                               .workspace = bench->workspace,
                               .n_multiprocessors = c->n_multiprocessors};
    for (size_t i = 0; i < n_heads_of(c) * c->head_dim; i++)
        out[i] = NAN;
    cuda_cache_plan(&bench->device, N_LAYERS, false, NULL);
    cuda_attend_fused(&attention, NULL);
    assert_int_equal(cudaGetLastError(), cudaSuccess);
}

/* Scores are off by the roundings to FP16 of q and of its products with scales by channel, and of nf4's levels, 2^-11
 * each of |q| |k| / sqrt(head_dim) at most; weights move by a factor of twice that, and are rounded to FP16 themselves.
 */
static double tolerance_of(const Bench *bench, const float *q) {
    const Case *c = &bench->c;
    double largest = 0;
    for (size_t t = 0; t < c->n_tokens * c->n_kv_heads; t++)
        largest = fmax(largest, norm_of(bench->keys + t * c->head_dim, c->head_dim));
    double score = norm_of(q, c->head_dim) * largest * 1.2 / sqrt((double)c->head_dim); /* codes may be larger */
    return 2 * score * 2.5 * 0x1p-11 + 2 * 0x1p-11;
}

typedef struct Errors {
    double squares, expected_squares;
} Errors;

static void check_head(const Bench *bench, size_t head, const double *expected, const double *magnitude,
                       Errors *errors) {
    const Case *c = &bench->c;
    const float *out = bench->out + head * c->head_dim;
    double tolerance = tolerance_of(bench, bench->q + head * c->head_dim), largest = 0;
    for (size_t d = 0; d < c->head_dim; d++)
        largest = fmax(largest, magnitude[d]);
    for (size_t d = 0; d < c->head_dim; d++) {
        double error = fabs((double)out[d] - expected[d]);
        errors->squares += error * error;
        errors->expected_squares += expected[d] * expected[d];
        if (!(error <= magnitude[d] * tolerance + largest * 0x1p-14))
            fail_msg("%s, group %zu, head_dim %zu, %zu x %zu heads, %zu multiprocessors, %zu tokens: head %zu, element "
                     "%zu: %.9g, expected %.9g (magnitude %.3g, tolerance %.3g)",
                     c->policy, c->group, c->head_dim, c->n_kv_heads, c->q_per_kv, c->n_multiprocessors,
                     bench->s.cache.n_tokens + 1, head, d, (double)out[d], expected[d], magnitude[d], tolerance);
    }
}

static double worst_rms;

static void check_out(const Bench *bench, const float *shift_rotation) {
    const Case *c = &bench->c;
    static double expected[16 * 256], magnitude[16 * 256];
    Errors errors = {0};
    for (size_t kv_head = 0; kv_head < c->n_kv_heads; kv_head++) {
        KvSpan spans[KV_MAX_SPANS];
        Error error = {0};
        AttentionShape shape = {c->q_per_kv, c->head_dim, c->pairing, {0, 0}};
        AttentionQuery query = {
            .q = bench->q + kv_head * c->q_per_kv * c->head_dim, .shift_rotation = shift_rotation, .spans = spans};
        query.n_spans = kvcache_view(&bench->s.cache, LAYER, kv_head, bench->s.cache.n_tokens, spans);
        if (attention_reference(&shape, &query, &KV_FRAGMENT_RECORDS, expected, magnitude, &error) < 0)
            fail_msg("%s", error.message);
        for (size_t h = 0; h < c->q_per_kv; h++)
            check_head(bench, kv_head * c->q_per_kv + h, expected + h * c->head_dim, magnitude + h * c->head_dim,
                       &errors);
    }
    double rms = sqrt(errors.squares / errors.expected_squares);
    worst_rms = fmax(worst_rms, rms);
    if (!(rms < 2e-3))
        fail_msg("%s, group %zu, head_dim %zu, %zu tokens: a relative error of %.3g", c->policy, c->group, c->head_dim,
                 bench->s.cache.n_tokens + 1, rms);
}

/* The counters say what the host's would. */
static void check_counters(Bench *bench, size_t n_calls) {
    for (size_t kv_head = 0; kv_head < bench->c.n_kv_heads; kv_head++) {
        KvSpan spans[KV_MAX_SPANS];
        size_t n = kvcache_view(&bench->s.cache, LAYER, kv_head, bench->s.cache.n_tokens, spans);
        for (size_t i = 0; i < n_calls; i++)
            kvcache_count_read(&bench->s.cache, LAYER, spans, n, 0);
    }
    for (size_t layer = 0; layer < N_LAYERS; layer++)
        for (size_t store = 0; store < KV_MAX_STORES; store++)
            assert_int_equal(bench->s.bytes_read[layer * KV_MAX_STORES + store],
                             kvcache_counters(&bench->s.cache, layer)->bytes_read[store]);
}

/* Queries behind n_tokens; once more, which must give the same bits. */
static void check_at(Bench *bench, size_t n_tokens) {
    fill_cache(bench, n_tokens);
    fill_query(bench, n_tokens / 2);
    const float *shift_rotation = fill_shift(bench);
    shown_cache_hide(&bench->s);
    shown_cache_show(&bench->s, LAYER, bench->s.cache.n_tokens);
    run(bench, bench->again, shift_rotation);
    run(bench, bench->out, shift_rotation);
    check_out(bench, shift_rotation);
    if (memcmp(bench->out, bench->again, n_heads_of(&bench->c) * bench->c.head_dim * sizeof(float)) != 0)
        fail_msg("%s: the same launch gives other bits", bench->c.policy);
    check_counters(bench, 2);
    commit(bench, 1);
}

static void check_case(const Case *c) {
    Bench bench;
    begin_case(&bench, c);
    check_at(&bench, bench.c.n_tokens);
    end_case(&bench);
}

static void check_lengths(const Case *c, const size_t *lengths, size_t n) {
    Bench bench;
    begin_case(&bench, c);
    for (size_t i = 0; i < n; i++)
        check_at(&bench, lengths[i]);
    end_case(&bench);
}

/* ---- Tests */

static void test_f16(void **state) {
    (void)state;
    check_case(&(Case){.policy = "f16:*", .group = 64, .head_dim = 128, .n_tokens = 1});
    check_case(&(Case){.policy = "f16:*", .group = 64, .head_dim = 128, .n_tokens = 150});
    check_case(&(Case){.policy = "f16:*", .group = 64, .head_dim = 64, .n_tokens = 77, .n_multiprocessors = 3});
}

static void test_int8(void **state) {
    (void)state;
    check_case(&(Case){.policy = "sink=4,f16:20,int8:*", .group = 64, .head_dim = 128, .n_tokens = 250});
    check_case(&(Case){.policy = "sink=4,f16:20,int8:*", .group = 32, .head_dim = 64, .n_tokens = 250});
}

/* Every codec, rotated and not. */
static void test_codecs(void **state) {
    (void)state;
    for (const char *const *name = kv_codec_names(); *name != NULL; name++) {
        char policy[80];
        snprintf(policy, sizeof policy, "rotate=off,sink=3,f16:20,%s:*", *name);
        check_case(&(Case){.policy = policy, .group = 64, .head_dim = 128, .n_tokens = 171});
        check_case(&(Case){.policy = policy, .group = 32, .head_dim = 64, .n_tokens = 140, .n_multiprocessors = 2});
        snprintf(policy, sizeof policy, "rotate=on,sink=3,f16:20,%s:*", *name);
        check_case(&(Case){.policy = policy, .group = 32, .head_dim = 256, .q_per_kv = 2, .n_tokens = 101});
    }
}

/* Keys and values of different codecs. */
static void test_pairs(void **state) {
    (void)state;
    const char *const pairs[] = {"int8/q4_0",   "f16/nf4",   "int4/fp8",    "nf4/f16",   "q5_1/int3",
                                 "int6/binary", "q8_0/int2", "binary/q5_0", "fp8/int8g", "int2/q4_1"};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        char policy[80];
        snprintf(policy, sizeof policy, "sink=3,f16:10,%s:*", pairs[i]);
        check_case(&(Case){.policy = policy, .group = 64, .head_dim = 64, .n_tokens = 180, .q_per_kv = 3});
        check_case(&(Case){.policy = policy, .group = 32, .head_dim = 128, .n_tokens = 100, .q_per_kv = 9});
    }
}

static void test_shapes(void **state) {
    (void)state;
    const size_t dims[] = {64, 80, 96, 128, 256}, heads[] = {1, 3, 4, 8, 9, 16};
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++)
        for (size_t j = 0; j < sizeof heads / sizeof *heads; j++) {
            Case c = {.policy = "sink=4,f16:20,int8:64,fp8/binary:*",
                      .group = 32,
                      .head_dim = dims[i],
                      .q_per_kv = heads[j],
                      .n_tokens = 160,
                      .n_multiprocessors = 1 + j % 2 * 2};
            check_case(&c);
        }
    check_case(&(Case){.policy = "sink=4,f16:20,int4:64,q5_0:*", .group = 32, .head_dim = 96, .n_tokens = 160});
}

static void test_lengths(void **state) {
    (void)state;
    const size_t sink = 5, window = 40, group = 32;
    const size_t lengths[] = {1,
                              2,
                              sink,
                              sink + 1,
                              sink + window,
                              sink + window + group - 1,
                              sink + window + group,
                              sink + window + group + 1,
                              sink + window + 3 * group,
                              700};
    check_lengths(&(Case){.policy = "sink=5,f16:40,int8:*",
                          .group = 32,
                          .head_dim = 64,
                          .n_kv_heads = 2,
                          .q_per_kv = 2,
                          .n_multiprocessors = 6,
                          .n_tokens = 700},
                  lengths, sizeof lengths / sizeof *lengths);
}

/* Several encoded tiers, rings that wrap, sinks that are shifted. */
static void test_cascades(void **state) {
    (void)state;
    const size_t lengths[] = {50, 200, 333, 600};
    const char *const policies[] = {"sink=4,f16:32,int8:64,q4_0:*",       "sink=16,f16:32,int8:64",
                                    "sink=7,f16:32,int8/int4:64,q4_0:96", "sink=20,f16:50",
                                    "rotate=v,f16:3,q4_1:64,int8:*",      "rotate=k,sink=1,f16:3,q4_1/f16:64,nf4:*"};
    for (size_t i = 0; i < sizeof policies / sizeof *policies; i++)
        for (size_t j = 0; j < 2; j++)
            check_lengths(&(Case){.policy = policies[i],
                                  .group = j ? 64 : 32,
                                  .head_dim = 64,
                                  .q_per_kv = 2,
                                  .n_multiprocessors = 1 + 2 * j,
                                  .pairing = j ? ROPE_INTERLEAVED : ROPE_HALVES,
                                  .n_tokens = 600},
                          lengths, sizeof lengths / sizeof *lengths);
}

/* A query that sees one token alone gets its values: a wrong token, head or element cannot hide. */
static void test_one_hot(void **state) {
    (void)state;
    const char *const policies[] = {"f16:*", "rotate=off,sink=4,f16:20,int8:64,q4_0:*", "sink=4,f16:20,int6/q8_0:*"};
    const size_t lengths[] = {60, 131, 180, 233, 300};
    for (size_t i = 0; i < sizeof policies / sizeof *policies; i++)
        check_lengths(&(Case){.policy = policies[i],
                              .group = 32,
                              .head_dim = 64,
                              .q_per_kv = 8,
                              .query_size = 12,
                              .n_multiprocessors = 3,
                              .one_hot = true,
                              .n_tokens = 300},
                      lengths, sizeof lengths / sizeof *lengths);
}

static void test_magnitudes(void **state) {
    (void)state;
    const char *const codecs[] = {"int8", "int4", "q4_0", "fp8", "nf4", "binary"};
    for (size_t i = 0; i < sizeof codecs / sizeof *codecs; i++) {
        char policy[80];
        snprintf(policy, sizeof policy, "rotate=off,sink=3,f16:20,%s:*", codecs[i]);
        Case c = {.policy = policy, .group = 32, .head_dim = 64, .q_per_kv = 2, .n_tokens = 200};
        c.outliers = true;
        check_case(&c);
        c.outliers = false;
        c.value_size = 1e-4f;
        check_case(&c);
        c.value_size = 3000;
        c.query_size = 0.01f;
        check_case(&c);
        c.key_size = 3000;
        c.query_size = 1e-3f;
        check_case(&c);
        c.key_size = 1e-2f;
        c.query_size = 100;
        check_case(&c);
    }
}

/* An infinity among the values of a token reaches every query that sees it, whatever holds it: its block is NaN. */
static void test_nonfinite_values(void **state) {
    (void)state;
    enum { TOKENS = 120, SPOILED = 40, ELEMENT = 5 };
    for (const char *const *name = kv_codec_names(); *name != NULL; name++) {
        char policy[80];
        Bench bench;
        snprintf(policy, sizeof policy, "rotate=off,sink=4,f16:32,%s:*", *name);
        begin_case(&bench, &(Case){.policy = policy, .group = 32, .head_dim = 64, .n_tokens = TOKENS});
        bench.values[SPOILED * bench.c.head_dim + ELEMENT] = INFINITY;
        fill_cache(&bench, TOKENS);
        fill_query(&bench, 0);
        shown_cache_hide(&bench.s);
        shown_cache_show(&bench.s, LAYER, bench.s.cache.n_tokens);
        run(&bench, bench.out, NULL);
        for (size_t h = 0; h < bench.c.q_per_kv; h++)
            if (isfinite(bench.out[h * bench.c.head_dim + ELEMENT]))
                fail_msg("%s: an infinity is gone", policy);
        end_case(&bench);
    }
}

static void test_seeds(void **state) {
    (void)state;
    for (unsigned seed = 0; seed < 5; seed++) {
        const size_t multiprocessors[] = {1, 3, 16, 5, 2};
        cuda_shim_set_seed(seed);
        check_case(&(Case){.policy = "sink=4,f16:20,int4:64,q4_0:*",
                           .group = 32,
                           .head_dim = 128,
                           .q_per_kv = 2 + 7 * (seed % 2),
                           .n_multiprocessors = multiprocessors[seed],
                           .n_tokens = 220});
    }
    cuda_shim_set_seed(0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_f16),        cmocka_unit_test(test_int8),
        cmocka_unit_test(test_codecs),     cmocka_unit_test(test_pairs),
        cmocka_unit_test(test_shapes),     cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_cascades),   cmocka_unit_test(test_one_hot),
        cmocka_unit_test(test_magnitudes), cmocka_unit_test(test_nonfinite_values),
        cmocka_unit_test(test_seeds),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    printf("the largest relative error: %.3g\n", worst_rms);
    return failed;
}

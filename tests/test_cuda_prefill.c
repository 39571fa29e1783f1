/* Attention of batches on the simulated GPU's tensor cores: every query of every batch against the reference in double
 * precision, over caches that the host fills with fragment records, batch after batch. What no query of a batch sees is
 * NaN. */
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

enum { MAX_BATCHES = 12, N_LAYERS = 2, MAX_DIM = 256, MAX_HEADS = 32 };

/* Batches of a prompt. What is 0 is ordinary: see begin_case(). */
typedef struct Case {
    const char *policy;
    size_t group, head_dim, n_kv_heads, q_per_kv, layer;
    size_t batches[MAX_BATCHES]; /* their lengths, to the first 0 */
    size_t n_ctx;                /* as many tokens as the batches have, where 0 */
    RopePairing pairing;
    float key_size, value_size, query_size;
    bool outliers; /* some channels of keys are 8 times as large */
    bool one_hot;  /* every key is its own, and a query sees one token almost alone */
} Case;

typedef struct Bench {
    Case c;
    ShownCache s;
    size_t n_tokens;        /* of all batches */
    float *keys, *values;   /* (n_tokens, n_kv_heads, head_dim) */
    float *q, *out, *again; /* (n, n_heads, head_dim) of the batch */
    float *shift_rotation;  /* (n, head_dim / 2, 2) */
    CudaCache device;
} Bench;

static size_t n_heads_of(const Case *c) {
    return c->n_kv_heads * c->q_per_kv;
}

static size_t longest_batch(const Case *c) {
    size_t longest = 0;
    for (size_t i = 0; i < MAX_BATCHES; i++)
        longest = longest > c->batches[i] ? longest : c->batches[i];
    return longest;
}

/* Keys of random signs have small products with each other, and a large one with themselves. */
static void fill_keys(Bench *bench) {
    const Case *c = &bench->c;
    for (size_t i = 0; i < bench->n_tokens * c->n_kv_heads * c->head_dim; i++) {
        float x = random_float() * c->key_size;
        size_t channel = i % c->head_dim;
        bench->keys[i] = c->one_hot ? (x < 0 ? -1.0f : 1.0f) : c->outliers && channel % 17 == 3 ? 8 * x : x;
        bench->values[i] = random_float() * c->value_size;
    }
}

static void begin_case(Bench *bench, const Case *c) {
    *bench = (Bench){.c = *c};
    Case *own = &bench->c;
    for (size_t i = 0; i < MAX_BATCHES; i++)
        bench->n_tokens += own->batches[i];
    own->n_ctx = own->n_ctx ? own->n_ctx : bench->n_tokens;
    own->n_kv_heads = own->n_kv_heads ? own->n_kv_heads : 1;
    own->q_per_kv = own->q_per_kv ? own->q_per_kv : 4;
    own->key_size = own->key_size != 0 ? own->key_size : 2;
    own->value_size = own->value_size != 0 ? own->value_size : 1;
    own->query_size = own->query_size != 0 ? own->query_size : 1.5f;
    assert_true(cuda_attention_has_prefill(own->head_dim, own->q_per_kv));
    assert_true(own->q_per_kv <= MAX_HEADS && own->head_dim <= MAX_DIM);
    shown_cache_open(&bench->s, own->policy, own->group,
                     &(KvShape){N_LAYERS, own->n_kv_heads, own->head_dim, own->n_ctx, longest_batch(own), {{0}}, 0});
    size_t rows = bench->n_tokens * own->n_kv_heads * own->head_dim;
    bench->keys = allocate_floats(rows);
    bench->values = allocate_floats(rows);
    fill_keys(bench);
}

static void end_case(Bench *bench) {
    shown_cache_close(&bench->s);
    free(bench->keys);
    free(bench->values);
}

/* ---- A batch */

/* If keys are one-hot, query head h of a token sees one of the tokens up to its own. */
static void fill_queries(Bench *bench, size_t n) {
    const Case *c = &bench->c;
    for (size_t t = 0; t < n; t++)
        for (size_t h = 0; h < n_heads_of(c); h++)
            for (size_t d = 0; d < c->head_dim; d++) {
                size_t position = bench->s.cache.n_tokens + t, token = (h * 37 + t * 11) % (position + 1);
                size_t row = token * c->n_kv_heads + h / c->q_per_kv;
                bench->q[(t * n_heads_of(c) + h) * c->head_dim + d] =
                    (c->one_hot ? bench->keys[row * c->head_dim + d] : random_float()) * c->query_size;
            }
}

/* RoPE by minus the tokens dropped, with some frequencies; NULL where none are, and of no number for those queries that
 * see all. */
static const float *fill_shifts(Bench *bench, size_t n) {
    const Case *c = &bench->c;
    bool any = false;
    for (size_t t = 0; t < n; t++) {
        size_t dropped = kvcache_dropped(&bench->s.cache, c->layer, bench->s.cache.n_tokens + t);
        float *rotation = bench->shift_rotation + t * c->head_dim;
        for (size_t i = 0; i < c->head_dim / 2; i++) {
            double angle = -(double)dropped * pow(0.8, (double)i);
            rotation[2 * i] = dropped > 0 ? (float)cos(angle) : NAN;
            rotation[2 * i + 1] = (float)sin(angle);
        }
        any = any || dropped > 0;
    }
    return any ? bench->shift_rotation : NULL;
}

/* What the queries see, and the batch's own rows. */
static void show(Bench *bench, size_t n) {
    const KvCacheLayout *layout = &bench->s.cache.layout;
    shown_cache_hide(&bench->s);
    for (size_t t = 0; t < n; t++)
        shown_cache_show(&bench->s, bench->c.layer, bench->s.cache.n_tokens + t);
    for (size_t kv_head = 0; kv_head < bench->c.n_kv_heads; kv_head++)
        for (KvSide side = 0; side < KV_SIDES; side++) {
            size_t at = kv_array_at(&layout->batch[side], kv_head, 0);
            memcpy(bench->s.shown + at, bench->s.memory + at, n * layout->batch[side].slot_bytes);
        }
}

static void run(Bench *bench, size_t n, float *out, const float *shift_rotation) {
    const Case *c = &bench->c;
    bench->device = shown_cache_device(&bench->s);
    CudaAttention attention = {.cache = &bench->device,
                               .layer = c->layer,
                               .n_tokens = n,
                               .n_heads = n_heads_of(c),
                               .n_kv_heads = c->n_kv_heads,
                               .head_dim = c->head_dim,
                               .pairing = c->pairing,
                               .q = bench->q,
                               .shift_rotation = shift_rotation,
                               .out = out};
    for (size_t i = 0; i < n * n_heads_of(c) * c->head_dim; i++)
        out[i] = NAN;
    cuda_attend_prefill(&attention, NULL);
    assert_int_equal(cudaGetLastError(), cudaSuccess);
}

/* Scores are off by the roundings to FP16 of q and of decoded keys (nf4's levels, scales and products: three), 2^-11
 * each of |q| |k| / sqrt(head_dim) at most; weights move by a factor of twice that, and are rounded to FP16 themselves,
 * as values are. Codes may be larger than what they stand for. */
static double tolerance_of(const Bench *bench, const float *q, double largest_key) {
    const Case *c = &bench->c;
    double score = norm_of(q, c->head_dim) * largest_key * 1.2 / sqrt((double)c->head_dim);
    return 2 * score * 4 * 0x1p-11 + 5 * 0x1p-11;
}

typedef struct Errors {
    double squares, expected_squares;
} Errors;

static double worst_rms;

static void check_head(const Bench *bench, size_t t, size_t head, double tolerance, const double *expected,
                       const double *magnitude, Errors *errors) {
    const Case *c = &bench->c;
    const float *out = bench->out + (t * n_heads_of(c) + head) * c->head_dim;
    double largest = 0;
    for (size_t d = 0; d < c->head_dim; d++)
        largest = fmax(largest, magnitude[d]);
    for (size_t d = 0; d < c->head_dim; d++) {
        double error = fabs((double)out[d] - expected[d]);
        errors->squares += error * error;
        errors->expected_squares += expected[d] * expected[d];
        if (!(error <= magnitude[d] * tolerance + largest * 0x1p-14 + 0x1p-24))
            fail_msg("%s, group %zu, head_dim %zu, %zu x %zu heads, batch at %zu: query %zu, head %zu, element %zu: "
                     "%.9g, expected %.9g (magnitude %.3g, tolerance %.3g)",
                     c->policy, c->group, c->head_dim, c->n_kv_heads, c->q_per_kv, bench->s.cache.n_tokens, t, head, d,
                     (double)out[d], expected[d], magnitude[d], tolerance);
    }
}

static void check_query(Bench *bench, size_t t, size_t kv_head, const float *shift_rotation, double largest_key,
                        Errors *errors) {
    static double expected[MAX_HEADS * MAX_DIM], magnitude[MAX_HEADS * MAX_DIM];
    const Case *c = &bench->c;
    KvSpan spans[KV_MAX_SPANS];
    Error error = {0};
    AttentionShape shape = {c->q_per_kv, c->head_dim, c->pairing, {0, 0}};
    AttentionQuery query = {.q = bench->q + (t * n_heads_of(c) + kv_head * c->q_per_kv) * c->head_dim,
                            .shift_rotation = shift_rotation != NULL ? shift_rotation + t * c->head_dim : NULL,
                            .spans = spans};
    query.n_spans = kvcache_view(&bench->s.cache, c->layer, kv_head, bench->s.cache.n_tokens + t, spans);
    if (attention_reference(&shape, &query, &KV_FRAGMENT_RECORDS, expected, magnitude, &error) < 0)
        fail_msg("%s", error.message);
    for (size_t h = 0; h < c->q_per_kv; h++)
        check_head(bench, t, kv_head * c->q_per_kv + h, tolerance_of(bench, query.q + h * c->head_dim, largest_key),
                   expected + h * c->head_dim, magnitude + h * c->head_dim, errors);
    kvcache_count_read(&bench->s.cache, c->layer, spans, query.n_spans, 0);
}

/* Outputs, and the counters, which say what the host's would. */
static void check_batch(Bench *bench, size_t n, const float *shift_rotation) {
    const Case *c = &bench->c;
    Errors errors = {0};
    double largest_key = 0;
    for (size_t t = 0; t < (bench->s.cache.n_tokens + n) * c->n_kv_heads; t++)
        largest_key = fmax(largest_key, norm_of(bench->keys + t * c->head_dim, c->head_dim));
    for (size_t t = 0; t < n; t++)
        for (size_t kv_head = 0; kv_head < c->n_kv_heads; kv_head++)
            check_query(bench, t, kv_head, shift_rotation, largest_key, &errors);
    double rms = sqrt(errors.squares / errors.expected_squares);
    worst_rms = fmax(worst_rms, rms);
    if (!(rms < 2e-3))
        fail_msg("%s, group %zu, head_dim %zu, batch at %zu: a relative error of %.3g", c->policy, c->group,
                 c->head_dim, bench->s.cache.n_tokens, rms);
    for (size_t layer = 0; layer < N_LAYERS; layer++)
        for (size_t store = 0; store < KV_MAX_STORES; store++)
            assert_int_equal(bench->s.bytes_read[layer * KV_MAX_STORES + store],
                             kvcache_counters(&bench->s.cache, layer)->bytes_read[store]);
}

/* Twice, which must give the same bits. */
static void attend_batch(Bench *bench, size_t n) {
    const Case *c = &bench->c;
    size_t n_out = n * n_heads_of(c) * c->head_dim;
    bench->q = allocate_floats(n_out);
    bench->out = allocate_floats(n_out);
    bench->again = allocate_floats(n_out);
    bench->shift_rotation = allocate_floats(n * c->head_dim);
    fill_queries(bench, n);
    const float *shift_rotation = fill_shifts(bench, n);
    show(bench, n);
    run(bench, n, bench->again, shift_rotation);
    memset(bench->s.bytes_read, 0, N_LAYERS * KV_MAX_STORES * sizeof *bench->s.bytes_read);
    for (size_t store = 0; store < KV_MAX_STORES; store++)
        bench->s.bytes_read[c->layer * KV_MAX_STORES + store] =
            kvcache_counters(&bench->s.cache, c->layer)->bytes_read[store];
    run(bench, n, bench->out, shift_rotation);
    check_batch(bench, n, shift_rotation);
    if (memcmp(bench->out, bench->again, n_out * sizeof(float)) != 0)
        fail_msg("%s: the same launch gives other bits", c->policy);
    free(bench->q);
    free(bench->out);
    free(bench->again);
    free(bench->shift_rotation);
}

static void check_case(const Case *c) {
    Bench bench;
    begin_case(&bench, c);
    for (size_t i = 0; i < MAX_BATCHES && c->batches[i] > 0; i++) {
        size_t n = c->batches[i], row = bench.c.n_kv_heads * c->head_dim, first = bench.s.cache.n_tokens * row;
        for (size_t kv_head = 0; kv_head < bench.c.n_kv_heads; kv_head++)
            kvcache_append(&bench.s.cache, c->layer, kv_head, n,
                           &(KvRows){.keys = bench.keys + first, .values = bench.values + first});
        attend_batch(&bench, n);
        for (size_t kv_head = 0; kv_head < bench.c.n_kv_heads; kv_head++)
            kvcache_commit(&bench.s.cache, c->layer, kv_head, n);
        kvcache_advance(&bench.s.cache, n);
    }
    end_case(&bench);
}

/* ---- Tests */

static void test_f16(void **state) {
    (void)state;
    check_case(&(Case){.policy = "f16:*", .group = 64, .head_dim = 128, .batches = {2}});
    check_case(&(Case){.policy = "f16:*", .group = 64, .head_dim = 64, .batches = {70, 3, 1, 65}});
    check_case(&(Case){.policy = "sink=4,f16:*", .group = 64, .head_dim = 64, .n_kv_heads = 3, .batches = {20, 90}});
}

static void test_int8(void **state) {
    (void)state;
    check_case(&(Case){.policy = "sink=4,f16:20,int8:*", .group = 64, .head_dim = 128, .batches = {30, 90, 40}});
    check_case(&(Case){.policy = "sink=4,f16:20,int8:*", .group = 32, .head_dim = 64, .batches = {120, 7, 50}});
}

/* Every codec, rotated and not. */
static void test_codecs(void **state) {
    (void)state;
    for (const char *const *name = kv_codec_names(); *name != NULL; name++) {
        char policy[80];
        snprintf(policy, sizeof policy, "rotate=off,sink=3,f16:20,%s:*", *name);
        check_case(&(Case){.policy = policy, .group = 64, .head_dim = 128, .q_per_kv = 2, .batches = {130, 20}});
        check_case(&(Case){.policy = policy, .group = 32, .head_dim = 64, .batches = {80, 33}});
        snprintf(policy, sizeof policy, "rotate=on,sink=3,f16:20,%s:*", *name);
        check_case(&(Case){.policy = policy, .group = 32, .head_dim = 256, .q_per_kv = 2, .batches = {75, 8}});
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
        check_case(&(Case){.policy = policy, .group = 64, .head_dim = 64, .q_per_kv = 3, .batches = {150, 5}});
        check_case(&(Case){.policy = policy, .group = 32, .head_dim = 128, .q_per_kv = 1, .batches = {60, 40}});
    }
}

static void test_shapes(void **state) {
    (void)state;
    const size_t dims[] = {64, 80, 96, 128, 256}, heads[] = {1, 2, 3, 4, 8, 9, 16, 32};
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++)
        for (size_t j = 0; j < sizeof heads / sizeof *heads; j++)
            check_case(&(Case){.policy = "sink=4,f16:20,int8:32,fp8/binary:*",
                               .group = 32,
                               .head_dim = dims[i],
                               .q_per_kv = heads[j],
                               .layer = j % 2,
                               .batches = {heads[j] > 8 ? 9 : 90, 40 / heads[j] + 2},
                               .n_ctx = 160});
    check_case(&(Case){
        .policy = "sink=4,f16:20,int4:64,q5_0:*", .group = 32, .head_dim = 96, .n_kv_heads = 2, .batches = {170}});
}

/* Batches that begin and end at every place near a group's border; single tokens too. */
static void test_borders(void **state) {
    (void)state;
    check_case(&(Case){.policy = "sink=5,f16:40,int8:*",
                       .group = 32,
                       .head_dim = 64,
                       .n_kv_heads = 2,
                       .q_per_kv = 2,
                       .batches = {4, 1, 1, 39, 31, 1, 1, 32, 2, 63, 64, 65}});
    check_case(&(Case){.policy = "sink=0,f16:0,int8:*",
                       .group = 32,
                       .head_dim = 64,
                       .q_per_kv = 1,
                       .batches = {31, 1, 1, 30, 2, 64, 33, 100}});
}

/* Several encoded tiers, rings that wrap, tokens that are dropped, sinks that are shifted. */
static void test_cascades(void **state) {
    (void)state;
    const char *const policies[] = {"sink=4,f16:32,int8:64,q4_0:*",
                                    "sink=16,f16:32,int8:64",
                                    "sink=7,f16:32,int8/int4:64,q4_0:96",
                                    "sink=20,f16:50",
                                    "f16:30",
                                    "sink=3,f16:0,int8:64,q4_0:64,int2:64",
                                    "rotate=v,f16:3,q4_1:64,int8:*",
                                    "rotate=k,sink=1,f16:3,q4_1/f16:64,nf4:*",
                                    "@0:f16:*;@*:sink=16,f16:32,int4:64"};
    for (size_t i = 0; i < sizeof policies / sizeof *policies; i++)
        for (size_t j = 0; j < 2; j++)
            check_case(&(Case){.policy = policies[i],
                               .group = j ? 64 : 32,
                               .head_dim = 64,
                               .q_per_kv = 2,
                               .layer = 1,
                               .pairing = j ? ROPE_INTERLEAVED : ROPE_HALVES,
                               .batches = {15, 150, 33, 100, 40},
                               .n_ctx = 600});
}

/* A query that sees one token alone gets its values: a wrong token, head or element cannot hide. */
static void test_one_hot(void **state) {
    (void)state;
    const char *const policies[] = {"f16:*", "rotate=off,sink=4,f16:20,int8:64,q4_0:*",
                                    "rotate=k,sink=4,f16:20,int6/q8_0:*"};
    for (size_t i = 0; i < sizeof policies / sizeof *policies; i++)
        check_case(&(Case){.policy = policies[i],
                           .group = 32,
                           .head_dim = 64,
                           .q_per_kv = 3,
                           .query_size = 12,
                           .one_hot = true,
                           .batches = {60, 100, 17}});
}

static void test_magnitudes(void **state) {
    (void)state;
    const char *const codecs[] = {"int8", "int4", "q4_0", "fp8", "nf4", "binary"};
    for (size_t i = 0; i < sizeof codecs / sizeof *codecs; i++) {
        char policy[80];
        snprintf(policy, sizeof policy, "rotate=off,sink=3,f16:20,%s:*", codecs[i]);
        Case c = {.policy = policy, .group = 32, .head_dim = 64, .q_per_kv = 2, .batches = {100}};
        c.outliers = true;
        check_case(&c);
        c.outliers = false;
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

/* Numbers beyond FP16 are stored as its largest, and what their codes stand for may be larger again. */
static void test_saturated(void **state) {
    (void)state;
    for (const char *const *name = kv_codec_names(); *name != NULL; name++) {
        char policy[80];
        snprintf(policy, sizeof policy, "rotate=off,sink=3,f16:20,%s:*", *name);
        check_case(&(Case){.policy = policy,
                           .group = 32,
                           .head_dim = 64,
                           .q_per_kv = 1,
                           .key_size = 5e5f,
                           .value_size = 5e5f,
                           .query_size = 1e-5f,
                           .batches = {60}});
    }
}

/* The order of threads and blocks, and what shared memory holds at first. */
static void test_seeds(void **state) {
    (void)state;
    for (unsigned seed = 0; seed < 5; seed++) {
        cuda_shim_set_seed(seed);
        check_case(&(Case){.policy = "sink=4,f16:20,int8:64,fp8/binary:*",
                           .group = 32,
                           .head_dim = seed % 2 ? 80 : 128,
                           .n_kv_heads = 2,
                           .q_per_kv = 1 + seed,
                           .batches = {110, 21}});
    }
    cuda_shim_set_seed(0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_f16),       cmocka_unit_test(test_int8),    cmocka_unit_test(test_codecs),
        cmocka_unit_test(test_pairs),     cmocka_unit_test(test_shapes),  cmocka_unit_test(test_borders),
        cmocka_unit_test(test_cascades),  cmocka_unit_test(test_one_hot), cmocka_unit_test(test_magnitudes),
        cmocka_unit_test(test_saturated), cmocka_unit_test(test_seeds),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    printf("the largest relative error: %.3g\n", worst_rms);
    return failed;
}

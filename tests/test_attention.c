/* Attention against hand-computed cases, which hold the reference too, and against the reference, on every instruction
 * set. */
#include "attention/attend.h"
#include "attention/attention.h"
#include "attention/reference.h"
#include "base/half.h"
#include "base/simd/detect.h"
#include "kvcache/codec/weave.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MAX_DIM    256
#define MAX_TOKENS 1152
#define MAX_GROUP  16
#define MAX_TILES  (MAX_TOKENS / TILE_TOKENS + 1)

static uint16_t keys[MAX_TOKENS * MAX_DIM], values[MAX_TOKENS * MAX_DIM];
static float q[MAX_GROUP * MAX_DIM], out[MAX_GROUP * MAX_DIM], split_out[MAX_GROUP * MAX_DIM];
static double expected[MAX_GROUP * MAX_DIM], magnitude[MAX_GROUP * MAX_DIM];
static float partials[MAX_TILES * MAX_GROUP * PARTIAL_FLOATS(MAX_DIM)];
static AttentionScratch *scratch;

static KvSpan fp16_span(size_t first, size_t n_tokens, size_t head_dim) {
    const KvCodec *f16 = kv_codec(KV_F16);
    KvGroup group = {64, head_dim, 64, false};
    return (KvSpan){
        .side = {{KV_F16, group, kv_codec_bytes(f16, KV_KEYS, &group)},
                 {KV_F16, group, kv_codec_bytes(f16, KV_VALUES, &group)}},
        .records = {(const uint8_t *)(keys + first * head_dim), (const uint8_t *)(values + first * head_dim)},
        .n_tokens = n_tokens};
}

/* By itself, as a query block of one, and tile by tile from the last to the first, as threads may do it: the same to
 * the bit. */
static void attend(SimdLevel level, const AttentionShape *shape, const AttentionQuery *query) {
    const AttentionKernels *kernels = attention_kernels(level);
    size_t n_tokens = 0, size = shape->q_per_kv * shape->head_dim;
    size_t stride = shape->q_per_kv * PARTIAL_FLOATS(shape->head_dim);
    for (size_t s = 0; s < query->n_spans; s++)
        n_tokens += query->spans[s].n_tokens;
    size_t n_tiles = (n_tokens + TILE_TOKENS - 1) / TILE_TOKENS;
    memset(partials, 0xff, sizeof partials);
    for (size_t tile = n_tiles; tile-- > 0;)
        kernels->tiles(shape, query, tile, tile + 1, partials, stride, scratch);
    kernels->merge(shape, query, n_tiles, partials, stride, scratch);
    memcpy(split_out, query->out, size * sizeof *split_out);
    kernels->block(shape, query, 1, scratch);
    assert_memory_equal(query->out, split_out, size * sizeof *split_out);
    kernels->one(shape, query, scratch);
    assert_memory_equal(query->out, split_out, size * sizeof *split_out);
}

static void attend_spans(SimdLevel level, const KvSpan *spans, size_t n_spans, size_t q_per_kv, size_t head_dim) {
    attend(level, &(AttentionShape){q_per_kv, head_dim, ROPE_INTERLEAVED, {0, 0}},
           &(AttentionQuery){q, NULL, spans, n_spans, out, 0});
}

static void reference(const AttentionShape *shape, const AttentionQuery *query) {
    Error error = {0};
    if (attention_reference(shape, query, &KV_WOVEN_RECORDS, expected, magnitude, &error) < 0)
        fail_msg("%s", error.message);
}

static float random_normal(void) {
    static uint64_t state = 1;
    double sum = 0;
    for (int i = 0; i < 12; i++) {
        state = state * 6364136223846793005 + 1442695040888963407;
        sum += (double)(state >> 33) / 0x1p31;
    }
    return (float)(sum - 6);
}

/* Key t points along axis t, so a long query along axis t makes the softmax exactly one-hot: out is value t. */
static void test_one_hot(void **state) {
    (void)state;
    enum { DIM = 64, TOKENS = 64 };
    for (int i = 0; i < TOKENS * DIM; i++) {
        keys[i] = half_from_float(i / DIM == i % DIM ? 1.0f : 0.0f);
        values[i] = half_from_float((float)(i % 2039));
    }
    for (SimdLevel level = SIMD_SCALAR; level != SIMD_LEVEL_COUNT; level = cpu_next_level(level))
        for (size_t chosen = 0; chosen < TOKENS; chosen++)
            for (size_t q_per_kv = 1; q_per_kv <= 5; q_per_kv++) {
                for (size_t i = 0; i < q_per_kv * DIM; i++)
                    q[i] = i % DIM == (chosen + i / DIM) % TOKENS ? 4000.0f : 0.0f; /* e^(-4000/8): 0 beside 1 */
                KvSpan span = fp16_span(0, TOKENS, DIM);
                AttentionShape shape = {q_per_kv, DIM, ROPE_INTERLEAVED, {0, 0}};
                AttentionQuery query = {q, NULL, &span, 1, out, 0};
                attend(level, &shape, &query);
                reference(&shape, &query);
                for (size_t i = 0; i < q_per_kv * DIM; i++) {
                    int value = (int)((chosen + i / DIM) % TOKENS * DIM + i % DIM) % 2039;
                    assert_true(out[i] == (float)value);
                    assert_true(fabs(expected[i] - value) <= 1e-200); /* e^(-500) of the other values */
                }
            }
}

/* A score of log(3) beside one of 0: three quarters of one value and a quarter of the other. */
static void test_two_tokens(void **state) {
    (void)state;
    enum { DIM = 64 };
    for (size_t d = 0; d < DIM; d++) {
        q[d] = d == 5 ? 8 * logf(3) : 0.0f; /* divided by sqrt(64) */
        keys[d] = half_from_float(d == 5 ? 1.0f : 0.0f);
        keys[DIM + d] = half_from_float(d == 6 ? 1.0f : 0.0f);
        values[d] = half_from_float((float)d);
        values[DIM + d] = half_from_float(-1);
    }
    for (SimdLevel level = SIMD_SCALAR; level != SIMD_LEVEL_COUNT; level = cpu_next_level(level)) {
        KvSpan span = fp16_span(0, 2, DIM);
        AttentionShape shape = {1, DIM, ROPE_INTERLEAVED, {0, 0}};
        AttentionQuery query = {q, NULL, &span, 1, out, 0};
        attend(level, &shape, &query);
        reference(&shape, &query);
        for (size_t d = 0; d < DIM; d++) {
            double value = 0.75 * (double)d - 0.25;
            assert_true(fabs(expected[d] - value) <= 1e-5 && fabs((double)out[d] - value) <= 1e-5);
        }
    }
}

/* A quarter turn back brings a query along the second axis of a pair to the first: so it sees a shifted span, while it
 * sees another span as it is. Both tokens count alike. */
static void test_quarter_turn(void **state) {
    (void)state;
    enum { DIM = 32, PAIR = 3, HALF = DIM / 2 };
    const float back[2] = {0, -1}; /* cosine and sine of minus a quarter turn */
    float rotation[DIM];
    for (size_t i = 0; i < DIM; i++)
        rotation[i] = back[i % 2];
    for (size_t i = 0; i < 2 * DIM * DIM; i++) { /* twice DIM tokens, each along its axis */
        keys[i] = half_from_float(i / DIM % DIM == i % DIM ? 1.0f : 0.0f);
        values[i] = half_from_float((float)(i % 2039));
    }
    for (SimdLevel level = SIMD_SCALAR; level != SIMD_LEVEL_COUNT; level = cpu_next_level(level))
        for (RopePairing pairing = ROPE_INTERLEAVED; pairing <= ROPE_HALVES; pairing++) {
            size_t first = pairing == ROPE_INTERLEAVED ? 2 * PAIR : PAIR;
            size_t second = first + (pairing == ROPE_INTERLEAVED ? 1 : HALF);
            KvSpan spans[] = {fp16_span(0, DIM, DIM), fp16_span(DIM, DIM, DIM)};
            AttentionShape shape = {1, DIM, pairing, {0, 0}};
            AttentionQuery query = {q, rotation, spans, 2, out, 0};
            spans[0].shifted = true;
            for (size_t d = 0; d < DIM; d++)
                q[d] = d == second ? 4000.0f : 0.0f;
            attend(level, &shape, &query);
            reference(&shape, &query);
            for (size_t d = 0; d < DIM; d++) {
                float value = (float)((first * DIM + d) % 2039 + ((DIM + second) * DIM + d) % 2039) / 2;
                assert_true(out[d] == value);
                assert_true(expected[d] == (double)value);
            }
        }
}

static void fill_random(size_t n_tokens, size_t q_per_kv, size_t head_dim) {
    for (size_t i = 0; i < n_tokens * head_dim; i++) {
        keys[i] = half_from_float(random_normal());
        values[i] = half_from_float(random_normal());
    }
    for (size_t i = 0; i < q_per_kv * head_dim; i++)
        q[i] = random_normal() * 2;
}

/* A score is a sum of head_dim F32 products of size |q||k|/sqrt(d), below 40 here: its error is below
 * head_dim * 2^-24 * 40, and a weight's relative error is that of its score. Sums over tokens add n_tokens * 2^-24.
 * A rotation adds log2(head_dim) roundings to queries and outputs, of values spread over the whole head: the output's
 * error is then relative to the largest element.
 *
 * Codes are multiplied with quantized queries and weights, off by 2^-16 of the largest of 64: in a score, head_dim such
 * errors of up to 40 * 2^-16 / sqrt(head_dim) add up as a random walk does, here to four times 40 * 2^-16 at most.
 * Those of weights are smaller, but relative to the largest element too. */
typedef enum Arithmetic { FLOATS, ROTATED, CODES } Arithmetic;

static void check_against_reference(const char *what, const AttentionShape *shape, const AttentionQuery *query,
                                    Arithmetic arithmetic) {
    size_t n_tokens = 0, head_dim = shape->head_dim;
    for (size_t s = 0; s < query->n_spans; s++)
        n_tokens += query->spans[s].n_tokens;
    double tolerance = ((double)head_dim * 40 + (double)n_tokens) * 0x1p-24;
    if (arithmetic != FLOATS)
        tolerance *= 2;
    if (arithmetic == CODES)
        tolerance += 4 * 40 * 0x1p-16;
    reference(shape, query);
    for (size_t i = 0; i < shape->q_per_kv * head_dim; i++) {
        double largest = 0;
        for (size_t d = 0; d < head_dim; d++)
            largest = fmax(largest, magnitude[i / head_dim * head_dim + d]);
        if (!(fabs((double)query->out[i] - expected[i]) <= (arithmetic == FLOATS ? magnitude[i] : largest) * tolerance))
            fail_msg("%s, head_dim %zu, %zu heads, %zu tokens: %.9g, expected %.9g", what, head_dim, shape->q_per_kv,
                     n_tokens, (double)query->out[i], expected[i]);
    }
}

static void check_random(SimdLevel level, size_t head_dim, size_t q_per_kv, const size_t *span_tokens, size_t n_spans) {
    size_t n_tokens = 0;
    KvSpan spans[2];
    for (size_t s = 0; s < n_spans; s++) {
        spans[s] = fp16_span(n_tokens, span_tokens[s], head_dim);
        n_tokens += span_tokens[s];
    }
    fill_random(n_tokens, q_per_kv, head_dim);
    AttentionShape shape = {q_per_kv, head_dim, ROPE_INTERLEAVED, {0, 0}};
    AttentionQuery query = {q, NULL, spans, n_spans, out, 0};
    attend(level, &shape, &query);
    check_against_reference(simd_level_name(level), &shape, &query, FLOATS);
}

static void test_random_against_double(void **state) {
    (void)state;
    const size_t dims[] = {6, 8, 16, 32, 48, 64, 80, 90, 100, 128, 256},
                 lengths[] = {1, 2, 7, 63, 64, 65, 320, TILE_TOKENS - 1, TILE_TOKENS, TILE_TOKENS + 1, 1100};
    for (SimdLevel level = SIMD_SCALAR; level != SIMD_LEVEL_COUNT; level = cpu_next_level(level))
        for (size_t i = 0; i < sizeof dims / sizeof *dims; i++)
            for (size_t j = 0; j < sizeof lengths / sizeof *lengths; j++)
                check_random(level, dims[i], 1 + (i + j) % MAX_GROUP, &lengths[j], 1);
}

static void test_several_spans(void **state) {
    (void)state;
    const size_t cases[][2] = {{1, 1}, {16, 100}, {64, 64}, {0, 5}, {5, 0}};
    for (SimdLevel level = SIMD_SCALAR; level != SIMD_LEVEL_COUNT; level = cpu_next_level(level))
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
            check_random(level, 64, 3, cases[i], 2);
}

/* The same tokens in one span, or cut anywhere: the order of sums is that of the tokens. */
static void test_cuts_change_nothing(void **state) {
    (void)state;
    enum { TOKENS = TILE_TOKENS + 188, DIM = 64, HEADS = 3 };
    static float whole[HEADS * DIM];
    fill_random(TOKENS, HEADS, DIM);
    for (SimdLevel level = SIMD_SCALAR; level != SIMD_LEVEL_COUNT; level = cpu_next_level(level)) {
        KvSpan span = fp16_span(0, TOKENS, DIM);
        attend_spans(level, &span, 1, HEADS, DIM);
        memcpy(whole, out, sizeof whole);
        for (size_t cut = 1; cut < TOKENS; cut += 37) {
            KvSpan spans[] = {fp16_span(0, cut, DIM), fp16_span(cut, TOKENS - cut, DIM)};
            attend_spans(level, spans, 2, HEADS, DIM);
            assert_memory_equal(out, whole, sizeof whole);
        }
    }
}

/* Encodes one side of `n_tokens` (whole groups) of `keys` or `values`, malloc'd records in the woven form. */
static uint8_t *encode_side(const KvEncoding *encoding, KvSide side, size_t n_tokens) {
    const KvCodec *codec = kv_codec(encoding->codec);
    const KvGroup *group = &encoding->group;
    size_t size = group->n_tokens * group->head_dim, bytes = encoding->record_bytes;
    const uint16_t *rows = side == KV_KEYS ? keys : values;
    uint8_t *records = malloc(bytes * (n_tokens / group->n_tokens));
    float *from = malloc(2 * size * sizeof *from);
    for (size_t g = 0; g < n_tokens / group->n_tokens; g++) {
        for (size_t i = 0; i < size; i++)
            from[i] = half_to_float(rows[g * size + i]);
        kv_codec_encode(codec, SIMD_SCALAR, side, group, from, from + size, records + g * bytes);
        memcpy(from + size, records + g * bytes, bytes);
        KV_WOVEN_RECORDS.store(kv_codec_id(codec), side, group, (uint8_t *)(from + size), records + g * bytes);
    }
    free(from);
    return records;
}

/* A sink of 13, so that tiles end anywhere in a group, then encoded groups that reach into a second tile, then 45
 * tokens in FP16. */
static void check_codecs(KvCodecId k, KvCodecId v, bool rotated, size_t head_dim, size_t group_tokens,
                         size_t q_per_kv) {
    enum { SINK = 13, TAIL = 45 };
    size_t n_encoded = (TILE_TOKENS / group_tokens + 1) * group_tokens, n_tokens = SINK + n_encoded + TAIL;
    const KvCodecId ids[KV_SIDES] = {k, v};
    KvSpan encoded = {.n_tokens = n_encoded, .store = KV_TIER(1)};
    for (KvSide side = 0; side < KV_SIDES; side++) {
        KvGroup group = {group_tokens, head_dim, group_tokens, rotated && ids[side] != KV_F16};
        if (kv_codec_check(kv_codec(ids[side]), &group, NULL) < 0)
            return;
        encoded.side[side] = (KvEncoding){ids[side], group, kv_codec_bytes(kv_codec(ids[side]), side, &group)};
    }
    for (SimdLevel level = SIMD_SCALAR; level != SIMD_LEVEL_COUNT; level = cpu_next_level(level)) {
        fill_random(n_tokens, q_per_kv, head_dim);
        KvSpan sink = fp16_span(n_encoded, SINK, head_dim), tail = fp16_span(n_encoded + SINK, TAIL, head_dim);
        uint8_t *records[KV_SIDES];
        for (KvSide side = 0; side < KV_SIDES; side++)
            encoded.records[side] = records[side] = encode_side(&encoded.side[side], side, n_encoded);
        KvSpan spans[] = {sink, encoded, tail}; /* the order of tokens does not change a softmax */
        AttentionShape shape = {q_per_kv, head_dim, ROPE_INTERLEAVED, {0, 0}};
        AttentionQuery query = {q, NULL, spans, 3, out, 0};
        attend(level, &shape, &query);
        char what[64];
        snprintf(what, sizeof what, "%s, %s/%s%s", simd_level_name(level), kv_codec_name(kv_codec(k)),
                 kv_codec_name(kv_codec(v)), rotated ? " rotated" : "");
        bool coded = is_coded(&encoded, KV_KEYS) || is_coded(&encoded, KV_VALUES);
        check_against_reference(what, &shape, &query, coded ? CODES : rotated ? ROTATED : FLOATS);
        free(records[KV_KEYS]);
        free(records[KV_VALUES]);
    }
}

static void test_codec_pairs(void **state) {
    (void)state;
    for (KvCodecId k = 0; k < KV_CODEC_COUNT; k++)
        for (KvCodecId v = 0; v < KV_CODEC_COUNT; v++) {
            check_codecs(k, v, false, 64, 64, 3);
            check_codecs(k, v, true, 64, 32, 2);
        }
}

static void test_codec_shapes(void **state) {
    (void)state;
    const size_t dims[] = {32, 64, 96, 128, 256};
    for (KvCodecId codec = 0; codec < KV_CODEC_COUNT; codec++)
        for (size_t i = 0; i < sizeof dims / sizeof *dims; i++) {
            check_codecs(codec, codec, false, dims[i], 64, 1 + (codec + i) % MAX_GROUP);
            check_codecs(codec, codec, true, dims[i], 64, 1 + (codec + i) % MAX_GROUP);
        }
}

static size_t random_below(size_t n) {
    return (size_t)(fabsf(random_normal()) * 1e6f) % n;
}

/* Queries of one call that see any runs of tokens in any order, or the same ones as the query before, against the same
 * queries one by one. Spans may agree in number, in tokens or in where they begin, and still differ in the rest. */
static void test_queries_that_disagree(void **state) {
    (void)state;
    enum { DIM = 64, HEADS = 3, QUERIES = 12, SPANS = 3 };
    static float many_q[QUERIES * HEADS * DIM], together[QUERIES * HEADS * DIM];
    fill_random(MAX_TOKENS, MAX_GROUP, DIM);
    for (size_t i = 0; i < QUERIES * HEADS * DIM; i++)
        many_q[i] = random_normal();
    for (SimdLevel level = SIMD_SCALAR; level != SIMD_LEVEL_COUNT; level = cpu_next_level(level))
        for (size_t round = 0; round < 20; round++) {
            KvSpan spans[QUERIES][SPANS];
            AttentionQuery queries[QUERIES];
            AttentionShape shape = {HEADS, DIM, ROPE_INTERLEAVED, {0, 0}};
            for (size_t i = 0; i < QUERIES; i++) {
                for (size_t s = 0; s < SPANS; s++) {
                    size_t begin = random_below(MAX_TOKENS / 2), n = random_below(MAX_TOKENS / 2);
                    if (i > 0)
                        spans[i][s] = spans[i - 1][s];
                    if (i == 0 || random_below(4) == 0)
                        spans[i][s] = fp16_span(begin, n, DIM);
                    else if (random_below(4) == 0)
                        spans[i][s].n_tokens = n;
                }
                float *to = together + i * HEADS * DIM;
                queries[i] = (AttentionQuery){many_q + i * HEADS * DIM, NULL, spans[i], SPANS, to, 0};
            }
            attention_kernels(level)->block(&shape, queries, QUERIES, scratch);
            for (size_t i = 0; i < QUERIES; i++) {
                queries[i].out = out;
                attention_kernels(level)->one(&shape, &queries[i], scratch);
                assert_memory_equal(out, together + i * HEADS * DIM, HEADS * DIM * sizeof *out);
            }
        }
}

/* A shifted span is seen by the query that RoPE has turned back; the reference turns the keys forward instead. */
static void test_shifted_span(void **state) {
    (void)state;
    enum { DIM = 32, SINK = 5, TAIL = 9, HEADS = 5 };
    float rotation[DIM];
    for (size_t i = 0; i < DIM / 2; i++) {
        rotation[2 * i] = (float)cos(-77.0 * pow(1000, -2.0 * (double)i / DIM));
        rotation[2 * i + 1] = (float)sin(-77.0 * pow(1000, -2.0 * (double)i / DIM));
    }
    for (SimdLevel level = SIMD_SCALAR; level != SIMD_LEVEL_COUNT; level = cpu_next_level(level)) {
        fill_random(SINK + TAIL, HEADS, DIM);
        KvSpan spans[] = {fp16_span(0, SINK, DIM), fp16_span(SINK, TAIL, DIM)};
        spans[0].shifted = true;
        for (RopePairing pairing = ROPE_INTERLEAVED; pairing <= ROPE_HALVES; pairing++) {
            AttentionShape shape = {HEADS, DIM, pairing, {0, 0}};
            AttentionQuery query = {q, rotation, spans, 2, out, 0};
            attend(level, &shape, &query);
            check_against_reference("shifted", &shape, &query, ROTATED);
        }
    }
}

static void test_nan_is_not_hidden(void **state) {
    (void)state;
    for (SimdLevel level = SIMD_SCALAR; level != SIMD_LEVEL_COUNT; level = cpu_next_level(level)) {
        size_t n = 70;
        check_random(level, 64, 1, &n, 1);
        keys[64 * 67] = 0x7e00;
        KvSpan span = fp16_span(0, n, 64);
        attend_spans(level, &span, 1, 1, 64);
        assert_true(isnan(out[0]));
    }
}

/* What is not finite in one head's query reaches that head's output through the scale of the quantized query, and no
 * other head's: few heads and many. */
static void test_numbers_that_are_not_finite(void **state) {
    (void)state;
    enum { DIM = 64, TOKENS = 64, BAD = 1 };
    const KvCodecId ids[] = {KV_INT8, KV_Q4_0};
    const float bad[] = {NAN, INFINITY};
    const size_t head_counts[] = {3, MAX_GROUP};
    for (SimdLevel level = SIMD_SCALAR; level != SIMD_LEVEL_COUNT; level = cpu_next_level(level))
        for (size_t i = 0; i < 8; i++) {
            size_t q_per_kv = head_counts[i / 4];
            KvSpan span = {.n_tokens = TOKENS};
            fill_random(TOKENS, q_per_kv, DIM);
            for (KvSide side = 0; side < KV_SIDES; side++) {
                const KvCodec *codec = kv_codec(ids[i % 2]);
                KvGroup group = {64, DIM, 64, false};
                span.side[side] = (KvEncoding){ids[i % 2], group, kv_codec_bytes(codec, side, &group)};
                span.records[side] = encode_side(&span.side[side], side, TOKENS);
            }
            q[BAD * DIM + 5] = bad[i / 2 % 2];
            attend_spans(level, &span, 1, q_per_kv, DIM);
            for (size_t h = 0; h < q_per_kv; h++)
                for (size_t d = 0; d < DIM; d++)
                    assert_true(isnan(out[h * DIM + d]) == (h == BAD));
            free((void *)(uintptr_t)span.records[KV_KEYS]);
            free((void *)(uintptr_t)span.records[KV_VALUES]);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_hot),
        cmocka_unit_test(test_two_tokens),
        cmocka_unit_test(test_quarter_turn),
        cmocka_unit_test(test_random_against_double),
        cmocka_unit_test(test_several_spans),
        cmocka_unit_test(test_cuts_change_nothing),
        cmocka_unit_test(test_codec_pairs),
        cmocka_unit_test(test_codec_shapes),
        cmocka_unit_test(test_queries_that_disagree),
        cmocka_unit_test(test_shifted_span),
        cmocka_unit_test(test_nan_is_not_hidden),
        cmocka_unit_test(test_numbers_that_are_not_finite),
    };
    scratch = aligned_alloc(64, attention_scratch_bytes());
    memset(scratch, 0, attention_scratch_bytes());
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    free(scratch);
    return failed;
}

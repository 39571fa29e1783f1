/* The cache as a whole: every query sees each token in the form that the plan gives it, whatever the batches; the
 * model's logits do not depend on them; streaming agrees with the slow way; the ledger and the counters are right. */
#include "base/checked.h"
#include "base/half.h"
#include "base/simd/detect.h"
#include "cpu/backend.h"
#include "kvcache/codec/weave.h"
#include "kvcache/ledger.h"
#include "kvcache/policy_check.h"
#include "kvcache/policy_text.h"
#include "model/model.h"
#include "tests/fixture_files.h"
#include "tests/plain_moments.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { DIM = 64, N_TOKENS = 400, N_KV_HEADS = 2, N_HEADS = 3 * N_KV_HEADS, MAX_VIEW = N_TOKENS };

static float fresh_keys[N_TOKENS][N_KV_HEADS][DIM], fresh_values[N_TOKENS][N_KV_HEADS][DIM];
static float fresh_queries[N_TOKENS][N_HEADS][DIM];

static uint64_t random_state = 1;

static size_t random_below(size_t n) {
    random_state = random_state * 6364136223846793005 + 1442695040888963407;
    return (size_t)(random_state >> 33) % n;
}

static void random_ids(int32_t *ids, size_t n) {
    for (size_t i = 0; i < n; i++)
        ids[i] = (int32_t)random_below(96); /* the tiny models' vocabulary */
}

static void fill_tokens(void) {
    for (size_t t = 0; t < N_TOKENS; t++)
        for (size_t h = 0; h < N_HEADS; h++)
            for (size_t d = 0; d < DIM; d++) /* each token's in few directions: rounding differs from token to token */
                fresh_queries[t][h][d] = d % 8 == t % 8 ? (float)random_below(20001) / 1e4f - 1 : 0.01f;
    for (size_t t = 0; t < N_TOKENS; t++)
        for (size_t h = 0; h < N_KV_HEADS; h++)
            for (size_t d = 0; d < DIM; d++) {
                fresh_keys[t][h][d] = (float)random_below(20001) / 1e4f - 1;
                fresh_values[t][h][d] = (float)random_below(20001) / 1e4f - 1;
            }
}

/* keys[t], values[t]: each token as the codec of tier t decodes it (still rotated), from what the tier before gave. */
typedef struct Forms {
    float keys[KV_MAX_TIERS][N_TOKENS][DIM], values[KV_MAX_TIERS][N_TOKENS][DIM];
} Forms;

/* Encodes a group from `rows` and decodes it into `out`, then turns `rows` into what the next tier starts from. Keys
 * are rounded with `moments`, and values fitted, if not NULL. */
static void pass_through(const KvPolicy *policy, KvCodecId id, KvSide side, const float *moments, float *rows,
                         float *out) {
    static float scratch[64 * DIM * 2], factor[DIM * DIM];
    static uint8_t record[64 * DIM * 4];
    const KvCodec *codec = kv_codec(id);
    KvGroup group = {policy->group, DIM, policy->group, kv_policy_rotates(policy, side, id, DIM)};
    if (moments != NULL && side == KV_KEYS && kv_codec_rounds_aware(codec)) {
        assert_true(kv_moments_factor(SIMD_SCALAR, moments, DIM, DIM, group.rotated, factor));
        if (group.rotated)
            kv_rotate(rows, group.n_tokens, DIM);
        kv_codec_encode_aware(codec, SIMD_SCALAR, &group, factor, rows, scratch, record);
    } else if (moments != NULL && side == KV_VALUES && kv_codec_is_fitted(codec, KV_VALUES)) {
        if (group.rotated)
            kv_rotate(rows, group.n_tokens, DIM);
        kv_codec_encode_fitted(codec, SIMD_SCALAR, &group, rows, record);
    } else
        kv_codec_encode(codec, SIMD_SCALAR, side, &group, rows, scratch, record);
    kv_codec_decoder(codec, SIMD_SCALAR)(side, &group, record, 0, group.n_tokens, out);
    memcpy(rows, out, group.n_tokens * DIM * sizeof *rows);
    if (group.rotated)
        kv_rotate(rows, group.n_tokens, DIM);
}

/* moments[n]: of the queries of n tokens that came one by one, as a group finds them that the last one pushes out. */
static const float *moments_by_token(const KvPolicy *policy, size_t head) {
    enum { FLOATS = DIM / 16 * (DIM / 16 + 1) / 2 * 256, HEADS = N_HEADS / N_KV_HEADS };
    static float moments[N_TOKENS + 1][FLOATS];
    assert_int_equal(kv_moments_floats(DIM), FLOATS);
    memset(moments[0], 0, sizeof moments[0]);
    for (size_t n = 1; n <= N_TOKENS; n++) {
        const KvLayerPolicy *layer = &policy->rules[0].policy;
        memcpy(moments[n], moments[n - 1], sizeof moments[n]);
        if (n > 1 && kv_plan(layer, policy->group, n - 1).entered[1] > kv_plan(layer, policy->group, n - 2).entered[1])
            for (size_t i = 0; i < FLOATS; i++)
                moments[n][i] *= KV_MOMENTS_MEMORY;
        for (size_t h = 0; h < HEADS; h++)
            plain_moments_add(moments[n], DIM, fresh_queries[n - 1][head * HEADS + h]);
    }
    return moments[0];
}

/* How many tokens have come when the group that begins at `first` enters the tier. */
static size_t arrival(const KvPolicy *policy, size_t tier, size_t first) {
    const KvLayerPolicy *layer = &policy->rules[0].policy;
    size_t n = 0;
    while (n < N_TOKENS && kv_plan(layer, policy->group, n).entered[tier] < first - layer->sink + policy->group)
        n++;
    return n;
}

static void compute_forms(const KvPolicy *policy, bool takes_queries, size_t head, Forms *forms) {
    const KvLayerPolicy *layer = &policy->rules[0].policy;
    static float keys[N_TOKENS][DIM], values[N_TOKENS][DIM];
    const float *moments = takes_queries ? moments_by_token(policy, head) : NULL;
    for (size_t t = 0; t < N_TOKENS; t++)
        for (size_t d = 0; d < DIM; d++) {
            keys[t][d] = forms->keys[0][t][d] = half_to_float(half_from_float(fresh_keys[t][head][d]));
            values[t][d] = forms->values[0][t][d] = half_to_float(half_from_float(fresh_values[t][head][d]));
        }
    for (size_t tier = 1; tier < layer->n_tiers; tier++)
        for (size_t first = layer->sink; first + policy->group <= N_TOKENS; first += policy->group) {
            const float *seen = moments;
            if (seen != NULL)
                seen += arrival(policy, tier, first) * kv_moments_floats(DIM);
            pass_through(policy, layer->tiers[tier].k, KV_KEYS, seen, keys[first], forms->keys[tier][first]);
            pass_through(policy, layer->tiers[tier].v, KV_VALUES, seen, values[first], forms->values[tier][first]);
        }
}

/* Views of neighbouring positions show the same records: one that still has the bytes that were decoded last is not
 * decoded again. */
typedef struct Decoded {
    const uint8_t *record;
    uint8_t bytes[64 * DIM * sizeof(float)];
    float rows[64][DIM];
} Decoded;

static Decoded decoded[64]; /* by the record's address */

static const float *decode_record(const KvRecordForm *form, const KvEncoding *encoding, KvSide side,
                                  const uint8_t *record) {
    static uint8_t plain[64 * DIM * sizeof(float)];
    Decoded *d = &decoded[(uintptr_t)record / 64 % 64];
    if (d->record != record || memcmp(d->bytes, record, encoding->record_bytes) != 0) {
        form->load(encoding->codec, side, &encoding->group, record, plain);
        kv_codec_decoder(kv_codec(encoding->codec), SIMD_SCALAR)(side, &encoding->group, plain, 0,
                                                                 encoding->group.n_tokens, d->rows[0]);
        d->record = record;
        memcpy(d->bytes, record, encoding->record_bytes);
    }
    return d->rows[0];
}

static void read_side(const KvRecordForm *form, const KvSpan *span, KvSide side, float (*out)[DIM]) {
    const KvEncoding *encoding = &span->side[side];
    const uint8_t *record = span->records[side];
    for (size_t t = 0, n; t < span->n_tokens; t += n, record += encoding->record_bytes) {
        n = at_most(span->n_tokens - t, encoding->group.n_tokens);
        if (span->store < KV_FIRST_ENCODED)
            kv_codec_decoder(kv_codec(encoding->codec), SIMD_SCALAR)(side, &encoding->group, record, 0, n, out[t]);
        else
            memcpy(out[t], decode_record(form, encoding, side, record), n * sizeof *out);
    }
}

/* Decodes all that a view shows, in its order. Returns the number of tokens. */
static size_t read_view(const KvRecordForm *form, const KvSpan *spans, size_t n_spans, float (*keys)[DIM],
                        float (*values)[DIM]) {
    size_t n = 0;
    for (size_t s = 0; s < n_spans; n += spans[s].n_tokens, s++) {
        read_side(form, &spans[s], KV_KEYS, keys + n);
        read_side(form, &spans[s], KV_VALUES, values + n);
    }
    return n;
}

static void expect_rows(float (*rows)[DIM], const float (*expected)[DIM], size_t n, size_t first, size_t position) {
    for (size_t t = 0; t < n; t++)
        if (memcmp(rows[t], expected[t], sizeof *rows) != 0)
            fail_msg("the query at %zu sees token %zu in another form", position, first + t);
}

/* What the query at `position` must see: the sink, then the tiers from the oldest on. */
static void check_view(const KvCache *cache, const Forms *forms, size_t head, size_t position) {
    static float keys[MAX_VIEW][DIM], values[MAX_VIEW][DIM];
    KvSpan spans[KV_MAX_SPANS];
    size_t n_spans = kvcache_view(cache, 0, head, position, spans);
    size_t n = read_view(cache->layout.form, spans, n_spans, keys, values);
    KvPlan plan = kvcache_layer_plan(&cache->layout, 0, position + 1);
    assert_true(n_spans <= KV_MAX_SPANS);
    expect_rows(keys, forms->keys[0], plan.n_sink, 0, position);
    expect_rows(values, forms->values[0], plan.n_sink, 0, position);
    size_t at = plan.n_sink;
    for (size_t tier = plan.n_tiers; tier-- > 0;) {
        size_t begin = kv_plan_begin(&plan, tier), held = kv_plan_end(&plan, tier) - begin;
        expect_rows(keys + at, forms->keys[tier] + begin, held, begin, position);
        expect_rows(values + at, forms->values[tier] + begin, held, begin, position);
        at += held;
    }
    assert_int_equal(at, n);
}

static void *cache_memory(const KvCache *cache) {
    size_t bytes = kvcache_bytes(cache);
    void *memory = aligned_alloc(64, bytes + 64);
    memset(memory, 0xff, bytes + 64); /* NaN wherever nothing was written */
    return memory;
}

/* All tokens in random batches; every query's view is checked, then the counters and the ledger. */
static void check_policy(const char *text, size_t group, size_t n_batch, const KvRecordForm *form) {
    Error error = {0};
    KvPolicy policy = kv_policy_full();
    KvShape shape = {1, N_KV_HEADS, DIM, N_TOKENS, n_batch, {{0}}, 0};
    KvCache cache;
    static Forms forms[N_KV_HEADS];
    if (kv_policy_parse(text, &policy, &error) < 0)
        fail_msg("%s", error.message);
    policy.group = group;
    if (kv_policy_check(&policy, 1, DIM, N_TOKENS, &error) < 0 ||
        kvcache_open(&cache, &shape, &policy, form, &error) < 0)
        fail_msg("%s", error.message);
    void *memory = cache_memory(&cache);
    kvcache_set_memory(&cache, memory);
    kvcache_clear(&cache);               /* zeroes what must be */
    cache.level = cpu_best_simd_level(); /* what is expected comes from the scalar one */
    memset(decoded, 0, sizeof decoded);
    for (size_t head = 0; head < N_KV_HEADS; head++)
        compute_forms(&policy, form->takes_queries && policy.rounding != KV_ROUND_NEAREST, head, &forms[head]);
    for (size_t first = 0; first < N_TOKENS;) {
        size_t n = 1 + random_below(n_batch);
        n = n < N_TOKENS - first ? n : N_TOKENS - first;
        for (size_t head = 0; head < N_KV_HEADS; head++) {
            kvcache_append(&cache, 0, head, n,
                           &(KvRows){fresh_keys[first][0], fresh_values[first][0], fresh_queries[first][0], N_HEADS});
            for (size_t t = 0; t < n; t++)
                check_view(&cache, &forms[head], head, first + t);
            kvcache_commit(&cache, 0, head, n);
        }
        kvcache_advance(&cache, n);
        first += n;
    }
    KvPlan plan = kvcache_layer_plan(&cache.layout, 0, N_TOKENS);
    KvLedger ledger;
    kv_ledger(&cache, &ledger);
    assert_int_equal(ledger.bytes, cache.layout.kept_bytes);
    size_t n_sinks = policy.rules[0].policy.sink > 0; /* without a sink, no row for it */
    assert_int_equal(ledger.n_rows, plan.n_tiers + n_sinks);
    for (size_t i = 0; i < ledger.n_rows; i++) {
        const KvLedgerRow *row = &ledger.rows[i];
        assert_int_equal(row->store, i + 1 - n_sinks);
        assert_int_equal(row->tokens_encoded, row->store == 0 ? plan.n_sink : plan.entered[row->store - 1]);
        assert_int_equal(row->tokens, row->store == 0 ? plan.n_sink : kv_plan_held(&plan, row->store - 1));
        assert_true(row->bytes_held <= row->bytes);
    }
    kvcache_close(&cache);
    free(memory);
}

static void test_views(void **state) {
    (void)state;
    fill_tokens();
    const char *const policies[] = {"f16:*",
                                    "sink=16,f16:32",
                                    "sink=16,f16:32,int8:*",
                                    "sink=3,f16:0,int8/q4_0:*",
                                    "sink=5,f16:7,int8:70,q4_0:100,nf4:*",
                                    "f16:33,q8_0:64,int4:64",
                                    "sink=0,f16:1,f16:64,int2:0,binary:*",
                                    "sink=1,f16:64,f16/int4:10",
                                    "sink=400,f16:*",
                                    "f16:0,q4_1:*",
                                    "sink=7,f16:20,int3:90,int2:*",
                                    "f16:20,int8:70,int4:70,int8:*",
                                    "rounding=nearest,sink=4,f16:32,int4:*"};
    const size_t batches[] = {1, 7, 64, 128, 400};
    for (size_t i = 0; i < sizeof policies / sizeof *policies; i++)
        for (size_t j = 0; j < sizeof batches / sizeof *batches; j++) {
            check_policy(policies[i], 64, batches[j], &KV_WOVEN_RECORDS);
            check_policy(policies[i], 32, batches[j], &KV_WOVEN_RECORDS);
        }
    check_policy("sink=5,f16:7,int8:70,q4_0:100,nf4:*", 64, 128, &KV_PLAIN_RECORDS);
    check_policy("sink=1,f16:64,f16/int4:10", 32, 7, &KV_PLAIN_RECORDS);
}

/* A form whose records are longer than the codec's, and hold it from their end to their beginning. */
enum { PADDING = 40 };

static size_t reversed_bytes(KvCodecId id, KvSide side, const KvGroup *group) {
    return kv_codec_bytes(kv_codec(id), side, group) + PADDING;
}

static void store_reversed(KvCodecId id, KvSide side, const KvGroup *group, const uint8_t *record, uint8_t *stored) {
    size_t n = kv_codec_bytes(kv_codec(id), side, group);
    for (size_t i = 0; i < n; i++)
        stored[n - 1 - i] = record[i];
    memset(stored + n, 0xa5, PADDING);
}

static void load_reversed(KvCodecId id, KvSide side, const KvGroup *group, const uint8_t *stored, uint8_t *record) {
    size_t n = kv_codec_bytes(kv_codec(id), side, group);
    for (size_t i = 0; i < n; i++)
        record[i] = stored[n - 1 - i];
    for (size_t i = 0; i < PADDING; i++)
        assert_int_equal(stored[n + i], 0xa5);
}

/* The storage neither knows the form of records nor their size. */
static void test_another_form(void **state) {
    (void)state;
    const KvRecordForm reversed = {reversed_bytes, store_reversed, load_reversed, true, true};
    fill_tokens();
    check_policy("sink=5,f16:7,int8:70,q4_0:100,nf4:*", 64, 128, &reversed);
    check_policy("sink=16,f16:32,f16/int8g:64,q5_1:64", 32, 50, &reversed);
}

typedef struct Run {
    Model model;
    Context context;
} Run;

static void open_run(Run *run, const char *policy_text, KvRotation rotation, size_t n_ctx, size_t n_batch) {
    Error error = {0};
    Backend *backend;
    KvPolicy policy = kv_policy_full();
    if (kv_policy_parse(policy_text, &policy, &error) < 0)
        fail_msg("%s", error.message);
    policy.group = 32;
    policy.rotation = rotation;
    assert_int_equal(cpu_backend_open(&backend, cpu_best_simd_level(), 2, &error), 0);
    if (model_open(&run->model, fixture_path("STOWKV_FIXTURES", "models/f32.gguf"), backend, &error) < 0 ||
        context_open(&run->context, &run->model, &policy, n_ctx, n_batch, &error) < 0)
        fail_msg("%s: %s", policy_text, error.message);
}

static void close_run(Run *run) {
    context_close(&run->context);
    model_close(&run->model);
}

/* malloc'd logits (n_tokens, n_vocab). */
static float *run_tokens(Run *run, const int32_t *tokens, size_t n_tokens) {
    Error error = {0};
    size_t n_vocab = run->model.checkpoint.config.n_vocab;
    float *logits = malloc(n_tokens * n_vocab * sizeof *logits);
    for (size_t done = 0; done < n_tokens;) {
        size_t n = context_batch(&run->context, n_tokens - done);
        if (forward(&run->context, tokens + done, n, LOGITS_ALL, &error) < 0)
            fail_msg("%s", error.message);
        memcpy(logits + done * n_vocab, run->context.logits, n * n_vocab * sizeof *logits);
        done += n;
    }
    return logits;
}

static float *logits_of(const char *policy, KvRotation rotation, size_t n_batch, const int32_t *tokens, size_t n_tokens,
                        size_t *n) {
    Run run;
    open_run(&run, policy, rotation, 600, n_batch);
    float *logits = run_tokens(&run, tokens, n_tokens);
    *n = n_tokens * run.model.checkpoint.config.n_vocab;
    close_run(&run);
    return logits;
}

/* Tiles are cut by tokens and sums have one order, so logits are the same to the bit. */
static void test_batches_change_nothing(void **state) {
    (void)state;
    enum { N = 530 };
    static int32_t tokens[N];
    random_ids(tokens, N);
    const char *const policies[] = {"f16:*",
                                    "sink=4,f16:40",
                                    "sink=4,f16:8,int8:*",
                                    "sink=4,f16:8,int8/nf4:96,q4_0:*",
                                    "sink=4,f16:8,int4:64",
                                    "@0:f16:*;@1:sink=4,f16:8,q8_0:*"};
    for (size_t i = 0; i < sizeof policies / sizeof *policies; i++) {
        size_t n;
        float *one = logits_of(policies[i], KV_ROTATE_AUTO, 1, tokens, N, &n);
        const size_t batches[] = {7, 64, 512};
        for (size_t j = 0; j < sizeof batches / sizeof *batches; j++) {
            float *many = logits_of(policies[i], KV_ROTATE_AUTO, batches[j], tokens, N, &n);
            if (memcmp(one, many, n * sizeof *one) != 0)
                fail_msg("%s: batches of %zu differ from single tokens", policies[i], batches[j]);
            free(many);
        }
        free(one);
    }
}

/* A window that holds the whole context quantizes nothing: the same bits as the full cache. And a smaller one does
 * change them, or this test would see nothing. */
static void test_window_of_the_context(void **state) {
    (void)state;
    enum { N = 200 };
    int32_t tokens[N];
    random_ids(tokens, N);
    size_t n;
    float *full = logits_of("f16:*", KV_ROTATE_AUTO, 64, tokens, N, &n);
    float *window = logits_of("sink=16,f16:584,int8:*", KV_ROTATE_AUTO, 64, tokens, N, &n);
    float *small = logits_of("sink=16,f16:32,int8:*", KV_ROTATE_AUTO, 64, tokens, N, &n);
    assert_memory_equal(window, full, n * sizeof *full);
    assert_memory_not_equal(small, full, n * sizeof *full);
    free(full);
    free(window);
    free(small);
}

/* Rotation is exact but for rounding: with q8_0 logits stay within 3 % of the full cache's, rotated or not. */
static void test_rotation_cancels(void **state) {
    (void)state;
    enum { N = 200 };
    int32_t tokens[N];
    random_ids(tokens, N);
    size_t n;
    float *full = logits_of("f16:*", KV_ROTATE_AUTO, 64, tokens, N, &n);
    for (int rotated = 0; rotated < 2; rotated++) {
        float *coded = logits_of("sink=4,f16:8,q8_0:*", rotated ? KV_ROTATE_ON : KV_ROTATE_OFF, 64, tokens, N, &n);
        double errors = 0, squares = 0;
        for (size_t i = 0; i < n; i++) {
            errors += pow((double)coded[i] - (double)full[i], 2);
            squares += pow((double)full[i], 2);
        }
        assert_true(sqrt(errors / squares) < 0.03 && errors > 0);
        free(coded);
    }
    free(full);
}

/* 170 tokens through a model trained for 128, against the reference that turns every key to its place in the cache.
 * FP16 rounds as in test_model.c: the same tolerance. */
static void test_streaming_matches_the_slow_way(void **state) {
    (void)state;
    size_t size, logits_size;
    int32_t *tokens = fixture_load(fixture_path("STOWKV_FIXTURES", "streaming/f32.tokens"), &size);
    double *expected = fixture_load(fixture_path("STOWKV_FIXTURES", "streaming/f32.logits"), &logits_size);
    const size_t batches[] = {1, 50};
    for (size_t j = 0; j < 2; j++) {
        Run run;
        open_run(&run, "sink=4,f16:8", KV_ROTATE_AUTO, 128, batches[j]);
        float *logits = run_tokens(&run, tokens, size / sizeof *tokens);
        double worst = 0, squares = 0;
        size_t n = logits_size / sizeof *expected;
        for (size_t i = 0; i < n; i++) {
            worst = fmax(worst, fabs((double)logits[i] - expected[i]));
            squares += expected[i] * expected[i];
        }
        printf("streaming: logits differ by up to %.1e of their size\n", worst / sqrt(squares / (double)n));
        assert_true(worst <= 3e-3 * sqrt(squares / (double)n));
        free(logits);
        close_run(&run);
    }
    free(tokens);
    free(expected);
}

/* Bytes that attention read, by the plan's arithmetic over all queries. */
static void test_counters(void **state) {
    (void)state;
    enum { N = 300 };
    int32_t tokens[N];
    random_ids(tokens, N);
    Run run;
    open_run(&run, "sink=4,f16:8,int8:64,nf4:*", KV_ROTATE_AUTO, 600, 64);
    free(run_tokens(&run, tokens, N));
    const KvCache *cache = &run.context.cache;
    KvLedger ledger;
    kv_ledger(cache, &ledger);
    size_t n_heads = cache->layout.shape.n_layers * cache->layout.shape.n_kv_heads, read[4] = {0};
    for (size_t i = 1; i <= N; i++) {
        KvPlan plan = kvcache_layer_plan(&cache->layout, 0, i);
        read[0] += n_heads * plan.n_sink * 64 * 2 * 2;
        for (size_t tier = 0; tier < 3; tier++) {
            const KvStore *store = &cache->layout.layers[0].stores[KV_TIER(tier)];
            size_t token_bytes = tier == 0 ? 64 * 2 * 2 : 0, held = kv_plan_held(&plan, tier);
            read[tier + 1] +=
                n_heads * (tier == 0
                               ? held * token_bytes
                               : held / 32 * (store->side[KV_KEYS].record_bytes + store->side[KV_VALUES].record_bytes));
        }
    }
    for (size_t row = 0; row < 4; row++)
        assert_int_equal(ledger.rows[row].bytes_read, read[row]);
    assert_true(read[3] > 0);
    close_run(&run);
}

/* Streaming goes on without a bound, an unbounded policy stops at the context. */
static void test_room(void **state) {
    (void)state;
    Error error = {0};
    int32_t token = 5;
    Run run;
    open_run(&run, "sink=4,f16:8,int8:32", KV_ROTATE_AUTO, 64, 1);
    for (size_t i = 0; i < 1000; i++)
        assert_int_equal(forward(&run.context, &token, 1, LOGITS_NONE, &error), 0);
    close_run(&run);
    open_run(&run, "sink=4,f16:8,int8:*", KV_ROTATE_AUTO, 64, 1);
    for (size_t i = 0; i < 64; i++)
        assert_int_equal(forward(&run.context, &token, 1, LOGITS_NONE, &error), 0);
    assert_int_equal(forward(&run.context, &token, 1, LOGITS_NONE, &error), ERROR_ARGUMENT);
    close_run(&run);
}

/* Upper bounds for a cache of 8,192 tokens of SmolLM2, with sink 16 and window 32: bits an element of the second tier,
 * and bytes as a share of the full cache's. */
static void test_ledger_of_smollm2(void **state) {
    (void)state;
    const struct {
        KvCodecId codec;
        size_t group;
        double bits, share;
    } cases[] = {{KV_INT8, 64, 8.4, 0.53}, {KV_Q8_0, 64, 8.5, 1}, {KV_Q4_0, 64, 4.5, 1},
                 {KV_Q4_1, 64, 5, 1},      {KV_INT4, 32, 5, 1},   {KV_NF4, 64, 4.2, 0.27}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Error error = {0};
        KvPolicy policy = kv_policy_quantized(16, 32, cases[i].codec, cases[i].codec);
        KvShape shape = {30, 3, 64, 8192, DEFAULT_BATCH, {{0}}, 0};
        KvCache cache;
        KvLedger ledger;
        policy.group = cases[i].group;
        assert_int_equal(kvcache_open(&cache, &shape, &policy, &KV_PLAIN_RECORDS, &error), 0);
        kv_ledger(&cache, &ledger);
        assert_true(ledger.rows[2].bits <= cases[i].bits);
        assert_true((double)ledger.bytes <= cases[i].share * (double)ledger.bytes_full);
        assert_int_equal(ledger.bytes_full, 30 * 3 * 64 * 2 * 2 * 8192);
        assert_int_equal(ledger.bytes, cache.layout.kept_bytes);
        kvcache_close(&cache);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_views),
        cmocka_unit_test(test_another_form),
        cmocka_unit_test(test_batches_change_nothing),
        cmocka_unit_test(test_window_of_the_context),
        cmocka_unit_test(test_rotation_cancels),
        cmocka_unit_test(test_streaming_matches_the_slow_way),
        cmocka_unit_test(test_counters),
        cmocka_unit_test(test_room),
        cmocka_unit_test(test_ledger_of_smollm2),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

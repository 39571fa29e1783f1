/* What keeps a figure honest: counters that agree with arithmetic done here, a check that notices when they do not, and
 * a divergence that notices a codec that is one per cent wrong. */
#include "eval/proof.h"
#include "tests/evaluation_fixture.h"
#include "tests/fixture_files.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* The linker sends encoders through here; broken ones multiply what they encode by `encoder_factor`. */
void __real_kv_codec_encode(const KvCodec *codec, SimdLevel level, KvSide side, const KvGroup *group,
                            const float *values, float *scratch, uint8_t *record);
void __wrap_kv_codec_encode(const KvCodec *codec, SimdLevel level, KvSide side, const KvGroup *group,
                            const float *values, float *scratch, uint8_t *record);
void __real_kv_codec_encode_aware(const KvCodec *codec, SimdLevel level, const KvGroup *group, const float *factor,
                                  const float *values, float *scratch, uint8_t *record);
void __wrap_kv_codec_encode_aware(const KvCodec *codec, SimdLevel level, const KvGroup *group, const float *factor,
                                  const float *values, float *scratch, uint8_t *record);

static float encoder_factor = 1;

/* malloc'd */
static float *scaled_values(const KvGroup *group, const float *values) {
    size_t n = group->n_tokens * group->head_dim;
    float *scaled = malloc(n * sizeof *scaled);
    for (size_t i = 0; i < n; i++)
        scaled[i] = encoder_factor * values[i];
    return scaled;
}

void __wrap_kv_codec_encode(const KvCodec *codec, SimdLevel level, KvSide side, const KvGroup *group,
                            const float *values, float *scratch, uint8_t *record) {
    float *scaled = scaled_values(group, values);
    __real_kv_codec_encode(codec, level, side, group, scaled, scratch, record);
    free(scaled);
}

void __wrap_kv_codec_encode_aware(const KvCodec *codec, SimdLevel level, const KvGroup *group, const float *factor,
                                  const float *values, float *scratch, uint8_t *record) {
    float *scaled = scaled_values(group, values);
    __real_kv_codec_encode_aware(codec, level, group, factor, scaled, scratch, record);
    free(scaled);
}

/* A tier as the test knows it: bytes of a group, keys and values of one KV head. */
typedef struct ExpectedTier {
    size_t capacity, group_bytes;
} ExpectedTier;

typedef struct ExpectedRule {
    size_t n_layers, sink, n_tiers;
    ExpectedTier tiers[4];
} ExpectedRule;

typedef struct CounterCase {
    const char *policy;
    size_t group, n_rules;
    ExpectedRule rules[2];
} CounterCase;

#define ANY SIZE_MAX

/* Of f32.gguf: head_dim 64, 2 KV heads, 2 layers. An FP16 token takes 2 * 64 * 2 = 256 bytes. By docs/codecs.md groups
 * of 64 tokens take, keys + values: int8 (128 + 4096) + (128 + 4096); q4_0 2 * 64 * 2 * 18; nf4 2 * (4 + 64 + 2048).
 * Groups of 32: int8 (128 + 2048) + (64 + 2048); q4_0 2 * 32 * 2 * 18; int4 (128 + 128 + 1024) twice: keys by channel,
 * values by two blocks of 32 a token. */
static const CounterCase CASES[] = {
    {"f16:*", 64, 1, {{2, 0, 1, {{ANY, 64 * 256}}}}},
    {"sink=4,f16:20,int8:*", 64, 1, {{2, 4, 2, {{20, 64 * 256}, {ANY, 8448}}}}},
    {"block=32,sink=3,f16:8,int8:*", 32, 1, {{2, 3, 2, {{8, 32 * 256}, {ANY, 4288}}}}},
    {"f16:0,nf4:*", 64, 1, {{2, 0, 2, {{0, 64 * 256}, {ANY, 4232}}}}},
    {"f16:1,q4_0:*", 64, 1, {{2, 0, 2, {{1, 64 * 256}, {ANY, 4608}}}}},
    {"block=32,sink=16,f16:32", 32, 1, {{2, 16, 1, {{32, 32 * 256}}}}},
    {"block=32,sink=4,f16:8,int8:33,q4_0:60", 32, 1, {{2, 4, 3, {{8, 32 * 256}, {33, 4288}, {60, 2304}}}}},
    {"block=32,@0:f16:*;@*:sink=2,f16:8,int8/q4_0:64,int4:*",
     32,
     2,
     {{1, 0, 1, {{ANY, 32 * 256}}}, {1, 2, 3, {{8, 32 * 256}, {64, 2176 + 1152}, {ANY, 2560}}}}},
};

enum { N_KV_HEADS = 2, MAX_ROWS = 10 };

/* bytes_read and tokens_encoded of one row of the ledger. */
typedef struct Counts {
    size_t bytes, tokens;
} Counts;

/* Adds one window of n_tokens, position by position: what each query reads, and what has entered in the end. */
static void add_window(const CounterCase *c, const ExpectedRule *rule, size_t n_tokens, Counts *rows) {
    for (size_t seen = 1; seen <= n_tokens; seen++) {
        size_t in_sink = seen < rule->sink ? seen : rule->sink, entered = seen - in_sink, row = 0;
        if (rule->sink > 0)
            rows[row++].bytes += rule->n_layers * N_KV_HEADS * in_sink * 256;
        for (size_t t = 0; t < rule->n_tiers; t++, row++) {
            const ExpectedTier *tier = &rule->tiers[t];
            size_t leaving = tier->capacity == ANY || entered < tier->capacity
                                 ? 0
                                 : (entered - tier->capacity) / c->group * c->group;
            rows[row].bytes += rule->n_layers * N_KV_HEADS * (entered - leaving) * tier->group_bytes / c->group;
            if (seen == n_tokens)
                rows[row].tokens += entered;
            entered = leaving;
        }
        if (seen == n_tokens && rule->sink > 0)
            rows[0].tokens += in_sink;
    }
}

static void run_case(TestRun *run, const char *policy, size_t n_batch) {
    test_run(run, &(RunOptions){.model = "models/f32.gguf",
                                .tokens = random_windows(),
                                .n_tokens = 2 * RUN_WINDOW,
                                .settings = {PPL_HF, RUN_WINDOW, 130, 0},
                                .n_batch = n_batch,
                                .policies = {policy}});
}

static void check_counters(const CounterCase *c, size_t n_batch) {
    TestRun run;
    Counts expected[MAX_ROWS] = {{0}};
    size_t n_rows = 0;
    run_case(&run, c->policy, n_batch);
    assert_int_equal(run.e.windows.count, 3); /* of 240, 240 and 220 tokens */
    for (size_t r = 0; r < c->n_rules; r++) {
        for (size_t w = 0; w < run.e.windows.count; w++)
            add_window(c, &c->rules[r], run.e.windows.items[w].end - run.e.windows.items[w].begin, expected + n_rows);
        n_rows += c->rules[r].n_tiers + (c->rules[r].sink > 0);
    }
    const KvLedger *ledger = &run.e.modes[0].ledger;
    assert_int_equal(ledger->n_rows, n_rows);
    for (size_t i = 0; i < n_rows; i++)
        if (ledger->rows[i].bytes_read != expected[i].bytes || ledger->rows[i].tokens_encoded != expected[i].tokens)
            fail_msg("%s, row %zu: %zu bytes read, %zu tokens entered; expected %zu and %zu", c->policy, i,
                     ledger->rows[i].bytes_read, ledger->rows[i].tokens_encoded, expected[i].bytes, expected[i].tokens);
    assert_true(n_rows == 1 || expected[n_rows - 1].bytes > 0);
    test_run_close(&run);
}

static void test_counters(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        check_counters(&CASES[i], 128);
        check_counters(&CASES[i], 7);
    }
}

/* One more, or one less, in any counter of any layer. */
static void check_tampered(const KvCache *cache, atomic_size_t *counter, size_t n_tokens) {
    Error error = {0};
    for (int step = -1; step <= 1; step += 2) {
        *counter += (size_t)step;
        assert_int_equal(proof_check(cache, n_tokens, &error), ERROR_FORMAT);
        assert_non_null(strstr(error.message, "this is a bug"));
        *counter -= (size_t)step;
    }
    assert_int_equal(proof_check(cache, n_tokens, &error), 0);
}

static void test_tampered_counters_are_noticed(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        TestRun run;
        Error error = {0};
        run_case(&run, CASES[i].policy, 64);
        KvCache *cache = &run.e.modes[0].context.cache;
        size_t n_tokens = cache->n_tokens;
        for (size_t l = 0; l < cache->layout.shape.n_layers; l++) {
            size_t first = kvcache_layer_policy(&cache->layout, l)->sink > 0 ? KV_SINK : KV_TIER(0);
            for (size_t store = first; store < cache->layout.layers[l].n_stores; store++) {
                check_tampered(cache, &cache->counters[l].bytes_read[store], n_tokens);
                check_tampered(cache, &cache->counters[l].tokens_encoded[store], n_tokens);
            }
        }
        assert_int_equal(proof_check(cache, n_tokens - 1, &error), ERROR_FORMAT);
        test_run_close(&run);
    }
}

/* An evaluation stops where a counter is wrong at the end of a window. */
static void add_a_byte(void *user, size_t layer, size_t n_tokens) {
    (void)n_tokens;
    KvCache *cache = user;
    if (layer == 1 && cache->n_tokens == 128)
        cache->counters[layer].bytes_read[KV_TIER(1)]++;
}

static void test_evaluation_stops(void **state) {
    (void)state;
    Error error = {0};
    TestRun run;
    RunOptions options = {.model = "models/f32.gguf",
                          .tokens = random_windows(),
                          .n_tokens = 2 * RUN_WINDOW,
                          .settings = {.definition = PPL_GPTQ, .context = RUN_WINDOW},
                          .policies = {"block=32,f16:8,int8:*"}};
    assert_int_equal(test_run_open(&run, &options, &error), 0);
    run.e.modes[0].context.on_attended = add_a_byte;
    run.e.modes[0].context.on_attended_user = &run.e.modes[0].context.cache;
    assert_int_equal(evaluation_run(&run.e, &error), ERROR_FORMAT);
    assert_non_null(strstr(error.message, "tier int8: attention read"));
    assert_int_equal(run.e.n_windows, 0);
    test_run_close(&run);
}

/* Mean KL divergence of the policy on the start of WikiText-2, with encoders that multiply by `factor`. */
static double divergence_with(const char *policy, float factor, double *same_top) {
    enum { CONTEXT = 256, N_TOKENS = 5 * CONTEXT };
    TestRun run;
    char model[512];
    int32_t *tokens = wiki_tokens_of_stories(N_TOKENS);
    snprintf(model, sizeof model, "%s", fixture_path("STOWKV_DATA", "stories260K.bin"));
    encoder_factor = factor;
    test_run(&run, &(RunOptions){.model = model,
                                 .tokens = tokens,
                                 .n_tokens = N_TOKENS,
                                 .settings = {.definition = PPL_LLAMACPP, .context = CONTEXT},
                                 .bos = 1,
                                 .divergence = true,
                                 .policies = {"f16:*", policy}});
    encoder_factor = 1;
    double mean = mean_error(run.e.modes[1].kld, run.e.n_scored).mean;
    *same_top = (double)run.e.modes[1].n_same_top / (double)run.e.n_scored;
    test_run_close(&run);
    free(tokens);
    return mean;
}

static void test_broken_codec_is_noticed(void **state) {
    (void)state;
    double same_top;
    assert_true(divergence_with("f16:*", 1, &same_top) == 0 && same_top == 1);
    assert_true(divergence_with("f16:0,f16:*", 1, &same_top) == 0 && same_top == 1); /* codes of 16 bits lose nothing */
    double right = divergence_with("sink=16,f16:32,int8:*", 1, &same_top);
    assert_true(same_top > 0.99);
    double wrong = divergence_with("sink=16,f16:32,int8:*", 1.01f, &same_top);
    printf("int8: KLD %.2e; with codes that are 1 %% too large %.2e\n", right, wrong);
    assert_true(right > 0 && right < 1e-4 && wrong > 3 * right);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counters),
        cmocka_unit_test(test_tampered_counters_are_noticed),
        cmocka_unit_test(test_evaluation_stops),
        cmocka_unit_test(test_broken_codec_is_noticed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Errors by layer and KV head, against the same figures from the queries, keys and values that went by: groups encoded
 * and decoded here, attention in double. */
#include "attention/reference.h"
#include "base/half.h"
#include "tests/evaluation_fixture.h"
#include "tests/fixture_files.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Of f32.gguf. */
enum { N_LAYERS = 2, N_HEADS = 4, N_KV_HEADS = 2, DIM = 64, N_WINDOWS = 2, GROUP = 32 };
enum { FIRST_SCORED = RUN_WINDOW / 2 }; /* position whose logits predict the first scored token of a chunk */

/* What went by in a window, in each layer. */
typedef struct Window {
    float q[N_LAYERS][RUN_WINDOW][N_HEADS][DIM];
    float k[N_LAYERS][RUN_WINDOW][N_KV_HEADS][DIM], v[N_LAYERS][RUN_WINDOW][N_KV_HEADS][DIM];
} Window;

/* Stands between the context and its attribution. */
typedef struct Spy {
    Context *context;
    void (*on_attended)(void *user, size_t layer, size_t n_tokens);
    void *user;
    size_t n_windows;
    Window windows[N_WINDOWS];
} Spy;

static void watch(void *user, size_t layer, size_t n_tokens) {
    Spy *spy = user;
    Context *c = spy->context;
    Backend *b = c->model->backend;
    size_t position = c->cache.n_tokens;
    spy->n_windows += position == 0 && layer == 0;
    assert_true(spy->n_windows <= N_WINDOWS && position + n_tokens <= RUN_WINDOW);
    Window *w = &spy->windows[spy->n_windows - 1];
    b->ops->read(b, w->q[layer][position][0], c->q, n_tokens * N_HEADS * DIM * sizeof(float), NULL);
    b->ops->read(b, w->k[layer][position][0], c->k, n_tokens * N_KV_HEADS * DIM * sizeof(float), NULL);
    b->ops->read(b, w->v[layer][position][0], c->v, n_tokens * N_KV_HEADS * DIM * sizeof(float), NULL);
    spy->on_attended(spy->user, layer, n_tokens);
}

/* Runs two chunks with a spy; both are static, for they are large. */
static Spy *run_with_spy(TestRun *run, const char *policy) {
    static Spy spy;
    Error error = {0};
    RunOptions options = {.model = "models/f32.gguf",
                          .tokens = random_windows(),
                          .n_tokens = N_WINDOWS * RUN_WINDOW,
                          .settings = {.definition = PPL_LLAMACPP, .context = RUN_WINDOW},
                          .n_batch = 50,
                          .attribution = true,
                          .policies = {policy}};
    if (test_run_open(run, &options, &error) < 0)
        fail_msg("%s", error.message);
    Context *c = &run->e.modes[0].context;
    spy = (Spy){.context = c, .on_attended = c->on_attended, .user = c->on_attended_user};
    assert_non_null(spy.on_attended);
    c->on_attended = watch;
    c->on_attended_user = &spy;
    if (evaluation_run(&run->e, &error) < 0)
        fail_msg("%s", error.message);
    assert_int_equal(spy.n_windows, N_WINDOWS);
    return &spy;
}

/* One side of one KV head of one window: each token in FP16, and as each tier decodes it. */
typedef struct Forms {
    float rows[KV_MAX_TIERS][RUN_WINDOW][DIM];
} Forms;

static void fill_forms(const KvPolicy *policy, size_t layer, KvSide side, float (*x)[N_KV_HEADS][DIM], size_t kv_head,
                       Forms *forms) {
    static float scratch[GROUP * DIM], rows[RUN_WINDOW][DIM];
    static uint8_t record[GROUP * DIM * 4];
    const KvLayerPolicy *rule = kv_policy_of_layer(policy, layer);
    for (size_t t = 0; t < RUN_WINDOW; t++)
        for (size_t d = 0; d < DIM; d++)
            rows[t][d] = half_to_float(half_from_float(x[t][kv_head][d]));
    memcpy(forms->rows[0], rows, sizeof rows);
    for (size_t tier = 1; tier < rule->n_tiers; tier++)
        for (size_t first = rule->sink; first + GROUP <= RUN_WINDOW; first += GROUP) {
            KvCodecId id = side == KV_KEYS ? rule->tiers[tier].k : rule->tiers[tier].v;
            KvGroup group = {GROUP, DIM, GROUP, kv_policy_rotates(policy, side, id, DIM)};
            kv_codec_encode(kv_codec(id), SIMD_SCALAR, side, &group, rows[first], scratch, record);
            kv_codec_decoder(kv_codec(id), SIMD_SCALAR)(side, &group, record, 0, GROUP, rows[first]);
            if (group.rotated)
                kv_rotate(rows[first], GROUP, DIM);
            memcpy(forms->rows[tier][first], rows[first], GROUP * sizeof *rows);
        }
}

/* The tier of token t for a query that sees n_tokens; KV_MAX_TIERS where it was dropped. The sink is as the first. */
static size_t tier_of(const KvLayerPolicy *rule, size_t n_tokens, size_t t) {
    if (t < rule->sink)
        return 0;
    size_t entered = n_tokens - rule->sink;
    for (size_t tier = 0; tier < rule->n_tiers; tier++) {
        size_t capacity = rule->tiers[tier].capacity;
        size_t leaving = entered > capacity ? (entered - capacity) / GROUP * GROUP : 0;
        if (t >= rule->sink + leaving)
            return tier;
        entered = leaving;
    }
    return KV_MAX_TIERS;
}

typedef struct Squares {
    double error, size;
} Squares;

static void add(Squares *squares, double x, double exact) {
    squares->error += (x - exact) * (x - exact);
    squares->size += exact * exact;
}

static void add_encoded(const KvLayerPolicy *rule, const Forms *forms, Squares *squares) {
    for (size_t t = 0; t < RUN_WINDOW; t++) {
        size_t tier = tier_of(rule, RUN_WINDOW, t);
        for (size_t d = 0; d < DIM && tier > 0 && tier < KV_MAX_TIERS; d++)
            add(squares, (double)forms->rows[tier][t][d], (double)forms->rows[0][t][d]);
    }
}

/* The query at `position` over tokens in FP16, or as it sees them; nothing is dropped. */
static void attend(const KvLayerPolicy *rule, bool exact, const float *q, const Forms *keys, const Forms *values,
                   size_t position, double out[DIM]) {
    static double query[DIM], k[RUN_WINDOW][DIM], v[RUN_WINDOW][DIM], magnitude[DIM];
    for (size_t t = 0; t <= position; t++) {
        size_t tier = exact ? 0 : tier_of(rule, position + 1, t);
        for (size_t d = 0; d < DIM; d++) {
            query[d] = (double)q[d];
            k[t][d] = (double)keys->rows[tier][t][d];
            v[t][d] = (double)values->rows[tier][t][d];
        }
    }
    attention_plain((ScoreForm){0}, position + 1, DIM, query, k[0], v[0], out, magnitude);
}

static void add_outputs(const KvLayerPolicy *rule, const Window *w, size_t layer, size_t kv_head, const Forms *keys,
                        const Forms *values, Squares *squares) {
    size_t n_each = N_HEADS / N_KV_HEADS;
    for (size_t position = FIRST_SCORED; position < RUN_WINDOW; position++)
        for (size_t head = kv_head * n_each; head < (kv_head + 1) * n_each; head++) {
            double exact[DIM], seen[DIM];
            attend(rule, true, w->q[layer][position][head], keys, values, position, exact);
            attend(rule, false, w->q[layer][position][head], keys, values, position, seen);
            for (size_t d = 0; d < DIM; d++)
                add(squares, seen[d], exact[d]);
        }
}

static double relative(Squares squares) {
    return squares.size > 0 ? sqrt(squares.error / squares.size) : 0;
}

static void check_figure(const char *what, size_t layer, size_t kv_head, double actual, double expected, double share) {
    if (!(fabs(actual - expected) <= share * expected) || !(expected > 0))
        fail_msg("%s of layer %zu, KV head %zu: %.6g, expected %.6g", what, layer, kv_head, actual, expected);
}

/* Codes are the same to the bit, so that K and V differ by sums in double alone. The program attends in F32: its
 * outputs have errors of some 1e-6 of themselves, a thousandth of what the codecs here do to them. */
static void check_head(const TestRun *run, Spy *spy, size_t layer, size_t kv_head, bool drops) {
    static Forms keys, values;
    Squares of_keys = {0, 0}, of_values = {0, 0}, of_output = {0, 0};
    const KvPolicy *policy = &run->e.modes[0].policy;
    const KvLayerPolicy *rule = kv_policy_of_layer(policy, layer);
    for (size_t i = 0; i < N_WINDOWS; i++) {
        Window *w = &spy->windows[i];
        fill_forms(policy, layer, KV_KEYS, w->k[layer], kv_head, &keys);
        fill_forms(policy, layer, KV_VALUES, w->v[layer], kv_head, &values);
        add_encoded(rule, &keys, &of_keys);
        add_encoded(rule, &values, &of_values);
        if (!drops)
            add_outputs(rule, w, layer, kv_head, &keys, &values, &of_output);
    }
    HeadError found = attribution_error(run->e.modes[0].attribution, layer, kv_head);
    check_figure("K", layer, kv_head, found.keys, relative(of_keys), 1e-12);
    check_figure("V", layer, kv_head, found.values, relative(of_values), 1e-12);
    if (drops)
        assert_true(found.output > 0.01);
    else
        check_figure("output", layer, kv_head, found.output, relative(of_output), 1e-3);
}

static void test_matches_naive(void **state) {
    (void)state;
    const struct {
        const char *policy;
        bool drops;
    } cases[] = {{"rounding=nearest,block=32,sink=4,f16:8,int8:*", false},
                 {"rounding=nearest,block=32,f16:0,int8/q4_0:*", false},
                 {"rounding=nearest,block=32,sink=3,f16:40,int8:64,nf4:*", false},
                 {"rounding=nearest,block=32,@0:sink=1,f16:8,int4:*;@1:f16:20,q8_0:*", false},
                 {"rounding=nearest,block=32,sink=4,f16:8,int8:64", true}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        TestRun run;
        Spy *spy = run_with_spy(&run, cases[i].policy);
        for (size_t layer = 0; layer < N_LAYERS; layer++)
            for (size_t kv_head = 0; kv_head < N_KV_HEADS; kv_head++)
                check_head(&run, spy, layer, kv_head, cases[i].drops);
        test_run_close(&run);
    }
}

static void check_all(const TestRun *run, size_t layer, bool codes, bool output) {
    for (size_t kv_head = 0; kv_head < N_KV_HEADS; kv_head++) {
        HeadError error = attribution_error(run->e.modes[0].attribution, layer, kv_head);
        assert_true((error.keys > 0) == codes && (error.values > 0) == codes && (error.output > 0) == output);
    }
}

/* Compressed mode encodes nothing and drops much; a full layer does nothing, whatever reaches it from a layer before.
 */
static void test_what_causes_no_error(void **state) {
    (void)state;
    TestRun run;
    run_with_spy(&run, "block=32,sink=4,f16:40");
    check_all(&run, 0, false, true);
    check_all(&run, 1, false, true);
    test_run_close(&run);
    run_with_spy(&run, "block=32,@0:f16:8,int4:*;@1:f16:*");
    check_all(&run, 0, true, true);
    check_all(&run, 1, false, false);
    test_run_close(&run);
    test_run(&run, &(RunOptions){.model = "models/f32.gguf",
                                 .tokens = random_windows(),
                                 .n_tokens = 2 * RUN_WINDOW,
                                 .settings = {.definition = PPL_LLAMACPP, .context = RUN_WINDOW},
                                 .attribution = true,
                                 .policies = {"f16:*"}});
    assert_null(run.e.modes[0].attribution);
    test_run_close(&run);
}

/* Nothing leaves the first tier before the 44th token; 43 queries see what a full cache shows. */
static void test_before_anything_leaves(void **state) {
    (void)state;
    Error error = {0};
    TestRun run;
    Attribution *attribution;
    RunOptions options = {.model = "models/f32.gguf",
                          .tokens = random_windows(),
                          .n_tokens = RUN_WINDOW,
                          .settings = {.definition = PPL_GPTQ, .context = RUN_WINDOW},
                          .policies = {"block=32,sink=4,f16:8,int8:*"}};
    assert_int_equal(test_run_open(&run, &options, &error), 0);
    Context *c = &run.e.modes[0].context;
    assert_int_equal(attribution_open(&attribution, c, &error), 0);
    const size_t lengths[] = {43, 44};
    for (size_t i = 0; i < 2; i++) {
        context_clear(c);
        attribution_begin(attribution, 0);
        assert_int_equal(forward(c, options.tokens, lengths[i], LOGITS_NONE, &error), 0);
        assert_int_equal(attribution_end(attribution, &error), 0);
        HeadError e = attribution_error(attribution, 1, 1);
        assert_true((e.output > 0) == (lengths[i] == 44) && (e.keys > 0) == (lengths[i] == 44) &&
                    (e.values > 0) == (lengths[i] == 44));
    }
    attribution_close(attribution);
    assert_null(c->on_attended);
    test_run_close(&run);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_matches_naive),
        cmocka_unit_test(test_what_causes_no_error),
        cmocka_unit_test(test_before_anything_leaves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

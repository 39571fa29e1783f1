/* Evaluations as a whole: negative log-likelihoods against float64 for the full cache and for policies, queries that
 * see the same whatever the batch, and policies that would change nothing. */
#include "tests/evaluation_fixture.h"
#include "tests/fixture_files.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* Runs `policies` over the two windows of random tokens, all but the first of each scored. */
static void run_windows(TestRun *run, const char *model, size_t n_batch, const char *policy, const char *other) {
    test_run(run, &(RunOptions){.model = model,
                                .tokens = random_windows(),
                                .n_tokens = 2 * RUN_WINDOW,
                                .settings = {.definition = PPL_GPTQ, .context = RUN_WINDOW},
                                .n_batch = n_batch,
                                .policies = {policy, other}});
}

/* How far apart two series are: in the mean, and at worst. */
typedef struct Distance {
    double mean, max;
} Distance;

static Distance distance(const double *a, const double *b, size_t n) {
    Distance d = {0, 0};
    for (size_t i = 0; i < n; i++) {
        double difference = fabs(a[i] - b[i]);
        d.mean += difference / (double)n;
        d.max = difference <= d.max ? d.max : difference; /* a NaN stays */
    }
    return d;
}

static double negative_log_likelihood(const double *logits, size_t n, int32_t target) {
    double max = -INFINITY, sum = 0;
    for (size_t i = 0; i < n; i++)
        max = fmax(max, logits[i]);
    for (size_t i = 0; i < n; i++)
        sum += exp(logits[i] - max);
    return log(sum) + max - logits[target];
}

/* The full cache against the float64 logits of test_model.c. A likelihood is off by two errors of a logit at most, and
 * its argument for those allows 3e-3 of the logits' size, 6e-4 in the root of the mean square. */
static void check_full(const char *name) {
    char path[96], tokens_name[96], logits_name[96];
    size_t size, logits_size, n_errors = 0;
    snprintf(path, sizeof path, "models/%s.gguf", name);
    snprintf(tokens_name, sizeof tokens_name, "models/%s.tokens", name);
    snprintf(logits_name, sizeof logits_name, "models/%s.logits", name);
    int32_t *tokens = fixture_load(fixture_path("STOWKV_FIXTURES", tokens_name), &size);
    double *logits = fixture_load(fixture_path("STOWKV_FIXTURES", logits_name), &logits_size);
    size_t n_tokens = size / sizeof *tokens, n_vocab = logits_size / sizeof *logits / n_tokens;
    double squares = 0, mean = 0, max = 0;
    TestRun run;
    test_run(&run, &(RunOptions){.model = path,
                                 .tokens = tokens,
                                 .n_tokens = n_tokens,
                                 .settings = {.definition = PPL_GPTQ, .context = n_tokens},
                                 .policies = {"f16:*"}});
    for (size_t i = 0; i < n_tokens * n_vocab; i++)
        squares += logits[i] * logits[i];
    for (size_t t = 0; t + 1 < n_tokens; t++, n_errors++) {
        double expected = negative_log_likelihood(logits + t * n_vocab, n_vocab, tokens[t + 1]);
        double error = fabs(run.e.modes[0].nll[t] - expected);
        mean += error / (double)(n_tokens - 1);
        max = error <= max ? max : error;
    }
    assert_int_equal(n_errors, run.e.n_scored);
    double scale = sqrt(squares / (double)(n_tokens * n_vocab));
    if (!(mean <= 2 * 6e-4 * scale && max <= 2 * 3e-3 * scale))
        fail_msg("%s: likelihoods are off by %.1e in the mean and up to %.1e", name, mean, max);
    test_run_close(&run);
    free(tokens);
    free(logits);
}

static void test_full_matches_float64(void **state) {
    (void)state;
    const char *const names[] = {"f32",         "q4_1",        "q8_0",       "head_dim_16", "head_dim_48",
                                 "one_kv_head", "four_layers", "rope_freqs", "rope_linear", "key_length"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        check_full(names[i]);
}

/* What two right programs may differ by, of which one computes in F32 and one in float64.
 *
 * f16: all of FP16's rounding moves these likelihoods by 9.5e-4 in the mean and by 5.3e-3 at worst (the oracle with and
 * without it); 0.3 of that, by the argument of test_model.c.
 *
 * Codes: a number that is off by e before it is rounded to steps of D comes out a whole step away in a share e / D of
 * cases: errors with the root of mean square sqrt(e D), where all of the rounding has D / sqrt(12). So the share of the
 * codec's effect is sqrt(12 e / D). Attention multiplies codes with 16-bit integers of one scale to 64, the largest of
 * which is three deviations: off by 3 / 32639 / sqrt(12) of the deviation, once in scores and once in weights, which
 * makes e 4e-5 times 0.3 for what the sum over tokens evens out, beside 4e-6 of F32; and twice the share for what the
 * second layer adds. int8: D is a range of three deviations over 127, so 17 % of an effect of 0.016. q4_0: over 8, so
 * 4 % of 0.24. A single code is seldom another, and then by much: twenty times the mean at worst.
 *
 * Keys that are rounded with the queries: a code that is another changes what later channels are to be rounded to by
 * its shares in them, and each of those codes becomes another with that probability. The shares of a channel add up to
 * some five here, so six times as many codes, which move likelihoods by their root, 2.4.
 *
 * All that is for two layers; the errors of more are independent of each other. */
static Distance tolerance_of(const char *policy, size_t n_layers) {
    double more = sqrt((double)n_layers / 2);
    if (strstr(policy, "q4_0") != NULL || strstr(policy, "q4_1") != NULL) /* as many steps in a range */
        return (Distance){1e-2 * more, 2e-1 * more};
    if (strstr(policy, "int8") != NULL && strstr(policy, "rounding=auto") != NULL)
        return (Distance){2.4 * 2.7e-3 * more, 2.4 * 5.4e-2 * more};
    if (strstr(policy, "int8") != NULL || strstr(policy, "q8_0") != NULL)
        return (Distance){2.7e-3 * more, 5.4e-2 * more};
    return (Distance){3e-4 * more, 1.6e-3 * more};
}

static void check_policy(const char *name, const char *policy, const double *expected, size_t n) {
    char path[96];
    TestRun run;
    snprintf(path, sizeof path, "models/%s.gguf", name);
    run_windows(&run, path, 0, "f16:*", policy);
    assert_int_equal(n, run.e.n_scored);
    Distance allowed = tolerance_of(policy, run.model.checkpoint.config.n_layers),
             found = distance(run.e.modes[1].nll, expected, n);
    Distance effect = distance(run.e.modes[0].nll, expected, n);
    if (!kv_policy_is_full(&run.e.modes[1].policy)) /* or the test could not tell the policy from none */
        allowed.mean = fmin(allowed.mean, effect.mean / 3);
    printf("%-10s %-64s mean %.1e, max %.1e, effect %.1e\n", name, policy, found.mean, found.max, effect.mean);
    if (!(found.mean <= allowed.mean && found.max <= allowed.max))
        fail_msg("%s: likelihoods differ from the reference's by %.1e in the mean and up to %.1e", policy, found.mean,
                 found.max);
    test_run_close(&run);
}

static void test_policies_match_float64(void **state) {
    (void)state;
    char line[512];
    size_t size, n_cases = 0;
    FILE *file = fopen(fixture_path("STOWKV_FIXTURES", "cache/cases"), "r");
    assert_non_null(file);
    for (; fgets(line, sizeof line, file) != NULL; n_cases++) {
        char name[64], policy[384], nll_name[32];
        assert_int_equal(sscanf(line, "%63s %383s", name, policy), 2);
        snprintf(nll_name, sizeof nll_name, "cache/%zu.nll", n_cases);
        double *expected = fixture_load(fixture_path("STOWKV_FIXTURES", nll_name), &size);
        check_policy(name, policy, expected, size / sizeof *expected);
        free(expected);
    }
    assert_int_equal(n_cases, 37);
    fclose(file);
}

/* Every query sees what it would see token by token, so sums have the same order and no bit changes. */
static void check_batches(const char *model) {
    const char *const policies[] = {"f16:*",
                                    "block=32,sink=4,f16:40",
                                    "block=32,sink=4,f16:8,int8:*",
                                    "sink=4,f16:20,int8:*",
                                    "block=32,sink=3,f16:8,q4_0:*",
                                    "block=32,sink=4,f16:8,int8/nf4:32,q4_0:*",
                                    "block=32,sink=4,f16:8,int8:64,q4_0:60",
                                    "block=32,@0:f16:*;@*:sink=2,f16:8,int4:*"};
    const size_t batches[] = {7, 64, 512};
    for (size_t i = 0; i < sizeof policies / sizeof *policies; i++) {
        TestRun one;
        run_windows(&one, model, 1, policies[i], NULL);
        for (size_t j = 0; j < 3; j++) {
            TestRun many;
            run_windows(&many, model, batches[j], policies[i], NULL);
            if (memcmp(many.e.modes[0].nll, one.e.modes[0].nll, one.e.n_scored * sizeof(double)) != 0)
                fail_msg("%s, %s: batches of %zu differ from single tokens", model, policies[i], batches[j]);
            test_run_close(&many);
        }
        test_run_close(&one);
    }
}

static void test_batches_change_nothing(void **state) {
    (void)state;
    check_batches("models/f32.gguf");
    check_batches("models/gemma3_q5_0.gguf"); /* two of its three layers look back on 70 tokens */
}

/* Each scored token of a sliding window, at its place in the arrays, for windows that begin and end within batches: the
 * same as that window gives alone. And the first token of a window is replaced where a BOS is given. */
static void test_windows_stand_alone(void **state) {
    (void)state;
    enum { N_TOKENS = 200, CONTEXT = 90, STRIDE = 37, BOS = 1 };
    const char *policy = "block=32,sink=2,f16:8,int8:*";
    const size_t batches[] = {1, 16, 128};
    for (size_t b = 0; b < 3; b++) {
        TestRun all;
        RunOptions options = {.model = "models/f32.gguf",
                              .tokens = random_windows(),
                              .n_tokens = N_TOKENS,
                              .settings = {PPL_HF, CONTEXT, STRIDE, 0},
                              .n_batch = batches[b],
                              .bos = BOS,
                              .policies = {policy}};
        size_t at = 0;
        test_run(&all, &options);
        assert_int_equal(all.e.windows.count, 4);
        for (size_t w = 0; w < all.e.windows.count; w++) {
            const PplWindow *window = &all.e.windows.items[w];
            int32_t tokens[CONTEXT];
            size_t length = window->end - window->begin, n = ppl_window_scored(window);
            memcpy(tokens, options.tokens + window->begin, length * sizeof *tokens);
            tokens[0] = BOS;
            TestRun alone;
            test_run(&alone, &(RunOptions){.model = "models/f32.gguf",
                                           .tokens = tokens,
                                           .n_tokens = length,
                                           .settings = {.definition = PPL_GPTQ, .context = length},
                                           .n_batch = 50,
                                           .policies = {policy}});
            assert_memory_equal(all.e.modes[0].nll + at, alone.e.modes[0].nll + alone.e.n_scored - n,
                                n * sizeof(double));
            at += n;
            test_run_close(&alone);
        }
        assert_int_equal(at, all.e.n_scored);
        test_run_close(&all);
    }
}

/* Figures are those of statistics.h and windows.h over the series, and each policy's own. */
static void test_figures(void **state) {
    (void)state;
    TestRun run, alone;
    RunOptions options = {.model = "models/f32.gguf",
                          .tokens = random_windows(),
                          .n_tokens = 2 * RUN_WINDOW,
                          .settings = {.definition = PPL_LLAMACPP, .context = RUN_WINDOW},
                          .divergence = true,
                          .policies = {"f16:*", "block=32,f16:8,int8:*", "block=32,f16:8,int4:*"}};
    test_run(&run, &options);
    run_windows(&alone, "models/f32.gguf", 0, "block=32,f16:8,int4:*", NULL);
    const Evaluation *e = &run.e;
    size_t n = e->n_scored, half = RUN_WINDOW / 2 - 1;
    assert_int_equal(n, 2 * half);
    assert_memory_equal(e->modes[2].nll, alone.e.modes[0].nll + RUN_WINDOW / 2, half * sizeof(double));
    for (size_t m = 0; m < 3; m++) {
        const EvalMode *mode = &e->modes[m];
        double sum = 0, squares = 0, first = 0, difference = 0, differences = 0;
        for (size_t i = 0; i < n; i++) {
            sum += mode->nll[i];
            squares += mode->nll[i] * mode->nll[i];
            difference += mode->nll[i] - e->modes[0].nll[i];
            differences += pow(mode->nll[i] - e->modes[0].nll[i], 2);
            first += i < half ? mode->nll[i] : 0;
        }
        double mean = sum / (double)n, ppl = exp(mean);
        assert_true(fabs(evaluation_ppl(e, mode->nll) / ppl - 1) < 1e-13);
        assert_true(fabs(evaluation_ppl_of_windows(e, mode->nll, 1) / exp(first / (double)half) - 1) < 1e-13);
        double error = ppl * sqrt((squares / (double)n - mean * mean) / (double)(n - 1));
        assert_true(fabs(evaluation_ppl_error(e, mode->nll) / error - 1) < 1e-10);
        if (m == 0) {
            assert_null(mode->kld);
            continue;
        }
        MeanError ratio = evaluation_ln_ratio(e, mode);
        difference /= (double)n;
        double ratio_error = sqrt((differences / (double)n - difference * difference) / (double)(n - 1));
        assert_true(fabs(ratio.mean - difference) < 1e-13 && fabs(ratio.error / ratio_error - 1) < 1e-10);
        MeanError kld = mean_error(mode->kld, n);
        assert_true(kld.mean > 0 && mode->n_same_top > n / 2 && mode->n_same_top < n);
        for (size_t i = 0; i < n; i++) /* p(target) twice: the change, and by the likelihoods */
            assert_true(fabs(mode->delta_p[i] - (exp(-mode->nll[i]) - exp(-e->modes[0].nll[i]))) < 1e-14);
    }
    assert_true(mean_error(e->modes[2].kld, n).mean > 4 * mean_error(e->modes[1].kld, n).mean);
    assert_true(eval_mode_old_bits(&e->modes[0]) == 16);
    assert_true(eval_mode_old_bits(&e->modes[1]) == 8.375); /* int8: 8, and 16 for 32 keys or 64 values */
    test_run_close(&alone);
    test_run_close(&run);
}

static void test_full_against_itself(void **state) {
    (void)state;
    TestRun run;
    test_run(&run, &(RunOptions){.model = "models/f32.gguf",
                                 .tokens = random_windows(),
                                 .n_tokens = 2 * RUN_WINDOW,
                                 .settings = {.definition = PPL_LLAMACPP, .context = RUN_WINDOW},
                                 .divergence = true,
                                 .policies = {"f16:*", "f16:*"}});
    for (size_t i = 0; i < run.e.n_scored; i++)
        assert_true(run.e.modes[1].kld[i] == 0 && run.e.modes[1].nll[i] == run.e.modes[0].nll[i]);
    assert_int_equal(run.e.modes[1].n_same_top, run.e.n_scored);
    assert_true(evaluation_ln_ratio(&run.e, &run.e.modes[1]).mean == 0);
    test_run_close(&run);
}

/* A base is of the tokens that went through the model, the first of a window too, and of what was scored. */
static void test_foreign_base(void **state) {
    (void)state;
    char path[] = "/tmp/stowkv-base-XXXXXX";
    int descriptor = mkstemp(path);
    assert_true(descriptor >= 0);
    close(descriptor);
    RunOptions options = {.model = "models/f32.gguf",
                          .tokens = random_windows(),
                          .n_tokens = 120,
                          .settings = {PPL_HF, 100, 20, 0}, /* 99 tokens, then 20 */
                          .divergence = true,
                          .save_base = path,
                          .policies = {"f16:*"}};
    TestRun run;
    test_run(&run, &options);
    double ppl = evaluation_ppl(&run.e, run.e.base_nll);
    test_run_close(&run);
    options.save_base = NULL;
    options.load_base = path;
    test_run(&run, &options);
    assert_true(evaluation_ppl(&run.e, run.e.base_nll) == ppl && evaluation_ppl(&run.e, run.e.modes[0].nll) == ppl);
    test_run_close(&run);
    Error error = {0};
    options.bos = 1;
    assert_int_equal(test_run_open(&run, &options, &error), ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "another text"));
    options.bos = 0;
    options.tokens++;
    assert_int_equal(test_run_open(&run, &options, &error), ERROR_ARGUMENT);
    unlink(path);
}

static RunOptions options_of(const char *policy, size_t context) {
    return (RunOptions){.model = "models/f32.gguf",
                        .tokens = random_windows(),
                        .n_tokens = 2 * context,
                        .settings = {.definition = PPL_LLAMACPP, .context = context},
                        .policies = {policy}};
}

/* The last query of a window sees one token less than the window has. */
static void check_least_context(const char *policy, size_t least) {
    Error error = {0};
    TestRun run;
    RunOptions options = options_of(policy, least - 1);
    assert_int_equal(test_run_open(&run, &options, &error), ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "so this figure would be the full cache's; use a longer --context"));
    char seen[64];
    snprintf(seen, sizeof seen, "a query sees at most %zu tokens", least - 2);
    assert_non_null(strstr(error.message, seen));
    options = options_of(policy, least);
    test_run(&run, &options);
    test_run_close(&run);
}

static void test_what_changes_nothing_is_refused(void **state) {
    (void)state;
    check_least_context("sink=16,f16:32,int8:*", 16 + 32 + 64 + 1);
    check_least_context("block=32,sink=16,f16:32,int8:*", 16 + 32 + 32 + 1);
    check_least_context("sink=16,f16:32", 16 + 32 + 64 + 1);
    check_least_context("block=32,f16:0,q4_0:*", 32 + 1);
    check_least_context("block=32,@0:f16:*;@1:sink=1,f16:9,int8:*", 1 + 9 + 32 + 1); /* one layer will do */
    check_least_context("block=32,sink=4,f16:8,int8:32,nf4:*", 4 + 8 + 32 + 1);
    RunOptions full = options_of("f16:*", 40);
    TestRun run;
    test_run(&run, &full);
    test_run_close(&run);
}

/* Asks to stop in the given call. */
typedef struct Stopper {
    volatile sig_atomic_t interrupted;
    size_t n_calls, stop_at;
} Stopper;

static void count_layers(void *user, size_t layer, size_t n_tokens) {
    Stopper *stopper = user;
    (void)layer;
    (void)n_tokens;
    stopper->interrupted = ++stopper->n_calls >= stopper->stop_at;
}

/* Two windows of 100 tokens in batches of 20 through 2 layers: 20 calls. A batch under way is finished; after an
 * interruption the windows that are through are as they would be. */
static void test_interruption(void **state) {
    (void)state;
    const size_t stops[][2] = {{1, 0}, {8, 0}, {9, 1}, {11, 1}, {18, 1}, {19, 2}};
    TestRun whole;
    RunOptions options = options_of("block=32,f16:8,int8:*", 100);
    options.n_batch = 20;
    test_run(&whole, &options);
    for (size_t i = 0; i < sizeof stops / sizeof *stops; i++) {
        Error error = {0};
        TestRun run;
        Stopper stopper = {.stop_at = stops[i][0]};
        assert_int_equal(test_run_open(&run, &options, &error), 0);
        run.e.interrupted = &stopper.interrupted;
        run.e.modes[0].context.on_attended = count_layers;
        run.e.modes[0].context.on_attended_user = &stopper;
        assert_int_equal(evaluation_run(&run.e, &error), stops[i][1] < 2 ? ERROR_INTERRUPTED : 0);
        assert_int_equal(run.e.n_windows, stops[i][1]);
        assert_int_equal(run.e.n_scored, 49 * stops[i][1]);
        assert_memory_equal(run.e.modes[0].nll, whole.e.modes[0].nll, run.e.n_scored * sizeof(double));
        test_run_close(&run);
    }
    test_run_close(&whole);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_full_matches_float64),
        cmocka_unit_test(test_policies_match_float64),
        cmocka_unit_test(test_batches_change_nothing),
        cmocka_unit_test(test_windows_stand_alone),
        cmocka_unit_test(test_figures),
        cmocka_unit_test(test_full_against_itself),
        cmocka_unit_test(test_foreign_base),
        cmocka_unit_test(test_what_changes_nothing_is_refused),
        cmocka_unit_test(test_interruption),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Sampling: greedy and its ties, each filter against probabilities computed by hand, frequencies against the softmax,
 * and the seed. Stop strings, which end what is sampled. */
#include "session/sampler.h"
#include "session/stop_strings.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

enum { N_VOCAB = 6, N_DRAWS = 60000 };
static const float LOGITS[N_VOCAB] = {0.5f, 2.0f, -1.0f, 2.0f, 1.0f, -3.0f};

/* Draws often and counts each token. */
static void draw(SamplerOptions options, size_t counts[N_VOCAB]) {
    Sampler sampler;
    Error error = {0};
    memset(counts, 0, N_VOCAB * sizeof *counts);
    assert_int_equal(sampler_open(&sampler, &options, N_VOCAB, &error), 0);
    for (int i = 0; i < N_DRAWS; i++)
        counts[sampler_next(&sampler, LOGITS)]++;
    sampler_close(&sampler);
}

/* Frequencies against the softmax over the tokens in `kept`, within 5 standard deviations. */
static void check_frequencies(SamplerOptions options, const bool kept[N_VOCAB]) {
    size_t counts[N_VOCAB];
    double sum = 0;
    draw(options, counts);
    for (int i = 0; i < N_VOCAB; i++)
        sum += kept[i] ? exp((double)LOGITS[i] / options.temperature) : 0;
    for (int i = 0; i < N_VOCAB; i++) {
        double p = kept[i] ? exp((double)LOGITS[i] / options.temperature) / sum : 0;
        double deviation = sqrt(N_DRAWS * p * (1 - p));
        if (!(fabs((double)counts[i] - N_DRAWS * p) <= 5 * deviation))
            fail_msg("token %d: %zu draws, expected %.0f +- %.0f", i, counts[i], N_DRAWS * p, deviation);
    }
}

static void test_greedy(void **state) {
    (void)state;
    size_t counts[N_VOCAB];
    draw((SamplerOptions){.temperature = 0, .top_p = 1}, counts);
    assert_int_equal(counts[1], N_DRAWS); /* the lowest id of two equal ones */
}

static void test_temperature(void **state) {
    (void)state;
    const bool all[N_VOCAB] = {true, true, true, true, true, true};
    check_frequencies((SamplerOptions){.temperature = 1, .top_p = 1, .seed = 3}, all);
    check_frequencies((SamplerOptions){.temperature = 0.5, .top_p = 1, .seed = 4}, all);
    check_frequencies((SamplerOptions){.temperature = 3, .top_p = 1, .top_k = 100, .seed = 5}, all);
}

static void test_top_k(void **state) {
    (void)state;
    const bool three[N_VOCAB] = {false, true, false, true, true, false}, one[N_VOCAB] = {false, true};
    check_frequencies((SamplerOptions){.temperature = 1, .top_p = 1, .top_k = 3, .seed = 6}, three);
    check_frequencies((SamplerOptions){.temperature = 1, .top_p = 1, .top_k = 1, .seed = 7}, one);
}

/* Probabilities at temperature 1: tokens 1 and 3 have 0.378 each, 4 has 0.139, 0 has 0.084. */
static void test_top_p(void **state) {
    (void)state;
    const bool two[N_VOCAB] = {false, true, false, true}, three[N_VOCAB] = {false, true, false, true, true};
    check_frequencies((SamplerOptions){.temperature = 1, .top_p = 0.7, .seed = 8}, two);
    check_frequencies((SamplerOptions){.temperature = 1, .top_p = 0.8, .seed = 9}, three);
    check_frequencies((SamplerOptions){.temperature = 1, .top_p = 0, .seed = 9}, (const bool[N_VOCAB]){false, true});
}

/* Relative to the best: 4 has 0.368, 0 has 0.223. */
static void test_min_p(void **state) {
    (void)state;
    const bool three[N_VOCAB] = {false, true, false, true, true};
    check_frequencies((SamplerOptions){.temperature = 1, .top_p = 1, .min_p = 0.3, .seed = 10}, three);
}

static void test_seed(void **state) {
    (void)state;
    Sampler a, b, c;
    Error error = {0};
    SamplerOptions options = {.temperature = 1, .top_p = 1, .seed = 42};
    sampler_open(&a, &options, N_VOCAB, &error);
    sampler_open(&b, &options, N_VOCAB, &error);
    options.seed = 43;
    sampler_open(&c, &options, N_VOCAB, &error);
    int differences = 0;
    for (int i = 0; i < 200; i++) {
        int32_t token = sampler_next(&a, LOGITS);
        assert_int_equal(sampler_next(&b, LOGITS), token);
        differences += sampler_next(&c, LOGITS) != token;
    }
    assert_true(differences > 50);
    sampler_close(&a);
    sampler_close(&b);
    sampler_close(&c);
}

/* Feeds `pieces` (NULL-terminated) and returns all that comes out before the end. */
static bool feed(const StringList *stops, const char *const *pieces, char *out) {
    StopStrings state = {.stops = stops};
    Error error = {0};
    StringView released;
    bool stopped = false;
    out[0] = '\0';
    for (size_t i = 0; pieces[i] != NULL && !stopped; i++) {
        assert_int_equal(stop_strings_feed(&state, sv(pieces[i]), &released, &stopped, &error), 0);
        strncat(out, released.bytes, released.length);
    }
    if (!stopped) {
        released = stop_strings_finish(&state);
        strncat(out, released.bytes, released.length);
    }
    stop_strings_free(&state);
    return stopped;
}

static void test_stop_strings(void **state) {
    (void)state;
    char out[64];
    StringList stops = {{"END", "stop!"}, 2}, none = {{NULL}, 0}, nested = {{"abcd", "bc"}, 2};
    assert_true(feed(&stops, (const char *const[]){"one E", "N", "Dtwo", NULL}, out));
    assert_string_equal(out, "one ");
    assert_false(feed(&stops, (const char *const[]){"EEN", "sto", "p? EN", NULL}, out));
    assert_string_equal(out, "EENstop? EN");
    assert_true(feed(&stops, (const char *const[]){"EEND", NULL}, out));
    assert_string_equal(out, "E");
    assert_true(feed(&stops, (const char *const[]){"stostop!", NULL}, out));
    assert_string_equal(out, "sto");
    assert_true(feed(&nested, (const char *const[]){"xa", "bc", "e", NULL}, out));
    assert_string_equal(out, "xa");
    assert_false(feed(&none, (const char *const[]){"END", "", NULL}, out));
    assert_string_equal(out, "END");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_greedy),       cmocka_unit_test(test_temperature), cmocka_unit_test(test_top_k),
        cmocka_unit_test(test_top_p),        cmocka_unit_test(test_min_p),       cmocka_unit_test(test_seed),
        cmocka_unit_test(test_stop_strings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

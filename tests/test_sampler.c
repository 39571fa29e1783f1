/* Sampling: greedy and its ties, each filter against probabilities computed by hand, frequencies against the softmax,
 * large vocabularies against one that is sorted, in double; penalties against their definition, and the seed. Stop
 * strings, which end what is sampled. */
#include "base/random.h"
#include "base/simd/detect.h"
#include "session/sampler.h"
#include "session/stop_strings.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

enum { N_VOCAB = 6, N_DRAWS = 60000 };
static float LOGITS[N_VOCAB] = {0.5f, 2.0f, -1.0f, 2.0f, 1.0f, -3.0f};

/* Draws often and counts each token. */
static void draw(SamplerOptions options, size_t counts[N_VOCAB]) {
    Sampler sampler;
    Error error = {0};
    memset(counts, 0, N_VOCAB * sizeof *counts);
    assert_int_equal(sampler_open(&sampler, &options, N_VOCAB, SIMD_SCALAR, &error), 0);
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
    sampler_open(&a, &options, N_VOCAB, SIMD_SCALAR, &error);
    sampler_open(&b, &options, N_VOCAB, SIMD_SCALAR, &error);
    options.seed = 43;
    sampler_open(&c, &options, N_VOCAB, SIMD_SCALAR, &error);
    int differences = 0;
    for (int i = 0; i < 200; i++) {
        int32_t token = sampler_next(&a, LOGITS);
        assert_int_equal(sampler_next(&b, LOGITS), token);
        differences += sampler_next(&c, LOGITS) != token;
    }
    assert_true(differences > 50);
    uint64_t first, second;
    assert_int_equal(sampler_draw_seed(&first, &error), 0);
    assert_int_equal(sampler_draw_seed(&second, &error), 0);
    assert_true(first != second && first < 1ull << 53 && second < 1ull << 53);
    sampler_close(&a);
    sampler_close(&b);
    sampler_close(&c);
}

/* ---- Large vocabularies */

enum { N_LARGE = 5000, N_LARGE_DRAWS = 24 };

static double gauss(uint64_t *state) {
    return sqrt(-2 * log(1 - random_uniform(state))) * cos(6.283185307179586 * random_uniform(state));
}

typedef float LogitAt(size_t i, uint64_t *state);

static float flat(size_t i, uint64_t *state) {
    (void)i;
    return (float)gauss(state);
}

static float peaked(size_t i, uint64_t *state) {
    return i % 1000 == 7 ? 25.0f - (float)i / 1000 : (float)(3 * gauss(state));
}

static float equal(size_t i, uint64_t *state) {
    (void)i, (void)state;
    return -2;
}

static float equal_but_one(size_t i, uint64_t *state) {
    (void)state;
    return i == 4321 ? 9 : 1;
}

static float few_values(size_t i, uint64_t *state) {
    (void)i;
    return (float)random_below(state, 5);
}

static float outlier(size_t i, uint64_t *state) {
    return i == 11 ? -3e38f : i == 12 ? -1e4f : (float)gauss(state);
}

static float rising(size_t i, uint64_t *state) {
    (void)state;
    return (float)i * 1e-3f;
}

static float pairs(size_t i, uint64_t *state) {
    (void)i;
    return (float)random_below(state, 2000) / 300;
}

/* Equal ones first, others near them, and one far away that puts all these into one range. */
static float runs(size_t i, uint64_t *state) {
    (void)state;
    return i == 4999 ? -1000 : i < 2000 ? 1 : 1 + 1e-4f * (float)(i % 7);
}

static float nearly_equal(size_t i, uint64_t *state) {
    (void)state;
    return i % 2 == 0 ? 1e-40f : 0;
}

typedef struct Token {
    float logit;
    int32_t id;
} Token;

static int by_logit(const void *left, const void *right) {
    const Token *a = left, *b = right;
    return a->logit != b->logit ? (a->logit < b->logit) - (a->logit > b->logit) : a->id - b->id;
}

/* The definition: what is kept of sorted tokens. */
typedef struct Kept {
    double weights[N_LARGE], sum;
    size_t n;
    bool doubtful; /* a sum is so near to a bound that rounding decides */
} Kept;

static void keep(const Token *sorted, const SamplerOptions *o, Kept *kept) {
    size_t k = o->top_k > 0 && o->top_k < N_LARGE ? o->top_k : N_LARGE;
    double all = 0;
    for (size_t i = 0; i < k; i++) {
        kept->weights[i] = exp(((double)sorted[i].logit - (double)sorted[0].logit) / o->temperature);
        all += kept->weights[i];
    }
    kept->sum = 0;
    kept->doubtful = false;
    for (kept->n = 0; kept->n < k; kept->n++) {
        double w = kept->weights[kept->n];
        kept->doubtful = kept->doubtful || fabs(w - o->min_p) < 1e-6 * w ||
                         (kept->n > 0 && o->top_p < 1 && fabs(kept->sum / all - o->top_p) < 1e-6);
        if (kept->n > 0 && (kept->sum >= o->top_p * all || w < o->min_p))
            break;
        kept->sum += w;
    }
}

/* The place of the token that the random number u draws. */
static size_t place_by_definition(const Kept *kept, double u, bool *doubtful) {
    double reached = 0;
    *doubtful = kept->doubtful;
    for (size_t i = 0; i < kept->n; i++) {
        reached += kept->weights[i];
        *doubtful = *doubtful || fabs(reached - u * kept->sum) < 1e-6 * kept->sum;
        if (reached > u * kept->sum)
            return i;
    }
    return kept->n - 1;
}

/* Returns how many draws rounding decides. */
static size_t check_large(const char *name, float *logits, const Token *sorted, const Kept *kept,
                          const SamplerOptions *o, SimdLevel level) {
    Sampler sampler;
    Error error = {0};
    size_t n_doubtful = 0;
    assert_int_equal(sampler_open(&sampler, o, N_LARGE, level, &error), 0);
    for (int i = 0; i < N_LARGE_DRAWS; i++) {
        uint64_t state = sampler.state;
        bool doubtful;
        size_t place = place_by_definition(kept, random_uniform(&state), &doubtful);
        int32_t token = sampler_next(&sampler, logits);
        n_doubtful += doubtful;
        if (!doubtful && token != sorted[place].id)
            fail_msg("%s, temperature %g, top_k %zu, top_p %g, min_p %g, %s, draw %d: token %d, expected %d", name,
                     o->temperature, o->top_k, o->top_p, o->min_p, simd_level_name(level), i, token, sorted[place].id);
    }
    sampler_close(&sampler);
    return n_doubtful;
}

static void test_large_vocabularies(void **state) {
    (void)state;
    static const struct {
        const char *name;
        LogitAt *logit;
    } shapes[] = {{"flat", flat},
                  {"peaked", peaked},
                  {"equal", equal},
                  {"equal but one", equal_but_one},
                  {"few values", few_values},
                  {"an outlier", outlier},
                  {"rising", rising},
                  {"pairs", pairs},
                  {"runs", runs}};
    static const SamplerOptions options[] = {
        {.temperature = 1, .top_p = 1},
        {.temperature = 0.8, .top_k = 200, .top_p = 1},
        {.temperature = 0.8, .top_k = 513, .top_p = 0.9},
        {.temperature = 1, .top_k = 4999, .top_p = 0.37},
        {.temperature = 0.8, .top_p = 0.9003},
        {.temperature = 0.7, .top_p = 1, .min_p = 0.051},
        {.temperature = 3, .top_k = 2000, .top_p = 0.9503, .min_p = 0.1},
        {.temperature = 100, .top_p = 0.47117},
        {.temperature = 1e-3, .top_p = 0.9903},
        {.temperature = 1e-300, .top_p = 1},
        {.temperature = 1, .top_p = 0},
    };
    static float logits[N_LARGE], before[N_LARGE];
    static Token sorted[N_LARGE];
    static Kept kept;
    size_t n_doubtful = 0, n_draws = 0;
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        uint64_t random = s + 1;
        for (size_t i = 0; i < N_LARGE; i++) {
            logits[i] = before[i] = shapes[s].logit(i, &random);
            sorted[i] = (Token){logits[i], (int32_t)i};
        }
        qsort(sorted, N_LARGE, sizeof *sorted, by_logit);
        for (size_t o = 0; o < sizeof options / sizeof *options; o++) {
            keep(sorted, &options[o], &kept);
            for (SimdLevel level = SIMD_SCALAR; level != SIMD_LEVEL_COUNT; level = cpu_next_level(level)) {
                n_doubtful += check_large(shapes[s].name, logits, sorted, &kept, &options[o], level);
                n_draws += N_LARGE_DRAWS;
            }
        }
        assert_memory_equal(logits, before, sizeof logits);
    }
    assert_true(n_doubtful <= n_draws / 20);
}

/* Differences that F32 cannot cut into ranges: any token will do, and there is an end. */
static void test_nearly_equal_logits(void **state) {
    (void)state;
    static float logits[N_LARGE];
    for (size_t i = 0; i < N_LARGE; i++)
        logits[i] = nearly_equal(i, NULL);
    Sampler sampler;
    Error error = {0};
    SamplerOptions options = {.temperature = 1, .top_p = 0.5, .seed = 2};
    assert_int_equal(sampler_open(&sampler, &options, N_LARGE, cpu_best_simd_level(), &error), 0);
    for (int i = 0; i < N_LARGE_DRAWS; i++)
        assert_in_range(sampler_next(&sampler, logits), 0, N_LARGE - 1);
    sampler_close(&sampler);
}

/* Every level finds the first of the largest. */
static void test_large_greedy(void **state) {
    (void)state;
    static float logits[N_LARGE];
    uint64_t random = 5;
    for (SimdLevel level = SIMD_SCALAR; level != SIMD_LEVEL_COUNT; level = cpu_next_level(level))
        for (size_t n = 1; n < 200; n++) {
            Sampler sampler;
            Error error = {0};
            size_t best = 0;
            for (size_t i = 0; i < n; i++) {
                logits[i] = (float)random_below(&random, n) - (float)n;
                best = logits[i] > logits[best] ? i : best;
            }
            assert_int_equal(sampler_open(&sampler, &(SamplerOptions){.top_p = 1}, n, level, &error), 0);
            assert_int_equal(sampler_next(&sampler, logits), best);
            sampler_close(&sampler);
        }
}

/* ---- Penalties */

/* llama.cpp's definition: not positive, times the repetition penalty, else divided by it; then minus count * frequency
 * and, where count > 0, presence. */
static double penalized(double logit, size_t count, const Penalties *p) {
    if (count == 0)
        return logit;
    logit = logit <= 0 ? logit * p->repetition : logit / p->repetition;
    return logit - (double)count * p->frequency - p->presence;
}

enum { N_TOKENS = 300, N_PENALIZED = 50 };

static void check_penalties(const Penalties *p, bool reset_first) {
    PenaltyState s;
    Error error = {0};
    float logits[N_PENALIZED], before[N_PENALIZED];
    int32_t history[N_TOKENS];
    uint64_t random = 9;
    assert_int_equal(penalties_open(&s, p, N_PENALIZED, &error), 0);
    for (int i = 0; reset_first && i < 100; i++)
        assert_int_equal(penalties_accept(&s, i % N_PENALIZED, &error), 0);
    if (reset_first)
        penalties_reset(&s);
    for (size_t n = 0; n < N_TOKENS; n++) {
        size_t counts[N_PENALIZED] = {0}, first = p->window < n ? n - p->window : 0;
        for (size_t i = first; i < n; i++)
            counts[history[i]]++;
        for (size_t i = 0; i < N_PENALIZED; i++)
            before[i] = logits[i] = (float)(i == 3 ? 0 : 4 * gauss(&random));
        penalties_apply(&s, logits);
        for (size_t i = 0; i < N_PENALIZED; i++) {
            double expected = penalized((double)before[i], counts[i], p);
            double largest = fabs(20 * p->repetition) + N_TOKENS * fabs(p->frequency) + fabs(p->presence);
            if (!(fabs((double)logits[i] - expected) <= 4 * FLT_EPSILON * largest))
                fail_msg("%zu tokens, %zu times token %zu: logit %g, expected %g", n, counts[i], i, (double)logits[i],
                         expected);
        }
        penalties_undo(&s, logits);
        assert_memory_equal(logits, before, sizeof logits);
        history[n] = (int32_t)(random_below(&random, N_PENALIZED) * random_below(&random, 2)); /* often token 0 */
        assert_int_equal(penalties_accept(&s, history[n], &error), 0);
    }
    penalties_close(&s);
}

static void test_penalties(void **state) {
    (void)state;
    static const Penalties rows[] = {
        {1.3, 0, 0, 64}, {1, 0.5, 0, 64},   {1, 0, 0.7, 64},       {1.2, 0.1, -0.3, 10},       {0.5, -0.2, 0, 1},
        {2, 1, 1, 299},  {2, 1, 1, 100000}, {1.1, 0, 0, SIZE_MAX}, {100, -100, 100, SIZE_MAX}, {1, 0, 0, 64},
        {3, 3, 3, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        Penalties off = rows[i].window > 0 ? rows[i] : (Penalties){1, 0, 0, 0};
        if (rows[i].window > 0)
            check_penalties(&rows[i], i % 2 == 0);
        else
            check_penalties(&off, false);
        assert_int_equal(penalties_are_on(&rows[i]), i < 9);
    }
}

/* Greedily: the second best once the best was there, in F32 as far as it goes. */
static void test_penalized_choice(void **state) {
    (void)state;
    Sampler sampler;
    Error error = {0};
    SamplerOptions options = {.top_p = 1, .penalties = {.repetition = 1.5, .window = 2}};
    assert_int_equal(sampler_open(&sampler, &options, N_VOCAB, SIMD_SCALAR, &error), 0);
    assert_int_equal(sampler_next(&sampler, LOGITS), 1);
    assert_int_equal(sampler_accept(&sampler, 1, &error), 0);
    assert_int_equal(sampler_next(&sampler, LOGITS), 3);
    assert_int_equal(sampler_accept(&sampler, 3, &error), 0);
    assert_int_equal(sampler_next(&sampler, LOGITS), 1); /* 2 / 1.5 is more than token 4's 1 */
    assert_int_equal(sampler_accept(&sampler, 3, &error), 0);
    assert_int_equal(sampler_next(&sampler, LOGITS), 1); /* token 1 has left the window */
    sampler_reset(&sampler);
    assert_int_equal(sampler_next(&sampler, LOGITS), 1);
    sampler_close(&sampler);

    options.penalties.repetition = 100;
    options.penalties.frequency = 100;
    float huge[2] = {3e38f, -3e38f};
    assert_int_equal(sampler_open(&sampler, &options, 2, SIMD_SCALAR, &error), 0);
    sampler_accept(&sampler, 1, &error);
    assert_int_equal(sampler_next(&sampler, huge), 0);
    sampler_close(&sampler);
}

static void test_argmax(void **state) {
    (void)state;
    const SamplerOptions none = {.temperature = 0.8, .top_k = 200, .top_p = 1, .penalties = {1, 0, 0, 64}};
    SamplerOptions o = none;
    assert_false(sampler_is_argmax(&o));
    o.temperature = 0;
    assert_true(sampler_is_argmax(&o));
    o.penalties.presence = 0.1;
    assert_false(sampler_is_argmax(&o));
    o.penalties.window = 0;
    assert_true(sampler_is_argmax(&o));
    o = none;
    o.top_k = 1;
    assert_true(sampler_is_argmax(&o));
    o = none;
    o.top_p = 0;
    assert_true(sampler_is_argmax(&o));
    o = none;
    o.min_p = 1;
    assert_false(sampler_is_argmax(&o)); /* equal ones are drawn from */
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
        cmocka_unit_test(test_greedy),
        cmocka_unit_test(test_temperature),
        cmocka_unit_test(test_top_k),
        cmocka_unit_test(test_top_p),
        cmocka_unit_test(test_min_p),
        cmocka_unit_test(test_seed),
        cmocka_unit_test(test_stop_strings),
        cmocka_unit_test(test_large_vocabularies),
        cmocka_unit_test(test_nearly_equal_logits),
        cmocka_unit_test(test_large_greedy),
        cmocka_unit_test(test_penalties),
        cmocka_unit_test(test_penalized_choice),
        cmocka_unit_test(test_argmax),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

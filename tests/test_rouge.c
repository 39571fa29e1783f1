/* ROUGE, the stemmer and the bootstrap against published values, cases worked out by hand, and the Python packages that
 * define them; longest common subsequences against all subsequences; the reader of JSON lines. */
#include "base/random.h"
#include "eval/rouge/bootstrap.h"
#include "session/jsonl.h"
#include "eval/rouge/lcs.h"
#include "eval/rouge/porter_stemmer.h"
#include "eval/rouge/score.h"
#include "eval/rouge/tokens.h"
#include "tests/fixture_files.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>
#include <utf8proc.h>

#include <cmocka.h>

static const char CATS[] = "The cat's owners were running quickly, it's 3.5 miles.\nThey stopped in Z\xC3\xBCrich.";
static const char CAT[] = "The cat owner ran 3.5 miles quickly.\nThey stop in Zurich.";

static void check_score(RougeScore score, double precision, double recall, double f, double tolerance,
                        const char *what) {
    if (!(fabs(score.precision - precision) <= tolerance && fabs(score.recall - recall) <= tolerance &&
          fabs(score.f - f) <= tolerance))
        fail_msg("%s: %.12f %.12f %.12f, expected %.12f %.12f %.12f", what, score.precision, score.recall, score.f,
                 precision, recall, f);
}

static RougeScore score(StringView reference, StringView prediction, RougeVariant variant, bool stem) {
    RougeScore out;
    Error error = {0};
    RougeOptions options = {variant, stem};
    if (rouge_score(&reference, 1, prediction, &options, &out, &error) < 0)
        fail_msg("%s", error.message);
    return out;
}

/* ---- Scores */

static void test_known_values(void **state) {
    (void)state;
    static const struct {
        const char *reference, *prediction;
        RougeVariant variant;
        bool stem;
        double p, r, f;
    } CASES[] = {
        {"The quick brown fox jumps over the lazy dog", "The quick brown dog jumps on the log.", ROUGE_L, false, .625,
         .555556, .588235},
        {CATS, CAT, ROUGE_L, false, .583333, .411765, .482759},
        {CATS, CAT, ROUGE_L, true, .75, .529412, .620690},
        {"w1 w2 w3 w4 w5", "w1 w2 w6 w7 w8\nw1 w3 w8 w9 w5", ROUGE_LSUM, false, .4, .8, .533333},
        {"testing one two", "testing two", ROUGE_L, false, 1, .666667, .8},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++)
        check_score(score(sv(CASES[i].reference), sv(CASES[i].prediction), CASES[i].variant, CASES[i].stem), CASES[i].p,
                    CASES[i].r, CASES[i].f, 5e-7, CASES[i].prediction);
}

/* "a b a c" and "a a b": common words a a b, pairs "a b", the longest common subsequence "a b" or "a a". */
static void test_by_hand(void **state) {
    (void)state;
    StringView reference = sv("a b a c"), prediction = sv("a a b");
    check_score(score(reference, prediction, ROUGE_1, false), 1, 3 / 4., 6 / 7., 1e-15, "rouge1");
    check_score(score(reference, prediction, ROUGE_2, false), 1 / 2., 1 / 3., 2 / 5., 1e-15, "rouge2");
    check_score(score(reference, prediction, ROUGE_L, false), 2 / 3., 2 / 4., 4 / 7., 1e-15, "rougeL");
    check_score(score(sv("a b\na c"), prediction, ROUGE_LSUM, false), 1, 3 / 4., 6 / 7., 1e-15, "rougeLsum");
    check_score(score(sv("a"), sv("a"), ROUGE_2, false), 0, 0, 0, 0, "no pairs");
    check_score(score(sv(""), sv("a"), ROUGE_L, false), 0, 0, 0, 0, "nothing to compare with");
    check_score(score(sv("a"), sv("\xE6\x9D\xB1"), ROUGE_LSUM, false), 0, 0, 0, 0, "no letters");
    check_score(score(sv("a-B"), sv("A b"), ROUGE_L, false), 1, 1, 1, 0, "case and punctuation");
    check_score(score(sv("his cats"), sv("hi cat"), ROUGE_1, true), .5, .5, .5, 0, "three letters are not stemmed");
}

/* The same F, reached twice: the first reference counts. */
static void test_several_references(void **state) {
    (void)state;
    RougeScore out;
    Error error = {0};
    RougeOptions options = {ROUGE_1, false};
    StringView references[] = {sv("x"), sv("a"), sv("a b c d"), sv("a b z z")};
    assert_int_equal(rouge_score(references, 3, sv("a b"), &options, &out, &error), 0);
    check_score(out, 1 / 2., 1, 2 / 3., 1e-15, "the first of the best");
    assert_int_equal(rouge_score(references, 1, sv("a b"), &options, &out, &error), 0);
    check_score(out, 0, 0, 0, 0, "the best is 0");
    RougeScore scores[] = {{1, 0.5, 0.25}, {0, 0, 0.75}}, mean = rouge_mean(scores, 2);
    check_score(mean, 0.5, 0.25, 0.5, 0, "the mean");
}

static void test_variant_names(void **state) {
    (void)state;
    Error error = {0};
    RougeVariant variant;
    for (RougeVariant v = 0; v < ROUGE_VARIANT_COUNT; v++) {
        assert_int_equal(rouge_variant_parse(rouge_variant_name(v), &variant, &error), 0);
        assert_int_equal(variant, v);
    }
    assert_int_equal(rouge_variant_parse("rouge-l", &variant, &error), ERROR_USAGE);
    assert_non_null(strstr(error.message, "did you mean rouge"));
}

/* rouge-score's own scores of 180 pairs, in all variants. */
static void test_against_rouge_score(void **state) {
    (void)state;
    JsonlReader reader;
    Error error = {0};
    int status, n = 0;
    if (jsonl_open(&reader, fixture_path("STOWKV_FIXTURES", "rouge/pairs.jsonl"), &error) < 0)
        fail_msg("%s", error.message);
    while ((status = jsonl_next(&reader, &error)) > 0) {
        cJSON *texts;
        StringView prediction, references[8];
        assert_int_equal(jsonl_texts(&reader, "reference", &texts, &error), 0);
        assert_int_equal(jsonl_text(&reader, "prediction", &prediction, &error), 0);
        size_t n_references = jsonl_texts_count(texts);
        for (size_t i = 0; i < n_references; i++)
            references[i] = jsonl_texts_get(texts, i);
        for (int stem = 0; stem < 2; stem++)
            for (RougeVariant variant = 0; variant < ROUGE_VARIANT_COUNT; variant++) {
                const cJSON *expected =
                    jsonl_field(jsonl_field(reader.object, stem ? "stemmed" : "plain"), rouge_variant_name(variant));
                RougeOptions options = {variant, stem};
                RougeScore out;
                char what[80];
                snprintf(what, sizeof what, "line %zu, %s%s", reader.number, rouge_variant_name(variant),
                         stem ? ", stemmed" : "");
                assert_int_equal(rouge_score(references, n_references, prediction, &options, &out, &error), 0);
                check_score(out, cJSON_GetArrayItem(expected, 0)->valuedouble,
                            cJSON_GetArrayItem(expected, 1)->valuedouble, cJSON_GetArrayItem(expected, 2)->valuedouble,
                            1e-9, what);
                n++;
            }
    }
    if (status < 0)
        fail_msg("%s", error.message);
    jsonl_close(&reader);
    assert_true(n >= 8 * 150);
}

/* ---- Words */

/* Whether the two texts are the same words. */
static bool same_words(StringView a, StringView b) {
    RougePair pair;
    Error error = {0};
    assert_int_equal(rouge_pair_open(&pair, a, b, false, false, &error), 0);
    bool same = pair.reference.count == pair.prediction.count &&
                memcmp(pair.reference.ids, pair.prediction.ids, pair.reference.count * sizeof(uint32_t)) == 0;
    rouge_pair_close(&pair);
    return same;
}

static size_t write_between(char *out, uint32_t code_point) { /* "a?b " */
    size_t length = 1;
    out[0] = 'a';
    length += (size_t)utf8proc_encode_char((utf8proc_int32_t)code_point, (utf8proc_uint8_t *)out + 1);
    memcpy(out + length, "b ", 2);
    return length + 2;
}

/* Every character between an a and a b: in letters.txt with the words that this makes, or not part of a word. */
static void test_letters(void **state) {
    (void)state;
    enum { N_TOGETHER = 4096 };
    static char text[N_TOGETHER * 8], expected[N_TOGETHER * 8];
    FILE *file = fopen(fixture_path("STOWKV_FIXTURES", "rouge/letters.txt"), "r");
    assert_non_null(file);
    uint32_t next = 0x110000;
    char words[16] = "";
    int n_letters = fscanf(file, "%x %15[^\n]", &next, words) == 2;
    for (uint32_t first = 0; first < 0x110000; first += N_TOGETHER) {
        size_t n_text = 0, n_expected = 0;
        for (uint32_t c = first; c < first + N_TOGETHER; c++) {
            n_text += write_between(text + n_text, c);
            n_expected += (size_t)sprintf(expected + n_expected, "%s ", c == next ? words : "a b");
            if (c == next)
                n_letters += fscanf(file, "%x %15[^\n]", &next, words) == 2;
        }
        if (!same_words((StringView){text, n_text}, (StringView){expected, n_expected}))
            fail_msg("a character from U+%04X on is read otherwise", first);
    }
    assert_int_equal(n_letters, 36 + 26 + 2);
    fclose(file);
}

static void test_words(void **state) {
    (void)state;
    assert_true(same_words(sv("\xC4\xB0stanbul 300\xE2\x84\xAA"), sv("i stanbul 300k")));
    assert_true(same_words(sv("\xE2\x84 \xC4 \xB0 a"), sv("a"))); /* pieces of those two */
    assert_true(rouge_has_words(sv("...\xE2\x84\xAA")));
    assert_false(rouge_has_words(sv("\xE6\x9D\xB1\xE4\xBA\xAC!")));
    assert_false(rouge_has_words(sv("")));
}

static void test_sentences(void **state) {
    (void)state;
    RougePair pair;
    Error error = {0};
    assert_int_equal(rouge_pair_open(&pair, sv("\na b\r\n\n...\nc"), sv("a\n"), false, true, &error), 0);
    assert_int_equal(pair.reference.n_sentences, 2);
    assert_int_equal(pair.reference.ends[0], 2);
    assert_int_equal(pair.reference.ends[1], 3);
    assert_int_equal(pair.prediction.n_sentences, 1);
    rouge_pair_close(&pair);
}

/* NLTK's stems of 13,000 words, real ones and made up ones that meet every rule. */
static void test_stems(void **state) {
    (void)state;
    FILE *file = fopen(fixture_path("STOWKV_FIXTURES", "rouge/stems.txt"), "r");
    assert_non_null(file);
    char line[600], word[200], stem[200], found[200];
    int n = 0, n_wrong = 0;
    while (fgets(line, sizeof line, file) != NULL && sscanf(line, "%199s %199s", word, stem) == 2) {
        strcpy(found, word);
        found[porter_stem(found, strlen(found))] = '\0';
        if (strcmp(found, stem) != 0 && n_wrong++ < 10)
            print_error("%s: %s, expected %s\n", word, found, stem);
        n++;
    }
    fclose(file);
    assert_int_equal(n_wrong, 0);
    assert_true(n > 7000);
}

static void test_stems_by_hand(void **state) {
    (void)state;
    static const char *const STEMS[][2] = {
        {"enjoy", "enjoy"}, {"died", "die"},  {"owed", "owe"},         {"flies", "fli"},   {"spied", "spi"},
        {"sky", "sky"},     {"dying", "die"}, {"sensibly", "sensibl"}, {"hopping", "hop"}, {"generalizations", "gener"},
    };
    for (size_t i = 0; i < sizeof STEMS / sizeof *STEMS; i++) {
        char word[20];
        strcpy(word, STEMS[i][0]);
        word[porter_stem(word, strlen(word))] = '\0';
        assert_string_equal(word, STEMS[i][1]);
    }
}

/* ---- Longest common subsequences */

static size_t slow_length(const uint32_t *a, size_t n_a, const uint32_t *b, size_t n_b) {
    if (n_a == 0 || n_b == 0)
        return 0;
    if (a[0] == b[0])
        return 1 + slow_length(a + 1, n_a - 1, b + 1, n_b - 1);
    size_t x = slow_length(a + 1, n_a - 1, b, n_b), y = slow_length(a, n_a, b + 1, n_b - 1);
    return x > y ? x : y;
}

/* What is marked is as long as the longest, and a subsequence of b too. */
static void test_lcs(void **state) {
    (void)state;
    uint64_t random = 3;
    for (int round = 0; round < 2000; round++) {
        uint32_t a[10], b[10];
        bool marks[10] = {false};
        size_t n_a = random_below(&random, 11), n_b = random_below(&random, 11), length, n_marked = 0, j = 0;
        for (size_t i = 0; i < 10; i++) {
            a[i] = (uint32_t)random_below(&random, 4);
            b[i] = (uint32_t)random_below(&random, 4);
        }
        Error error = {0};
        assert_int_equal(lcs_length(a, n_a, b, n_b, &length, &error), 0);
        assert_int_equal(length, slow_length(a, n_a, b, n_b));
        assert_int_equal(lcs_mark(a, n_a, b, n_b, marks, &error), 0);
        for (size_t i = 0; i < n_a; i++) {
            while (marks[i] && j < n_b && b[j] != a[i])
                j++;
            n_marked += marks[i];
            assert_true(!marks[i] || j++ < n_b);
        }
        assert_int_equal(n_marked, length);
    }
}

/* Sizes that no machine has are an error, not a crash. */
static void test_lcs_too_large(void **state) {
    (void)state;
    uint32_t ids[1] = {0};
    bool marks[1];
    size_t length;
    Error error = {0};
    assert_int_equal(lcs_length(ids, SIZE_MAX, ids, SIZE_MAX, &length, &error), ERROR_MEMORY);
    assert_int_equal(lcs_mark(ids, SIZE_MAX, ids, SIZE_MAX, marks, &error), ERROR_MEMORY);
    assert_int_equal(lcs_mark(ids, SIZE_MAX / 2, ids, 1 << 20, marks, &error), ERROR_MEMORY);
}

/* ---- The bootstrap */

/* The first numbers of seed 1234567 as Rosetta Code has them. */
static void test_random(void **state) {
    (void)state;
    uint64_t random = 1234567;
    size_t counts[3] = {0};
    assert_int_equal(random_next(&random), 6457827717110365317u);
    assert_int_equal(random_next(&random), 3203168211198807973u);
    assert_int_equal(random_next(&random), 9817491932198370423u);
    for (int i = 0; i < 30000; i++)
        counts[random_below(&random, (uint64_t)3 << 62) >> 62]++; /* a quarter of all numbers is drawn again */
    for (int i = 0; i < 3; i++)
        assert_true(fabs((double)counts[i] - 10000) < 5 * sqrt(30000 * (1 / 3.) * (2 / 3.)));
}

/* The smallest mean that at least the share `p` of all 4^4 resamples does not exceed. */
static double exact_percentile(const double values[4], double p) {
    double candidate = INFINITY;
    for (int pick = 0; pick < 256; pick++) {
        double sum = values[pick & 3] + values[pick >> 2 & 3] + values[pick >> 4 & 3] + values[pick >> 6];
        int n_below = 0;
        for (int other = 0; other < 256; other++)
            n_below += values[other & 3] + values[other >> 2 & 3] + values[other >> 4 & 3] + values[other >> 6] <= sum;
        if (n_below >= p * 256 && sum / 4 < candidate)
            candidate = sum / 4;
    }
    return candidate;
}

static void test_bootstrap_by_enumeration(void **state) {
    (void)state;
    const double values[4] = {0, 1, 3, 7};
    Error error = {0};
    for (uint64_t seed = 1; seed <= 5; seed++) {
        Interval interval;
        assert_int_equal(bootstrap_mean(values, 4, 20000, seed, &interval, &error), 0);
        assert_true(interval.mean == 11 / 4.);
        assert_true(interval.low == exact_percentile(values, 0.025));
        assert_true(interval.high == exact_percentile(values, 0.975));
    }
}

static void test_bootstrap_seed(void **state) {
    (void)state;
    double values[50];
    uint64_t random = 9;
    Interval a, b, c, single;
    Error error = {0};
    for (int i = 0; i < 50; i++)
        values[i] = random_uniform(&random);
    assert_int_equal(bootstrap_mean(values, 50, 1000, 1, &a, &error), 0);
    assert_int_equal(bootstrap_mean(values, 50, 1000, 1, &b, &error), 0);
    assert_int_equal(bootstrap_mean(values, 50, 1000, 2, &c, &error), 0);
    assert_memory_equal(&a, &b, sizeof a);
    assert_true(a.low != c.low && a.low < a.mean && a.mean < a.high);
    assert_int_equal(bootstrap_mean(values, 1, 10, 1, &single, &error), 0);
    assert_true(single.low == values[0] && single.high == values[0]);
}

/* The same draws in Python, their percentiles by numpy. */
static void test_bootstrap_against_numpy(void **state) {
    (void)state;
    size_t size;
    char *text = fixture_load(fixture_path("STOWKV_FIXTURES", "rouge/bootstrap.json"), &size);
    cJSON *expected = cJSON_ParseWithLength(text, size);
    double values[64];
    size_t n = 0;
    for (const cJSON *value = jsonl_field(expected, "values")->child; value != NULL; value = value->next)
        values[n++] = value->valuedouble;
    Interval interval;
    Error error = {0};
    assert_int_equal(bootstrap_mean(values, n, (size_t)jsonl_field(expected, "n_resamples")->valuedouble,
                                    (uint64_t)jsonl_field(expected, "seed")->valuedouble, &interval, &error),
                     0);
    assert_true(fabs(interval.mean - jsonl_field(expected, "mean")->valuedouble) < 1e-12);
    assert_true(fabs(interval.low - jsonl_field(expected, "low")->valuedouble) < 1e-12);
    assert_true(fabs(interval.high - jsonl_field(expected, "high")->valuedouble) < 1e-12);
    cJSON_Delete(expected);
    free(text);
}

/* ---- JSON lines */

/* Opens a reader on these bytes. */
static void open_bytes(JsonlReader *reader, const char *bytes, size_t n) {
    Error error = {0};
    char path[] = "/tmp/test_rouge.XXXXXX";
    int descriptor = mkstemp(path);
    assert_true(descriptor >= 0 && write(descriptor, bytes, n) == (ssize_t)n && close(descriptor) == 0);
    assert_int_equal(jsonl_open(reader, path, &error), 0);
    unlink(path);
    reader->path = "f";
}

static void check_bad_line(const char *bytes, size_t n, const char *words) {
    JsonlReader reader;
    Error error = {0};
    cJSON *texts;
    int status;
    open_bytes(&reader, bytes, n);
    while ((status = jsonl_next(&reader, &error)) > 0)
        if (jsonl_texts(&reader, "t", &texts, &error) < 0 && jsonl_settle(&reader, &error) < 0)
            break;
    if (error.code != ERROR_FORMAT || strstr(error.message, words) == NULL ||
        strstr(error.message, "; correct the line, or") == NULL)
        fail_msg("\"%s\": \"%s\" does not have \"%s\"", bytes, error.message, words);
    jsonl_close(&reader);
}

static void test_bad_lines(void **state) {
    (void)state;
    static const struct {
        const char *line, *words;
    } CASES[] = {
        {"{\"t\":\"a\"}\n\n{\"t\":", "f:3: the line is not JSON"},
        {"{\"t\":\"a\"} x\n", "f:1: something stands behind the JSON value, at byte 11"},
        {"[1]", "expected a JSON object"},
        {"{\"u\":1,\"v\":2}", "there is no field \"t\" (fields: u, v)"},
        {"{}", "there is no field \"t\" (fields: none)"},
        {"{\"t\":1}", "\"t\" is a number"},
        {"{\"t\":null}", "\"t\" is null"},
        {"{\"t\":{}}", "\"t\" is an object"},
        {"{\"t\":[]}", "empty array"},
        {"{\"t\":[\"a\",1]}", "a number among its texts"},
        {"{\"t\":\"a\\u0000b\"}", "\\u0000"},
        {"{\"t\":\"\\ud800\"}", "not JSON"},
        {"{\"t\":\"\xFF\"}", "not UTF-8"},
        {"{\"t\":\"a\nb\"}", "f:1: the line is not JSON"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++)
        check_bad_line(CASES[i].line, strlen(CASES[i].line), CASES[i].words);
    check_bad_line("{\"t\":\"\0\"}", 9, "NUL byte");
}

/* A byte order mark, CRLF, empty lines, no newline at the end, the last of two equal fields, an escaped backslash. */
static void test_good_lines(void **state) {
    (void)state;
    static const char BYTES[] =
        "\xEF\xBB\xBF{\"t\":\"x\",\"t\":\"1\"}\r\n \r\n\n{\"t\":[\"2\",\"3\"]}\n{\"t\":\"\\\\u0000\"}";
    static const char *const EXPECTED[] = {"1", "2", "\\u0000"};
    JsonlReader reader;
    Error error = {0};
    cJSON *texts;
    size_t n = 0;
    open_bytes(&reader, BYTES, sizeof BYTES - 1);
    while (jsonl_next(&reader, &error) > 0) {
        assert_int_equal(jsonl_texts(&reader, "t", &texts, &error), 0);
        assert_true(sv_is(jsonl_texts_get(texts, 0), EXPECTED[n++]));
        assert_int_equal(jsonl_texts_count(texts), n == 2 ? 2 : 1);
    }
    assert_int_equal(error.code, 0);
    assert_int_equal(n, 3);
    assert_int_equal(reader.number, 5);
    jsonl_close(&reader);
}

static void test_skipped_lines(void **state) {
    (void)state;
    static const char BYTES[] = "{\n{\"t\":\"a\"}\n[]\n{}\n";
    JsonlReader reader;
    Error error = {0};
    StringView text;
    size_t n = 0;
    open_bytes(&reader, BYTES, sizeof BYTES - 1);
    reader.notes = tmpfile();
    while (jsonl_next(&reader, &error) > 0) {
        n++;
        assert_true(jsonl_text(&reader, "t", &text, &error) == 0 || jsonl_settle(&reader, &error) == 0);
    }
    assert_int_equal(error.code, 0);
    assert_int_equal(n, 2);
    assert_int_equal(reader.n_bad, 3);
    fclose(reader.notes);
    jsonl_close(&reader);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_values),
        cmocka_unit_test(test_by_hand),
        cmocka_unit_test(test_several_references),
        cmocka_unit_test(test_variant_names),
        cmocka_unit_test(test_against_rouge_score),
        cmocka_unit_test(test_letters),
        cmocka_unit_test(test_words),
        cmocka_unit_test(test_sentences),
        cmocka_unit_test(test_stems),
        cmocka_unit_test(test_stems_by_hand),
        cmocka_unit_test(test_lcs),
        cmocka_unit_test(test_lcs_too_large),
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_bootstrap_by_enumeration),
        cmocka_unit_test(test_bootstrap_seed),
        cmocka_unit_test(test_bootstrap_against_numpy),
        cmocka_unit_test(test_bad_lines),
        cmocka_unit_test(test_good_lines),
        cmocka_unit_test(test_skipped_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

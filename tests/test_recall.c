/* Recall: sequences against another program's, what a model made by hand says of them against closed forms and float64,
 * the same bits for any batch and thread count; needles, their prompts and their answers. */
#include "base/simd/detect.h"
#include "cpu/backend.h"
#include "eval/recall/needle_run.h"
#include "eval/recall/report.h"
#include "eval/recall/settings.h"
#include "kvcache/policy_text.h"
#include "tests/fixture_files.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* ---- At a distance */

/* A line of recall/cases. */
typedef struct RecallCase {
    size_t index;
    char policy[128];
    size_t distance, segment, n_samples;
    unsigned long long seed;
    double known;
} RecallCase;

static size_t read_cases(RecallCase *cases, size_t capacity) {
    FILE *file = fopen(fixture_path("STOWKV_FIXTURES", "recall/cases"), "r");
    char line[256];
    size_t n = 0;
    assert_non_null(file);
    for (; fgets(line, sizeof line, file) != NULL; n++) {
        assert_true(n < capacity);
        RecallCase *c = &cases[n];
        c->index = n;
        assert_int_equal(sscanf(line, "%127s %zu %zu %zu %llu %lf", c->policy, &c->distance, &c->segment, &c->n_samples,
                                &c->seed, &c->known),
                         6);
    }
    fclose(file);
    assert_int_equal(n, capacity);
    return n;
}

/* A case that was run. */
typedef struct RecallRun {
    Model model;
    Tokenizer *tokenizer;
    RecallTask task;
    RecallSequences sequences;
    Evaluation e;
} RecallRun;

static void open_model(Model *model, Tokenizer **tokenizer, const char *name, int n_threads) {
    Error error = {0};
    Backend *backend;
    assert_int_equal(cpu_backend_open(&backend, cpu_best_simd_level(), n_threads, &error), 0);
    if (model_open(model, fixture_path("STOWKV_FIXTURES", name), backend, &error) < 0 ||
        tokenizer_open_vocabulary(tokenizer, &model->checkpoint.vocabulary, &error) < 0)
        fail_msg("%s: %s", name, error.message);
}

static void make_sequences(RecallRun *run, const RecallCase *c, int n_threads) {
    Error error = {0};
    open_model(&run->model, &run->tokenizer, "recall/copies.gguf", n_threads);
    run->task = (RecallTask){.distances = {{c->distance}, 1},
                             .segment = c->segment,
                             .n_samples = c->n_samples,
                             .seed = c->seed,
                             .bos = tokenizer_bos(run->tokenizer)};
    if (recall_ordinary_tokens(run->tokenizer, &run->task, &error) < 0 ||
        recall_sequences(&run->task, &run->sequences, &error) < 0)
        fail_msg("%s", error.message);
}

static int open_evaluation(RecallRun *run, const char *text, size_t n_batch, Error *error) {
    KvPolicy policy = kv_policy_full();
    assert_int_equal(kv_policy_parse(text, &policy, error), 0);
    run->e = (Evaluation){.model = &run->model,
                          .tokens = run->sequences.tokens,
                          .bos = -1,
                          .windows = run->sequences.windows,
                          .n_ctx = recall_tokens_needed(run->task.segment, run->task.distances.items[0]),
                          .n_batch = n_batch,
                          .longer = "longer --distances"};
    run->sequences.windows = (PplWindows){0};
    return evaluation_open(&run->e, &policy, 1, error);
}

static void run_case(RecallRun *run, const RecallCase *c, size_t n_batch, int n_threads) {
    Error error = {0};
    make_sequences(run, c, n_threads);
    if (open_evaluation(run, c->policy, n_batch, &error) < 0 || evaluation_run(&run->e, &error) < 0)
        fail_msg("%s: %s", c->policy, error.message);
}

static void close_run(RecallRun *run) {
    evaluation_close(&run->e);
    recall_sequences_free(&run->sequences);
    recall_task_free(&run->task);
    tokenizer_free(run->tokenizer);
    model_close(&run->model);
}

enum { N_CASES = 6 };

static void *load_of_case(const RecallCase *c, const char *suffix, size_t *size) {
    char name[64];
    snprintf(name, sizeof name, "recall/%zu.%s", c->index, suffix);
    return fixture_load(fixture_path("STOWKV_FIXTURES", name), size);
}

static void test_sequences_match_python(void **state) {
    (void)state;
    RecallCase cases[N_CASES];
    for (size_t i = 0; i < read_cases(cases, N_CASES); i++) {
        size_t size;
        RecallRun run = {0};
        make_sequences(&run, &cases[i], 1);
        int32_t *expected = load_of_case(&cases[i], "tokens", &size);
        assert_int_equal(size, run.sequences.windows.n_tokens * sizeof *expected);
        assert_memory_equal(run.sequences.tokens, expected, size);
        free(expected);
        close_run(&run);
    }
}

/* Whether each sequence is what it says: a segment of tokens that stand nowhere else, and come again at the distance.
 */
static void check_sequence(const RecallTask *task, const int32_t *tokens, const PplWindow *w, size_t distance) {
    const int32_t *t = tokens + w->begin;
    size_t length = w->end - w->begin, second = length - task->segment, first = second - distance;
    assert_true(first >= RECALL_LEAD && first < 2 * RECALL_LEAD);
    assert_true(length <= recall_tokens_needed(task->segment, distance));
    assert_int_equal(w->first_target, w->end - task->segment + task->segment / 4);
    assert_int_equal(t[0], task->bos);
    for (size_t i = 0; i < task->segment; i++) {
        size_t n_equal = 0;
        for (size_t j = 0; j < length; j++)
            n_equal += t[j] == t[first + i];
        assert_int_equal(t[second + i], t[first + i]);
        assert_int_equal(n_equal, 2);
    }
    for (size_t j = 1; j < length; j++)
        assert_true(t[j] >= 3 && t[j] < 64); /* of this vocabulary 0 to 2 are no text */
}

static void test_sequences_hold_their_segment(void **state) {
    (void)state;
    RecallRun run = {0};
    Error error = {0};
    open_model(&run.model, &run.tokenizer, "recall/copies.gguf", 1);
    run.task = (RecallTask){.distances = {{8, 50, 300}, 3}, .segment = 8, .n_samples = 40, .seed = 3, .bos = 1};
    assert_int_equal(recall_ordinary_tokens(run.tokenizer, &run.task, &error), 0);
    assert_int_equal(run.task.n_ordinary, 61);
    assert_int_equal(recall_sequences(&run.task, &run.sequences, &error), 0);
    const PplWindows *windows = &run.sequences.windows;
    assert_int_equal(windows->count, 120);
    assert_int_equal(windows->n_scored, 120 * 6);
    for (size_t w = 0; w < windows->count; w++)
        check_sequence(&run.task, run.sequences.tokens, &windows->items[w], run.task.distances.items[w % 3]);
    run.task.segment = 32;
    free(run.task.ordinary);
    assert_int_equal(recall_ordinary_tokens(run.tokenizer, &run.task, &error), ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "use a --segment of at most 28"));
    close_run(&run);
}

/* Against the closed form, and token by token against float64 with the same cache. F32 and the roundings of queries and
 * weights to 16 bits are off by 2e-6 here; q4_0 may choose another code now and then. */
static void test_copies_as_known(void **state) {
    (void)state;
    RecallCase cases[N_CASES];
    for (size_t i = 0; i < read_cases(cases, N_CASES); i++) {
        const RecallCase *c = &cases[i];
        bool dropped = c->known < -1, coarse = strstr(c->policy, "q4_0") != NULL;
        size_t size;
        RecallRun run = {0};
        RecallPoint point;
        Error error = {0};
        run_case(&run, c, 0, 2);
        double *expected = load_of_case(c, "nll", &size), worst = 0;
        assert_int_equal(size, run.e.n_scored * sizeof *expected);
        for (size_t t = 0; t < run.e.n_scored; t++)
            worst = fmax(worst, fabs(run.e.modes[0].nll[t] - expected[t]));
        assert_int_equal(recall_point(&run.e, &run.task, 0, 0, &point, &error), 0);
        printf("%-48s at %3zu: %.5f, known %.5f; float64 %.1e off; right %.3f\n", c->policy, c->distance,
               point.log_likelihood.mean, c->known, worst, point.right.mean);
        assert_true(worst <= (coarse ? 1e-3 : 2e-5));
        assert_true(fabs(point.log_likelihood.mean - c->known) <= (coarse ? 5e-2 : 5e-4));
        assert_int_equal(point.n, c->n_samples);
        if (dropped) /* of 64 tokens each is as likely as any */
            assert_true(fabs(point.log_likelihood.mean + log(64)) < 0.15 && point.right.mean < 0.1);
        else
            assert_true(point.right.mean == 1 && point.right.error == 0);
        free(expected);
        close_run(&run);
    }
}

static void test_batches_and_threads_change_nothing(void **state) {
    (void)state;
    RecallCase cases[N_CASES];
    static const struct {
        size_t n_batch;
        int n_threads;
    } OTHERS[] = {{1, 2}, {7, 1}, {64, 3}, {512, 2}};
    for (size_t i = 1; i < read_cases(cases, N_CASES); i += 2) {
        RecallRun one = {0};
        run_case(&one, &cases[i], 0, 1);
        for (size_t j = 0; j < COUNT(OTHERS); j++) {
            RecallRun other = {0};
            run_case(&other, &cases[i], OTHERS[j].n_batch, OTHERS[j].n_threads);
            assert_memory_equal(other.e.modes[0].nll, one.e.modes[0].nll, one.e.n_scored * sizeof(double));
            assert_memory_equal(other.e.modes[0].right, one.e.modes[0].right, one.e.n_scored * sizeof(bool));
            close_run(&other);
        }
        close_run(&one);
    }
}

/* Two distances and three samples of four scored tokens, of which five windows are through. */
static void test_points(void **state) {
    (void)state;
    enum { N = 6 * 3 };
    double nll[N], base[N];
    bool right[N] = {[0] = true, [1] = true, [2] = true, [6] = true};
    EvalMode modes[2] = {{.policy = kv_policy_full(), .nll = base, .right = right},
                         {.policy = kv_policy_compressed(0, 8), .nll = nll, .right = right}};
    RecallTask task = {.distances = {{10, 20}, 2}, .segment = 4, .n_samples = 3};
    Evaluation e = {.modes = modes, .n_modes = 2, .n_windows = 5};
    RecallPoint p;
    Error error = {0};
    for (size_t t = 0; t < N; t++) {
        nll[t] = (double)(t / 3) + (t % 3 == 0 ? 3 : 0); /* windows have the means 1, 2, 3, … */
        base[t] = 1;
    }
    assert_int_equal(recall_point(&e, &task, 1, 0, &p, &error), 0);
    assert_true(p.distance == 10 && p.n == 3);
    assert_float_equal(p.log_likelihood.mean, -3, 1e-12); /* windows 0, 2 and 4: -1, -3, -5 */
    assert_float_equal(p.log_likelihood.error, 2 / sqrt(3), 1e-12);
    assert_float_equal(p.less_full.mean, -2, 1e-12);
    assert_float_equal(p.right.mean, (1 + 1. / 3 + 0) / 3, 1e-12);
    assert_int_equal(recall_point(&e, &task, 1, 1, &p, &error), 0);
    assert_true(p.distance == 20 && p.n == 2);
    assert_float_equal(p.log_likelihood.mean, -3, 1e-12); /* windows 1 and 3 */
    assert_float_equal(p.log_likelihood.error, 1, 1e-12);
    assert_true(p.right.mean == 0);
}

static void test_policies_that_change_nothing(void **state) {
    (void)state;
    RecallCase cases[N_CASES];
    RecallRun run = {0};
    Error error = {0};
    read_cases(cases, N_CASES);
    make_sequences(&run, &cases[0], 1);
    assert_int_equal(open_evaluation(&run, "f16:200", 0, &error), ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "use longer --distances"));
    close_run(&run);
}

/* ---- Needles */

static const char QUESTION[] =
    "A special magic number is hidden within the following text. Make sure to memorize it. I will quiz you about the "
    "number afterwards.\n"
    "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.\n"
    "One of the special magic numbers for calm-otter is: 1234567.\n"
    "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.\n"
    "What is the special magic number for calm-otter mentioned in the provided text?";
static const char ANSWER[] = " The special magic number for calm-otter mentioned in the provided text is";

static void test_needle_text(void **state) {
    (void)state;
    const Needle needle = {"calm-otter", "1234567"};
    Haystack haystack;
    NeedleText text;
    Error error = {0};
    assert_int_equal(haystack_open(&haystack, NULL, &error), 0);
    assert_int_equal(needle_text(&haystack, &needle, 2, 1, &text, &error), 0);
    assert_string_equal(text.question, QUESTION);
    assert_string_equal(text.answer, ANSWER);
    needle_text_free(&text);
    static const struct {
        size_t n_units, place;
        const char *begin, *end;
    } ENDS[] = {
        {2, 0, "afterwards.\nOne of the special", "There and back again.\nWhat is"},
        {2, 2, "afterwards.\nThe grass",
         "back again.\nOne of the special magic numbers for calm-otter is: 1234567.\nWhat"},
        {0, 0, "afterwards.\nOne of", "is: 1234567.\nWhat is"},
    };
    for (size_t i = 0; i < COUNT(ENDS); i++) {
        assert_int_equal(needle_text(&haystack, &needle, ENDS[i].n_units, ENDS[i].place, &text, &error), 0);
        assert_non_null(strstr(text.question, ENDS[i].begin));
        assert_non_null(strstr(text.question, ENDS[i].end));
        assert_null(strstr(text.question, "\n\n"));
        needle_text_free(&text);
    }
    haystack_close(&haystack);
}

static void test_needles_match_python(void **state) {
    (void)state;
    FILE *file = fopen(fixture_path("STOWKV_FIXTURES", "recall/needles"), "r");
    unsigned long long seed;
    size_t length, position, sample, n = 0;
    char number[16];
    assert_non_null(file);
    for (; fscanf(file, "%llu %zu %zu %zu %15s", &seed, &length, &position, &sample, number) == 5; n++) {
        Needle needle = needle_draw(seed, length, position, sample);
        assert_string_equal(needle.number, number);
        assert_non_null(strchr(needle.key, '-'));
    }
    assert_int_equal(n, 36);
    fclose(file);
}

static void test_places(void **state) {
    (void)state;
    const size_t expected[] = {0, 2, 5, 7, 9};
    for (size_t position = 0; position < 5; position++)
        assert_int_equal(needle_place(9, position, 5), expected[position]);
    assert_int_equal(needle_place(9, 0, 1), 4);
    assert_int_equal(needle_place(0, 3, 4), 0);
}

static const char *write_text(const char *text) {
    static char path[64];
    snprintf(path, sizeof path, "/tmp/test_recall.%d", (int)getpid());
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0 && fclose(file) == 0);
    return path;
}

static void test_haystack_of_a_file(void **state) {
    (void)state;
    Haystack haystack;
    Error error = {0};
    const char *path = write_text("\n  One sentence,\nwith 3.5 miles.  Two?\tThree!\r\n\r\nAnd no end \n");
    const char *const expected[] = {"One sentence, with 3.5 miles.", "Two?", "Three!", "And no end"};
    assert_int_equal(haystack_open(&haystack, path, &error), 0);
    assert_int_equal(haystack.count, 4);
    for (size_t i = 0; i < 8; i++) /* they come again */
        assert_true(sv_is(haystack_unit(&haystack, i), expected[i % 4]));
    assert_string_equal(haystack.separator, " ");
    haystack_close(&haystack);
    static const struct {
        const char *text, *message;
    } BAD[] = {{" \n\t ", "nothing but white space"}, {"a\xff", "not UTF-8"}, {"", "nothing but white space"}};
    for (size_t i = 0; i < COUNT(BAD); i++) {
        assert_int_equal(haystack_open(&haystack, write_text(BAD[i].text), &error), ERROR_FORMAT);
        assert_non_null(strstr(error.message, BAD[i].message));
    }
    unlink(path);
    assert_int_equal(haystack_open(&haystack, path, &error), ERROR_IO);
}

/* A session of a tiny model, whose tokenizer knows letters alone. */
static void open_session(Session *session) {
    *session = (Session){0};
    open_model(&session->model, &session->tokenizer, "models/f32.gguf", 1);
}

/* Of the prompt with n_units. */
static size_t needle_tokens(const NeedleFrame *frame, const Needle *needle, size_t n_units, TokenList *tokens) {
    NeedleText text;
    Error error = {0};
    char all[4096];
    size_t place = needle_place(n_units, 1, frame->n_positions);
    assert_int_equal(needle_text(frame->haystack, needle, n_units, place, &text, &error), 0);
    snprintf(all, sizeof all, "%s%s", text.question, text.answer);
    needle_text_free(&text);
    tokens->count = 0;
    assert_int_equal(tokenizer_encode(frame->session->tokenizer, sv(all), TOKENIZE_ADD_BOS, tokens, &error), 0);
    return tokens->count;
}

/* The prompt is the text that it should be, and has one unit less than would not fit. */
static void test_prompts_fill_their_length(void **state) {
    (void)state;
    Session session;
    Haystack haystack;
    Error error = {0};
    TokenList prompt = {0}, expected = {0};
    open_session(&session);
    assert_int_equal(haystack_open(&haystack, NULL, &error), 0);
    NeedleFrame frame = {&session, NULL, &haystack, 3, 20};
    for (size_t length = 600; length < 1400; length += 97) {
        Needle needle = needle_draw(5, length, 1, 0);
        size_t n_units, fewer;
        assert_int_equal(needle_prompt(&frame, &needle, length, 1, &prompt, &n_units, &error), 0);
        assert_true(needle_tokens(&frame, &needle, n_units + 1, &expected) + 20 > length);
        size_t n_tokens = needle_tokens(&frame, &needle, n_units, &expected);
        assert_true(n_tokens + 20 <= length);
        assert_int_equal(prompt.count, n_tokens);
        assert_memory_equal(prompt.ids, expected.ids, n_tokens * sizeof *prompt.ids);
        assert_int_equal(needle_prompt(&frame, &needle, n_tokens + 20, 1, &prompt, &fewer, &error), 0);
        assert_int_equal(fewer, n_units);
        assert_int_equal(needle_prompt(&frame, &needle, n_tokens + 19, 1, &prompt, &fewer, &error), 0);
        assert_int_equal(fewer, n_units - 1);
    }
    Needle needle = needle_draw(5, 100, 1, 0);
    assert_int_equal(needle_prompt(&frame, &needle, 100, 1, &prompt, NULL, &error), ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "use lengths from"));
    token_list_free(&prompt);
    token_list_free(&expected);
    haystack_close(&haystack);
    session_close(&session);
}

/* What llama2.c's model says behind "Once upon a time" is known; so is whether a "number" is in it. */
static void test_answers(void **state) {
    (void)state;
    static const struct {
        const char *number;
        size_t n_tokens;
        bool right;
    } CASES[] = {
        {"there was a little girl", 40, true},
        {"little girl named", 40, true},
        {"there was a little boy", 40, false},
        {"there was a little girl", 5, false},
    };
    Session session = {0};
    Backend *backend;
    Sampler sampler;
    NeedlePrompt prompt = {0};
    PrefixReuse shared;
    Error error = {0};
    SamplerOptions greedy = {.temperature = 0, .top_p = 1};
    KvPolicy policy = kv_policy_full();
    assert_int_equal(cpu_backend_open(&backend, cpu_best_simd_level(), 1, &error), 0);
    if (model_open(&session.model, fixture_path("STOWKV_DATA", "stories260K.bin"), backend, &error) < 0 ||
        tokenizer_open_file(&session.tokenizer, fixture_path("STOWKV_DATA", "tok512.model"), 0, &error) < 0 ||
        session_set_policy(&session, &(SessionOptions)SESSION_DEFAULTS, &policy, &error) < 0 ||
        sampler_open(&sampler, &greedy, session.model.checkpoint.config.n_vocab, SIMD_SCALAR, &error) < 0 ||
        prompt_encode(&session, &(PromptOptions){.chat = NULL}, sv("Once upon a time"), &prompt.tokens, &error) < 0 ||
        prefix_reuse_open_memory(&shared, 1 << 24, &error) < 0 || prefix_reuse_attach(&shared, &session, &error) < 0)
        fail_msg("%s", error.message);
    session.context.n_batch = 2;
    for (size_t i = 0; i < 2 * COUNT(CASES); i++) {
        NeedleTask task = {.frame = {.max_new_tokens = CASES[i / 2].n_tokens}, .session = &session, .shared = &shared};
        bool right;
        prompt.n_shared = i / 2; /* 0 to 3 tokens, each twice: in batches of 2 the last two cases share 2 */
        assert_int_equal(needle_answer(&task, &sampler, &prompt, CASES[i / 2].number, &right, &error), 0);
        assert_int_equal(right, CASES[i / 2].right);
        assert_int_equal(shared.n_restored, i < 5 ? 0 : 2 * (i - 4));
    }
    assert_int_equal(shared.n_computed, 2);
    token_list_free(&prompt.tokens);
    prefix_reuse_close(&shared);
    sampler_close(&sampler);
    session_close(&session);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sequences_match_python),
        cmocka_unit_test(test_sequences_hold_their_segment),
        cmocka_unit_test(test_copies_as_known),
        cmocka_unit_test(test_batches_and_threads_change_nothing),
        cmocka_unit_test(test_points),
        cmocka_unit_test(test_policies_that_change_nothing),
        cmocka_unit_test(test_needle_text),
        cmocka_unit_test(test_needles_match_python),
        cmocka_unit_test(test_places),
        cmocka_unit_test(test_haystack_of_a_file),
        cmocka_unit_test(test_prompts_fill_their_length),
        cmocka_unit_test(test_answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

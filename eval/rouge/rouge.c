/* The program: ROUGE of texts that are there, or of texts that a model generates with one or several cache policies.
 * The result goes to stdout, progress and notes to stderr. Only main() picks the exit status. */
#include "base/output_file.h"
#include "eval/progress.h"
#include "eval/rouge/report.h"
#include "eval/rouge/settings.h"
#include "kvcache/policy_text.h"
#include "session/budget_options.h"
#include "session/program.h"
#include "session/run_report.h"

#include <stdlib.h>

#define N_RESAMPLES 10000
#define PUBLISHABLE 200 /* samples: fewer tell little */

static const char USAGE[] =
    "Usage: rouge --pairs FILE.jsonl [flags]\n"
    "       rouge --checkpoint_path PATH --data FILE.jsonl [flags]\n"
    "ROUGE as Google's rouge-score 0.1.2 computes it: of the pairs {\"reference\": text or [texts], \"prediction\":\n"
    "text}, one a line; or of what a model writes, greedily, with one cache policy or several.\n";

/* What main() has open, so that every way out closes the same things. */
typedef struct Program {
    RougeSettings settings;
    SessionOptions defaults; /* the session's settings before the command line, to tell which flags were given */
    OutputFile json;
    RougePairs pairs;
    PolicyList policies;
    size_t base; /* the policy that differences are from; policies.count: none */
    Session session;
    RougeData data;
    RougeSamples samples;
    RougeResults results;
    RougeWork work;
    RougeRun *runs; /* (policies.count) */
} Program;

/* ---- Policies */

/* The policies to run. Where there are several, the first is the full cache. */
static int choose_policies(Program *program, Error *error) {
    const RougeSettings *s = &program->settings;
    PolicyList *list = &program->policies;
    if (budget_options_resolve(&program->settings.session, 0, error) < 0 ||
        policies_from_options(&s->session.kv, s->compare, list, error) < 0)
        return error->code;
    if (list->count > 1)
        policy_list_put_full_first(list);
    program->base = list->count > 1 ? 0 : list->count;
    return policy_list_check_twins(list, error);
}

/* ---- Output */

static void tell_bad_lines(size_t n_bad) {
    if (n_bad > 0)
        fprintf(stderr, "note: %zu bad line%s skipped\n", n_bad, n_bad == 1 ? "" : "s");
}

/* The table comes behind the JSON, which no reader can close as it closes stdout, and also where that failed. */
static int flush_table(bool stdout_is_taken, Error *error) {
    Error failure = {0};
    if (!stdout_is_taken)
        program_flush_stdout(&failure);
    return error_keep_first(error, &failure);
}

/* ---- Pairs */

static int score_pairs(Program *program, Error *error) {
    const RougeSettings *s = &program->settings;
    RougeOptions options = {s->parsed_variant, s->stem};
    if (rouge_pairs_score(&program->pairs, s->pairs, s->skip_bad_lines, &options, &program_interrupted, error) < 0)
        return error->code;
    tell_bad_lines(program->pairs.n_bad);
    blank_lines_print(&program->pairs.blank, program->pairs.count, s->pairs, stderr);
    bool stdout_is_taken = program->json.stream == stdout;
    if (s->json != NULL)
        json_commit(rouge_pairs_json(&program->pairs, &options), &program->json, error);
    if (!stdout_is_taken)
        rouge_pairs_print(&program->pairs, &options, stdout);
    return flush_table(stdout_is_taken, error);
}

/* ---- Texts of a model */

/* Through the checkpoint's chat template, where it has one. */
static int choose_chat_template(Program *program, Error *error) {
    const RougeSettings *s = &program->settings;
    return chat_template_choose(&program->work.chat, &program->session.model.checkpoint.vocabulary, s->chat_template,
                                s->date, error);
}

static void tell_samples(const Program *program) {
    const RougeSettings *s = &program->settings;
    const RougeSamples *samples = &program->samples;
    tell_bad_lines(samples->n_bad);
    if (samples->n_too_long > 0)
        fprintf(stderr, "note: %zu record%s left out, too long for %zu tokens with the answer\n", samples->n_too_long,
                samples->n_too_long == 1 ? "" : "s", program->work.n_ctx);
    if (samples->n_cut > 0)
        fprintf(stderr, "note: %zu of %zu articles cut at the end, by %zu tokens in all, to fit %zu with the answer\n",
                samples->n_cut, samples->count, samples->n_tokens_cut, program->work.n_ctx);
    if (s->samples > 0 && samples->count < s->samples)
        fprintf(stderr, "note: %s has %zu records to use, fewer than --samples %zu\n", s->data, samples->count,
                s->samples);
    if (samples->count < PUBLISHABLE)
        fprintf(stderr, "note: %zu sample%s tell%s little; use at least %d for a figure to publish\n", samples->count,
                samples->count == 1 ? "" : "s", samples->count == 1 ? "s" : "", PUBLISHABLE);
}

static int read_samples(Program *program, Error *error) {
    const RougeSettings *s = &program->settings;
    RougeWork *work = &program->work;
    if (session_n_ctx(&s->session, &program->session.model.checkpoint.config, &work->n_ctx, error) < 0)
        return error->code;
    if (s->max_new_tokens >= work->n_ctx)
        return error_set(error, ERROR_ARGUMENT,
                         "--max_new_tokens %zu: the context has %zu tokens, prompt included; use "
                         "fewer",
                         s->max_new_tokens, work->n_ctx);
    program->data = (RougeData){.path = s->data,
                                .prompt_field = s->prompt_field,
                                .reference_field = s->reference_field,
                                .prompt_template = s->prompt_template,
                                .n_samples = s->samples,
                                .n_prompt_max = work->n_ctx - s->max_new_tokens,
                                .skip_long = s->long_prompts != NULL && strcmp(s->long_prompts, "skip") == 0,
                                .skip_bad_lines = s->skip_bad_lines,
                                .interrupted = &program_interrupted};
    if (rouge_samples_read(&program->samples, &program->session, work->chat, &program->data, error) < 0)
        return error->code;
    tell_samples(program);
    return 0;
}

static void add_fingerprint(cJSON *header, const Checkpoint *checkpoint) {
    char text[32];
    snprintf(text, sizeof text, "%016llx", (unsigned long long)checkpoint_fingerprint(checkpoint));
    cJSON_AddStringToObject(header, "weights", text);
}

/* What decides the texts: a file of them can only be continued with the same. */
static int make_header(const Program *program, cJSON *header, Error *error) {
    const RougeSettings *s = &program->settings;
    const RougeWork *work = &program->work;
    const Checkpoint *checkpoint = &program->session.model.checkpoint;
    cJSON_AddStringToObject(header, "rouge", "texts, version 1");
    if (rouge_results_identify(header, "checkpoint", s->session.checkpoint_path, error) < 0 ||
        rouge_results_identify(header, "tokenizer", s->session.tokenizer_path != NULL ? s->session.tokenizer_path : "",
                               error) < 0 ||
        rouge_results_identify(header, "data", s->data, error) < 0)
        return error->code;
    if (checkpoint->n_files > 1) /* of which the path names one, or their folder */
        add_fingerprint(header, checkpoint);
    cJSON_AddStringToObject(header, "prompt_field", s->prompt_field);
    cJSON_AddStringToObject(header, "reference_field", s->reference_field);
    cJSON_AddStringToObject(header, "prompt_template", s->prompt_template);
    cJSON_AddStringToObject(header, "chat_template", work->chat == NULL ? "none" : chat_template_name(work->chat));
    if (s->date != NULL)
        cJSON_AddStringToObject(header, "date", s->date);
    cJSON_AddNumberToObject(header, "n_ctx", (double)work->n_ctx);
    cJSON_AddNumberToObject(header, "max_new_tokens", (double)s->max_new_tokens);
    cJSON_AddStringToObject(header, "device", work->session->model.backend->device);
    cJSON_AddStringToObject(header, "simd", simd_level_name(work->session->model.backend->level));
    return 0;
}

static int open_results(Program *program, Error *error) {
    if (program->settings.output == NULL)
        return 0;
    cJSON *header = cJSON_CreateObject();
    int status = header == NULL ? error_memory(error, "the results' header", 0) : make_header(program, header, error);
    if (status == 0)
        status = rouge_results_open(&program->results, program->settings.output, header, error);
    if (status == 0)
        program->work.results = &program->results;
    cJSON_Delete(header);
    return status;
}

static size_t count_saved(const Program *program) {
    char policy[KV_POLICY_TEXT];
    size_t n_saved = 0;
    RougeRecord record;
    for (size_t i = 0; i < program->policies.count; i++) {
        kv_policy_print(&program->policies.items[i], policy, sizeof policy);
        for (size_t j = 0; j < program->samples.count; j++)
            n_saved += rouge_results_find(&program->results, policy, program->samples.items[j].line, &record);
    }
    return n_saved;
}

static void show_progress(const RougeWork *work, const char *mode) {
    progress_show(work->user, work->n_done, mode);
}

static int run_policies(Program *program, Error *error) {
    RougeWork *work = &program->work;
    size_t n_saved = count_saved(program), n_all = program->policies.count * program->samples.count;
    Progress progress = progress_begin("rouge", n_all - n_saved, NULL);
    work->on_text = show_progress;
    work->user = &progress;
    if (n_saved > 0)
        fprintf(stderr, "note: %zu of %zu texts are in %s\n", n_saved, n_all, program->settings.output);
    int status = 0;
    for (size_t i = 0; i < program->policies.count && status == 0; i++)
        status = rouge_run(work, &program->policies.items[i], &program->runs[i], error);
    progress_end(&progress);
    if (status == ERROR_INTERRUPTED)
        fprintf(stderr, "interrupted after %zu of %zu texts%s%s\n", n_saved + work->n_done, n_all,
                work->results != NULL ? "; the same command goes on from " : "; with --output it could be continued",
                work->results != NULL ? program->settings.output : "");
    return status;
}

/* Differences of F from the full cache, sample by sample. */
static int compare_runs(Program *program, Error *error) {
    size_t n = program->samples.count;
    double *differences = calloc(n, sizeof *differences);
    if (differences == NULL)
        return error_memory(error, "differences", n * sizeof *differences);
    int status = 0;
    for (size_t i = 0; i < program->policies.count && status == 0 && program->base < program->policies.count; i++) {
        for (size_t j = 0; j < n; j++)
            differences[j] = program->runs[i].scores[j].f - program->runs[program->base].scores[j].f;
        status =
            bootstrap_mean(differences, n, N_RESAMPLES, program->settings.seed, &program->runs[i].difference, error);
    }
    free(differences);
    return status;
}

static int report(Program *program, Error *error) {
    const RougeSettings *s = &program->settings;
    RougeComparison comparison = {&program->work, &program->data, program->runs, program->policies.count,
                                  program->base,  s->seed,        N_RESAMPLES};
    for (size_t i = 0; i < program->policies.count; i++)
        blank_lines_print(&program->runs[i].blank, program->samples.count, kv_policy_mode(&program->runs[i].policy),
                          stderr);
    bool stdout_is_taken = program->json.stream == stdout;
    if (s->json != NULL)
        json_commit(rouge_comparison_json(&comparison), &program->json, error);
    if (!stdout_is_taken)
        rouge_comparison_print(&comparison, stdout);
    return flush_table(stdout_is_taken, error);
}

static int prepare(Program *program, Error *error) {
    RougeSettings *s = &program->settings;
    program->work = (RougeWork){.session = &program->session,
                                .options = &s->session,
                                .samples = &program->samples,
                                .rouge = {s->parsed_variant, s->stem},
                                .max_new_tokens = s->max_new_tokens,
                                .interrupted = &program_interrupted};
    if (session_open(&program->session, &s->session, error) < 0 || choose_chat_template(program, error) < 0 ||
        read_samples(program, error) < 0)
        return error->code;
    for (size_t i = 0; i < program->policies.count; i++)
        if (rouge_check_policy(&program->work, &program->policies.items[i], error) < 0)
            return error->code;
    program->runs = calloc(program->policies.count, sizeof *program->runs);
    if (program->runs == NULL)
        return error_memory(error, "runs", program->policies.count * sizeof *program->runs);
    return open_results(program, error);
}

static int score_model(Program *program, Error *error) {
    if (prepare(program, error) < 0 || run_policies(program, error) < 0 || compare_runs(program, error) < 0)
        return error->code;
    return report(program, error);
}

/* ---- The program */

static void close_program(void *state) {
    Program *program = state;
    for (size_t i = 0; program->runs != NULL && i < program->policies.count; i++)
        rouge_run_free(&program->runs[i]);
    free(program->runs);
    rouge_results_close(&program->results);
    chat_template_free(program->work.chat);
    rouge_samples_free(&program->samples);
    rouge_pairs_free(&program->pairs);
    session_close(&program->session);
    policy_list_free(&program->policies);
    output_file_discard(&program->json);
}

static int run_program(void *state, Error *error) {
    Program *program = state;
    const RougeSettings *s = &program->settings;
    if (s->json != NULL && output_file_open(&program->json, s->json, error) < 0)
        return error->code;
    return s->pairs != NULL ? score_pairs(program, error) : score_model(program, error);
}

/* All that the command line alone can be wrong about. */
static int check_program(void *state, Error *error) {
    Program *program = state;
    RougeSettings *s = &program->settings;
    if (rouge_settings_check(s, &program->defaults, error) < 0)
        return error->code;
    return s->pairs == NULL ? choose_policies(program, error) : 0;
}

int main(int argc, char **argv) {
    static Program program = {.settings = ROUGE_DEFAULTS};
    static RougeSettings *const s = &program.settings;
    static ProgramFlags flags;
    /* clang-format off */
    const Option options[] = {
        {"Scoring", OPTION_HEADING, NULL, NULL, NULL, 0, 0},
        {"pairs", OPTION_INPUT, &s->pairs, "FILE", "the pairs to score, JSON lines; - is stdin", 0, 0},
        {"variant", OPTION_STRING, &s->variant, "NAME", "rougeL, rougeLsum, rouge1 or rouge2; default rougeL", 0, 0},
        {"stem", OPTION_FLAG, &s->stem, NULL, "stem words of more than three letters (Porter, as NLTK does)", 0, 0},
        {"skip_bad_lines", OPTION_FLAG, &s->skip_bad_lines, NULL, "tell and skip them; default: the first ends the run",
         0, 0},
        {"Generating", OPTION_HEADING, NULL, NULL, NULL, 0, 0},
        {"data", OPTION_INPUT, &s->data, "FILE", "texts and references, JSON lines; - is stdin", 0, 0},
        {"prompt_field", OPTION_STRING, &s->prompt_field, "NAME", "of the text; default article", 0, 0},
        {"reference_field", OPTION_STRING, &s->reference_field, "NAME", "of its reference or references; default summary",
         0, 0},
        {"prompt_template", OPTION_TEXT, &s->prompt_template, "TEXT",
         "the prompt, {} or {FIELD} standing for the text; default: asks for one sentence", 0, 0},
        {"chat_template", OPTION_INPUT, &s->chat_template, "NAME",
         "a file in Jinja, chatml, llama2, llama3, mistral, zephyr or none; default: the checkpoint's", 0, 0},
        {"date", OPTION_STRING, &s->date, "DATE", "YYYY-MM-DD, for chat templates that tell it; default: today", 0, 0},
        {"samples", OPTION_SIZE, &s->samples, "N", "records to use, from the first; default 200, 0: all", 0, 1 << 30},
        {"max_new_tokens", OPTION_SIZE, &s->max_new_tokens, "N", "default 64; a text may end before", 1, 1 << 28},
        {"long_prompts", OPTION_STRING, &s->long_prompts, "WHAT",
         "cut the text where prompt and answer exceed --n_ctx, or skip the record; default cut", 0, 0},
        {"compare", OPTION_FLAG, &s->compare, NULL, "full, compressed and quantized mode, and each --kv_policy", 0, 0},
        {"seed", OPTION_SEED, &s->seed, "N", "of the bootstrap over samples; default 1", 0, 0},
        SESSION_OPTIONS(s->session),
        {"Output", OPTION_HEADING, NULL, NULL, NULL, 0, 0},
        {"output", OPTION_OUTPUT, &s->output, "FILE", "save each text; the same command goes on where it was interrupted",
         0, 0},
        {"json", OPTION_OUTPUT, &s->json, "FILE", "write the result as JSON; - is stdout, instead of the table", 0, 0},
        PROGRAM_OPTIONS(flags),
        {0},
    };
    /* clang-format on */
    program.defaults = s->session;
    const ProgramMain steps = {"rouge", USAGE, options, &flags, &s->session, check_program, run_program, close_program};
    return program_main(argc, argv, &steps, &program);
}

/* The program: speed of prefill and generation at several depths under one or several cache policies, beside what the
 * machine's memory can give. The table goes to stdout, progress and each figure to stderr. Only main() picks the exit
 * status.
 */
#include "base/machine/clock.h"
#include "base/output_file.h"
#include "eval/bench/chart.h"
#include "eval/bench/compare.h"
#include "session/budget_options.h"
#include "session/program.h"
#include "session/run_report.h"
#include "session/session.h"

static const char USAGE[] =
    "Usage: bench --checkpoint_path PATH [flags]\n"
    "Tokens a second at several depths of context, under one cache policy or several: reading a "
    "prompt, and\ngenerating; and from which depth on each policy is faster than the full cache.\n";

typedef struct Settings {
    SessionOptions session;
    const char *depths, *json, *svg, *from_log[2];
    size_t prompt_tokens, generate_tokens, repetitions;
    bool compare;
} Settings;

/* What main() has open, so that every way out closes the same things. */
typedef struct Program {
    Settings settings;
    double start; /* when main() began */
    Session session;
    PolicyList policies;
    Bench bench;
    OutputFile json, svg;
} Program;

/* Where there are several, one is the full cache: the first, unless the user has put it elsewhere. */
static int choose_policies(Program *p, Error *error) {
    PolicyList *list = &p->policies;
    if (budget_options_resolve(&p->settings.session, 0, error) < 0 ||
        policies_from_options(&p->settings.session.kv, p->settings.compare, list, error) < 0 ||
        policy_list_check_twins(list, error) < 0)
        return error->code;
    for (size_t i = 0; i < list->count; i++)
        if (kv_policy_is_full(&list->items[i]))
            return 0;
    if (list->count > 1)
        policy_list_put_full_first(list);
    return 0;
}

static int open_outputs(Program *p, Error *error) {
    const Settings *s = &p->settings;
    if ((s->json != NULL && output_file_open(&p->json, s->json, error) < 0) ||
        (s->svg != NULL && output_file_open(&p->svg, s->svg, error) < 0))
        return error->code;
    return 0;
}

static int open_program(Program *p, Error *error) {
    const Settings *s = &p->settings;
    Bench *bench = &p->bench;
    size_t n_ctx;
    if (open_outputs(p, error) < 0 || session_open(&p->session, &s->session, error) < 0 ||
        session_n_ctx(&s->session, &p->session.model.checkpoint.config, &n_ctx, error) < 0)
        return error->code;
    if (s->depths == NULL)
        bench_depths_default(n_ctx, bench_measured(bench), &bench->depths);
    bench->model = &p->session.model;
    bench->interrupted = &program_interrupted;
    bench->model_path = s->session.checkpoint_path;
    return bench_open(bench, p->policies.items, p->policies.count, n_ctx, error);
}

static void close_program(void *state) {
    Program *p = state;
    bench_close(&p->bench);
    policy_list_free(&p->policies);
    session_close(&p->session);
    output_file_discard(&p->json);
    output_file_discard(&p->svg);
}

/* Files first: nobody can close them as a reader closes stdout. Whatever fails, the others are tried. */
static int report(Program *p, Error *error) {
    bool stdout_is_taken = p->json.stream == stdout || p->svg.stream == stdout;
    Error failure = {0};
    if (p->settings.json != NULL)
        json_commit(bench_json(&p->bench), &p->json, error);
    if (p->settings.svg != NULL) {
        bench_svg(&p->bench, p->svg.stream);
        output_file_commit(&p->svg, &failure);
        error_keep_first(error, &failure);
    }
    if (!stdout_is_taken) {
        bench_print(&p->bench, stdout);
        program_flush_stdout(&failure);
    }
    return error_keep_first(error, &failure);
}

static int measure(Program *p, Error *error) {
    if (bench_first_token(&p->bench, p->session.tokenizer, p->start, error) < 0)
        return error->code;
    fprintf(stderr, "first token %.3f s after the start, with a prompt of %zu\n", p->bench.first_token_seconds,
            p->bench.n_first_prompt);
    return bench_run(&p->bench, error);
}

/* --from_log: two results that are there. */
static int compare_logs(Program *p, Error *error) {
    BenchComparison comparison = {0};
    Error failure = {0};
    if (open_outputs(p, error) == 0 && bench_compare(p->settings.from_log, &comparison, error) == 0) {
        bool stdout_is_taken = p->json.stream == stdout;
        if (p->settings.json != NULL)
            json_commit(bench_comparison_json(&comparison), &p->json, error);
        if (!stdout_is_taken) {
            bench_comparison_print(&comparison, stdout);
            program_flush_stdout(&failure);
        }
    }
    bench_comparison_free(&comparison);
    return error_keep_first(error, &failure);
}

static int run_program(void *state, Error *error) {
    Program *p = state;
    if (p->settings.from_log[0] != NULL)
        return compare_logs(p, error);
    if (open_program(p, error) < 0)
        return error->code;
    int status = measure(p, error);
    bool reports = status == 0 || (status == ERROR_INTERRUPTED && bench_has_figures(&p->bench));
    if (!reports)
        return status;
    if (status < 0)
        fprintf(stderr, "interrupted: the figures are those of the repetitions that were through\n");
    Error failure = {0};
    if (report(p, &failure) < 0)
        *error = failure;
    return failure.code < 0 ? failure.code : status;
}

/* All that the command line alone can be wrong about. */
static int check_program(void *state, Error *error) {
    Program *p = state;
    const Settings *s = &p->settings;
    Bench *bench = &p->bench;
    bench->n_prompt = s->prompt_tokens;
    bench->n_generate = s->generate_tokens;
    bench->n_repetitions = s->repetitions;
    if (s->from_log[0] != NULL && (s->session.checkpoint_path != NULL || s->svg != NULL))
        return error_set(error, ERROR_USAGE, "--from_log compares what was measured before: it takes no %s",
                         s->svg != NULL ? "--svg" : "--checkpoint_path");
    if (s->from_log[0] != NULL)
        return 0;
    if (s->session.checkpoint_path == NULL)
        return error_set(error, ERROR_USAGE, "--checkpoint_path is required; checkpoints/fetch.sh fetches a model");
    if (s->depths != NULL && bench_depths_parse(s->depths, bench_measured(bench), &bench->depths, error) < 0)
        return error->code;
    return choose_policies(p, error);
}

int main(int argc, char **argv) {
    static Program program = {
        .settings = {.session = SESSION_DEFAULTS, .prompt_tokens = 512, .generate_tokens = 64, .repetitions = 3}};
    program.start = clock_seconds();
    static Settings *const s = &program.settings;
    static ProgramFlags flags;
    /* clang-format off */
    const Option options[] = {
        SESSION_OPTIONS(s->session),
        {"Measuring", OPTION_HEADING, NULL, NULL, NULL, 0, 0},
        {"depths", OPTION_STRING, &s->depths, "LIST",
         "tokens in the cache when generation begins, rising; default 0,2048,8192, as far as the context goes", 0, 0},
        {"prompt_tokens", OPTION_SIZE, &s->prompt_tokens, "N", "to read at each depth; default 512", 1, 1 << 28},
        {"generate_tokens", OPTION_SIZE, &s->generate_tokens, "N", "to generate at each depth; default 64", 1, 1 << 20},
        {"repetitions", OPTION_SIZE, &s->repetitions, "N", "of everything; the median counts; default 3", 1,
         BENCH_MAX_REPETITIONS},
        {"compare", OPTION_FLAG, &s->compare, NULL, "full, compressed and quantized mode, and each --kv_policy", 0, 0},
        {"Output", OPTION_HEADING, NULL, NULL, NULL, 0, 0},
        {"json", OPTION_OUTPUT, &s->json, "FILE", "write the result as JSON; - is stdout, instead of the table", 0, 0},
        {"svg", OPTION_OUTPUT, &s->svg, "FILE", "draw the speed of generation by depth; - is stdout", 0, 0},
        {"from_log", OPTION_PAIR, s->from_log, "A B", "measure nothing: compare two files that --json has written", 0, 0},
        PROGRAM_OPTIONS(flags),
        {0},
    };
    /* clang-format on */
    const ProgramMain steps = {"bench", USAGE, options, &flags, &s->session, check_program, run_program, close_program};
    return program_main(argc, argv, &steps, &program);
}

/* The program: what a model can still repeat of what it has seen, by distance and cache policy. Tables go to stdout,
 * progress and notes to stderr. Only main() picks the exit status. */
#include "base/output_file.h"
#include "eval/progress.h"
#include "eval/recall/distances.h"
#include "eval/recall/needle_report.h"
#include "eval/recall/report.h"
#include "eval/recall/settings.h"
#include "session/budget_options.h"
#include "session/program.h"

#include <stdlib.h>

static const char USAGE[] = "Usage: recall --checkpoint_path PATH [flags]\n"
                            "       recall --checkpoint_path PATH --needle [flags]\n"
                            "What a model can still repeat under one cache policy or several: random tokens that it "
                            "has seen some distance ago;\n"
                            "or, with --needle, a number hidden in a text, as RULER asks for it.\n";

/* What main() has open, so that every way out closes the same things. */
typedef struct Program {
    RecallSettings settings;
    Session session;
    PolicyList policies;
    OutputFile json, csv;
    size_t n_ctx; /* that the model has, or the user gave */

    RecallRun distances;

    /* Needles. */
    ChatTemplate *chat; /* NULL: none */
    Haystack haystack;
    PrefixReuse shared; /* between needles */
    NeedleTask needles;
    NeedleMode *modes; /* (policies.count) */
    size_t n_modes;    /* that are open */
} Program;

/* ---- At a distance */

static int run_distances(Program *p, Error *error) {
    const RecallSettings *s = &p->settings;
    RecallRun *run = &p->distances;
    *run = (RecallRun){.task = {.distances = s->sizes, .segment = s->segment, .n_samples = s->samples, .seed = s->seed},
                       .n_batch = s->batch,
                       .interrupted = &program_interrupted};
    if (recall_run_open(run, &p->session, p->n_ctx, &p->policies, error) < 0)
        return error->code;
    int status = evaluation_run(&run->evaluation, error);
    if (status == ERROR_INTERRUPTED && recall_run_samples(run) > 0)
        fprintf(stderr, "interrupted: the figures are those of the first %zu samples\n", recall_run_samples(run));
    return status;
}

/* ---- Needles */

/* For the text in front of needles under all policies; what does not fit is read again. */
#define SHARED_BYTES ((size_t)1 << 30)

static void show_progress(const NeedleTask *task) {
    progress_show(task->user, task->n_done, "");
}

static int open_needles(Program *p, Error *error) {
    const RecallSettings *s = &p->settings;
    const Vocabulary *vocabulary = &p->session.model.checkpoint.vocabulary;
    if (chat_template_choose(&p->chat, vocabulary, s->chat_template, s->date, error) < 0 ||
        haystack_open(&p->haystack, s->haystack, error) < 0 ||
        prefix_reuse_open_memory(&p->shared, SHARED_BYTES, error) < 0)
        return error->code;
    p->needles = (NeedleTask){.frame = {&p->session, p->chat, &p->haystack, s->positions, s->max_new_tokens},
                              .session = &p->session,
                              .shared = &p->shared,
                              .options = &s->session,
                              .lengths = s->sizes,
                              .n_ctx = recall_n_ctx(&p->policies, s->sizes.items[s->sizes.count - 1], p->n_ctx),
                              .n_samples = s->samples,
                              .seed = s->seed,
                              .interrupted = &program_interrupted};
    if (needle_check_task(&p->needles, &p->policies, error) < 0)
        return error->code;
    p->modes = calloc(p->policies.count, sizeof *p->modes);
    if (p->modes == NULL)
        return error_memory(error, "answers", p->policies.count * sizeof *p->modes);
    for (; p->n_modes < p->policies.count; p->n_modes++)
        if (needle_mode_open(&p->needles, &p->policies.items[p->n_modes], &p->modes[p->n_modes], error) < 0)
            return error->code;
    return 0;
}

static int run_needles(Program *p, Error *error) {
    if (open_needles(p, error) < 0)
        return error->code;
    size_t n_tokens = 0;
    for (size_t i = 0; i < p->settings.sizes.count; i++)
        n_tokens += p->settings.sizes.items[i] * p->settings.positions * p->settings.samples * p->policies.count;
    Progress progress = progress_begin("needles", n_tokens, "tokens");
    p->needles.on_answer = show_progress;
    p->needles.user = &progress;
    int status = needle_run(&p->needles, p->modes, p->n_modes, error);
    progress_end(&progress);
    if (status == ERROR_INTERRUPTED && p->needles.n_done > 0)
        fprintf(stderr, "interrupted: the figures are those of the answers that were through\n");
    return status;
}

/* ---- The program */

/* Policies to run: where there are several, the full cache comes first. */
static int choose_policies(Program *p, Error *error) {
    PolicyList *list = &p->policies;
    if (budget_options_resolve(&p->settings.session, 0, error) < 0 ||
        policies_from_options(&p->settings.session.kv, p->settings.compare, list, error) < 0)
        return error->code;
    if (list->count > 1)
        policy_list_put_full_first(list);
    return policy_list_check_twins(list, error);
}

static int print(Program *p, FILE *stream, Error *error) {
    NeedleResult needles = {&p->needles, p->modes, p->n_modes};
    if (!p->settings.needle)
        return recall_print(&p->distances.evaluation, &p->distances.task, stream, error);
    needle_print(&needles, stream);
    return 0;
}

static int write_csv(Program *p, Error *error) {
    NeedleResult needles = {&p->needles, p->modes, p->n_modes};
    if (p->settings.needle)
        needle_csv(&needles, p->csv.stream);
    else if (recall_csv(&p->distances.evaluation, &p->distances.task, p->csv.stream, error) < 0)
        return error->code;
    return output_file_commit(&p->csv, error);
}

static cJSON *make_json(Program *p) {
    NeedleResult needles = {&p->needles, p->modes, p->n_modes};
    return p->settings.needle
               ? needle_json(&needles)
               : recall_json(&p->distances.evaluation, &p->distances.task, p->settings.session.checkpoint_path);
}

/* Files first, as stdout's reader may go away. */
static int report(Program *p, Error *error) {
    bool stdout_is_taken = p->json.stream == stdout || p->csv.stream == stdout;
    Error failure = {0};
    if (p->settings.json != NULL)
        json_commit(make_json(p), &p->json, error);
    if (p->settings.csv != NULL) {
        write_csv(p, &failure);
        error_keep_first(error, &failure);
    }
    if (!stdout_is_taken && print(p, stdout, &failure) == 0)
        program_flush_stdout(&failure);
    return error_keep_first(error, &failure);
}

static int open_program(Program *p, Error *error) {
    RecallSettings *s = &p->settings;
    if ((s->json != NULL && output_file_open(&p->json, s->json, error) < 0) ||
        (s->csv != NULL && output_file_open(&p->csv, s->csv, error) < 0))
        return error->code;
    if (session_open(&p->session, &s->session, error) < 0 ||
        session_n_ctx(&s->session, &p->session.model.checkpoint.config, &p->n_ctx, error) < 0)
        return error->code;
    return recall_settings_fit(s, p->n_ctx, error);
}

static int run_program(void *state, Error *error) {
    Program *p = state;
    if (open_program(p, error) < 0)
        return error->code;
    int status = p->settings.needle ? run_needles(p, error) : run_distances(p, error);
    bool has_figures = p->settings.needle ? p->needles.n_done > 0 : recall_run_samples(&p->distances) > 0;
    if (status < 0 && !(status == ERROR_INTERRUPTED && has_figures))
        return status;
    Error failure = {0};
    if (report(p, &failure) < 0)
        *error = failure;
    return failure.code < 0 ? failure.code : status;
}

static void close_program(void *state) {
    Program *p = state;
    recall_run_close(&p->distances);
    for (size_t i = 0; i < p->n_modes; i++)
        needle_mode_free(&p->modes[i]);
    free(p->modes);
    haystack_close(&p->haystack);
    prefix_reuse_close(&p->shared);
    chat_template_free(p->chat);
    policy_list_free(&p->policies);
    session_close(&p->session);
    output_file_discard(&p->json);
    output_file_discard(&p->csv);
}

/* All that the command line alone can be wrong about. */
static int check_program(void *state, Error *error) {
    Program *p = state;
    return recall_settings_check(&p->settings, error) < 0 ? error->code : choose_policies(p, error);
}

int main(int argc, char **argv) {
    static Program program = {.settings = RECALL_DEFAULTS};
    static RecallSettings *const s = &program.settings;
    static ProgramFlags flags;
    /* clang-format off */
    const Option options[] = {
        SESSION_OPTIONS(s->session),
        {"compare", OPTION_FLAG, &s->compare, NULL, "full, compressed and quantized mode, and each --kv_policy", 0, 0},
        {"Recall at a distance", OPTION_HEADING, NULL, NULL, NULL, 0, 0},
        {"distances", OPTION_STRING, &s->distances, "LIST",
         "tokens from a token to its repetition, rising; default 64,256,1024,4096, as far as the context goes", 0, 0},
        {"segment", OPTION_SIZE, &s->segment, "N",
         "tokens that are repeated, the first quarter unscored; default 32", 4, 1 << 20},
        {"batch", OPTION_SIZE, &s->batch, "N", "tokens that go through a layer together; no figure depends on it", 1,
         1 << 16},
        {"Needles", OPTION_HEADING, NULL, NULL, NULL, 0, 0},
        {"needle", OPTION_FLAG, &s->needle, NULL, "RULER's single needle in a haystack instead", 0, 0},
        {"lengths", OPTION_STRING, &s->lengths, "LIST",
         "tokens of prompt and answer, rising; default 512,1024,2048,4096, as far as the context goes", 0, 0},
        {"positions", OPTION_SIZE, &s->positions, "N", "places in the haystack, from its beginning to its end; default 10",
         1, 1000},
        {"haystack", OPTION_INPUT, &s->haystack, "FILE", "hide it in the sentences of this text; default: in noise", 0, 0},
        {"max_new_tokens", OPTION_SIZE, &s->max_new_tokens, "N", "of an answer; default 128", 1, 1 << 20},
        {"chat_template", OPTION_INPUT, &s->chat_template, "NAME",
         "a file in Jinja, chatml, llama2, llama3, mistral, zephyr or none; default: the checkpoint's", 0, 0},
        {"date", OPTION_STRING, &s->date, "DATE", "YYYY-MM-DD, for chat templates that tell it; default: today", 0, 0},
        {"Both", OPTION_HEADING, NULL, NULL, NULL, 0, 0},
        {"samples", OPTION_SIZE, &s->samples, "N", "of each distance: 50; of each length and position: 20", 1, 1 << 24},
        {"seed", OPTION_SEED, &s->seed, "N", "of all that is drawn; default 1", 0, 0},
        {"Output", OPTION_HEADING, NULL, NULL, NULL, 0, 0},
        {"json", OPTION_OUTPUT, &s->json, "FILE", "write the result as JSON; - is stdout, instead of the table", 0, 0},
        {"csv", OPTION_OUTPUT, &s->csv, "FILE", "write it as CSV, a line for each point; - is stdout", 0, 0},
        PROGRAM_OPTIONS(flags),
        {0},
    };
    /* clang-format on */
    const ProgramMain steps = {"recall",    USAGE,         options,     &flags,
                               &s->session, check_program, run_program, close_program};
    return program_main(argc, argv, &steps, &program);
}

/* The program: perplexity of a text under one or several cache policies, and how far each is from the full cache. The
 * table goes to stdout, progress and notes to stderr. Only main() picks the exit status. */
#include "base/output_file.h"
#include "eval/perplexity/report.h"
#include "session/budget_options.h"
#include "session/program.h"
#include "session/run_report.h"
#include "session/session.h"

#include <stdlib.h>

static const char USAGE[] =
    "Usage: perplexity --checkpoint_path PATH --text_file FILE [flags]\n"
    "Perplexity of a text, and with --kld or --compare how far each cache policy is from the full cache.\n";

typedef struct Settings {
    SessionOptions session;
    const char *text_file, *ppl_mode, *json, *csv, *save_base, *load_base;
    size_t context, stride, chunks, batch; /* 0: not given; stride OPTION_UNSET: not given */
    bool kld, compare, attribution;
} Settings;

/* What main() has open, so that every way out closes the same things. */
typedef struct Program {
    Settings settings;
    Session session;
    PplText text;
    PolicyList policies;
    PplSetup setup;
    Evaluation evaluation;
    OutputFile json, csv;
} Program;

static int read_text(Program *p, Error *error) {
    if (ppl_text_read(&p->text, p->settings.text_file, p->setup.settings.definition, p->session.tokenizer, error) < 0)
        return error->code;
    if (p->text.n_crlf > 0)
        fprintf(stderr, "note: %s: %zu line ends are CRLF, and read as LF\n", p->text.name, p->text.n_crlf);
    return 0;
}

/* --context, else --n_ctx, else the definition's. */
static size_t chosen_context(const Program *p) {
    const Settings *s = &p->settings;
    size_t usual = ppl_definition(p->setup.settings.definition)->default_context;
    return s->context > 0 ? s->context : s->session.n_ctx > 0 ? s->session.n_ctx : usual;
}

/* Within what the model was trained for. */
static int choose_windows(Program *p, Error *error) {
    const Settings *s = &p->settings;
    PplSettings *settings = &p->setup.settings;
    const PplDefinitionInfo *info = ppl_definition(settings->definition);
    size_t n_train = p->session.model.checkpoint.config.n_ctx_train;
    settings->context = chosen_context(p);
    if (settings->context > n_train)
        return error_set(error, ERROR_ARGUMENT, "--context %zu: the model was trained for %zu tokens; use at most that",
                         settings->context, n_train);
    size_t usual =
        info->default_stride > 0 && info->default_stride < settings->context ? info->default_stride : settings->context;
    settings->stride = s->stride == OPTION_UNSET ? usual : s->stride;
    settings->max_windows = s->chunks;
    return 0;
}

/* Policies to run: the base comes first, unless it comes from a file. */
static int choose_policies(Program *p, Error *error) {
    Settings *s = &p->settings;
    PolicyList *list = &p->policies;
    if (budget_options_resolve(&s->session, chosen_context(p), error) < 0 ||
        policies_from_options(&s->session.kv, s->compare, list, error) < 0)
        return error->code;
    p->evaluation.divergence = s->kld || s->load_base != NULL || s->save_base != NULL || list->count > 1;
    if (p->evaluation.divergence && s->load_base == NULL)
        policy_list_put_full_first(list);
    if (s->kld && list->count == 1 && s->load_base == NULL)
        return error_set(error, ERROR_USAGE,
                         "--kld compares a policy with the full cache; choose one with --quantize_kv, --compress_kv, "
                         "--kv_policy or --compare");
    if (s->attribution && list->count == 1 && kv_policy_is_full(&list->items[0]))
        return error_set(error, ERROR_USAGE,
                         "--attribution tells the errors of a policy, and a full cache has none; choose one with "
                         "--quantize_kv, --compress_kv, --kv_policy or --compare");
    return 0;
}

static int open_program(Program *p, Error *error) {
    const Settings *s = &p->settings;
    PplSetup *setup = &p->setup;
    Evaluation *e = &p->evaluation;
    setup->model_path = s->session.checkpoint_path;
    if (ppl_definition_parse(s->ppl_mode, &setup->settings.definition, error) < 0 || choose_policies(p, error) < 0)
        return error->code;
    if ((s->json != NULL && output_file_open(&p->json, s->json, error) < 0) ||
        (s->csv != NULL && output_file_open(&p->csv, s->csv, error) < 0))
        return error->code;
    if (session_open(&p->session, &s->session, error) < 0 || choose_windows(p, error) < 0 || read_text(p, error) < 0 ||
        ppl_set_up(setup, p->text.name, &p->text.tokens, p->session.tokenizer, e, error) < 0)
        return error->code;
    e->model = &p->session.model;
    e->n_batch = s->batch;
    e->attribution = s->attribution;
    e->save_base = s->save_base;
    e->load_base = s->load_base;
    e->interrupted = &program_interrupted;
    return evaluation_open(e, p->policies.items, p->policies.count, error);
}

static void close_program(void *state) {
    Program *p = state;
    evaluation_close(&p->evaluation);
    policy_list_free(&p->policies);
    ppl_text_free(&p->text);
    session_close(&p->session);
    output_file_discard(&p->json);
    output_file_discard(&p->csv);
}

/* Files first: nobody can close them as a reader closes stdout. Whatever fails, the others are tried. */
static int report(Program *p, Error *error) {
    bool stdout_is_taken = p->json.stream == stdout || p->csv.stream == stdout;
    Error failure = {0};
    if (p->settings.json != NULL)
        json_commit(perplexity_json(&p->evaluation, &p->setup), &p->json, error);
    if (p->settings.csv != NULL) {
        perplexity_csv(&p->evaluation, &p->setup, p->csv.stream);
        output_file_commit(&p->csv, &failure);
        error_keep_first(error, &failure);
    }
    if (!stdout_is_taken) {
        perplexity_print(&p->evaluation, &p->setup, stdout);
        program_flush_stdout(&failure);
    }
    return error_keep_first(error, &failure);
}

static int run_program(void *state, Error *error) {
    Program *p = state;
    if (open_program(p, error) < 0)
        return error->code;
    int status = evaluation_run(&p->evaluation, error);
    if (status == ERROR_INTERRUPTED && p->evaluation.n_windows > 0)
        fprintf(stderr, "interrupted: the figures are those of the first %zu windows\n", p->evaluation.n_windows);
    if (status < 0 && (status != ERROR_INTERRUPTED || p->evaluation.n_windows == 0))
        return status;
    Error failure = {0};
    if (report(p, &failure) < 0)
        *error = failure;
    return failure.code < 0 ? failure.code : status;
}

static int check_program(void *state, Error *error) {
    const Settings *s = &((Program *)state)->settings;
    if (s->session.checkpoint_path == NULL)
        return error_set(error, ERROR_USAGE, "--checkpoint_path is required; checkpoints/fetch.sh fetches a model");
    if (s->text_file == NULL)
        return error_set(error, ERROR_USAGE, "--text_file is required; give a text of some thousand words");
    if (s->context > 0 && s->session.n_ctx > 0 && s->context != s->session.n_ctx)
        return error_set(error, ERROR_USAGE, "--context %zu and --n_ctx %zu: a window fills the cache; give one",
                         s->context, s->session.n_ctx);
    if (s->save_base != NULL && s->load_base != NULL)
        return error_set(error, ERROR_USAGE, "--save_base_logits and --base_logits exclude each other; give one");
    if (s->save_base != NULL && strcmp(s->save_base, "-") == 0)
        return error_set(error, ERROR_USAGE, "--save_base_logits -: --base_logits reads a file; name one");
    return 0;
}

int main(int argc, char **argv) {
    static Program program = {
        .settings = {.session = SESSION_DEFAULTS, .ppl_mode = "llamacpp", .stride = OPTION_UNSET}};
    static Settings *const s = &program.settings;
    static ProgramFlags flags;
    const Option options[] = {
        SESSION_OPTIONS(s->session),
        {"Evaluation", OPTION_HEADING, NULL, NULL, NULL, 0, 0},
        {"text_file", OPTION_INPUT, &s->text_file, "FILE", "the text, in UTF-8; - is stdin; required", 0, 0},
        {"ppl_mode", OPTION_STRING, &s->ppl_mode, "NAME", "llamacpp, hf or gptq: whose definition; default llamacpp", 0,
         0},
        {"context", OPTION_SIZE, &s->context, "N",
         "tokens of a window; default 512 for llamacpp, 1024 for hf, 2048 for gptq", 4, 1 << 28},
        {"stride", OPTION_SIZE, &s->stride, "N", "tokens between windows, for hf; default 512", 0, 1 << 28},
        {"chunks", OPTION_SIZE, &s->chunks, "N", "stop after so many windows; default: all", 1, 1 << 28},
        {"batch", OPTION_SIZE, &s->batch, "N", "tokens that go through a layer together; no figure depends on it", 1,
         1 << 16},
        {"kld", OPTION_FLAG, &s->kld, NULL, "KL divergence of the chosen policy from the full cache", 0, 0},
        {"compare", OPTION_FLAG, &s->compare, NULL, "full, compressed and quantized mode, with their divergence", 0, 0},
        {"attribution", OPTION_FLAG, &s->attribution, NULL, "error of K, V and attention by layer and KV head", 0, 0},
        {"save_base_logits", OPTION_OUTPUT, &s->save_base, "FILE",
         "keep the full cache's distributions, 2 bytes for each token and vocabulary entry", 0, 0},
        {"base_logits", OPTION_INPUT, &s->load_base, "FILE", "compare with those instead of a full cache", 0, 0},
        {"Output", OPTION_HEADING, NULL, NULL, NULL, 0, 0},
        {"json", OPTION_OUTPUT, &s->json, "FILE", "write the result as JSON; - is stdout, instead of the table", 0, 0},
        {"csv", OPTION_OUTPUT, &s->csv, "FILE", "write it as CSV, a line for each policy; - is stdout", 0, 0},
        PROGRAM_OPTIONS(flags),
        {0},
    };
    const ProgramMain steps = {"perplexity", USAGE,         options,     &flags,
                               &s->session,  check_program, run_program, close_program};
    return program_main(argc, argv, &steps, &program);
}

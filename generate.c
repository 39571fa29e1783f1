/* The program: options, open, generate, report; generate/ has the ways to answer. stdout is exactly the continuation of
 * the prompt; everything else goes to stderr. Only main() picks the exit status. */
#include "base/output_file.h"
#include "base/text_file.h"
#include "generate/answer_requests.h"
#include "generate/compare.h"
#include "generate/converse.h"
#include "generate/settings.h"
#include "session/budget_options.h"
#include "session/inspect.h"
#include "session/memory_plan.h"
#include "session/program.h"
#include "session/run_report.h"

#include <stdlib.h>
#include <unistd.h>

static const char USAGE[] = "Usage: generate --checkpoint_path PATH --prompt TEXT [flags]\n"
                            "Generates text from a Llama-family checkpoint. stdout is the prompt's continuation, "
                            "nothing else.\n";

/* What main() has open, so that every way out closes the same things. */
typedef struct Program {
    Settings settings;
    Session session;
    Sampler sampler;
    PrefixReuse reuse; /* --prefix_cache */
    ChatTemplate *chat;
    TextFile prompt_file;
    Requests requests; /* --prompts_file */
    Comparison comparison;
    OutputFile json;
    Answer answer;
} Program;

/* ---- Opening */

static int read_prompt_file(Program *program, Error *error) {
    TextFile *file = &program->prompt_file;
    if (text_file_read(file, program->settings.prompt_file, TEXT_FILE_MAX, error) < 0)
        return error->code;
    prompt_note_invalid(file->text, file->name);
    text_file_clean(file);
    return 0;
}

/* The prompt from whichever flag gives it; empty in a conversation whose turns come from stdin. */
static int get_prompt(Program *program, StringView *prompt, Error *error) {
    const Settings *s = &program->settings;
    *prompt = (StringView){"", 0};
    if (s->prompt != NULL) {
        *prompt = sv(s->prompt);
        prompt_note_invalid(*prompt, "--prompt");
    }
    if (s->system != NULL)
        prompt_note_invalid(sv(s->system), "--system");
    if (s->prompt_file != NULL) {
        if (read_prompt_file(program, error) < 0)
            return error->code;
        *prompt = program->prompt_file.text;
    }
    return 0;
}

static int open_requests(Program *program, Error *error) {
    const Settings *s = &program->settings;
    char *settings = settings_describe(s, error);
    int status =
        settings == NULL ? error->code : requests_open(&program->requests, s->prompts_file, s->output, settings, error);
    free(settings);
    return status;
}

static int choose_chat_template(Program *program, Error *error) {
    const Settings *s = &program->settings;
    const Vocabulary *vocabulary = &program->session.model.checkpoint.vocabulary;
    return s->chat ? chat_template_open(&program->chat, vocabulary, s->chat_template, s->date, error) : 0;
}

/* How prompts are answered, with all that is open. */
static Answer prepare_answer(Program *program) {
    const Settings *s = &program->settings;
    bool prints = program->json.stream != stdout;
    return (Answer){.options = &s->session,
                    .session = &program->session,
                    .sampler = &program->sampler,
                    .reuse = s->prefix.folder != NULL ? &program->reuse : NULL,
                    .prompt = {program->chat, s->system, s->parse_special},
                    .generation = {s->max_new_tokens, s->ignore_eos, &s->stops},
                    .prints = prints,
                    .is_seen = s->interactive || (prints && isatty(STDOUT_FILENO)),
                    .tells_cuts = s->interactive || s->compare};
}

/* What a run may fail for without a model is opened first. */
static int open_program(Program *program, Error *error) {
    Settings *s = &program->settings;
    Comparison *comparison = &program->comparison;
    *comparison = (Comparison){.profile = s->profile,
                               .profile_text = s->profile_text,
                               .profile_quality = s->profile_quality,
                               .all_modes = s->compare};
    if (budget_options_resolve(&s->session, 0, error) < 0 ||
        (s->json != NULL && output_file_open(&program->json, s->json, error) < 0))
        return error->code;
    if (s->prompts_file != NULL && open_requests(program, error) < 0)
        return error->code;
    if (comparison_open(comparison, error) < 0 || session_open(&program->session, &s->session, error) < 0 ||
        choose_chat_template(program, error) < 0 || comparison_attach(comparison, &program->session, error) < 0)
        return error->code;
    const Model *model = &program->session.model;
    if (sampler_open(&program->sampler, &s->sampler, model->checkpoint.config.n_vocab, model->backend->level, error) <
        0)
        return error->code;
    program->answer = prepare_answer(program);
    return 0;
}

static void close_program(void *state) {
    Program *program = state;
    answer_free(&program->answer);
    chat_template_free(program->chat);
    sampler_close(&program->sampler);
    prefix_reuse_close(&program->reuse);
    requests_close(&program->requests);
    comparison_close(&program->comparison);
    session_close(&program->session);
    output_file_discard(&program->json);
    text_file_free(&program->prompt_file);
}

/* ---- Running */

/* What was printed is followed by how it came about. */
static void print_origin(Program *program) {
    seed_print(&program->settings.sampler, stderr);
    if (program->settings.prefix.stats)
        prefix_reuse_print_stats(&program->reuse, stderr);
}

static int run_requests(Program *program, Error *error) {
    RequestCounts counts;
    if (answer_requests(&program->answer, &program->requests, &counts, error) < 0)
        return error->code;
    request_counts_print(&counts, stderr);
    print_origin(program);
    if (program->settings.json == NULL)
        return 0;
    return json_commit(request_counts_json(&counts, &program->answer), &program->json, error);
}

/* The text goes on the screen before its summary, also where both are the same terminal. */
static int report(Program *program, Error *error) {
    const Settings *s = &program->settings;
    const Generation *run = &program->answer.run;
    if (isatty(STDOUT_FILENO) && !s->interactive && run->text_length > 0)
        fputc('\n', stderr);
    run_report_print(run, stderr);
    print_origin(program);
    return s->json == NULL ? 0 : json_commit(run_report_json(run, s->session.checkpoint_path), &program->json, error);
}

/* An interrupted run reports what it has done. */
static int run_policy(Program *program, StringView prompt, Error *error) {
    const Settings *s = &program->settings;
    Answer *answer = &program->answer;
    KvPolicy policy;
    if (policy_from_options(&s->session.kv, &policy, error) < 0 || answer_begin(answer, &policy, error) < 0)
        return error->code;
    if (s->prompts_file != NULL)
        return run_requests(program, error);
    int status = s->interactive ? converse(answer, prompt, error) : answer_prompt(answer, prompt, error);
    return status < 0 && status != ERROR_INTERRUPTED ? status : report(program, error);
}

static int compare(Program *program, StringView prompt, Error *error) {
    const Settings *s = &program->settings;
    Comparison *comparison = &program->comparison;
    if (policies_from_options(&s->session.kv, s->compare, &comparison->policies, error) < 0)
        return error->code;
    return comparison_run(comparison, &program->answer, prompt, s->json != NULL ? &program->json : NULL, error);
}

/* --prefix_stats and --prefix_clear need neither model nor prompt. */
static int look_at_prefixes(Program *program, Error *error) {
    const Settings *s = &program->settings;
    if (s->json == NULL) {
        prefix_reuse_print_stats(&program->reuse, stdout);
        return program_flush_stdout(error);
    }
    if (output_file_open(&program->json, s->json, error) < 0)
        return error->code;
    cJSON *root = cJSON_CreateObject();
    prefix_reuse_json(&program->reuse, root);
    return json_commit(root, &program->json, error);
}

static int run_program(Program *program, Error *error) {
    StringView prompt;
    if (program->settings.prefix.folder != NULL &&
        prefix_reuse_open(&program->reuse, &program->settings.prefix, error) < 0)
        return error->code;
    if (!settings_have_prompt(&program->settings))
        return look_at_prefixes(program, error);
    if (get_prompt(program, &prompt, error) < 0 || open_program(program, error) < 0)
        return error->code;
    const Settings *s = &program->settings;
    return s->compare || s->profile != NULL ? compare(program, prompt, error) : run_policy(program, prompt, error);
}

/* --plan_memory: the ledger goes to stdout, or as JSON where --json says. */
static int plan_memory(Program *program, Error *error) {
    Settings *s = &program->settings;
    if (s->json == NULL)
        return memory_plan(&s->session, s->shape, false, stdout, error);
    if (output_file_open(&program->json, s->json, error) < 0 ||
        memory_plan(&s->session, s->shape, true, program->json.stream, error) < 0)
        return error->code;
    return output_file_commit(&program->json, error);
}

static int check(void *state, Error *error) {
    return settings_check(&((Program *)state)->settings, error);
}

static int run(void *state, Error *error) {
    Program *program = state;
    if (program->settings.inspect != NULL)
        return inspect(&program->settings.session, program->settings.json, error);
    return program->settings.plan_memory ? plan_memory(program, error) : run_program(program, error);
}

int main(int argc, char **argv) {
    static Program program = {.settings = {.session = SESSION_DEFAULTS,
                                           .max_new_tokens = 200,
                                           .prefix = PREFIX_REUSE_DEFAULTS,
                                           .sampler = {0.8, 200, 1.0, 0.0, 0, {1, 0, 0, 64}}}};
    static Settings *const s = &program.settings;
    static ProgramFlags flags;
    const Option options[] = {
        SESSION_OPTIONS(s->session),
        {"Prompt", OPTION_HEADING, NULL, NULL, NULL, 0, 0},
        {"prompt", OPTION_TEXT, &s->prompt, "TEXT", "the text to continue; an empty one starts from BOS", 0, 0},
        {"prompt_file", OPTION_INPUT, &s->prompt_file, "FILE",
         "the same from a file, its final newline included; - is stdin", 0, 0},
        {"prompts_file", OPTION_INPUT, &s->prompts_file, "FILE", "many: {\"id\": 7, \"prompt\": \"Once\"} a line", 0,
         0},
        {"chat", OPTION_FLAG, &s->chat, NULL, "the prompt is a message: apply the checkpoint's chat template", 0, 0},
        {"chat_template", OPTION_INPUT, &s->chat_template, "NAME",
         "a file in Jinja, or chatml, llama2, llama3, mistral or zephyr; default: the checkpoint's", 0, 0},
        {"system", OPTION_TEXT, &s->system, "TEXT", "system message; default: the template's", 0, 0},
        {"date", OPTION_STRING, &s->date, "DATE", "YYYY-MM-DD, for templates that tell it; default: today", 0, 0},
        {"parse_special", OPTION_FLAG, &s->parse_special, NULL,
         "a prompt that spells special tokens has them, for turns written by hand", 0, 0},
        {"interactive", OPTION_FLAG, &s->interactive, NULL, "a conversation: one message a line from stdin", 0, 0},
        {"Generation", OPTION_HEADING, NULL, NULL, NULL, 0, 0},
        {"max_new_tokens", OPTION_SIZE, &s->max_new_tokens, "N", "default 200; 0 reads the prompt and stops", 0,
         1 << 30},
        {"temperature", OPTION_NUMBER, &s->sampler.temperature, "T", "default 0.8; 0 is greedy", 0, 100},
        {"top_k", OPTION_SIZE, &s->sampler.top_k, "K", "keep the K most likely tokens; default 200, 0: all", 0,
         1 << 30},
        {"top_p", OPTION_NUMBER, &s->sampler.top_p, "P", "keep the most likely tokens up to P; default 1: all", 0, 1},
        {"min_p", OPTION_NUMBER, &s->sampler.min_p, "P", "drop tokens below P times the best; default 0: none", 0, 1},
        {"seed", OPTION_SEED, &s->sampler.seed, "N", "the same seed gives the same text; default: another each time", 0,
         0},
        {"repetition_penalty", OPTION_NUMBER, &s->sampler.penalties.repetition, "X",
         "divide by X the logits of tokens that were there; default 1: none", 0.01, 100},
        {"frequency_penalty", OPTION_NUMBER, &s->sampler.penalties.frequency, "X",
         "subtract X for each time that a token was there; default 0", -100, 100},
        {"presence_penalty", OPTION_NUMBER, &s->sampler.penalties.presence, "X",
         "subtract X once if a token was there; default 0", -100, 100},
        {"penalty_window", OPTION_SIZE, &s->sampler.penalties.window, "N",
         "penalties look at the last N tokens, prompt included; default 64, 0: off, -1: all", -1, 1 << 30},
        {"ignore_eos", OPTION_FLAG, &s->ignore_eos, NULL, "go on behind the end of the text", 0, 0},
        {"stop", OPTION_LIST, &s->stops, "TEXT", "end before this text; may be given several times", 0, 0},
        PREFIX_REUSE_OPTIONS(s->prefix),
        {"Output", OPTION_HEADING, NULL, NULL, NULL, 0, 0},
        {"output", OPTION_OUTPUT, &s->output, "FILE",
         "of --prompts_file: a result a line; the same command goes on with it", 0, 0},
        {"compare", OPTION_FLAG, &s->compare, NULL, "the same prompt in full, compressed and quantized mode", 0, 0},
        {"inspect", OPTION_INPUT, &s->inspect, "PATH",
         "print what a checkpoint is, and what it lacks; no weights are loaded", 0, 0},
        {"plan_memory", OPTION_FLAG, &s->plan_memory, NULL, "print the cache's byte ledger; no weights are loaded", 0,
         0},
        {"shape", OPTION_STRING, &s->shape, "SHAPE",
         "for --plan_memory: layers=80,kv_heads=8,head_dim=128,n_ctx=131072", 0, 0},
        {"profile", OPTION_STRING, &s->profile, "NAME",
         "write where time and memory go to outputs/NAME/; all three modes unless some are chosen", 0, 0},
        {"profile_quality", OPTION_FLAG, &s->profile_quality, NULL,
         "also each mode's perplexity, KL divergence, ROUGE-L, recall", 0, 0},
        {"profile_text", OPTION_INPUT, &s->profile_text, "FILE",
         "of this text, in UTF-8; default: what the model says behind the prompt", 0, 0},
        {"json", OPTION_OUTPUT, &s->json, "FILE", "write the result as JSON; - is stdout, instead of the text", 0, 0},
        PROGRAM_OPTIONS(flags),
        {0},
    };
    Error error = {0};
    if (sampler_draw_seed(&s->sampler.seed, &error) < 0) {
        fprintf(stderr, "generate: error: %s\n", error.message);
        return EXIT_FAILURE;
    }
    s->drawn_seed = s->sampler.seed;
    const ProgramMain steps = {"generate", USAGE, options, &flags, &s->session, check, run, close_program};
    return program_main(argc, argv, &steps, &program);
}

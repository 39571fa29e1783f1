/* The program: options, open, generate, report. stdout is exactly the continuation of the prompt; everything else goes
 * to stderr. Only main() picks the exit status. */
#include "base/machine/clock.h"
#include "base/output_file.h"
#include "base/text_file.h"
#include "eval/profile/profiler.h"
#include "eval/progress.h"
#include "session/inspect.h"
#include "session/json_text.h"
#include "session/memory_plan.h"
#include "session/program.h"
#include "session/prompt.h"
#include "session/requests.h"
#include "session/run_report.h"
#include "tokenizer/utf8.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

static const char USAGE[] = "Usage: generate --checkpoint_path PATH --prompt TEXT [flags]\n"
                            "Generates text from a Llama-family checkpoint. stdout is the prompt's continuation, "
                            "nothing else.\n";

typedef struct Settings {
    SessionOptions session;
    const char *prompt, *prompt_file, *prompts_file, *output, *system, *chat_template, *date, *json, *profile,
        *profile_text;
    const char *shape, *inspect;
    bool chat, interactive, parse_special, ignore_eos, compare, plan_memory, profile_quality;
    size_t max_new_tokens;
    SamplerOptions sampler;
    uint64_t drawn_seed; /* the sampler's, unless --seed gives one */
    PrefixReuseOptions prefix;
    StringList stops;
} Settings;

static bool has_prompt(const Settings *s) {
    return s->prompt != NULL || s->prompt_file != NULL || s->prompts_file != NULL || s->interactive;
}

/* What main() has open, so that every way out closes the same things. */
typedef struct Program {
    Settings settings;
    Session session;
    Sampler sampler;
    Generation run;
    PrefixReuse reuse; /* --prefix_cache */
    Requests requests; /* --prompts_file */
    ChatTemplate *chat;
    Conversation talk; /* --interactive */
    Progress progress; /* of reading a prompt, then of a text that goes to no terminal */
    OutputFile json;
    Profiler profiler;
    Error no_profile;     /* why there is none though it was asked for */
    PplText profile_text; /* no tokens: none */
    TextFile prompt_file;
    size_t n_lines; /* of stdin that were read */
} Program;

static void show_reading(void *user, size_t n_read, size_t n_prompt) {
    const Program *program = user;
    (void)n_prompt;
    progress_show(&program->progress, n_read, "");
}

/* With --json - the report alone is on stdout, so that it can be parsed. This does not go through stdio, which drops
 * text when Ctrl-C ends its wait for the reader. */
static int print_text(void *user, StringView text, Error *error) {
    const Program *program = user;
    progress_show(&program->progress, program->run.generated.count, "");
    if (program->json.stream == stdout)
        return 0;
    for (size_t done = 0; done < text.length;) {
        ssize_t written = write(STDOUT_FILENO, text.bytes + done, text.length - done);
        if (written >= 0)
            done += (size_t)written;
        else if (errno != EINTR)
            return error_set(error, ERROR_IO, "stdout: %s; the text is lost from here on", strerror(errno));
    }
    return 0;
}

/* What is not UTF-8 is read as U+FFFD, which hardly anybody wants. */
static void note_invalid(StringView text, const char *name) {
    size_t at = utf8_first_invalid(text);
    if (at < text.length)
        fprintf(stderr, "note: %s: byte %zu is not UTF-8, and read as U+FFFD; convert the text to UTF-8\n", name, at);
}

static int read_prompt_file(Program *program, Error *error) {
    TextFile *file = &program->prompt_file;
    if (text_file_read(file, program->settings.prompt_file, TEXT_FILE_MAX, error) < 0)
        return error->code;
    note_invalid(file->text, file->name);
    text_file_clean(file);
    return 0;
}

/* The prompt from whichever flag gives it; empty in a conversation whose turns come from stdin. */
static int get_prompt(Program *program, StringView *prompt, Error *error) {
    const Settings *s = &program->settings;
    *prompt = (StringView){"", 0};
    if (s->prompt != NULL) {
        *prompt = sv(s->prompt);
        note_invalid(*prompt, "--prompt");
    }
    if (s->system != NULL)
        note_invalid(sv(s->system), "--system");
    if (s->prompt_file != NULL) {
        if (read_prompt_file(program, error) < 0)
            return error->code;
        *prompt = program->prompt_file.text;
    }
    return 0;
}

static int choose_chat_template(Program *program, Error *error) {
    const Settings *s = &program->settings;
    const Vocabulary *vocabulary = &program->session.model.checkpoint.vocabulary;
    return s->chat ? chat_template_open(&program->chat, vocabulary, s->chat_template, s->date, error) : 0;
}

static PromptOptions prompt_options(const Program *program) {
    return (PromptOptions){program->chat, program->settings.system, program->settings.parse_special};
}

/* Of a single run the summary tells it. */
static void print_cut(const Program *program) {
    const Generation *run = &program->run;
    char cure[CONTEXT_CURE_TEXT];
    if (run->end == END_CONTEXT_FULL && (program->settings.interactive || program->settings.compare))
        fprintf(stderr, "%snote: the context of %zu tokens is full, the answer is cut; %s\n",
                isatty(STDOUT_FILENO) ? "\n" : "", run->session->context.n_ctx, generation_context_cure(run, cure));
}

/* Reads what is new in a turn and answers it. */
static int answer(Program *program, const TokenList *tokens, Error *error) {
    const Settings *s = &program->settings;
    GenerationOptions options = {s->max_new_tokens, s->ignore_eos, &s->stops};
    bool is_long = tokens->count > DEFAULT_BATCH;
    bool is_seen = s->interactive || (isatty(STDOUT_FILENO) && program->json.stream != stdout);
    program->progress = progress_begin("reading the prompt", is_long ? tokens->count : 0, "tokens");
    int status = generation_read(&program->run, tokens->ids, tokens->count, error);
    progress_end(&program->progress);
    if (status == 0) {
        program->progress = progress_begin("generating", is_seen ? 0 : s->max_new_tokens, "tokens");
        status = generation_continue(&program->run, &options, error);
        progress_end(&program->progress);
    }
    if (status == 0)
        print_cut(program);
    return status;
}

/* A line from the user without its newline: 1; 0 at the end of input or after Ctrl-C. */
static int read_line(Program *program, char **line, size_t *capacity, StringView *out, Error *error) {
    if (isatty(STDIN_FILENO))
        fprintf(stderr, "> ");
    ssize_t length = getline(line, capacity, stdin);
    if (length < 0 && ferror(stdin) && errno != EINTR)
        return error_set(error, ERROR_IO, "stdin: %s; give one message a line", strerror(errno));
    if (length < 0)
        return 0;
    if (program->n_lines++ == 0 && text_check_encoding((StringView){*line, (size_t)length}, "stdin", error) < 0)
        return error->code;
    if (length > 0 && (*line)[length - 1] == '\n')
        length--;
    *out = text_clean_line(*line, (size_t)length);
    note_invalid(*out, "the message");
    return 1;
}

static int take_turn(Program *program, StringView text, TokenList *tokens, Error *error) {
    Generation *run = &program->run;
    PromptOptions options = prompt_options(program);
    size_t n_generated = run->generated.count, text_length = run->text_length;
    bool rereads;
    if (conversation_ask(&program->talk, &program->session, &options, text, tokens, &rereads, error) < 0)
        return error->code;
    if (rereads)
        fprintf(stderr, "note: the chat template tells earlier turns in other tokens than were generated (a thought, a "
                        "stop text, white space); the conversation is read again\n");
    if (answer(program, tokens, error) < 0)
        return error->code;
    return conversation_answered(&program->talk, run, n_generated, text_length, error);
}

static int converse(Program *program, StringView first, Error *error) {
    TokenList tokens = {0};
    char *line = NULL;
    size_t capacity = 0;
    StringView text = first;
    int status = first.length > 0 ? 1 : read_line(program, &line, &capacity, &text, error);
    while (status > 0 && !program_interrupted) {
        status = 0;
        if (text.length > 0) {
            status = take_turn(program, text, &tokens, error);
            if (status == 0)
                status = generation_say(&program->run, sv("\n"), error);
        }
        if (status == 0)
            status = read_line(program, &line, &capacity, &text, error);
    }
    free(line);
    token_list_free(&tokens);
    return status < 0 ? status : 0;
}

static int run_once(Program *program, StringView prompt, Error *error) {
    TokenList tokens = {0};
    PromptOptions options = prompt_options(program);
    int status = prompt_encode(&program->session, &options, prompt, &tokens, error);
    if (status == 0)
        status = answer(program, &tokens, error);
    token_list_free(&tokens);
    return status;
}

/* What repeats the run, where chance had a part in it. */
static void print_seed(const Settings *s) {
    if (s->sampler.temperature > 0)
        fprintf(stderr, "seed: %llu\n", (unsigned long long)s->sampler.seed);
}

/* ---- Many requests */

/* What results follow from beside their prompts; of a seed that was drawn no run could go on. malloc'd. */
static char *describe_settings(const Settings *s, Error *error) {
    const struct {
        const char *name, *value;
    } texts[] = {{"checkpoint", s->session.checkpoint_path},
                 {"tokenizer", s->session.tokenizer_path},
                 {"chat_template", s->chat_template},
                 {"system", s->system},
                 {"date", s->date}};
    const size_t numbers[] = {s->session.n_ctx, s->max_new_tokens, s->chat, s->parse_special, s->ignore_eos};
    SamplerOptions sampler = s->sampler;
    KvPolicy policy;
    if (policy_from_options(&s->session.kv, &policy, error) < 0)
        return NULL;
    bool seeded = sampler.temperature > 0 && sampler.seed != s->drawn_seed;
    sampler.seed = seeded ? sampler.seed : 0;
    cJSON *root = cJSON_CreateObject();
    policy_json(root, &policy);
    sampler_json(root, &sampler);
    cJSON_AddBoolToObject(root, "seeded", seeded);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (texts[i].value != NULL)
            cJSON_AddStringToObject(root, texts[i].name, texts[i].value);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        cJSON_AddNumberToObject(root, "number", (double)numbers[i]);
    for (size_t i = 0; i < s->stops.count; i++)
        cJSON_AddStringToObject(root, "stop", s->stops.items[i]);
    char *text = cJSON_PrintUnformatted(root);
    cJSON_Delete(root);
    if (text == NULL)
        error_memory(error, "the settings", 0);
    return text;
}

static int open_requests(Program *program, Error *error) {
    const Settings *s = &program->settings;
    char *settings = describe_settings(s, error);
    int status =
        settings == NULL ? error->code : requests_open(&program->requests, s->prompts_file, s->output, settings, error);
    free(settings);
    return status;
}

/* An empty run, with the seed from its start and nothing on stdout; what was opened stays open. */
static void begin_request(Program *program) {
    Generation *run = &program->run;
    generation_free(run);
    *run = (Generation){.session = run->session,
                        .sampler = run->sampler,
                        .reuse = run->reuse,
                        .user = program,
                        .interrupted = &program_interrupted};
    sampler_reset(&program->sampler);
    context_clear(&program->session.context);
}

static cJSON *request_result(const Program *program, double start) {
    const Generation *run = &program->run;
    cJSON *result = cJSON_CreateObject();
    json_add_text(result, "text", (StringView){run->text, run->text_length});
    cJSON_AddNumberToObject(result, "n_prompt", (double)run->prompt.count);
    cJSON_AddNumberToObject(result, "n_generated", (double)run->generated.count);
    cJSON_AddNumberToObject(result, "prefix_hit", run->reuse != NULL ? (double)run->reuse->restored.n_tokens : 0);
    cJSON_AddNumberToObject(result, "ms", (clock_seconds() - start) * 1e3);
    return result;
}

/* What goes wrong with a request is its result, but for what would go wrong with all. */
static int run_request(Program *program, const Request *request, size_t *n_failed, Error *error) {
    Error fault = request->fault;
    double start = clock_seconds();
    begin_request(program);
    int status = fault.code < 0 ? fault.code : run_once(program, request->prompt, &fault);
    if (status == ERROR_INTERRUPTED || status == ERROR_MEMORY || program_interrupted) {
        *error = fault.code < 0 ? fault : (Error){.code = ERROR_INTERRUPTED};
        return error->code;
    }
    cJSON *result = NULL;
    if (status == 0) {
        result = request_result(program, start);
    } else {
        result = cJSON_CreateObject();
        json_add_string(result, "error", fault.message);
        ++*n_failed;
    }
    return requests_answer(&program->requests, result, error);
}

static cJSON *requests_json(Program *program, size_t n_done, size_t n_failed) {
    cJSON *root = cJSON_CreateObject();
    json_add_string(root, "model", program->settings.session.checkpoint_path);
    policy_json(root, &program->session.context.cache.layout.policy);
    cJSON_AddNumberToObject(root, "n_before", (double)program->requests.n_before);
    cJSON_AddNumberToObject(root, "n_done", (double)n_done);
    cJSON_AddNumberToObject(root, "n_failed", (double)n_failed);
    if (program->run.reuse != NULL)
        prefix_reuse_json(program->run.reuse, root);
    return root;
}

static int report_requests(Program *program, size_t n_done, size_t n_failed, Error *error) {
    const Settings *s = &program->settings;
    fprintf(stderr, "%zu requests done, %zu of them failed; %zu were done before\n", n_done, n_failed,
            program->requests.n_before);
    print_seed(s);
    if (s->prefix.stats)
        prefix_reuse_print_stats(&program->reuse, stderr);
    return s->json == NULL ? 0 : json_commit(requests_json(program, n_done, n_failed), &program->json, error);
}

static int run_requests(Program *program, Error *error) {
    size_t n_done = 0, n_failed = 0;
    Request request;
    int status;
    while ((status = requests_next(&program->requests, &request, error)) > 0) {
        if (request.fault.code == 0)
            note_invalid(request.prompt, "a prompt");
        status = run_request(program, &request, &n_failed, error);
        if (status < 0)
            break;
        n_done++;
    }
    if (status < 0 && status != ERROR_INTERRUPTED)
        return status;
    return report_requests(program, n_done, n_failed, error);
}

/* Where the folder cannot be made there is no profile, and the text all the same. */
static int open_profile(Program *program, Error *error) {
    if (program->settings.profile == NULL || profiler_open(&program->profiler, program->settings.profile, error) == 0)
        return 0;
    if (error->code == ERROR_USAGE)
        return error->code;
    program->no_profile = *error;
    profiler_close(&program->profiler);
    return 0;
}

static int open_program(Program *program, Error *error) {
    Settings *s = &program->settings;
    if (s->json != NULL && output_file_open(&program->json, s->json, error) < 0)
        return error->code;
    if (s->prompts_file != NULL && open_requests(program, error) < 0)
        return error->code;
    if (open_profile(program, error) < 0 || session_open(&program->session, &s->session, error) < 0 ||
        choose_chat_template(program, error) < 0)
        return error->code;
    if (s->profile_text != NULL && ppl_text_read(&program->profile_text, s->profile_text, QUALITY_DEFINITION,
                                                 program->session.tokenizer, error) < 0)
        return error->code;
    if (program->profiler.folder != NULL && profiler_attach(&program->profiler, &program->session, error) < 0)
        return error->code;
    const Model *model = &program->session.model;
    return sampler_open(&program->sampler, &s->sampler, model->checkpoint.config.n_vocab, model->backend->level, error);
}

/* A fresh run with this policy: an empty cache, and the seed from its start. */
static int start_run(Program *program, const KvPolicy *policy, Error *error) {
    const Settings *s = &program->settings;
    generation_free(&program->run);
    program->run = (Generation){.session = &program->session,
                                .sampler = &program->sampler,
                                .user = program,
                                .on_text = print_text,
                                .on_progress = show_reading,
                                .interrupted = &program_interrupted};
    sampler_reset(&program->sampler);
    if (session_set_policy(&program->session, &s->session, policy, error) < 0)
        return error->code;
    if (s->prefix.folder == NULL)
        return 0;
    program->run.reuse = &program->reuse;
    return prefix_reuse_attach(&program->reuse, &program->session, error);
}

static void close_program(void *state) {
    Program *program = state;
    generation_free(&program->run);
    conversation_free(&program->talk);
    chat_template_free(program->chat);
    sampler_close(&program->sampler);
    prefix_reuse_close(&program->reuse);
    requests_close(&program->requests);
    profiler_close(&program->profiler);
    ppl_text_free(&program->profile_text);
    session_close(&program->session);
    output_file_discard(&program->json);
    text_file_free(&program->prompt_file);
}

/* The text goes on the screen before its summary, also where both are the same terminal. */
static int report(Program *program, Error *error) {
    const Settings *s = &program->settings;
    if (isatty(STDOUT_FILENO) && !s->interactive && program->run.text_length > 0)
        fputc('\n', stderr);
    run_report_print(&program->run, stderr);
    print_seed(s);
    if (s->prefix.stats)
        prefix_reuse_print_stats(&program->reuse, stderr);
    if (s->json == NULL)
        return 0;
    return json_commit(run_report_json(&program->run, s->session.checkpoint_path), &program->json, error);
}

/* An interrupted run reports what it has done. */
static int run_policy(Program *program, StringView prompt, Error *error) {
    KvPolicy policy;
    if (policy_from_options(&program->settings.session.kv, &policy, error) < 0 ||
        start_run(program, &policy, error) < 0)
        return error->code;
    if (program->settings.prompts_file != NULL)
        return run_requests(program, error);
    int status = program->settings.interactive ? converse(program, prompt, error) : run_once(program, prompt, error);
    if (status < 0 && status != ERROR_INTERRUPTED)
        return status;
    return report(program, error);
}

/* A run of a comparison, and its report; one of a profile has two owners. */
static int run_compared(Program *program, const KvPolicy *policy, StringView prompt, cJSON *reports, Error *error) {
    char heading[32];
    snprintf(heading, sizeof heading, "--- %s ---\n", kv_policy_mode(policy));
    if (print_text(program, sv(heading), error) < 0 || start_run(program, policy, error) < 0)
        return error->code;
    profiler_begin(&program->profiler);
    int status = run_once(program, prompt, error);
    if (status == 0)
        status = print_text(program, sv("\n\n"), error);
    cJSON *report = run_report_json(&program->run, program->settings.session.checkpoint_path);
    cJSON_AddItemToArray(reports, report);
    if (status < 0 || program->profiler.folder == NULL)
        return status;
    return profiler_take(&program->profiler, cJSON_Duplicate(report, true), error);
}

/* What Ctrl-C leaves is written too. */
static int finish_profile(Program *program, const PolicyList *policies, Error *error) {
    const Settings *s = &program->settings;
    const ProfilerRest rest = {.options = &s->session,
                               .compares = s->compare,
                               .policies = policies,
                               .quality = s->profile_quality,
                               .text = &program->profile_text,
                               .prompt = &program->run.prompt,
                               .interrupted = &program_interrupted};
    if (program->no_profile.code < 0)
        *error = program->no_profile;
    else if (program->profiler.folder != NULL)
        profiler_finish(&program->profiler, &rest, error);
    return error->code;
}

/* The same prompt with each policy, each text under its mode's name, and a table. */
static int compare_policies(Program *program, const PolicyList *policies, StringView prompt, Error *error) {
    const Settings *s = &program->settings;
    RunSummary *summaries = calloc(policies->count, sizeof *summaries);
    if (summaries == NULL)
        return error_memory(error, "the summaries", policies->count * sizeof *summaries);
    cJSON *root = cJSON_CreateObject(), *modes = cJSON_AddArrayToObject(root, "modes");
    int status = 0;
    size_t n = 0;
    for (; n < policies->count && status == 0 && !program_interrupted; n++) {
        status = run_compared(program, &policies->items[n], prompt, modes, error);
        summaries[n] = run_summarise(&program->run);
    }
    if (status == 0 && program->json.stream != stdout) {
        run_summaries_print(summaries, n, stdout);
        status = program_flush_stdout(error);
    }
    print_seed(s);
    free(summaries);
    if (status == 0 && s->json != NULL)
        status = json_commit(root, &program->json, error);
    else
        cJSON_Delete(root);
    Error failure = {0};
    if ((status == 0 || status == ERROR_INTERRUPTED) && finish_profile(program, policies, &failure) < 0)
        *error = failure;
    return failure.code < 0 ? failure.code : status;
}

static int compare(Program *program, StringView prompt, Error *error) {
    PolicyList policies;
    int status = policies_from_options(&program->settings.session.kv, program->settings.compare, &policies, error);
    if (status == 0)
        status = compare_policies(program, &policies, prompt, error);
    policy_list_free(&policies);
    return status;
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
    if (!has_prompt(&program->settings))
        return look_at_prefixes(program, error);
    if (get_prompt(program, &prompt, error) < 0 || open_program(program, error) < 0)
        return error->code;
    const Settings *s = &program->settings;
    return s->compare || s->profile != NULL ? compare(program, prompt, error) : run_policy(program, prompt, error);
}

/* --plan_memory: the ledger goes to stdout, or as JSON where --json says. */
static int plan_memory(Program *program, Error *error) {
    const Settings *s = &program->settings;
    if (s->json == NULL)
        return memory_plan(&s->session, s->shape, false, stdout, error);
    if (output_file_open(&program->json, s->json, error) < 0 ||
        memory_plan(&s->session, s->shape, true, program->json.stream, error) < 0)
        return error->code;
    return output_file_commit(&program->json, error);
}

static bool is_dash(const char *path) {
    return path != NULL && strcmp(path, "-") == 0;
}

static int check_modes(const Settings *s, Error *error) {
    PolicyList policies;
    int status = policies_from_options(&s->session.kv, s->compare, &policies, error);
    policy_list_free(&policies);
    if (status < 0)
        return status;
    if ((s->compare || s->profile != NULL) && s->interactive)
        return error_set(error, ERROR_USAGE, "%s needs one prompt for all modes; --interactive has many",
                         s->compare ? "--compare" : "--profile");
    if (s->profile != NULL && s->plan_memory)
        return error_set(error, ERROR_USAGE, "--profile measures a run, and --plan_memory has none; give one");
    if (s->profile_quality && s->profile == NULL)
        return error_set(error, ERROR_USAGE, "--profile_quality is a part of a profile; give --profile NAME too");
    if (s->profile_text != NULL && !s->profile_quality)
        return error_set(error, ERROR_USAGE, "--profile_text is read for --profile_quality; give both");
    if (s->interactive && is_dash(s->json))
        return error_set(error, ERROR_USAGE, "--interactive writes to stdout, so --json - cannot; name a file");
    if (s->shape != NULL && !s->plan_memory)
        return error_set(error, ERROR_USAGE, "--shape needs --plan_memory");
    if (s->shape != NULL && (s->session.checkpoint_path != NULL || s->session.n_ctx > 0))
        return error_set(error, ERROR_USAGE, "--shape is instead of --checkpoint_path and --n_ctx; give one");
    return 0;
}

static int check_requests(const Settings *s, Error *error) {
    if ((s->prompts_file != NULL) != (s->output != NULL))
        return error_set(error, ERROR_USAGE, "--prompts_file and --output need each other; give both");
    if (s->prompts_file == NULL)
        return 0;
    if (is_dash(s->output))
        return error_set(error, ERROR_USAGE, "--output -: no run could go on from stdout; name a file");
    if (s->prompt != NULL || s->prompt_file != NULL || s->interactive || s->compare)
        return error_set(error, ERROR_USAGE, "--prompts_file has the prompts, for one mode; leave %s out",
                         s->compare       ? s->profile != NULL ? "--profile" : "--compare"
                         : s->interactive ? "--interactive"
                                          : "--prompt and --prompt_file");
    return 0;
}

static int check_prefix(const Settings *s, Error *error) {
    if (s->prefix.folder == NULL && (s->prefix.stats || s->prefix.clear))
        return error_set(error, ERROR_USAGE, "--prefix_stats and --prefix_clear are about --prefix_cache DIR; name it");
    if (s->prefix.folder != NULL && (s->compare || s->plan_memory))
        return error_set(error, ERROR_USAGE,
                         "--prefix_cache would spare %s what it is to measure; leave one of them out",
                         s->plan_memory       ? "--plan_memory"
                         : s->profile != NULL ? "--profile"
                                              : "--compare");
    return 0;
}

static int check_program(void *state, Error *error) {
    Settings *s = &((Program *)state)->settings;
    if (s->inspect != NULL && s->session.checkpoint_path != NULL)
        return error_set(error, ERROR_USAGE, "--inspect names the checkpoint itself; leave --checkpoint_path out");
    if (s->inspect != NULL) {
        s->session.checkpoint_path = s->inspect;
        return 0;
    }
    s->compare = s->compare || (s->profile != NULL && !policy_options_choose(&s->session.kv));
    if (check_modes(s, error) < 0)
        return error->code;
    if (check_prefix(s, error) < 0)
        return error->code;
    if (s->prefix.folder != NULL && !has_prompt(s) && (s->prefix.stats || s->prefix.clear))
        return 0;
    if (s->session.checkpoint_path == NULL && s->shape == NULL)
        return error_set(error, ERROR_USAGE, "--checkpoint_path is required; checkpoints/fetch.sh fetches a model");
    if (s->plan_memory)
        return 0;
    if (s->prompt != NULL && s->prompt_file != NULL)
        return error_set(error, ERROR_USAGE, "--prompt and --prompt_file exclude each other; give one");
    if (!has_prompt(s))
        return error_set(error, ERROR_USAGE,
                         "no prompt; give --prompt TEXT, --prompt_file FILE, --prompts_file FILE or --interactive");
    if (check_requests(s, error) < 0)
        return error->code;
    if (s->interactive && (is_dash(s->prompt_file) || is_dash(s->chat_template)))
        return error_set(error, ERROR_USAGE, "--interactive reads stdin, so no other flag can; name a file, not -");
    s->chat = s->chat || s->interactive;
    if (!s->chat && (s->system != NULL || s->chat_template != NULL))
        return error_set(error, ERROR_USAGE, "--system and --chat_template need --chat or --interactive");
    if (!s->chat && s->date != NULL)
        return error_set(error, ERROR_USAGE, "--date is for chat templates; it needs --chat or --interactive");
    if (s->chat && s->parse_special)
        return error_set(error, ERROR_USAGE,
                         "--parse_special is for prompts that write turns themselves; leave --chat out");
    for (size_t i = 0; i < s->stops.count; i++)
        if (s->stops.items[i][0] == '\0')
            return error_set(error, ERROR_USAGE, "--stop: is empty; give the text to stop at");
        else if (!utf8_is_valid(sv(s->stops.items[i])))
            return error_set(error, ERROR_USAGE, "--stop: is not UTF-8, as all generated text is; give it in UTF-8");
    return 0;
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
    const ProgramMain steps = {"generate", USAGE, options, &flags, &s->session, check_program, run, close_program};
    return program_main(argc, argv, &steps, &program);
}

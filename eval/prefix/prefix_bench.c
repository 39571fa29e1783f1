/* The program: what a prefix cache costs and gains, in tables on stdout or as JSON. Only main() picks the exit status.
 */
#include "base/output_file.h"
#include "base/text_file.h"
#include "eval/prefix/experiments.h"
#include "session/budget_options.h"
#include "session/program.h"
#include "session/run_report.h"

#include <stdlib.h>
#include <unistd.h>

static const char USAGE[] = "Usage: prefix_bench --checkpoint_path PATH --text_file FILE [flags]\n"
                            "What stored prefixes cost and gain: quality, memory, look-ups, requests, agents, times.\n";

typedef struct Settings {
    SessionOptions session;
    const char *text_file, *folder, *json;
    size_t prompt_tokens;
} Settings;

typedef struct Program {
    Settings settings;
    Session session;
    TextFile file;
    TokenList text;
    OutputFile json;
} Program;

static int check(void *state, Error *error) {
    const Settings *s = &((const Program *)state)->settings;
    if (s->session.checkpoint_path == NULL || s->text_file == NULL || s->folder == NULL)
        return error_set(error, ERROR_USAGE,
                         "--checkpoint_path, --text_file and --prefix_cache are required; the folder's prefixes go");
    return 0;
}

static int open_all(Program *p, Error *error) {
    Settings *s = &p->settings;
    KvPolicy policy;
    if (budget_options_resolve(&s->session, 0, error) < 0)
        return error->code;
    if (s->json != NULL && output_file_open(&p->json, s->json, error) < 0)
        return error->code;
    if (text_file_read(&p->file, s->text_file, TEXT_FILE_MAX, error) < 0)
        return error->code;
    text_file_clean(&p->file);
    if (session_open(&p->session, &s->session, error) < 0 || policy_from_options(&s->session.kv, &policy, error) < 0 ||
        session_set_policy(&p->session, &s->session, &policy, error) < 0)
        return error->code;
    return tokenizer_encode(p->session.tokenizer, p->file.text, TOKENIZE_ADD_BOS, &p->text, error);
}

static int run(void *state, Error *error) {
    static const struct {
        const char *name;
        cJSON *(*run)(const Experiments *x, Error *error);
    } EXPERIMENTS[] = {{"quality", experiment_quality}, {"memory", experiment_memory},
                       {"lookups", experiment_lookups}, {"requests", experiment_requests},
                       {"agents", experiment_agents},   {"restored", experiment_restored}};
    Program *p = state;
    if (open_all(p, error) < 0)
        return error->code;
    cJSON *root = cJSON_CreateObject();
    const Experiments x = {&p->session, p->settings.folder, &p->text, p->settings.prompt_tokens,
                           p->json.stream == stdout ? stderr : stdout};
    cJSON_AddStringToObject(root, "model", p->settings.session.checkpoint_path);
    backend_json(root, p->session.model.backend);
    policy_json(root, &p->session.context.cache.layout.policy);
    for (size_t i = 0; i < sizeof EXPERIMENTS / sizeof *EXPERIMENTS; i++) {
        cJSON *result = program_interrupted ? NULL : EXPERIMENTS[i].run(&x, error);
        fflush(x.out);
        if (result == NULL) {
            cJSON_Delete(root);
            return program_interrupted ? error_set(error, ERROR_INTERRUPTED, "interrupted") : error->code;
        }
        cJSON_AddItemToObject(root, EXPERIMENTS[i].name, result);
    }
    if (p->json.stream != NULL)
        return json_commit(root, &p->json, error);
    cJSON_Delete(root);
    return program_flush_stdout(error);
}

static void close_all(void *state) {
    Program *p = state;
    session_close(&p->session);
    token_list_free(&p->text);
    text_file_free(&p->file);
    output_file_discard(&p->json);
}

int main(int argc, char **argv) {
    static Program program = {.settings = {.session = SESSION_DEFAULTS, .prompt_tokens = 512}};
    static Settings *const s = &program.settings;
    static ProgramFlags flags;
    const Option options[] = {
        SESSION_OPTIONS(s->session),
        {"Experiments", OPTION_HEADING, NULL, NULL, NULL, 0, 0},
        {"text_file", OPTION_INPUT, &s->text_file, "FILE", "prompts are pieces of it; required", 0, 0},
        {"prefix_cache", OPTION_STRING, &s->folder, "DIR", "a folder for prefixes, which is emptied; required", 0, 0},
        {"prompt_tokens", OPTION_SIZE, &s->prompt_tokens, "N", "of a prompt; default 512", 1, 1 << 20},
        {"json", OPTION_OUTPUT, &s->json, "FILE", "write the figures as JSON; - is stdout, instead of the tables", 0,
         0},
        PROGRAM_OPTIONS(flags),
        {0},
    };
    const ProgramMain steps = {"prefix_bench", USAGE, options, &flags, &s->session, check, run, close_all};
    return program_main(argc, argv, &steps, &program);
}

/* See settings.h. */
#include "generate/settings.h"

#include "session/run_report.h"
#include "tokenizer/utf8.h"

#include <string.h>

bool settings_have_prompt(const Settings *s) {
    return s->prompt != NULL || s->prompt_file != NULL || s->prompts_file != NULL || s->interactive;
}

char *settings_describe(const Settings *s, Error *error) {
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

static int check_chat(Settings *s, Error *error) {
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
    return 0;
}

static int check_stops(const StringList *stops, Error *error) {
    for (size_t i = 0; i < stops->count; i++)
        if (stops->items[i][0] == '\0')
            return error_set(error, ERROR_USAGE, "--stop: is empty; give the text to stop at");
        else if (!utf8_is_valid(sv(stops->items[i])))
            return error_set(error, ERROR_USAGE, "--stop: is not UTF-8, as all generated text is; give it in UTF-8");
    return 0;
}

int settings_check(Settings *s, Error *error) {
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
    if (s->prefix.folder != NULL && !settings_have_prompt(s) && (s->prefix.stats || s->prefix.clear))
        return 0;
    if (s->session.checkpoint_path == NULL && s->shape == NULL)
        return error_set(error, ERROR_USAGE, "--checkpoint_path is required; checkpoints/fetch.sh fetches a model");
    if (s->plan_memory)
        return 0;
    if (s->prompt != NULL && s->prompt_file != NULL)
        return error_set(error, ERROR_USAGE, "--prompt and --prompt_file exclude each other; give one");
    if (!settings_have_prompt(s))
        return error_set(error, ERROR_USAGE,
                         "no prompt; give --prompt TEXT, --prompt_file FILE, --prompts_file FILE or --interactive");
    if (check_requests(s, error) < 0)
        return error->code;
    if (check_chat(s, error) < 0)
        return error->code;
    return check_stops(&s->stops, error);
}

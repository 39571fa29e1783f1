/* See settings.h. */
#include "eval/rouge/settings.h"

#include "eval/rouge/samples.h"

#define DEFAULT_SEED    1
#define DEFAULT_SAMPLES 200
#define DEFAULT_TOKENS  64

typedef struct GivenFlag {
    const char *name;
    bool given;
} GivenFlag;

/* --pairs needs no model, so flags for one would do nothing. `defaults`: the session's before the command line. */
static int check_pairs(const RougeSettings *s, const SessionOptions *defaults, Error *error) {
    const SessionOptions *o = &s->session;
    const GivenFlag others[] = {
        {"checkpoint_path", o->checkpoint_path != NULL},
        {"tokenizer_path", o->tokenizer_path != NULL},
        {"device", o->device != defaults->device},
        {"simd", o->simd != defaults->simd},
        {"n_ctx", o->n_ctx > 0},
        {"threads", o->threads > 0},
        {"compress_kv", o->kv.compress},
        {"quantize_kv", o->kv.quantize},
        {"kv_policy", o->kv.policies.count > 0},
        {"sink_size", o->kv.sink != OPTION_UNSET},
        {"window_size", o->kv.window != OPTION_UNSET},
        {"kv_codec", o->kv.codec != NULL},
        {"kv_block_size", o->kv.block != defaults->kv.block},
        {"kv_rotate", o->kv.rotate != defaults->kv.rotate},
        {"data", s->data != NULL},
        {"prompt_field", s->prompt_field != NULL},
        {"reference_field", s->reference_field != NULL},
        {"prompt_template", s->prompt_template != NULL},
        {"chat_template", s->chat_template != NULL},
        {"date", s->date != NULL},
        {"long_prompts", s->long_prompts != NULL},
        {"samples", s->samples != OPTION_UNSET},
        {"max_new_tokens", s->max_new_tokens != OPTION_UNSET},
        {"compare", s->compare},
        {"seed", s->seed != ROUGE_SEED_UNSET},
        {"output", s->output != NULL},
    };
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (others[i].given)
            return error_set(error, ERROR_USAGE,
                             "--pairs scores texts that are there, and --%s is for generating them; leave one out",
                             others[i].name);
    return 0;
}

static int check_model(RougeSettings *s, Error *error) {
    if (s->session.checkpoint_path == NULL)
        return error_set(error, ERROR_USAGE, "%s",
                         s->data == NULL ? "nothing to score; give --pairs FILE, or --checkpoint_path and --data"
                                         : "--data needs a model; name one with --checkpoint_path");
    if (s->data == NULL)
        return error_set(error, ERROR_USAGE, "--checkpoint_path needs texts to summarise; name a file with --data");
    if (s->output != NULL && strcmp(s->output, "-") == 0)
        return error_set(error, ERROR_USAGE, "--output -: a run goes on from a file; name one");
    if (s->long_prompts != NULL && strcmp(s->long_prompts, "cut") != 0 && strcmp(s->long_prompts, "skip") != 0)
        return error_set(error, ERROR_USAGE, "--long_prompts %s: unknown; it takes cut or skip", s->long_prompts);
    if (s->seed != ROUGE_SEED_UNSET && !s->compare && s->session.kv.policies.count < 2)
        return error_set(error, ERROR_USAGE, "--seed is the bootstrap's; it needs --compare or several --kv_policy");
    s->prompt_field = s->prompt_field != NULL ? s->prompt_field : "article";
    s->reference_field = s->reference_field != NULL ? s->reference_field : "summary";
    s->prompt_template =
        s->prompt_template != NULL ? s->prompt_template : "Summarise the following article in one sentence.\n\n{}";
    s->samples = s->samples != OPTION_UNSET ? s->samples : DEFAULT_SAMPLES;
    s->max_new_tokens = s->max_new_tokens != OPTION_UNSET ? s->max_new_tokens : DEFAULT_TOKENS;
    s->seed = s->seed != ROUGE_SEED_UNSET ? s->seed : DEFAULT_SEED;
    return rouge_template_check(s->prompt_template, s->prompt_field, error);
}

int rouge_settings_check(RougeSettings *s, const SessionOptions *defaults, Error *error) {
    if (rouge_variant_parse(s->variant, &s->parsed_variant, error) < 0 ||
        (s->pairs != NULL ? check_pairs(s, defaults, error) : check_model(s, error)) < 0)
        return error->code;
    return 0;
}

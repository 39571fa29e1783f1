/* From flags to a policy; see policy_options.h. */
#include "kvcache/policy_options.h"

#include "kvcache/budget.h"
#include "kvcache/policy_text.h"

#include <stdlib.h>

static size_t sink_size(const PolicyOptions *options) {
    return options->sink == OPTION_UNSET ? KV_DEFAULT_SINK : options->sink;
}

static size_t window_size(const PolicyOptions *options) {
    return options->window == OPTION_UNSET ? KV_DEFAULT_WINDOW : options->window;
}

/* Refuses modes that exclude each other, and flags that would do nothing. */
static int check_flags(const PolicyOptions *options, Error *error) {
    bool sized = options->sink != OPTION_UNSET || options->window != OPTION_UNSET;
    if (options->compress + options->quantize + (options->budget != NULL) + (options->policies.count > 0) > 1)
        return error_set(error, ERROR_USAGE,
                         "--compress_kv, --quantize_kv, --kv_budget and --kv_policy exclude each other; give one");
    if (sized && !options->compress && !options->quantize && options->budget == NULL)
        return error_set(error, ERROR_USAGE,
                         "--sink_size and --window_size need --compress_kv, --quantize_kv or --kv_budget%s",
                         options->policies.count > 0 ? "; a policy names its own" : "; a full cache has neither");
    if (options->codec != NULL && options->budget != NULL)
        return error_set(error, ERROR_USAGE, "--kv_budget chooses the codecs; leave --kv_codec out");
    if (options->codec != NULL && !options->quantize)
        return error_set(error, ERROR_USAGE, "--kv_codec needs --quantize_kv; add it%s",
                         options->policies.count > 0 ? ", or name the codec in --kv_policy" : "");
    KvBudget budget;
    if (options->budget == NULL && options->calibration != NULL)
        return error_set(error, ERROR_USAGE, "--kv_calibration is read for --kv_budget; give both");
    if (options->budget != NULL && kv_budget_parse(options->budget, &budget, error) < 0)
        return error->code;
    if (!kv_is_group_size(options->block))
        return error_set(error, ERROR_USAGE, "--kv_block_size %zu: expected 32 or 64", options->block);
    return 0;
}

/* The index of `text` among `names`. */
static int parse_name(const char *flag, const char *text, const char *const *names, const char *takes, int *out,
                      Error *error) {
    for (*out = 0; names[*out] != NULL; ++*out)
        if (strcmp(text, names[*out]) == 0)
            return 0;
    return error_set(error, ERROR_USAGE, "%s %s: unknown; did you mean %s? It takes %s", flag, text,
                     nearest_name(text, names), takes);
}

/* The policy of the flags, and of `text` where it is not NULL. */
static int make_policy(const PolicyOptions *options, const char *text, KvPolicy *policy, Error *error) {
    KvCodecId k = KV_INT8, v = KV_INT8;
    if (text == NULL && options->budget != NULL && options->found.n_rules > 0) {
        *policy = options->found;
        return 0;
    }
    size_t sink = sink_size(options), window = window_size(options);
    if (options->codec != NULL && kv_codec_pair_parse(options->codec, &k, &v, error) < 0)
        return error->code;
    bool quantized = options->quantize || options->budget != NULL;
    *policy = quantized           ? kv_policy_quantized(sink, window, k, v)
              : options->compress ? kv_policy_compressed(sink, window)
                                  : kv_policy_full();
    policy->group = options->block;
    int rotation, rounding;
    if (parse_name("--kv_rotate", options->rotate, kv_rotation_names(), "auto, on, off, k or v", &rotation, error) <
            0 ||
        parse_name("--kv_rounding", options->rounding, kv_rounding_names(), "auto, nearest or aware", &rounding,
                   error) < 0)
        return error->code;
    policy->rotation = (KvRotation)rotation;
    policy->rounding = (KvRounding)rounding;
    return text != NULL ? kv_policy_parse(text, policy, error) : 0;
}

int policy_from_options(const PolicyOptions *options, KvPolicy *policy, Error *error) {
    if (check_flags(options, error) < 0)
        return error->code;
    if (options->policies.count > 1)
        return error_set(error, ERROR_USAGE, "--kv_policy is given %zu times, and one run has one; add --compare",
                         options->policies.count);
    return make_policy(options, options->policies.count > 0 ? options->policies.items[0] : NULL, policy, error);
}

/* Each mode takes the flags that apply to it. */
static int add_modes(const PolicyOptions *options, PolicyList *list, Error *error) {
    enum { FULL, COMPRESSED, QUANTIZED, N_MODES };
    if (options->compress || options->quantize)
        return error_set(error, ERROR_USAGE,
                         "--compare runs full, compressed and quantized mode; give no mode with it");
    for (int mode = FULL; mode < N_MODES; mode++) {
        PolicyOptions own = *options;
        own.compress = mode == COMPRESSED;
        own.quantize = mode == QUANTIZED;
        own.budget = NULL;
        if (make_policy(&own, NULL, &list->items[list->count++], error) < 0)
            return error->code;
    }
    return 0;
}

int policies_from_options(const PolicyOptions *options, bool compare, PolicyList *out, Error *error) {
    size_t most = STRING_LIST_MAX + 5; /* the modes, the budget's, and one that a program may add */
    *out = (PolicyList){calloc(most, sizeof *out->items), 0};
    if (out->items == NULL)
        return error_memory(error, "cache policies", most * sizeof *out->items);
    if (compare && add_modes(options, out, error) < 0)
        return error->code;
    if (!compare && check_flags(options, error) < 0)
        return error->code;
    for (size_t i = 0; i < options->policies.count; i++)
        if (make_policy(options, options->policies.items[i], &out->items[out->count++], error) < 0)
            return error->code;
    bool none = out->count == 0;
    return none || options->budget != NULL ? make_policy(options, NULL, &out->items[out->count++], error) : 0;
}

void policy_list_put_full_first(PolicyList *list) {
    if (kv_policy_is_full(&list->items[0]))
        return;
    memmove(list->items + 1, list->items, list->count++ * sizeof *list->items);
    list->items[0] = kv_policy_full();
    list->items[0].group = list->items[1].group;
}

int policy_list_check_twins(const PolicyList *list, Error *error) {
    char a[KV_POLICY_TEXT], b[KV_POLICY_TEXT];
    for (size_t i = 0; i < list->count; i++)
        for (size_t j = 0; j < i; j++) {
            kv_policy_print(&list->items[i], a, sizeof a);
            kv_policy_print(&list->items[j], b, sizeof b);
            if (strcmp(a, b) == 0)
                return error_set(error, ERROR_USAGE, "policy %.200s is there twice; leave one out", a);
        }
    return 0;
}

void policy_list_free(PolicyList *list) {
    free(list->items);
    *list = (PolicyList){0};
}

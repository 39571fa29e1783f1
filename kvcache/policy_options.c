/* From flags to a policy; see policy_options.h. */
#include "kvcache/policy_options.h"

static size_t sink_size(const PolicyOptions *options) {
    return options->sink == OPTION_UNSET ? KV_DEFAULT_SINK : options->sink;
}

static size_t window_size(const PolicyOptions *options) {
    return options->window == OPTION_UNSET ? KV_DEFAULT_WINDOW : options->window;
}

/* A flag that would do nothing is a misunderstanding. */
static int check_flags(const PolicyOptions *options, Error *error) {
    bool sized = options->sink != OPTION_UNSET || options->window != OPTION_UNSET;
    if (options->compress + options->quantize + (options->policy != NULL) > 1)
        return error_set(error, ERROR_USAGE,
                         "--compress_kv, --quantize_kv and --kv_policy exclude each other; give one");
    if (sized && !options->compress && !options->quantize)
        return error_set(error, ERROR_USAGE, "--sink_size and --window_size need --compress_kv or --quantize_kv%s",
                         options->policy != NULL ? "; a policy names its own" : "; a full cache has neither");
    if (options->codec != NULL && !options->quantize)
        return error_set(error, ERROR_USAGE, "--kv_codec needs --quantize_kv; add it%s",
                         options->policy != NULL ? ", or name the codec in --kv_policy" : "");
    if (options->block != 32 && options->block != 64)
        return error_set(error, ERROR_USAGE, "--kv_block_size %zu: expected 32 or 64", options->block);
    return 0;
}

static int parse_rotation(const char *text, KvRotation *out, Error *error) {
    const char *const *names = kv_rotation_names();
    for (int i = 0; names[i] != NULL; i++)
        if (strcmp(text, names[i]) == 0) {
            *out = (KvRotation)i;
            return 0;
        }
    return error_set(error, ERROR_USAGE, "--kv_rotate %s: unknown; did you mean %s? It takes auto, on, off, k or v",
                     text, nearest_name(text, names));
}

int policy_from_options(const PolicyOptions *options, KvPolicy *policy, Error *error) {
    KvCodecId k = KV_INT8, v = KV_INT8;
    size_t sink = sink_size(options), window = window_size(options);
    if (check_flags(options, error) < 0 ||
        (options->codec != NULL && kv_codec_pair_parse(options->codec, &k, &v, error) < 0))
        return error->code;
    *policy = options->quantize   ? kv_policy_quantized(sink, window, k, v)
              : options->compress ? kv_policy_compressed(sink, window)
                                  : kv_policy_full();
    policy->group = options->block;
    if (parse_rotation(options->rotate, &policy->rotation, error) < 0)
        return error->code;
    return options->policy != NULL ? kv_policy_parse(options->policy, policy, error) : 0;
}

int policies_of_modes(const PolicyOptions *options, KvPolicy policies[KV_N_MODES], Error *error) {
    if (options->compress || options->quantize || options->policy != NULL)
        return error_set(error, ERROR_USAGE,
                         "--compare runs full, compressed and quantized mode; give no mode with it");
    for (int i = 0; i < KV_N_MODES; i++) {
        PolicyOptions mode = *options;
        mode.compress = i == 1;
        mode.quantize = i == 2;
        if (i != 2)
            mode.codec = NULL;
        if (i == 0)
            mode.sink = mode.window = OPTION_UNSET;
        if (policy_from_options(&mode, &policies[i], error) < 0)
            return error->code;
    }
    return 0;
}

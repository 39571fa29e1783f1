/* The table of model families and the checks of a configuration; see config.h. */
#include "checkpoints/config.h"

#include "base/name_list.h"

#include <math.h>

static const ModelFamily FAMILIES[] = {
    {"llama", "Llama 1 to 3, TinyLlama, SmolLM, Mistral", ROPE_INTERLEAVED, false},
    {"qwen2", "Qwen2, Qwen2.5", ROPE_HALVES, true},
};

const ModelFamily *model_family_at(size_t index) {
    return index < sizeof FAMILIES / sizeof *FAMILIES ? &FAMILIES[index] : NULL;
}

const ModelFamily *model_family_find(StringView name, const char *path, Error *error) {
    NameList supported = {0};
    const ModelFamily *family;
    for (size_t i = 0; (family = model_family_at(i)) != NULL; i++) {
        if (sv_is(name, family->name))
            return family;
        name_list_add(&supported, family->name);
        name_list_put(&supported, " (");
        name_list_put(&supported, family->members);
        name_list_put(&supported, ")");
    }
    error_set(error, ERROR_UNSUPPORTED, "%s: model family '%.*s' is not supported; supported: %s", path, SV_ARGS(name),
              supported.text);
    return NULL;
}

/* Limits far beyond any model of today, small enough that no product of a few of them overflows. */
typedef struct SizeLimit {
    const char *name;
    size_t value, limit;
} SizeLimit;

int model_config_check(const ModelConfig *config, const char *path, Error *error) {
    const SizeLimit limits[] = {
        {"number of layers (block_count)", config->n_layers, 4096},
        {"embedding_length", config->n_embd, 1 << 20},
        {"feed_forward_length", config->n_ffn, 1 << 22},
        {"number of heads (head_count)", config->n_heads, 4096},
        {"number of KV heads (head_count_kv)", config->n_kv_heads, 4096},
        {"head dimension", config->head_dim, 512},
        {"vocabulary size", config->n_vocab, 1 << 24},
        {"context_length", config->n_ctx_train, 1 << 28},
    };
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++)
        if (limits[i].value == 0 || limits[i].value > limits[i].limit)
            return error_set(error, ERROR_FORMAT, "%s: %s is %zu, expected 1 to %zu; the file is damaged", path,
                             limits[i].name, limits[i].value, limits[i].limit);
    if (config->n_heads % config->n_kv_heads != 0)
        return error_set(error, ERROR_FORMAT,
                         "%s: %zu query heads cannot share %zu KV heads; the first must be a multiple of the second",
                         path, config->n_heads, config->n_kv_heads);
    if (config->head_dim % 2 != 0)
        return error_set(error, ERROR_UNSUPPORTED,
                         "%s: head dimension %zu is not supported; RoPE turns pairs of elements, so it must be even",
                         path, config->head_dim);
    if (!isfinite(config->norm_eps) || config->norm_eps < 0 || config->norm_eps > 1)
        return error_set(error, ERROR_FORMAT, "%s: layer_norm_rms_epsilon is %g, expected 0 to 1; the file is damaged",
                         path, (double)config->norm_eps);
    if (!isfinite(config->rope_theta) || config->rope_theta <= 0)
        return error_set(error, ERROR_FORMAT,
                         "%s: RoPE base rope.freq_base is %g, expected above 0; the file is damaged", path,
                         config->rope_theta);
    if (!isfinite(config->rope_scale) || config->rope_scale <= 0)
        return error_set(error, ERROR_FORMAT, "%s: rope.scaling.factor is %g, expected above 0; the file is damaged",
                         path, config->rope_scale);
    return 0;
}

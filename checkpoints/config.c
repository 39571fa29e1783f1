/* The table of model families and the checks of a configuration; see config.h. */
#include "checkpoints/config.h"

#include "base/name_list.h"

#include <math.h>

static const ModelFamily FAMILIES[] = {
    {.name = "llama", .members = "Llama 1 to 3, TinyLlama, SmolLM, Mistral", .rope_pairing = ROPE_INTERLEAVED},
    {.name = "qwen2", .members = "Qwen2, Qwen2.5", .rope_pairing = ROPE_HALVES, .qkv_bias = true, .window_period = 1},
    {.name = "qwen3", .members = "Qwen3", .rope_pairing = ROPE_HALVES, .qk_norm = QK_NORM_HEADS, .window_period = 1},
    {.name = "gemma2",
     .members = "Gemma 2",
     .rope_pairing = ROPE_HALVES,
     .norms = NORMS_BOTH,
     .activation = GATE_GELU,
     .scales_embedding = true,
     .gains_less_one = true,
     .window_period = 2,
     .wide_layers = 46},
    {.name = "gemma3",
     .members = "Gemma 3",
     .rope_pairing = ROPE_HALVES,
     .norms = NORMS_BOTH,
     .qk_norm = QK_NORM_HEADS,
     .activation = GATE_GELU,
     .scales_embedding = true,
     .gains_less_one = true,
     .window_period = 6,
     .local_rope_theta = 10000,
     .wide_layers = 62},
    {.name = "olmo2",
     .members = "OLMo 2",
     .rope_pairing = ROPE_HALVES,
     .norms = NORMS_BEHIND,
     .qk_norm = QK_NORM_ROWS,
     .window_period = 4},
    {.name = "smollm3",
     .members = "SmolLM3",
     .rope_pairing = ROPE_INTERLEAVED,
     .no_rope_period = 4,
     .window_period = 1},
    {.name = "phi3", .members = "Phi-3", .rope_pairing = ROPE_HALVES, .fused = true},
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

static bool stretches(const ModelConfig *config) {
    return config->rope_long.stretch != 0 && config->rope_long.stretch != 1;
}

void model_config_complete(ModelConfig *config) {
    const ModelFamily *family = config->family;
    if (config->lookback > 0 && layer_set_is_empty(&config->local))
        layer_set_add_periodic(&config->local, config->n_layers, family->window_period, false);
    if (family->no_rope_period > 0 && layer_set_is_empty(&config->no_rope))
        layer_set_add_periodic(&config->no_rope, config->n_layers, family->no_rope_period, true);
    if (config->local_rope_theta == 0)
        config->local_rope_theta = family->local_rope_theta;
    if (family->scales_embedding && config->embedding_scale == 0)
        config->embedding_scale = sqrtf((float)config->n_embd);
    if (family->wide_layers == config->n_layers && config->n_heads > 0 && config->score_divisor == 0)
        config->score_divisor = (float)(config->n_embd / config->n_heads);
    if (stretches(config)) { /* q and k by it is scores by its square */
        double divisor = config->score_divisor > 0 ? (double)config->score_divisor : (double)config->head_dim;
        config->score_divisor = (float)(divisor / pow(config->rope_long.stretch, 4));
    }
}

/* Limits far beyond any model of today, small enough that no product of a few of them overflows. */
typedef struct SizeLimit {
    const char *name;
    size_t value, limit;
} SizeLimit;

typedef struct RealLimit {
    const char *name;
    double value;
} RealLimit;

int model_config_check(const ModelConfig *config, const char *path, Error *error) {
    const SizeLimit limits[] = {
        {"number of layers (block_count)", config->n_layers, LAYER_SET_MAX},
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
    const RealLimit reals[] = {
        {"rope.freq_base_swa", config->local_rope_theta},       {"embedding_scale", (double)config->embedding_scale},
        {"attention.scale", (double)config->score_divisor},     {"attn_logit_softcapping", (double)config->score_cap},
        {"final_logit_softcapping", (double)config->logit_cap}, {"rope.scaling.attn_factor", config->rope_long.stretch},
    };
    for (size_t i = 0; i < sizeof reals / sizeof *reals; i++)
        if (!isfinite(reals[i].value) || reals[i].value < 0)
            return error_set(error, ERROR_FORMAT, "%s: %s gives %g, expected above 0; the file is damaged", path,
                             reals[i].name, reals[i].value);
    bool one_rope = layer_set_is_empty(&config->no_rope) && (config->lookback == 0 || config->local_rope_theta == 0);
    if (stretches(config) && !one_rope)
        return error_set(
            error, ERROR_UNSUPPORTED,
            "%s: rope.scaling.attn_factor is %g, which is not supported where some layers have another RoPE, "
            "or none; use a checkpoint without it",
            path, config->rope_long.stretch);
    if (!isfinite(config->rope_scale) || config->rope_scale <= 0)
        return error_set(error, ERROR_FORMAT, "%s: rope.scaling.factor is %g, expected above 0; the file is damaged",
                         path, config->rope_scale);
    return 0;
}

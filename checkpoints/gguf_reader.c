/* The GGUF reader: the configuration of a supported family's model; with gguf_vocabulary.c its vocabulary, with
 * gguf_parts.c the tensors of one file or of the parts that gguf-split makes of one. */
#include "checkpoints/gguf_reader.h"

#include "checkpoints/gguf_parts.h"
#include "checkpoints/gguf_vocabulary.h"
#include "checkpoints/metadata_rules.h"
#include "checkpoints/roles.h"

#include <math.h>
#include <stdio.h>

#define MAX_KEY 128

static bool gguf_recognises(const MappedFile *file, const char *path) {
    (void)path;
    return gguf_has_magic(file);
}

/* A family's own key: "llama.block_count". */
static const char *family_key(const ModelConfig *config, const char *name, char key[MAX_KEY]) {
    snprintf(key, MAX_KEY, "%s.%s", config->family->name, name);
    return key;
}

static int get_size(const Gguf *gguf, const ModelConfig *config, const char *name, bool required, size_t *out,
                    Error *error) {
    char key[MAX_KEY];
    return gguf_get_size(gguf, family_key(config, name, key), required, SIZE_MAX / 2, out, error);
}

static int get_double(const Gguf *gguf, const ModelConfig *config, const char *name, bool required, double *out,
                      Error *error) {
    char key[MAX_KEY];
    return gguf_get_double(gguf, family_key(config, name, key), required, out, error);
}

static int get_string(const Gguf *gguf, const ModelConfig *config, const char *name, StringView *out, Error *error) {
    char key[MAX_KEY];
    return gguf_get_string(gguf, family_key(config, name, key), false, out, error);
}

/* Linear scaling as llama.cpp reads it: it is the type where none is named, a factor of 0 is none, and before
 * rope.scaling.* there was rope.scale_linear. */
static int read_rope_scaling(const Gguf *gguf, ModelConfig *config, Error *error) {
    StringView type = {0};
    double factor = 0, older = 0;
    if (get_string(gguf, config, "rope.scaling.type", &type, error) < 0 ||
        get_double(gguf, config, "rope.scaling.factor", false, &factor, error) < 0 ||
        get_double(gguf, config, "rope.scale_linear", false, &older, error) < 0 ||
        get_double(gguf, config, "rope.scaling.attn_factor", false, &config->rope_long.stretch, error) < 0 ||
        get_size(gguf, config, "rope.scaling.original_context_length", false, &config->rope_long.original_context,
                 error) < 0)
        return error->code;
    config->rope_scale = 1;
    if (sv_is(type, "none"))
        return 0;
    if (type.length > 0 && !sv_is(type, "linear"))
        return error_set(error, ERROR_UNSUPPORTED,
                         "%s: rope.scaling.type: RoPE scaling '%.*s' is not supported; supported: none, linear, "
                         "and Llama 3's frequency factors",
                         gguf->path, SV_ARGS(type));
    if (factor != 0 && older != 0 && factor != older)
        return error_set(
            error, ERROR_FORMAT,
            "%s: rope.scaling.factor is %g and rope.scale_linear, its older name, %g; convert the checkpoint "
            "again",
            gguf->path, factor, older);
    char key[MAX_KEY];
    if (factor == 0)
        factor = older;
    if (factor != 0 || (type.length > 0 && gguf_find(gguf, family_key(config, "rope.scaling.factor", key)) != NULL))
        config->rope_scale = factor; /* which is checked with the rest of the configuration */
    return 0;
}

/* Lengths of heads of which 0 says that the file does not know. */
static int read_head_dims(const Gguf *gguf, ModelConfig *config, Error *error) {
    static const char *const LOCAL[] = {"attention.key_length_swa", "attention.value_length_swa",
                                        "rope.dimension_count_swa"};
    size_t key_length = 0, value_length = 0, rope_dims = 0;
    if (get_size(gguf, config, "attention.key_length", false, &key_length, error) < 0 ||
        get_size(gguf, config, "attention.value_length", false, &value_length, error) < 0 ||
        get_size(gguf, config, "rope.dimension_count", false, &rope_dims, error) < 0)
        return error->code;
    config->head_dim = key_length > 0 ? key_length : config->n_heads > 0 ? config->n_embd / config->n_heads : 0;
    if (config->head_dim == 0)
        return 0; /* a number that it follows from is 0, which is refused with the rest of the configuration */
    if ((value_length > 0 && value_length != config->head_dim) || (rope_dims > 0 && rope_dims != config->head_dim))
        return error_set(error, ERROR_UNSUPPORTED,
                         "%s: head dimension %zu with rope.dimension_count %zu and attention.value_length %zu is not "
                         "supported; all three must be equal",
                         gguf->path, config->head_dim, rope_dims > 0 ? rope_dims : config->head_dim,
                         value_length > 0 ? value_length : config->head_dim);
    for (size_t i = 0; i < 3; i++) {
        size_t local = 0;
        if (get_size(gguf, config, LOCAL[i], false, &local, error) < 0)
            return error->code;
        if (local > 0 && local != config->head_dim)
            return error_set(error, ERROR_UNSUPPORTED,
                             "%s: %s is %zu, and other layers have heads of %zu, which is not supported; use a "
                             "checkpoint whose layers are alike",
                             gguf->path, LOCAL[i], local, config->head_dim);
    }
    return 0;
}

/* Which layers have the window: by the family, or as the file says, by a period or a truth value for each. */
static int read_window_pattern(const Gguf *gguf, ModelConfig *config, Error *error) {
    char key[MAX_KEY];
    size_t period = config->family->window_period;
    const GgufValue *pattern = gguf_find(gguf, family_key(config, "attention.sliding_window_pattern", key));
    if (pattern == NULL || pattern->type != GGUF_ARRAY) {
        if (get_size(gguf, config, "attention.sliding_window_pattern", false, &period, error) < 0)
            return error->code;
        layer_set_add_periodic(&config->local, config->n_layers, period, false);
        return 0;
    }
    for (size_t i = 0; i < config->n_layers; i++) {
        double has = 0;
        if (i >= pattern->count || !gguf_number(pattern, i, &has))
            return error_set(error, ERROR_FORMAT,
                             "%s: metadata %s has %zu values, expected a number for each of %zu layers; convert the "
                             "checkpoint again",
                             gguf->path, key, pattern->count, config->n_layers);
        if (has != 0)
            layer_set_add(&config->local, i);
    }
    return 0;
}

/* A window as long as the context is none. */
static int read_window(const Gguf *gguf, ModelConfig *config, Error *error) {
    size_t window = 0;
    char key[MAX_KEY];
    const GgufValue *value = gguf_find(gguf, family_key(config, "attention.sliding_window", key));
    if (value != NULL && !gguf_is_placeholder(value) &&
        get_size(gguf, config, "attention.sliding_window", false, &window, error) < 0)
        return error->code;
    if (window == 0 || window >= config->n_ctx_train)
        return 0;
    if (read_window_pattern(gguf, config, error) < 0 ||
        get_double(gguf, config, "rope.freq_base_swa", false, &config->local_rope_theta, error) < 0)
        return error->code;
    if (layer_set_is_empty(&config->local))
        return error_set(error, ERROR_UNSUPPORTED,
                         "%s: attention.sliding_window: a window of %zu tokens, and no layer of a model of family '%s' "
                         "has one; use a checkpoint without it",
                         gguf->path, window, config->family->name);
    config->lookback = window;
    return 0;
}

/* Scores and logits. */
static int read_scales(const Gguf *gguf, ModelConfig *config, Error *error) {
    double scale = 0, score_cap = 0, logit_cap = 0;
    if (get_double(gguf, config, "attention.scale", false, &scale, error) < 0 ||
        get_double(gguf, config, "attn_logit_softcapping", false, &score_cap, error) < 0 ||
        get_double(gguf, config, "final_logit_softcapping", false, &logit_cap, error) < 0)
        return error->code;
    double usual = config->head_dim > 0 ? 1 / sqrt((double)config->head_dim) : 0;
    if (scale != 0 && !(fabs(scale - usual) <= 1e-4 * usual))
        config->score_divisor = (float)(1 / (scale * scale));
    config->score_cap = (float)score_cap;
    config->logit_cap = (float)logit_cap;
    return 0;
}

/* Refuses metadata that would change the arithmetic in ways that the forward pass does not have: what depends on other
 * values here, the rest by the tables of metadata_rules.c. */
static int refuse_unsupported(const Gguf *gguf, const ModelConfig *config, Error *error) {
    size_t n_experts = 0;
    if (get_size(gguf, config, "expert_count", false, &n_experts, error) < 0)
        return error->code;
    if (n_experts > 0)
        return error_set(
            error, ERROR_UNSUPPORTED,
            "%s: expert_count: a mixture of %zu experts is not supported; use a dense Llama-family checkpoint",
            gguf->path, n_experts);
    return 0;
}

static int read_config(const Gguf *gguf, ModelConfig *config, Error *error) {
    StringView architecture;
    if (metadata_check_kind(gguf, error) < 0 ||
        gguf_get_string(gguf, "general.architecture", true, &architecture, error) < 0)
        return error->code;
    config->family = model_family_find(architecture, gguf->path, error);
    if (config->family == NULL)
        return error->code;
    double norm_eps = 0;
    config->rope_pairing = config->family->rope_pairing;
    config->rope_theta = 10000;
    if (get_size(gguf, config, "block_count", true, &config->n_layers, error) < 0 ||
        get_size(gguf, config, "embedding_length", true, &config->n_embd, error) < 0 ||
        get_size(gguf, config, "feed_forward_length", true, &config->n_ffn, error) < 0 ||
        get_size(gguf, config, "attention.head_count", true, &config->n_heads, error) < 0 ||
        get_size(gguf, config, "context_length", true, &config->n_ctx_train, error) < 0 ||
        get_double(gguf, config, "attention.layer_norm_rms_epsilon", true, &norm_eps, error) < 0 ||
        get_double(gguf, config, "rope.freq_base", false, &config->rope_theta, error) < 0)
        return error->code;
    config->norm_eps = (float)norm_eps;
    config->n_kv_heads = config->n_heads;
    if (get_size(gguf, config, "attention.head_count_kv", false, &config->n_kv_heads, error) < 0 ||
        read_head_dims(gguf, config, error) < 0 || read_rope_scaling(gguf, config, error) < 0 ||
        read_window(gguf, config, error) < 0 || read_scales(gguf, config, error) < 0)
        return error->code;
    return refuse_unsupported(gguf, config, error);
}

/* The embedding table has the vocabulary's size, whether the metadata repeats it or not. */
static int read_vocabulary_size(Checkpoint *checkpoint, const char *path, Error *error) {
    const Tensor *embedding = checkpoint_tensor(checkpoint, TOKEN_EMBD_NAME);
    if (embedding == NULL)
        return error_set(error, ERROR_FORMAT, "%s: missing tensor " TOKEN_EMBD_NAME "; convert the checkpoint again",
                         path);
    checkpoint->config.n_vocab = embedding->shape[1];
    const Vocabulary *vocabulary = &checkpoint->vocabulary;
    if (vocabulary->kind != VOCABULARY_NONE && vocabulary->n_tokens != embedding->shape[1])
        return error_set(error, ERROR_FORMAT,
                         "%s: the tokenizer has a vocabulary of %zu tokens, " TOKEN_EMBD_NAME
                         " of %zu; convert the checkpoint again",
                         path, vocabulary->n_tokens, embedding->shape[1]);
    return 0;
}

static int gguf_read(Checkpoint *checkpoint, const char *path, Error *error) {
    Gguf gguf;
    MappedFile first = checkpoint->files[0]; /* a copy: mapping further parts moves the list */
    if (gguf_open(&gguf, &first, path, error) < 0)
        return error->code;
    int status = gguf_refuse_later_part(&gguf, path, error);
    if (status == 0)
        status = read_config(&gguf, &checkpoint->config, error);
    if (status == 0)
        status = metadata_check_family(&gguf, checkpoint, error);
    if (status == 0)
        status = gguf_read_vocabulary(&gguf, checkpoint, error);
    if (status == 0)
        status = gguf_add_tensors(&gguf, checkpoint, error);
    if (status == 0)
        status = gguf_add_other_parts(&gguf, checkpoint, path, error);
    if (status == 0)
        status = read_vocabulary_size(checkpoint, path, error);
    gguf_close(&gguf);
    return status;
}

const CheckpointReader GGUF_READER = {"GGUF", gguf_recognises, gguf_read};

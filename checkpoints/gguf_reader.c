/* The GGUF reader: finds configuration, vocabulary and tensors of a supported family's model in one GGUF file or in the
 * parts that gguf-split makes of one. */
#include "checkpoints/gguf_reader.h"

#include "checkpoints/gguf.h"
#include "checkpoints/roles.h"

#include <stdio.h>

#define MAX_KEY 128

static bool gguf_recognises(const MappedFile *file, const char *path) {
    (void)path;
    return file->size >= 4 && memcmp(file->data, "GGUF", 4) == 0;
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

/* Refuses metadata that would change the arithmetic in ways that the forward pass does not have. */
static int refuse_unsupported(const Gguf *gguf, const ModelConfig *config, Error *error) {
    size_t n_experts = 0, rope_dims = config->head_dim, value_length = config->head_dim, window = 0;
    StringView scaling = sv("none");
    char key[MAX_KEY];
    if (get_size(gguf, config, "expert_count", false, &n_experts, error) < 0 ||
        get_size(gguf, config, "rope.dimension_count", false, &rope_dims, error) < 0 ||
        get_size(gguf, config, "attention.value_length", false, &value_length, error) < 0 ||
        get_size(gguf, config, "attention.sliding_window", false, &window, error) < 0 ||
        gguf_get_string(gguf, family_key(config, "rope.scaling.type", key), false, &scaling, error) < 0)
        return error->code;
    if (n_experts > 0)
        return error_set(error, ERROR_UNSUPPORTED,
                         "%s: a mixture of %zu experts is not supported; use a dense Llama-family checkpoint",
                         gguf->path, n_experts);
    if (config->head_dim > 0 && (rope_dims != config->head_dim || value_length != config->head_dim))
        return error_set(error, ERROR_UNSUPPORTED,
                         "%s: head dimension %zu with rope.dimension_count %zu and attention.value_length %zu is not "
                         "supported; all three must be equal",
                         gguf->path, config->head_dim, rope_dims, value_length);
    if (!sv_is(scaling, "none") && !sv_is(scaling, "linear"))
        return error_set(error, ERROR_UNSUPPORTED,
                         "%s: RoPE scaling '%.*s' is not supported; supported: none, linear, "
                         "and Llama 3's frequency factors",
                         gguf->path, SV_ARGS(scaling));
    if (window > 0 && window < config->n_ctx_train)
        return error_set(error, ERROR_UNSUPPORTED,
                         "%s: a sliding window of %zu tokens is not supported; use a "
                         "checkpoint without one (Mistral from v0.2 on)",
                         gguf->path, window);
    return 0;
}

static int read_config(const Gguf *gguf, ModelConfig *config, Error *error) {
    StringView architecture;
    if (gguf_get_string(gguf, "general.architecture", true, &architecture, error) < 0)
        return error->code;
    config->family = model_family_find(architecture, gguf->path, error);
    if (config->family == NULL)
        return error->code;
    double norm_eps = 0;
    config->rope_theta = 10000;
    config->rope_scale = 1;
    if (get_size(gguf, config, "block_count", true, &config->n_layers, error) < 0 ||
        get_size(gguf, config, "embedding_length", true, &config->n_embd, error) < 0 ||
        get_size(gguf, config, "feed_forward_length", true, &config->n_ffn, error) < 0 ||
        get_size(gguf, config, "attention.head_count", true, &config->n_heads, error) < 0 ||
        get_size(gguf, config, "context_length", true, &config->n_ctx_train, error) < 0 ||
        get_double(gguf, config, "attention.layer_norm_rms_epsilon", true, &norm_eps, error) < 0 ||
        get_double(gguf, config, "rope.freq_base", false, &config->rope_theta, error) < 0 ||
        get_double(gguf, config, "rope.scaling.factor", false, &config->rope_scale, error) < 0)
        return error->code;
    config->norm_eps = (float)norm_eps;
    config->n_kv_heads = config->n_heads;
    config->head_dim = config->n_heads > 0 ? config->n_embd / config->n_heads : 0;
    if (get_size(gguf, config, "attention.head_count_kv", false, &config->n_kv_heads, error) < 0 ||
        get_size(gguf, config, "attention.key_length", false, &config->head_dim, error) < 0)
        return error->code;
    return refuse_unsupported(gguf, config, error);
}

static int read_string_array(Checkpoint *checkpoint, const GgufValue *value, const StringView **out, Error *error) {
    StringView *strings = checkpoint_allocate(checkpoint, value->count, sizeof *strings, "the vocabulary", error);
    if (strings == NULL)
        return error->code;
    gguf_strings(value, strings);
    *out = strings;
    return 0;
}

/* Scores or types: an array of 4-byte numbers, one a token, copied because the file need not align it. */
static int read_number_array(Checkpoint *checkpoint, const Gguf *gguf, const char *key, GgufType type, size_t n_tokens,
                             void *out_pointer, Error *error) {
    const GgufValue *value;
    if (gguf_get_array(gguf, key, type, &value, error) < 0)
        return error->code;
    if (value == NULL)
        return 0;
    if (value->count != n_tokens)
        return error_set(error, ERROR_FORMAT, "%s: %s has %zu entries for %zu tokens; convert the checkpoint again",
                         gguf->path, key, value->count, n_tokens);
    void *numbers = checkpoint_allocate(checkpoint, n_tokens, 4, "the vocabulary", error);
    if (numbers == NULL)
        return error->code;
    memcpy(numbers, value->bytes, n_tokens * 4);
    memcpy(out_pointer, &numbers, sizeof numbers);
    return 0;
}

/* A token id; -1 where the file does not give one. */
static int read_token_id(const Gguf *gguf, const char *key, size_t n_tokens, int64_t *out, Error *error) {
    size_t id = SIZE_MAX;
    *out = -1;
    if (gguf_get_size(gguf, key, false, n_tokens - 1, &id, error) < 0)
        return error->code;
    if (id != SIZE_MAX)
        *out = (int64_t)id;
    return 0;
}

/* What else ends a text by the file's own word: single ids, and the arrays that Ollama's converter writes. */
static int read_end_ids(Checkpoint *checkpoint, const Gguf *gguf, Error *error) {
    static const char *const KEYS[] = {
        "tokenizer.ggml.eom_token_id",     "tokenizer.ggml.fim_pad_token_id", "tokenizer.ggml.fim_rep_token_id",
        "tokenizer.ggml.fim_sep_token_id", "tokenizer.ggml.eos_token_ids",    "tokenizer.ggml.eot_token_ids",
        "tokenizer.ggml.eom_token_ids",
    };
    enum { N_KEYS = sizeof KEYS / sizeof *KEYS };
    Vocabulary *vocabulary = &checkpoint->vocabulary;
    const GgufValue *values[N_KEYS];
    size_t n = 0;
    for (size_t i = 0; i < N_KEYS; i++) {
        if (gguf_get_integers(gguf, KEYS[i], &values[i], error) < 0)
            return error->code;
        n += values[i] != NULL ? values[i]->count : 0;
    }
    if (n == 0)
        return 0;
    int64_t *ids = checkpoint_allocate(checkpoint, n, sizeof *ids, "the vocabulary", error);
    if (ids == NULL)
        return error->code;
    vocabulary->end_ids = ids;
    for (size_t i = 0; i < N_KEYS; i++)
        for (size_t j = 0; values[i] != NULL && j < values[i]->count; j++) {
            int64_t id = gguf_integer(values[i], j);
            if (id >= 0 && id != UINT32_MAX) /* -1, of either width, is written for "none" */
                ids[vocabulary->n_end_ids++] = id;
        }
    return 0;
}

static int read_tokens(Checkpoint *checkpoint, const Gguf *gguf, Error *error) {
    Vocabulary *vocabulary = &checkpoint->vocabulary;
    const GgufValue *tokens, *merges;
    if (gguf_get_array(gguf, "tokenizer.ggml.tokens", GGUF_STRING, &tokens, error) < 0 ||
        gguf_get_array(gguf, "tokenizer.ggml.merges", GGUF_STRING, &merges, error) < 0)
        return error->code;
    if (tokens == NULL || tokens->count == 0)
        return error_set(error, ERROR_FORMAT,
                         "%s: missing metadata tokenizer.ggml.tokens; convert the checkpoint again", gguf->path);
    vocabulary->n_tokens = tokens->count;
    if (read_string_array(checkpoint, tokens, &vocabulary->tokens, error) < 0 ||
        read_number_array(checkpoint, gguf, "tokenizer.ggml.scores", GGUF_FLOAT32, tokens->count, &vocabulary->scores,
                          error) < 0 ||
        read_number_array(checkpoint, gguf, "tokenizer.ggml.token_type", GGUF_INT32, tokens->count, &vocabulary->types,
                          error) < 0)
        return error->code;
    if (merges == NULL)
        return 0;
    vocabulary->n_merges = merges->count;
    return read_string_array(checkpoint, merges, &vocabulary->merges, error);
}

static int read_vocabulary(Checkpoint *checkpoint, const Gguf *gguf, Error *error) {
    Vocabulary *vocabulary = &checkpoint->vocabulary;
    StringView model = {0};
    vocabulary->bos_id = vocabulary->eos_id = vocabulary->eot_id = vocabulary->unknown_id = -1;
    vocabulary->add_bos = vocabulary->add_eos = vocabulary->add_space_prefix = -1;
    if (gguf_get_string(gguf, "tokenizer.ggml.model", false, &model, error) < 0)
        return error->code;
    if (model.length == 0 || sv_is(model, "no_vocab"))
        return 0;
    if (sv_is(model, "llama"))
        vocabulary->kind = VOCABULARY_SENTENCEPIECE;
    else if (sv_is(model, "gpt2"))
        vocabulary->kind = VOCABULARY_BYTE_LEVEL_BPE;
    else
        return error_set(error, ERROR_UNSUPPORTED,
                         "%s: tokenizer '%.*s' is not supported; supported: llama "
                         "(SentencePiece), gpt2 (byte-level BPE)",
                         gguf->path, SV_ARGS(model));
    if (read_tokens(checkpoint, gguf, error) < 0 ||
        read_token_id(gguf, "tokenizer.ggml.bos_token_id", vocabulary->n_tokens, &vocabulary->bos_id, error) < 0 ||
        read_token_id(gguf, "tokenizer.ggml.eos_token_id", vocabulary->n_tokens, &vocabulary->eos_id, error) < 0 ||
        read_token_id(gguf, "tokenizer.ggml.eot_token_id", vocabulary->n_tokens, &vocabulary->eot_id, error) < 0 ||
        read_token_id(gguf, "tokenizer.ggml.unknown_token_id", vocabulary->n_tokens, &vocabulary->unknown_id, error) <
            0 ||
        read_end_ids(checkpoint, gguf, error) < 0 ||
        gguf_get_bool(gguf, "tokenizer.ggml.add_bos_token", &vocabulary->add_bos, error) < 0 ||
        gguf_get_bool(gguf, "tokenizer.ggml.add_eos_token", &vocabulary->add_eos, error) < 0 ||
        gguf_get_bool(gguf, "tokenizer.ggml.add_space_prefix", &vocabulary->add_space_prefix, error) < 0 ||
        gguf_get_string(gguf, "tokenizer.ggml.pre", false, &vocabulary->pre_tokenizer, error) < 0)
        return error->code;
    return gguf_get_string(gguf, "tokenizer.chat_template", false, &vocabulary->chat_template, error);
}

static int add_tensors(Checkpoint *checkpoint, const Gguf *gguf, Error *error) {
    if (gguf->n_tensors == 0)
        return 0;
    Tensor *tensors = checkpoint_add_tensors(checkpoint, gguf->n_tensors, error);
    if (tensors == NULL)
        return error->code;
    memcpy(tensors, gguf->tensors, gguf->n_tensors * sizeof *tensors);
    return 0;
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

/* Adds the tensors of part `index`, whose name differs from the first part's in its number alone. */
static int read_part(Checkpoint *checkpoint, const char *first_path, size_t index, size_t n_parts, Error *error) {
    size_t length = strlen(first_path);
    char *path = checkpoint_allocate(checkpoint, length + 1, 1, "a file name", error);
    if (path == NULL)
        return error->code;
    char number[6];
    snprintf(number, sizeof number, "%05zu", (index + 1) % 100000);
    memcpy(path, first_path, length + 1);
    memcpy(path + length - strlen("00001-of-00003.gguf"), number, 5);
    const MappedFile *file = checkpoint_map(checkpoint, path, error);
    if (file == NULL)
        return error->code;
    if (!gguf_recognises(file, path))
        return error_set(error, ERROR_FORMAT, "%s: wrong magic, not GGUF; fetch the part again", path);
    Gguf gguf;
    if (gguf_open(&gguf, file, path, error) < 0)
        return error->code;
    size_t number_found = SIZE_MAX, count_found = 0;
    int status = gguf_get_size(&gguf, "split.no", true, 99999, &number_found, error);
    if (status == 0)
        status = gguf_get_size(&gguf, "split.count", true, 99999, &count_found, error);
    if (status == 0 && (number_found != index || count_found != n_parts))
        status = error_set(error, ERROR_FORMAT,
                           "%s: is part %zu of %zu, expected part %zu of %zu; fetch the parts of "
                           "one split again",
                           path, number_found + 1, count_found, index + 1, n_parts);
    if (status == 0)
        status = add_tensors(checkpoint, &gguf, error);
    gguf_close(&gguf);
    return status;
}

/* Parts are named NAME-00001-of-00003.gguf; split.count says how many there are. */
static int read_other_parts(Checkpoint *checkpoint, const Gguf *first, const char *path, Error *error) {
    size_t n_parts = 1, number = 0, n_tensors = 0;
    if (gguf_get_size(first, "split.count", false, 99999, &n_parts, error) < 0 ||
        gguf_get_size(first, "split.no", false, 99999, &number, error) < 0 ||
        gguf_get_size(first, "split.tensors.count", false, SIZE_MAX / 2, &n_tensors, error) < 0)
        return error->code;
    if (n_parts <= 1)
        return 0;
    if (number != 0)
        return error_set(error, ERROR_ARGUMENT, "%s: is part %zu of %zu; name the first part", path, number + 1,
                         n_parts);
    char suffix[48];
    snprintf(suffix, sizeof suffix, "-00001-of-%05zu.gguf", n_parts);
    size_t length = strlen(path), suffix_length = strlen(suffix);
    if (length < suffix_length || strcmp(path + length - suffix_length, suffix) != 0)
        return error_set(error, ERROR_ARGUMENT,
                         "%s: split.count is %zu, so the first part's name must end in %s; "
                         "rename the parts",
                         path, n_parts, suffix);
    for (size_t index = 1; index < n_parts; index++)
        if (read_part(checkpoint, path, index, n_parts, error) < 0)
            return error->code;
    if (n_tensors > 0 && n_tensors != checkpoint->n_tensors)
        return error_set(error, ERROR_FORMAT,
                         "%s: the parts hold %zu tensors, split.tensors.count says %zu; fetch "
                         "them again",
                         path, checkpoint->n_tensors, n_tensors);
    return 0;
}

static int gguf_read(Checkpoint *checkpoint, const char *path, Error *error) {
    Gguf gguf;
    MappedFile first = checkpoint->files[0]; /* a copy: mapping further parts moves the list */
    if (gguf_open(&gguf, &first, path, error) < 0)
        return error->code;
    int status = read_config(&gguf, &checkpoint->config, error);
    if (status == 0)
        status = read_vocabulary(checkpoint, &gguf, error);
    if (status == 0)
        status = add_tensors(checkpoint, &gguf, error);
    if (status == 0)
        status = read_other_parts(checkpoint, &gguf, path, error);
    if (status == 0)
        status = read_vocabulary_size(checkpoint, path, error);
    gguf_close(&gguf);
    return status;
}

const CheckpointReader GGUF_READER = {"GGUF", gguf_recognises, gguf_read};

/* The tables of config.json's keys, and what is read by them; see hf_config.h. Names are those of transformers'
 * LlamaConfig, MistralConfig and PretrainedConfig, and of what people's tools add. */
#include "checkpoints/hf_config.h"

#include "base/name_list.h"

#include <stdint.h>
#include <stdio.h>

typedef enum KeyKind {
    KEY_SIZE,     /* a whole number for the size_t at `field` */
    KEY_REAL,     /* a number for the double at `field` */
    KEY_REAL_F32, /* a number for the float at `field` */
    KEY_READ,     /* read by a function of its own */
    KEY_NUMBER,   /* null or one of `neutral` */
    KEY_TEXT,     /* null or one of `texts` */
    KEY_OFF,      /* null, false, 0, or empty */
    KEY_HARMLESS, /* for the reason in `about` */
} KeyKind;

typedef struct ConfigKey {
    const char *name; /* '*' at its end stands for any text */
    KeyKind kind;
    bool required;
    size_t field; /* offset in ModelConfig */
    double neutral[2];
    const char *texts[4];
    const char *about; /* why it is harmless; or what it would ask for, as "… is not supported" */
} ConfigKey;

#define FIELD(name, kind, required, member)                                                                            \
    { name, kind, required, offsetof(ModelConfig, member), {0, 0}, {0}, NULL }
#define READ(name)                                                                                                     \
    { name, KEY_READ, false, 0, {0, 0}, {0}, NULL }
#define NUMBER(name, a, b, about)                                                                                      \
    { name, KEY_NUMBER, false, 0, {a, b}, {0}, about }
#define TEXT(name, about, ...)                                                                                         \
    { name, KEY_TEXT, false, 0, {0, 0}, {__VA_ARGS__}, about }
#define OFF(name, about)                                                                                               \
    { name, KEY_OFF, false, 0, {0, 0}, {0}, about }
#define HARMLESS(name, about)                                                                                          \
    { name, KEY_HARMLESS, false, 0, {0, 0}, {0}, about }

#define TRAINING "it is about training"
#define SAMPLING "it is about choosing tokens, which flags do"
#define TOKENS   "the tokenizer's files say it"
#define OUTPUTS  "it is about what a Python function returns"
#define REMARK   "it is a remark"
#define CLASSIFY "it is about classifying texts"

/* clang-format off */
static const ConfigKey COMMON_KEYS[] = {
    FIELD("hidden_size", KEY_SIZE, true, n_embd),
    FIELD("intermediate_size", KEY_SIZE, true, n_ffn),
    FIELD("num_hidden_layers", KEY_SIZE, true, n_layers),
    FIELD("num_attention_heads", KEY_SIZE, true, n_heads),
    FIELD("num_key_value_heads", KEY_SIZE, false, n_kv_heads), /* otherwise num_attention_heads */
    FIELD("head_dim", KEY_SIZE, false, head_dim),              /* otherwise hidden_size / num_attention_heads */
    FIELD("vocab_size", KEY_SIZE, true, n_vocab),
    FIELD("max_position_embeddings", KEY_SIZE, true, n_ctx_train),
    FIELD("rms_norm_eps", KEY_REAL_F32, true, norm_eps),
    FIELD("rope_theta", KEY_REAL, false, rope_theta),          /* otherwise 10000 */
    READ("architectures"), READ("tie_word_embeddings"), READ("rope_scaling"), READ("rope_parameters"),

    TEXT("hidden_act", "another activation than SiLU", "silu", "swish"),
    TEXT("hidden_activation", "another activation than SiLU", "silu", "swish"),
    NUMBER("partial_rotary_factor", 1, 1, "RoPE of a part of a head"),
    OFF("attention_bias", "biases of q, k, v and attention's output"),
    OFF("mlp_bias", "biases of the feed-forward network"),
    OFF("sliding_window", "a sliding window"),
    OFF("use_sliding_window", "a sliding window"),
    OFF("quantization_config", "weights that a library of Python's has quantized"),
    OFF("auto_map", "a program that comes with the checkpoint"),
    OFF("is_encoder_decoder", "an encoder"),
    OFF("is_decoder", "cross-attention"),
    OFF("add_cross_attention", "cross-attention"),
    OFF("cross_attention_hidden_size", "cross-attention"),
    OFF("tie_encoder_decoder", "an encoder"),
    OFF("pruned_heads", "layers without some of their heads"),
    OFF("rope_interleaved", "another order of the rows of q and k"),

    HARMLESS("model_type", "architectures says it"),
    HARMLESS("torch_dtype", "tensors say their types"),
    HARMLESS("dtype", "tensors say their types"),
    HARMLESS("pretraining_tp", "it splits products without changing them"),
    HARMLESS("max_sequence_length", "max_position_embeddings says it"),
    HARMLESS("use_cache", "there is always a cache"),
    HARMLESS("is_llama_config", REMARK), HARMLESS("transformers_version", REMARK), HARMLESS("_name_or_path", REMARK),
    HARMLESS("name_or_path", REMARK), HARMLESS("_commit_hash", REMARK), HARMLESS("_attn_implementation*", REMARK),
    HARMLESS("transformers.js_config", REMARK), HARMLESS("unsloth_*", REMARK), HARMLESS("task_specific_params", REMARK),
    HARMLESS("initializer_range", TRAINING), HARMLESS("attention_dropout", TRAINING),
    HARMLESS("hidden_dropout", TRAINING), HARMLESS("gradient_checkpointing", TRAINING),
    HARMLESS("neftune_noise_alpha", TRAINING),
    HARMLESS("bos_token_id", TOKENS), HARMLESS("eos_token_id", TOKENS), HARMLESS("pad_token_id", TOKENS),
    HARMLESS("unk_token_id", TOKENS), HARMLESS("sep_token_id", TOKENS), HARMLESS("decoder_start_token_id", TOKENS),
    HARMLESS("forced_*_token_id", SAMPLING), HARMLESS("tokenizer_class", TOKENS), HARMLESS("prefix", TOKENS),
    HARMLESS("return_dict", OUTPUTS), HARMLESS("use_return_dict", OUTPUTS), HARMLESS("output_*", OUTPUTS),
    HARMLESS("return_dict_in_generate", OUTPUTS), HARMLESS("torchscript", OUTPUTS), HARMLESS("tf_legacy_loss", OUTPUTS),
    HARMLESS("use_bfloat16", OUTPUTS), HARMLESS("chunk_size_feed_forward", OUTPUTS),
    HARMLESS("remove_invalid_values", OUTPUTS), HARMLESS("finetuning_task", CLASSIFY),
    HARMLESS("id2label", CLASSIFY), HARMLESS("label2id", CLASSIFY), HARMLESS("problem_type", CLASSIFY),
    HARMLESS("num_labels", CLASSIFY), HARMLESS("classifier_dropout", CLASSIFY),
    HARMLESS("max_length", SAMPLING), HARMLESS("min_length", SAMPLING), HARMLESS("max_new_tokens", SAMPLING),
    HARMLESS("do_sample", SAMPLING), HARMLESS("early_stopping", SAMPLING), HARMLESS("num_beams", SAMPLING),
    HARMLESS("num_beam_groups", SAMPLING), HARMLESS("diversity_penalty", SAMPLING), HARMLESS("temperature", SAMPLING),
    HARMLESS("top_k", SAMPLING), HARMLESS("top_p", SAMPLING), HARMLESS("typical_p", SAMPLING),
    HARMLESS("repetition_penalty", SAMPLING), HARMLESS("length_penalty", SAMPLING),
    HARMLESS("no_repeat_ngram_size", SAMPLING), HARMLESS("encoder_no_repeat_ngram_size", SAMPLING),
    HARMLESS("bad_words_ids", SAMPLING), HARMLESS("num_return_sequences", SAMPLING),
    HARMLESS("exponential_decay_length_penalty", SAMPLING), HARMLESS("suppress_tokens", SAMPLING),
    HARMLESS("begin_suppress_tokens", SAMPLING),
};

/* Keys of rope_scaling, and of rope_parameters, which holds rope_theta too. */
static const ConfigKey ROPE_KEYS[] = {
    READ("rope_type"), READ("type"), READ("factor"),
    FIELD("rope_theta", KEY_REAL, false, rope_theta),
    NUMBER("partial_rotary_factor", 1, 1, "RoPE of a part of a head"),
    HARMLESS("original_max_position_embeddings", REMARK),
};

static const ConfigKey MISTRAL_KEYS[] = {
    READ("sliding_window"),
};
/* clang-format on */

typedef struct KeyTable {
    const ConfigKey *keys;
    size_t count;
} KeyTable;

#define TABLE(rows)                                                                                                    \
    { rows, sizeof(rows) / sizeof *(rows) }
#define NO_TABLE                                                                                                       \
    { NULL, 0 }

/* The model classes of transformers: which family of FAMILIES they are, and their own keys, which count before the
 * common ones. */
typedef struct Architecture {
    const char *name, *family;
    bool tied; /* where tie_word_embeddings is not there */
    KeyTable own;
} Architecture;

static const Architecture ARCHITECTURES[] = {
    {"LlamaForCausalLM", "llama", false, NO_TABLE},
    {"MistralForCausalLM", "llama", false, TABLE(MISTRAL_KEYS)},
};

/* What is being read. */
typedef struct Reading {
    const char *path;
    ModelConfig *config;
} Reading;

static bool matches(const char *name, const char *pattern) {
    size_t length = strlen(pattern);
    return length > 0 && pattern[length - 1] == '*' ? strncmp(name, pattern, length - 1) == 0
                                                    : strcmp(name, pattern) == 0;
}

static const ConfigKey *find_key(const KeyTable *tables, size_t n_tables, const char *name) {
    for (size_t i = 0; i < n_tables; i++)
        for (size_t j = 0; j < tables[i].count; j++)
            if (matches(name, tables[i].keys[j].name))
                return &tables[i].keys[j];
    return NULL;
}

/* ---- Values */

static bool is_off(const cJSON *item) {
    return cJSON_IsNull(item) || cJSON_IsFalse(item) || (cJSON_IsNumber(item) && item->valuedouble == 0) ||
           (cJSON_IsString(item) && item->valuestring[0] == '\0') ||
           ((cJSON_IsArray(item) || cJSON_IsObject(item)) && item->child == NULL);
}

static bool is_text(const cJSON *item, const char *const texts[4]) {
    for (size_t i = 0; cJSON_IsString(item) && i < 4 && texts[i] != NULL; i++)
        if (strcmp(item->valuestring, texts[i]) == 0)
            return true;
    return cJSON_IsNull(item);
}

static bool changes_nothing(const cJSON *item, const ConfigKey *key) {
    switch (key->kind) {
    case KEY_NUMBER:
        return cJSON_IsNull(item) ||
               (cJSON_IsNumber(item) && (item->valuedouble == key->neutral[0] || item->valuedouble == key->neutral[1]));
    case KEY_TEXT:
        return is_text(item, key->texts);
    case KEY_OFF:
        return is_off(item);
    default:
        return true;
    }
}

/* " is 8" or " is 'text'", as far as it is one value that can be shown. */
static const char *shown(const cJSON *item, char text[64]) {
    text[0] = '\0';
    if (cJSON_IsString(item))
        snprintf(text, 64, " is '%.40s'", item->valuestring);
    else if (cJSON_IsNumber(item))
        snprintf(text, 64, " is %.9g", item->valuedouble);
    else if (cJSON_IsBool(item))
        snprintf(text, 64, " is %s", cJSON_IsTrue(item) ? "true" : "false");
    return text;
}

static int refuse(const Reading *reading, const cJSON *item, const char *about, Error *error) {
    char text[64];
    return error_set(error, ERROR_UNSUPPORTED, "%s: %.128s%s: %s is not supported; use a checkpoint without it",
                     reading->path, item->string, shown(item, text), about);
}

static int wrong_type(const Reading *reading, const cJSON *item, const char *expected, Error *error) {
    char text[64];
    return error_set(error, ERROR_FORMAT, "%s: %.128s%s, expected %s; fetch the file again", reading->path,
                     item->string, shown(item, text)[0] == '\0' ? " is something else" : text, expected);
}

/* A value in its field; null leaves it as it is. */
static int read_field(const Reading *reading, const cJSON *item, const ConfigKey *key, Error *error) {
    uintptr_t field = (uintptr_t)reading->config + key->field;
    if (cJSON_IsNull(item))
        return 0;
    if (key->kind == KEY_SIZE)
        return json_whole_number(item, (size_t *)field) ? 0 : wrong_type(reading, item, "a whole number", error);
    if (!cJSON_IsNumber(item))
        return wrong_type(reading, item, "a number", error);
    if (key->kind == KEY_REAL)
        *(double *)field = item->valuedouble;
    else
        *(float *)field = (float)item->valuedouble;
    return 0;
}

/* ---- Objects */

static bool is_missing(const cJSON *object, const char *name) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
    return item == NULL || cJSON_IsNull(item);
}

static int check_required(const Reading *reading, const cJSON *object, const KeyTable *table, Error *error) {
    for (size_t i = 0; i < table->count; i++)
        if (table->keys[i].required && is_missing(object, table->keys[i].name))
            return error_set(error, ERROR_FORMAT, "%s: missing %s; fetch the file again", reading->path,
                             table->keys[i].name);
    return 0;
}

/* All keys of an object, each by the first table that has it. */
static int read_keys(const Reading *reading, const cJSON *object, const KeyTable *tables, size_t n_tables,
                     Error *error) {
    for (size_t i = 0; i < n_tables; i++)
        if (check_required(reading, object, &tables[i], error) < 0)
            return error->code;
    for (const cJSON *item = object->child; item != NULL; item = item->next) {
        const ConfigKey *key = find_key(tables, n_tables, item->string);
        if (key == NULL)
            return error_set(
                error, ERROR_UNSUPPORTED,
                "%s: %.128s is not known here, and may change what the model computes; use a checkpoint without it",
                reading->path, item->string);
        if (key->kind <= KEY_REAL_F32 && read_field(reading, item, key, error) < 0)
            return error->code;
        if (!changes_nothing(item, key))
            return refuse(reading, item, key->about, error);
    }
    return 0;
}

static const Architecture *find_architecture(const Reading *reading, const cJSON *root, Error *error) {
    const cJSON *names = cJSON_GetObjectItemCaseSensitive(root, "architectures");
    const cJSON *name = cJSON_IsArray(names) ? names->child : NULL;
    NameList supported = {0};
    if (!cJSON_IsString(name) || name->next != NULL) {
        error_set(error, ERROR_FORMAT,
                  "%s: architectures does not name the one class of a model; use the config.json of a causal language "
                  "model",
                  reading->path);
        return NULL;
    }
    for (size_t i = 0; i < sizeof ARCHITECTURES / sizeof *ARCHITECTURES; i++) {
        if (strcmp(name->valuestring, ARCHITECTURES[i].name) == 0)
            return &ARCHITECTURES[i];
        name_list_add(&supported, ARCHITECTURES[i].name);
    }
    error_set(error, ERROR_UNSUPPORTED, "%s: architecture '%.128s' is not supported; supported: %s", reading->path,
              name->valuestring, supported.text);
    return NULL;
}

/* Linear scaling divides positions by a factor; "default" is none. */
static int read_rope(const Reading *reading, const cJSON *rope, Error *error) {
    const KeyTable table = TABLE(ROPE_KEYS);
    if (rope == NULL || cJSON_IsNull(rope))
        return 0;
    if (!cJSON_IsObject(rope))
        return wrong_type(reading, rope, "an object", error);
    if (read_keys(reading, rope, &table, 1, error) < 0)
        return error->code;
    const cJSON *type = cJSON_GetObjectItemCaseSensitive(rope, "rope_type");
    if (type == NULL)
        type = cJSON_GetObjectItemCaseSensitive(rope, "type");
    if (!cJSON_IsString(type))
        return error_set(error, ERROR_FORMAT, "%s: %s has no rope_type; fetch the file again", reading->path,
                         rope->string);
    if (strcmp(type->valuestring, "default") == 0)
        return 0;
    if (strcmp(type->valuestring, "linear") != 0)
        return refuse(reading, type, "this RoPE scaling", error);
    const cJSON *factor = cJSON_GetObjectItemCaseSensitive(rope, "factor");
    if (!cJSON_IsNumber(factor))
        return error_set(error, ERROR_FORMAT, "%s: %s has no factor; fetch the file again", reading->path,
                         rope->string);
    reading->config->rope_scale = factor->valuedouble; /* which is checked with the rest of the configuration */
    return 0;
}

/* A window as long as the context is none. */
static int check_window(const Reading *reading, const cJSON *root, Error *error) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(root, "sliding_window");
    size_t window = 0;
    if (item == NULL || cJSON_IsNull(item))
        return 0;
    if (!json_whole_number(item, &window))
        return wrong_type(reading, item, "a whole number", error);
    return window == 0 || window >= reading->config->n_ctx_train ? 0 : refuse(reading, item, "a sliding window", error);
}

static int read_tied(const Reading *reading, const cJSON *root, bool *tied, Error *error) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(root, "tie_word_embeddings");
    if (item == NULL || cJSON_IsNull(item))
        return 0;
    *tied = cJSON_IsTrue(item);
    return cJSON_IsBool(item) ? 0 : wrong_type(reading, item, "true or false", error);
}

int hf_config_read(const cJSON *root, const char *path, ModelConfig *config, bool *tied_output, Error *error) {
    const Reading reading = {path, config};
    if (!cJSON_IsObject(root))
        return error_set(error, ERROR_FORMAT, "%s: is no object; fetch the file again", path);
    const Architecture *architecture = find_architecture(&reading, root, error);
    if (architecture == NULL)
        return error->code;
    const KeyTable tables[] = {architecture->own, TABLE(COMMON_KEYS)};
    *config = (ModelConfig){.family = model_family_find(sv(architecture->family), path, error),
                            .rope_pairing = ROPE_HALVES,
                            .rope_theta = 10000,
                            .rope_scale = 1};
    *tied_output = architecture->tied;
    if (config->family == NULL || read_keys(&reading, root, tables, 2, error) < 0 ||
        read_rope(&reading, cJSON_GetObjectItemCaseSensitive(root, "rope_scaling"), error) < 0 ||
        read_rope(&reading, cJSON_GetObjectItemCaseSensitive(root, "rope_parameters"), error) < 0 ||
        check_window(&reading, root, error) < 0 || read_tied(&reading, root, tied_output, error) < 0)
        return error->code;
    if (is_missing(root, "num_key_value_heads"))
        config->n_kv_heads = config->n_heads;
    if (is_missing(root, "head_dim") && config->n_heads > 0)
        config->head_dim = config->n_embd / config->n_heads;
    return 0;
}

/* The tables of config.json's keys, and what is read by them; see hf_config.h. Names are those of transformers'
 * LlamaConfig, MistralConfig and PretrainedConfig, and of what people's tools add. */
#include "checkpoints/hf_config.h"

#include "base/name_list.h"
#include "checkpoints/config_keys.h"

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
    FIELD("low_freq_factor", KEY_REAL, false, rope_llama3.low),
    FIELD("high_freq_factor", KEY_REAL, false, rope_llama3.high),
    FIELD("original_max_position_embeddings", KEY_SIZE, false, rope_llama3.original_context),
};

/* Where layers of each type have a RoPE of their own, as transformers 5 writes Gemma 3: local ones have no scaling. */
static const ConfigKey ROPE_BY_TYPE_KEYS[] = {READ("full_attention"), READ("sliding_attention")};

static const ConfigKey LOCAL_ROPE_KEYS[] = {
    TEXT("rope_type", "RoPE scaling of layers with a sliding window", "default"),
    TEXT("type", "RoPE scaling of layers with a sliding window", "default"),
    FIELD("rope_theta", KEY_REAL, true, local_rope_theta),
    NUMBER("partial_rotary_factor", 1, 1, "RoPE of a part of a head"),
};

/* Keys of classes whose layers may look back on some tokens alone. */
#define WINDOW_KEYS READ("sliding_window"), READ("use_sliding_window"), READ("layer_types"), \
    READ("sliding_window_pattern"), READ("_sliding_window_pattern")

static const ConfigKey WINDOWED_KEYS[] = {WINDOW_KEYS};

static const ConfigKey QWEN_KEYS[] = {
    WINDOW_KEYS, HARMLESS("max_window_layers", "layer_types says it, where there is a window"),
};

static const ConfigKey GEMMA_KEYS[] = {
    WINDOW_KEYS,
    TEXT("hidden_act", "another activation than GELU", "gelu_pytorch_tanh"),
    TEXT("hidden_activation", "another activation than GELU", "gelu_pytorch_tanh"),
    FIELD("query_pre_attn_scalar", KEY_REAL_F32, true, score_divisor),
    FIELD("attn_logit_softcapping", KEY_REAL_F32, false, score_cap),
    FIELD("final_logit_softcapping", KEY_REAL_F32, false, logit_cap),
    FIELD("rope_local_base_freq", KEY_REAL, false, local_rope_theta), /* otherwise the family's */
    OFF("use_bidirectional_attention", "attention to later tokens"),
    HARMLESS("cache_implementation", "the cache is this program's"),
};

static const ConfigKey SMOLLM3_KEYS[] = {
    WINDOW_KEYS, READ("no_rope_layers"), READ("no_rope_layer_interval"),
    HARMLESS("max_window_layers", "layer_types says it, where there is a window"),
};

static const ConfigKey PHI3_KEYS[] = {
    WINDOW_KEYS,
    HARMLESS("auto_map", "the program that comes with the checkpoint is this class"),
    HARMLESS("original_max_position_embeddings", REMARK),
    HARMLESS("embd_pdrop", TRAINING), HARMLESS("resid_pdrop", TRAINING),
};
/* clang-format on */

/* The model classes of transformers: which family of FAMILIES they are, and their own keys, which count before the
 * common ones. */
typedef struct Architecture {
    const char *name, *family;
    bool tied; /* where tie_word_embeddings is not there */
    KeyTable own;
} Architecture;

static const Architecture ARCHITECTURES[] = {
    {"LlamaForCausalLM", "llama", false, NO_TABLE},
    {"MistralForCausalLM", "llama", false, TABLE(WINDOWED_KEYS)},
    {"Qwen2ForCausalLM", "qwen2", false, TABLE(QWEN_KEYS)},
    {"Qwen3ForCausalLM", "qwen3", false, TABLE(QWEN_KEYS)},
    {"Gemma2ForCausalLM", "gemma2", true, TABLE(GEMMA_KEYS)},
    {"Gemma3ForCausalLM", "gemma3", true, TABLE(GEMMA_KEYS)},
    {"Olmo2ForCausalLM", "olmo2", false, NO_TABLE},
    {"SmolLM3ForCausalLM", "smollm3", true, TABLE(SMOLLM3_KEYS)},
    {"Phi3ForCausalLM", "phi3", false, TABLE(PHI3_KEYS)},
};

static const Architecture *find_architecture(const ConfigReading *reading, const cJSON *root, Error *error) {
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

/* The item, NULL where it is missing or null. */
static const cJSON *find_item(const cJSON *root, const char *name) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(root, name);
    return cJSON_IsNull(item) ? NULL : item;
}

/* Linear scaling divides positions by a factor, Llama 3's some frequencies; "default" is none. Values are checked with
 * the rest of the configuration. */
static int read_rope(const ConfigReading *reading, const cJSON *rope, Error *error) {
    const KeyTable table = TABLE(ROPE_KEYS);
    if (rope == NULL || cJSON_IsNull(rope))
        return 0;
    if (!cJSON_IsObject(rope))
        return config_wrong_type(reading, rope, "an object", error);
    if (config_read_keys(reading, rope, &table, 1, error) < 0)
        return error->code;
    const cJSON *type = cJSON_GetObjectItemCaseSensitive(rope, "rope_type");
    if (type == NULL)
        type = cJSON_GetObjectItemCaseSensitive(rope, "type");
    if (!cJSON_IsString(type))
        return error_set(error, ERROR_FORMAT, "%s: %s has no rope_type; fetch the file again", reading->path,
                         rope->string);
    if (strcmp(type->valuestring, "default") == 0)
        return 0;
    bool llama3 = strcmp(type->valuestring, "llama3") == 0;
    if (!llama3 && strcmp(type->valuestring, "linear") != 0)
        return config_refuse(reading, type, "this RoPE scaling", error);
    const cJSON *factor = cJSON_GetObjectItemCaseSensitive(rope, "factor");
    if (!cJSON_IsNumber(factor))
        return error_set(error, ERROR_FORMAT, "%s: %s has no factor; fetch the file again", reading->path,
                         rope->string);
    *(llama3 ? &reading->config->rope_llama3.factor : &reading->config->rope_scale) = factor->valuedouble;
    return 0;
}

/* One RoPE for all layers, or one for those that see all and one for the local ones. */
static int read_rope_parameters(const ConfigReading *reading, const cJSON *rope, Error *error) {
    const KeyTable by_type = TABLE(ROPE_BY_TYPE_KEYS), local_keys = TABLE(LOCAL_ROPE_KEYS);
    const cJSON *local = find_item(rope, "sliding_attention");
    if (local == NULL && find_item(rope, "full_attention") == NULL)
        return read_rope(reading, rope, error);
    if (config_read_keys(reading, rope, &by_type, 1, error) < 0 ||
        read_rope(reading, find_item(rope, "full_attention"), error) < 0)
        return error->code;
    if (local == NULL)
        return 0;
    if (!cJSON_IsObject(local))
        return config_wrong_type(reading, local, "an object", error);
    return config_read_keys(reading, local, &local_keys, 1, error);
}

/* One value for each layer: those of which `is_one` holds are put into the set. */
static int read_layers(const ConfigReading *reading, const cJSON *list, bool (*is_one)(const cJSON *item),
                       LayerSet *set, Error *error) {
    size_t layer = 0;
    if (!cJSON_IsArray(list) || (size_t)cJSON_GetArraySize(list) != reading->config->n_layers)
        return config_wrong_type(reading, list, "a value for each layer", error);
    for (const cJSON *item = list->child; item != NULL; item = item->next, layer++)
        if (is_one(item))
            layer_set_add(set, layer);
    return 0;
}

static bool is_sliding(const cJSON *item) {
    return !cJSON_IsString(item) || strcmp(item->valuestring, "full_attention") != 0;
}

static bool is_zero(const cJSON *item) {
    return !cJSON_IsNumber(item) || item->valuedouble == 0;
}

/* The period of a pattern by layers, of the file or else the family's. */
static int read_period(const ConfigReading *reading, const cJSON *item, size_t *period, Error *error) {
    if (item == NULL || (json_whole_number(item, period) && *period > 0))
        return 0;
    return config_wrong_type(reading, item, "a whole number above 0", error);
}

/* Which layers have the window: as the file lists them, or by a period. */
static int read_local_layers(const ConfigReading *reading, const cJSON *root, Error *error) {
    ModelConfig *config = reading->config;
    const cJSON *types = find_item(root, "layer_types"), *pattern = find_item(root, "sliding_window_pattern");
    size_t period = config->family->window_period;
    if (types != NULL)
        return read_layers(reading, types, is_sliding, &config->local, error);
    if (read_period(reading, pattern != NULL ? pattern : find_item(root, "_sliding_window_pattern"), &period, error) <
        0)
        return error->code;
    layer_set_add_periodic(&config->local, config->n_layers, period, false);
    return 0;
}

/* A window as long as the context is none. */
static int read_window(const ConfigReading *reading, const cJSON *root, Error *error) {
    const cJSON *item = find_item(root, "sliding_window");
    size_t window = 0;
    if (item == NULL || cJSON_IsFalse(cJSON_GetObjectItemCaseSensitive(root, "use_sliding_window")))
        return 0;
    if (!json_whole_number(item, &window))
        return config_wrong_type(reading, item, "a whole number", error);
    if (window == 0 || window >= reading->config->n_ctx_train)
        return 0;
    if (read_local_layers(reading, root, error) < 0)
        return error->code;
    if (layer_set_is_empty(&reading->config->local) && find_item(root, "layer_types") == NULL)
        return config_refuse(reading, item, "a sliding window of layers that nothing names", error);
    reading->config->lookback = layer_set_is_empty(&reading->config->local) ? 0 : window;
    return 0;
}

/* Layers without RoPE: a 0 for each of them, or the last of each so many. */
static int read_no_rope(const ConfigReading *reading, const cJSON *root, Error *error) {
    ModelConfig *config = reading->config;
    const cJSON *list = find_item(root, "no_rope_layers");
    size_t period = config->family->no_rope_period;
    if (period == 0)
        return 0;
    if (list != NULL && !(cJSON_IsArray(list) && list->child == NULL))
        return read_layers(reading, list, is_zero, &config->no_rope, error);
    if (read_period(reading, find_item(root, "no_rope_layer_interval"), &period, error) < 0)
        return error->code;
    layer_set_add_periodic(&config->no_rope, config->n_layers, period, true);
    return 0;
}

static int read_tied(const ConfigReading *reading, const cJSON *root, bool *tied, Error *error) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(root, "tie_word_embeddings");
    if (item == NULL || cJSON_IsNull(item))
        return 0;
    *tied = cJSON_IsTrue(item);
    return cJSON_IsBool(item) ? 0 : config_wrong_type(reading, item, "true or false", error);
}

int hf_config_read(const cJSON *root, const char *path, ModelConfig *config, bool *tied_output, Error *error) {
    const ConfigReading reading = {path, config};
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
    if (config->family == NULL || config_read_keys(&reading, root, tables, 2, error) < 0 ||
        read_rope(&reading, cJSON_GetObjectItemCaseSensitive(root, "rope_scaling"), error) < 0 ||
        read_rope_parameters(&reading, find_item(root, "rope_parameters"), error) < 0 ||
        read_window(&reading, root, error) < 0 || read_no_rope(&reading, root, error) < 0 ||
        read_tied(&reading, root, tied_output, error) < 0)
        return error->code;
    if (config_key_missing(root, "num_key_value_heads"))
        config->n_kv_heads = config->n_heads;
    if (config_key_missing(root, "head_dim") && config->n_heads > 0)
        config->head_dim = config->n_embd / config->n_heads;
    return 0;
}

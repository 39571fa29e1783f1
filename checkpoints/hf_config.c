/* The tables of config.json's keys, and what is read by them; see hf_config.h. Names are those of transformers'
 * LlamaConfig, MistralConfig and PretrainedConfig, and of what people's tools add. */
#include "checkpoints/hf_config.h"

#include "base/name_list.h"
#include "checkpoints/config_keys.h"
#include "checkpoints/hf_layers.h"
#include "checkpoints/hf_longrope.h"

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
    FIELD("vocab_size", KEY_SIZE, true, n_vocab),
    /* What a class has values of its own for (Defaults). */
    FIELD("num_key_value_heads", KEY_SIZE, false, n_kv_heads),
    FIELD("head_dim", KEY_SIZE, false, head_dim),
    FIELD("max_position_embeddings", KEY_SIZE, false, n_ctx_train),
    FIELD("rms_norm_eps", KEY_REAL_F32, false, norm_eps),
    FIELD("rope_theta", KEY_REAL, false, rope_theta),
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

    READ("model_type"),
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
    READ("rope_type"), READ("type"), READ("factor"), READ("short_factor"), READ("long_factor"), READ("attention_factor"),
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

static const ConfigKey QWEN_KEYS[] = {WINDOW_KEYS, READ("max_window_layers")};

static const ConfigKey GEMMA_KEYS[] = {
    WINDOW_KEYS,
    TEXT("hidden_act", "another activation than GELU", "gelu_pytorch_tanh"),
    TEXT("hidden_activation", "another activation than GELU", "gelu_pytorch_tanh"),
    FIELD("query_pre_attn_scalar", KEY_REAL_F32, false, score_divisor),
    FIELD("attn_logit_softcapping", KEY_REAL_F32, false, score_cap),
    FIELD("final_logit_softcapping", KEY_REAL_F32, false, logit_cap),
    FIELD("rope_local_base_freq", KEY_REAL, false, local_rope_theta), /* otherwise the family's */
    OFF("use_bidirectional_attention", "attention to later tokens"),
    HARMLESS("cache_implementation", "the cache is this program's"),
};

static const ConfigKey SMOLLM3_KEYS[] = {
    WINDOW_KEYS, READ("no_rope_layers"), READ("no_rope_layer_interval"),
    HARMLESS("max_window_layers", "layers without RoPE have the window"),
};

static const ConfigKey PHI3_KEYS[] = {
    WINDOW_KEYS,
    HARMLESS("auto_map", "the program that comes with the checkpoint is this class"),
    READ("original_max_position_embeddings"),
    HARMLESS("embd_pdrop", TRAINING), HARMLESS("resid_pdrop", TRAINING),
};
/* clang-format on */

/* What a class takes for keys that are left out, as transformers 4.57 and 5.24 have it. */
typedef struct Defaults {
    size_t n_kv_heads; /* 0: as many as query heads */
    size_t head_dim;   /* 0: width / query heads */
    size_t n_ctx_train;
    float norm_eps;
    double rope_theta;
    float score_divisor, score_cap, logit_cap;
    bool tied;
    HfWindow window;
} Defaults;

/* The model classes of transformers: which family of FAMILIES they are, and their own keys, which count before the
 * common ones. */
typedef struct Architecture {
    const char *name, *model_type, *family;
    KeyTable own;
    Defaults otherwise;
} Architecture;

#define FROM_LAYER_28                                                                                                  \
    { 4096, true, HF_WINDOW_UPPER, 28 }
#define WITHOUT_ROPE                                                                                                   \
    { 0, true, HF_WINDOW_NO_ROPE, 0 }

static const Architecture ARCHITECTURES[] = {
    {"LlamaForCausalLM", "llama", "llama", NO_TABLE, {.n_ctx_train = 2048, .norm_eps = 1e-6f, .rope_theta = 1e4}},
    {"MistralForCausalLM",
     "mistral",
     "llama",
     TABLE(WINDOWED_KEYS),
     {.n_kv_heads = 8, .n_ctx_train = 131072, .norm_eps = 1e-6f, .rope_theta = 1e4, .window = {.tokens = 4096}}},
    {"Qwen2ForCausalLM",
     "qwen2",
     "qwen2",
     TABLE(QWEN_KEYS),
     {.n_kv_heads = 32, .n_ctx_train = 32768, .norm_eps = 1e-6f, .rope_theta = 1e4, .window = FROM_LAYER_28}},
    {"Qwen3ForCausalLM",
     "qwen3",
     "qwen3",
     TABLE(QWEN_KEYS),
     {.n_kv_heads = 32,
      .head_dim = 128,
      .n_ctx_train = 32768,
      .norm_eps = 1e-6f,
      .rope_theta = 1e4,
      .window = FROM_LAYER_28}},
    {"Gemma2ForCausalLM",
     "gemma2",
     "gemma2",
     TABLE(GEMMA_KEYS),
     {.n_kv_heads = 4,
      .head_dim = 256,
      .n_ctx_train = 8192,
      .norm_eps = 1e-6f,
      .rope_theta = 1e4,
      .score_divisor = 256,
      .score_cap = 50,
      .logit_cap = 30,
      .tied = true,
      .window = {.tokens = 4096}}},
    {"Gemma3ForCausalLM",
     "gemma3_text",
     "gemma3",
     TABLE(GEMMA_KEYS),
     {.n_kv_heads = 4,
      .head_dim = 256,
      .n_ctx_train = 131072,
      .norm_eps = 1e-6f,
      .rope_theta = 1e6,
      .score_divisor = 256,
      .tied = true,
      .window = {.tokens = 4096}}},
    {"Olmo2ForCausalLM", "olmo2", "olmo2", NO_TABLE, {.n_ctx_train = 2048, .norm_eps = 1e-5f, .rope_theta = 1e4}},
    {"SmolLM3ForCausalLM",
     "smollm3",
     "smollm3",
     TABLE(SMOLLM3_KEYS),
     {.n_kv_heads = 4,
      .n_ctx_train = 32768,
      .norm_eps = 1e-6f,
      .rope_theta = 2e6,
      .tied = true,
      .window = WITHOUT_ROPE}},
    {"Phi3ForCausalLM", "phi3", "phi3", TABLE(PHI3_KEYS), {.n_ctx_train = 4096, .norm_eps = 1e-5f, .rope_theta = 1e4}},
};

/* By the class that the file names, or else, as hand-written ones have it, by model_type. */
static const Architecture *find_architecture(const ConfigReading *reading, const cJSON *root, Error *error) {
    const cJSON *names = config_find(root, "architectures"), *type = config_find(root, "model_type");
    const cJSON *name = cJSON_IsArray(names) ? names->child : NULL;
    bool by_type = names == NULL && cJSON_IsString(type);
    NameList supported = {0};
    if (!by_type && (!cJSON_IsString(name) || name->next != NULL)) {
        error_set(error, ERROR_FORMAT,
                  "%s: architectures does not name the one class of a model; use the config.json of a causal language "
                  "model",
                  reading->path);
        return NULL;
    }
    const char *wanted = by_type ? type->valuestring : name->valuestring;
    for (size_t i = 0; i < sizeof ARCHITECTURES / sizeof *ARCHITECTURES; i++) {
        const char *row = by_type ? ARCHITECTURES[i].model_type : ARCHITECTURES[i].name;
        if (strcmp(wanted, row) == 0)
            return &ARCHITECTURES[i];
        name_list_add(&supported, row);
    }
    error_set(error, ERROR_UNSUPPORTED, "%s: %s '%.128s' is not supported; supported: %s", reading->path,
              by_type ? "model_type" : "architecture", wanted, supported.text);
    return NULL;
}

/* Linear scaling divides positions by a factor, Llama 3's some frequencies; "default" is none. Values are checked with
 * the rest of the configuration. */
static int read_rope(const ConfigReading *reading, const cJSON *rope, Error *error) {
    const KeyTable table = TABLE(ROPE_KEYS);
    if (rope == NULL || cJSON_IsNull(rope))
        return 0;
    if (!cJSON_IsObject(rope))
        return config_wrong_type(reading, rope, "an object", error);
    const cJSON *type = cJSON_GetObjectItemCaseSensitive(rope, "rope_type");
    if (type == NULL)
        type = cJSON_GetObjectItemCaseSensitive(rope, "type");
    if (!cJSON_IsString(type))
        return error_set(error, ERROR_FORMAT, "%s: %s has no rope_type; fetch the file again", reading->path,
                         rope->string);
    bool none = strcmp(type->valuestring, "default") == 0 || is_longrope(rope); /* which is read by itself */
    bool llama3 = strcmp(type->valuestring, "llama3") == 0;
    if (!none && !llama3 && strcmp(type->valuestring, "linear") != 0) /* before keys that only such a scaling has */
        return config_refuse(reading, type, "this RoPE scaling", error);
    if (config_read_keys(reading, rope, &table, 1, error) < 0)
        return error->code;
    if (none)
        return 0;
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
    const cJSON *local = config_find(rope, "sliding_attention");
    if (local == NULL && config_find(rope, "full_attention") == NULL)
        return read_rope(reading, rope, error);
    if (config_read_keys(reading, rope, &by_type, 1, error) < 0 ||
        read_rope(reading, config_find(rope, "full_attention"), error) < 0)
        return error->code;
    if (local == NULL)
        return 0;
    if (!cJSON_IsObject(local))
        return config_wrong_type(reading, local, "an object", error);
    return config_read_keys(reading, local, &local_keys, 1, error);
}

static int read_tied(const ConfigReading *reading, const cJSON *root, bool *tied, Error *error) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(root, "tie_word_embeddings");
    if (item == NULL || cJSON_IsNull(item))
        return 0;
    *tied = cJSON_IsTrue(item);
    return cJSON_IsBool(item) ? 0 : config_wrong_type(reading, item, "true or false", error);
}

static ModelConfig start(const Defaults *otherwise, const ModelFamily *family) {
    return (ModelConfig){.family = family,
                         .n_kv_heads = otherwise->n_kv_heads,
                         .head_dim = otherwise->head_dim,
                         .n_ctx_train = otherwise->n_ctx_train,
                         .norm_eps = otherwise->norm_eps,
                         .rope_pairing = ROPE_HALVES,
                         .rope_theta = otherwise->rope_theta,
                         .rope_scale = 1,
                         .score_divisor = otherwise->score_divisor,
                         .score_cap = otherwise->score_cap,
                         .logit_cap = otherwise->logit_cap};
}

/* Whether a size follows from others: it is null, or left out and the class has none of its own. */
static bool follows(const cJSON *root, const char *name, size_t of_class) {
    return config_is_null(root, name) || (of_class == 0 && config_find(root, name) == NULL);
}

/* null, which leaves other values as the class has them, is no value of these. */
static void read_nulls(const cJSON *root, const Defaults *otherwise, ModelConfig *config) {
    if (follows(root, "num_key_value_heads", otherwise->n_kv_heads))
        config->n_kv_heads = config->n_heads;
    if (follows(root, "head_dim", otherwise->head_dim) && config->n_heads > 0)
        config->head_dim = config->n_embd / config->n_heads;
    if (config_is_null(root, "attn_logit_softcapping"))
        config->score_cap = 0;
    if (config_is_null(root, "final_logit_softcapping"))
        config->logit_cap = 0;
}

int hf_config_read(const cJSON *root, const char *path, ModelConfig *config, bool *tied_output, Error *error) {
    const ConfigReading reading = {path, config};
    if (!cJSON_IsObject(root))
        return error_set(error, ERROR_FORMAT, "%s: is no object; fetch the file again", path);
    const Architecture *architecture = find_architecture(&reading, root, error);
    if (architecture == NULL)
        return error->code;
    const Defaults *otherwise = &architecture->otherwise;
    const KeyTable tables[] = {architecture->own, TABLE(COMMON_KEYS)};
    *config = start(otherwise, model_family_find(sv(architecture->family), path, error));
    *tied_output = otherwise->tied;
    if (config->family == NULL || config_read_keys(&reading, root, tables, 2, error) < 0 ||
        read_rope(&reading, config_find(root, "rope_scaling"), error) < 0 ||
        read_rope_parameters(&reading, config_find(root, "rope_parameters"), error) < 0 ||
        hf_layers_read(&reading, root, &otherwise->window, error) < 0 ||
        read_tied(&reading, root, tied_output, error) < 0)
        return error->code;
    read_nulls(root, otherwise, config);
    return 0;
}

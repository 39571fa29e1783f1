/* The tables, and the check of a file's keys against them; see metadata_rules.h. Names are those of llama.cpp's
 * gguf-py (constants.py), of today and of 2023, and of Ollama's converter. */
#include "checkpoints/metadata_rules.h"

#include "base/name_list.h"

#include <math.h>
#include <stdio.h>

typedef enum RuleKind {
    RULE_READ,     /* honoured by the reader, or refused there */
    RULE_NEUTRAL,  /* a number, or an array of them: each one of `neutral` */
    RULE_NOTED,    /* the same; other values are left out with a note */
    RULE_TEXT,     /* a string: empty or one of `texts` */
    RULE_EMPTY,    /* an array or a string without contents */
    RULE_SAME,     /* a number: 0, or that of the key texts[0] */
    RULE_HARMLESS, /* for the reason in `about` */
    RULE_REFUSED   /* whatever its value */
} RuleKind;

typedef struct Rule {
    const char *name; /* behind the prefix; '*' stands for any text */
    RuleKind kind;
    double neutral[2];
    const char *texts[3];
    const char *about; /* why it is harmless; or what it would ask for, as "… is not supported" */
} Rule;

#define READ(name)                                                                                                     \
    { name, RULE_READ, {0, 0}, {0}, NULL }
#define NEUTRAL(name, a, b, about)                                                                                     \
    { name, RULE_NEUTRAL, {a, b}, {0}, about }
#define NOTED(name, a, b, about)                                                                                       \
    { name, RULE_NOTED, {a, b}, {0}, about }
#define TEXT(name, about, ...)                                                                                         \
    { name, RULE_TEXT, {0, 0}, {__VA_ARGS__}, about }
#define EMPTY(name, about)                                                                                             \
    { name, RULE_EMPTY, {0, 0}, {0}, about }
#define SAME(name, other, about)                                                                                       \
    { name, RULE_SAME, {0, 0}, {other}, about }
#define HARMLESS(name, about)                                                                                          \
    { name, RULE_HARMLESS, {0, 0}, {0}, about }
#define REFUSED(name, about)                                                                                           \
    { name, RULE_REFUSED, {0, 0}, {0}, about }

#define EXPERTS "a mixture of experts"
#define YARN    "it is about YaRN, which is refused"

/* clang-format off */
static const Rule FAMILY_RULES[] = {
    READ("block_count"), READ("context_length"), READ("embedding_length"), READ("feed_forward_length"),
    READ("attention.head_count"), READ("attention.head_count_kv"), READ("attention.key_length"),
    READ("attention.value_length"), READ("attention.layer_norm_rms_epsilon"), READ("attention.sliding_window"),
    READ("attention.scale"), READ("rope.dimension_count"), READ("rope.freq_base"), READ("rope.scaling.type"),
    READ("rope.scaling.factor"), READ("rope.scale_linear"), READ("rope.scaling.original_context_length"),
    READ("rope.scaling.attn_factor"), READ("expert_count"),
    READ("attention.sliding_window_pattern"), READ("rope.freq_base_swa"), READ("rope.dimension_count_swa"),
    READ("attention.key_length_swa"), READ("attention.value_length_swa"), READ("final_logit_softcapping"),
    READ("attn_logit_softcapping"),

    HARMLESS("vocab_size", "the embedding and the tokens say it"),
    HARMLESS("pooling_type", "it is about embeddings of texts, not about generation"),
    HARMLESS("rope.scaling.finetuned", "it is a remark"),
    HARMLESS("rope.scaling.yarn_beta_fast", YARN),
    HARMLESS("rope.scaling.yarn_beta_slow", YARN),
    HARMLESS("attention.group_norm_groups", "it is about group norms, which no such model has"),
    HARMLESS("attention.group_norm_epsilon", "it is about group norms, which no such model has"),

    SAME("attention.layer_norm_epsilon", "attention.layer_norm_rms_epsilon", "a norm that is no RMS norm"),
    SAME("embedding_length_out", "embedding_length", "an output of another width"),
    TEXT("tensor_data_layout", "another order of the rows of q and k", "Meta AI original pth"),
    TEXT("hidden_activation", "another activation than SiLU", "silu", "swish", "swiglu"),
    TEXT("hidden_act", "another activation than SiLU", "silu", "swish", "swiglu"),

    NEUTRAL("rope.scaling.yarn_attn_factor", 1, 1, "YaRN"),
    NEUTRAL("rope.scaling.yarn_ext_factor", 0, -1, "YaRN"),
    NEUTRAL("rope.scaling.yarn_log_multiplier", 0, 0, "YaRN"),
    NEUTRAL("rope.scaling.alpha", 0, 1, "RoPE scaling by alpha (NTK)"),
    NEUTRAL("rope.dimension_sections", 0, 0, "RoPE by sections"),
    NEUTRAL("logit_scale", 0, 1, "scaling logits"),
    NEUTRAL("embedding_scale", 0, 1, "scaling embeddings"),
    NEUTRAL("residual_scale", 0, 1, "scaling residuals"),
    NEUTRAL("router_logit_softcapping", 0, 0, EXPERTS),
    NEUTRAL("attention.clamp_kqv", 0, 0, "clamping q, k and v"),
    NEUTRAL("attention.max_alibi_bias", 0, 0, "ALiBi"),
    NEUTRAL("attention.output_scale", 0, 1, "scaling attention's output"),
    NEUTRAL("attention.value_scale", 0, 1, "scaling values"),
    NEUTRAL("attention.temperature_length", 0, 0, "attention's temperature by position"),
    NEUTRAL("attention.temperature_scale", 0, 0, "attention's temperature by position"),
    NEUTRAL("attention.causal", 1, 1, "attention to later tokens"),
    NEUTRAL("attention.shared_kv_layers", 0, 0, "layers that share keys and values"),
    NEUTRAL("attention.q_lora_rank", 0, 0, "latent attention"),
    NEUTRAL("attention.kv_lora_rank", 0, 0, "latent attention"),
    NEUTRAL("attention.key_length_mla", 0, 0, "latent attention"),
    NEUTRAL("attention.value_length_mla", 0, 0, "latent attention"),
    NEUTRAL("attention.indexer.*", 0, 0, "sparse attention"),
    NEUTRAL("attention.relative_buckets_count", 0, 0, "relative positions"),
    NOTED("use_parallel_residual", 0, 0, "converters of early 2024 wrote true for every family, and no model of this one "
          "has it"),
    NEUTRAL("swin_norm", 0, 0, "norms behind attention"),
    NEUTRAL("swiglu_clamp_*", 0, 0, "clamping in the feed-forward network"),
    NEUTRAL("activation_sparsity_scale", 0, 0, "sparse activations"),
    NEUTRAL("rescale_every_n_layers", 0, 0, "rescaling every few layers"),
    NEUTRAL("full_attention_interval", 0, 1, "layers without attention"),
    NEUTRAL("token_shift_count", 0, 0, "token shift"),
    NEUTRAL("nextn_predict_layers", 0, 0, "layers that predict further tokens"),
    NEUTRAL("n_deepstack_layers", 0, 0, "images"),
    NEUTRAL("embedding_length_per_layer_input", 0, 0, "embeddings of layers"),
    NEUTRAL("features_length", 0, 0, "an input of features"),
    NEUTRAL("decoder_block_count", 0, 0, "an encoder"),
    REFUSED("decoder_start_token_id", "an encoder"),
    REFUSED("classifier.output_labels", "a classifier"),
    NEUTRAL("leading_dense_block_count", 0, 0, EXPERTS),
    NEUTRAL("interleave_moe_layer_step", 0, 0, EXPERTS),
    NEUTRAL("moe_every_n_layers", 0, 0, EXPERTS),
    NEUTRAL("moe_latent_size", 0, 0, EXPERTS),
    NEUTRAL("experts_per_group", 0, 0, EXPERTS),
    NEUTRAL("expert_used_count", 0, 0, EXPERTS),
    NEUTRAL("expert_shared_*", 0, 0, EXPERTS),
    HARMLESS("expert_*", "it is about experts, which expert_count says that there are none of"),
};

static const Rule TOKENIZER_RULES[] = {
    READ("model"), READ("pre"), READ("tokens"), READ("scores"), READ("token_type"), READ("merges"),
    READ("bos_token_id"), READ("eos_token_id"), READ("eot_token_id"), READ("unknown_token_id"),
    READ("add_bos_token"), READ("add_eos_token"), READ("add_space_prefix"), READ("remove_extra_whitespaces"),
    EMPTY("precompiled_charsmap", "normalizing text by rules of the vocabulary's own"),
    EMPTY("suppress_tokens", "tokens that may not be generated"),
    NEUTRAL("normalizer.lowercase", 0, 0, "text in lower case"),
    NEUTRAL("normalizer.strip_accents", 0, 0, "text without accents"),
    NEUTRAL("add_sep_token", 0, 0, "a separator behind each text"),
    NEUTRAL("add_cls_token", 0, 0, "a token of classification before each text"),
    HARMLESS("add_*_token", "such tokens are put nowhere but by chat templates"),
    HARMLESS("*_token_id", "read where it ends a text; others are put nowhere"),
    HARMLESS("*_token_ids", "read where they end a text; others are put nowhere"),
    HARMLESS("token_type_count", "it is BERT's"),
    HARMLESS("added_tokens", "they are among the tokens"),
};
/* clang-format on */

/* Whether `name` is the pattern, in which one '*' stands for any text. */
static bool matches(StringView name, const char *pattern) {
    const char *star = strchr(pattern, '*');
    if (star == NULL)
        return sv_is(name, pattern);
    StringView begin = {pattern, (size_t)(star - pattern)}, end = sv(star + 1);
    return name.length >= begin.length + end.length && sv_starts_with(name, begin) &&
           memcmp(name.bytes + name.length - end.length, end.bytes, end.length) == 0;
}

static const Rule *find_rule(const Rule *rules, size_t n_rules, StringView name) {
    for (size_t i = 0; i < n_rules; i++)
        if (matches(name, rules[i].name))
            return &rules[i];
    return NULL;
}

/* ---- Whether a value changes nothing */

static bool near(double a, double b) {
    return fabs(a - b) <= 1e-6 * fabs(b);
}

static bool is_neutral(const GgufValue *value, const double neutral[2]) {
    for (size_t i = 0; i < value->count; i++) {
        double number;
        if (!gguf_number(value, i, &number) || !(near(number, neutral[0]) || near(number, neutral[1])))
            return false;
    }
    return true;
}

static bool is_text(const GgufValue *value, const char *const texts[3]) {
    StringView text;
    if (value->type != GGUF_STRING)
        return false;
    gguf_strings(value, &text);
    for (size_t i = 0; i < 3 && texts[i] != NULL; i++)
        if (sv_is(text, texts[i]))
            return true;
    return text.length == 0;
}

static bool is_empty(const GgufValue *value) {
    StringView text;
    if (value->type != GGUF_STRING)
        return value->type == GGUF_ARRAY && value->count == 0;
    gguf_strings(value, &text);
    return text.length == 0;
}

static bool is_same(const Gguf *gguf, const GgufValue *value, StringView prefix, const char *other) {
    char key[128];
    double number, others;
    snprintf(key, sizeof key, "%.*s%s", SV_ARGS(prefix), other);
    const GgufValue *same = gguf_find(gguf, key);
    return value->count == 1 && gguf_number(value, 0, &number) &&
           (number == 0 || (same != NULL && same->count > 0 && gguf_number(same, 0, &others) && near(number, others)));
}

static bool changes_nothing(const Gguf *gguf, const GgufValue *value, StringView prefix, const Rule *rule) {
    if (gguf_is_placeholder(value))
        return true;
    switch (rule->kind) {
    case RULE_READ:
    case RULE_HARMLESS:
        return true;
    case RULE_NEUTRAL:
    case RULE_NOTED:
        return is_neutral(value, rule->neutral);
    case RULE_TEXT:
        return is_text(value, rule->texts);
    case RULE_EMPTY:
        return is_empty(value);
    case RULE_SAME:
        return is_same(gguf, value, prefix, rule->texts[0]);
    case RULE_REFUSED:
        return false;
    }
    return false;
}

/* ---- Keys of a file */

/* " 8" or " 'text'", as far as it is one value that can be shown. */
static const char *shown(const GgufValue *value, char text[64]) {
    double number;
    StringView string;
    text[0] = '\0';
    if (value->type == GGUF_STRING) {
        gguf_strings(value, &string);
        snprintf(text, 64, " is '%.*s'", (int)(string.length < 40 ? string.length : 40), string.bytes);
    } else if (value->count > 0 && gguf_number(value, 0, &number)) {
        snprintf(text, 64, value->count > 1 ? " begins with %.9g" : " is %.9g", number);
    }
    return text;
}

static int refuse(const Gguf *gguf, const GgufValue *value, const char *about, Error *error) {
    char text[64];
    return error_set(error, ERROR_UNSUPPORTED, "%s: metadata %.*s%s: %s is not supported; use a checkpoint without it",
                     gguf->path, SV_ARGS(value->key), shown(value, text), about);
}

/* The part of a key behind `prefix`; false where it does not begin with it. */
static bool behind(StringView key, StringView prefix, StringView *name) {
    *name = (StringView){key.bytes + prefix.length, key.length - prefix.length};
    return sv_starts_with(key, prefix);
}

static int check_family_key(const Gguf *gguf, Checkpoint *checkpoint, const GgufValue *value, StringView prefix,
                            StringView name, Error *error) {
    const Rule *rule = find_rule(FAMILY_RULES, sizeof FAMILY_RULES / sizeof *FAMILY_RULES, name);
    char text[64];
    if (rule == NULL)
        return error_set(error, ERROR_UNSUPPORTED,
                         "%s: metadata %.*s is not known here, and may change what the model computes; use a "
                         "checkpoint without it",
                         gguf->path, SV_ARGS(value->key));
    if (changes_nothing(gguf, value, prefix, rule))
        return 0;
    if (rule->kind != RULE_NOTED)
        return refuse(gguf, value, rule->about, error);
    return checkpoint_note(checkpoint, error, "%s: metadata %.*s%s and is left out: %s; nothing need be done",
                           gguf->path, SV_ARGS(value->key), shown(value, text), rule->about);
}

int metadata_check_family(const Gguf *gguf, Checkpoint *checkpoint, Error *error) {
    char text[64];
    snprintf(text, sizeof text, "%s.", checkpoint->config.family->name);
    StringView prefix = sv(text), name;
    for (size_t i = 0; i < gguf->n_values; i++) {
        const GgufValue *value = &gguf->values[i];
        if (behind(value->key, prefix, &name) && check_family_key(gguf, checkpoint, value, prefix, name, error) < 0)
            return error->code;
    }
    return 0;
}

int metadata_check_tokenizer(const Gguf *gguf, Checkpoint *checkpoint, Error *error) {
    StringView prefix = sv("tokenizer.ggml."), name;
    NameList unknown = {0};
    for (size_t i = 0; i < gguf->n_values; i++) {
        const GgufValue *value = &gguf->values[i];
        if (!behind(value->key, prefix, &name))
            continue;
        const Rule *rule = find_rule(TOKENIZER_RULES, sizeof TOKENIZER_RULES / sizeof *TOKENIZER_RULES, name);
        if (rule != NULL && !changes_nothing(gguf, value, prefix, rule))
            return refuse(gguf, value, rule->about, error);
        char key[129];
        snprintf(key, sizeof key, "%.*s", SV_ARGS(value->key));
        if (rule == NULL)
            name_list_add(&unknown, key);
    }
    if (unknown.length == 0)
        return 0;
    return checkpoint_note(checkpoint, error,
                           "%s: metadata that is not known here is left out: %s; if text is split differently than it "
                           "should be, convert the checkpoint again",
                           gguf->path, unknown.text);
}

/* general.type of files that are no model, or what stands in its place. */
static const struct {
    const char *key, *value, *is, *cure;
} KINDS[] = {
    {"general.type", "adapter", "a LoRA adapter", "merge it into its model and convert that"},
    {"general.type", "mmproj", "the part of a model that reads images", "name the language model itself"},
    {"general.type", "imatrix", "an importance matrix", "name the model itself"},
    {"general.type", "vocab", "a vocabulary without a model", "name the model itself"},
    {"general.architecture", "clip", "the part of a model that reads images", "name the language model itself"},
    {"general.architecture", "controlvector", "a control vector", "name the model itself"},
    {"adapter.type", "lora", "a LoRA adapter", "merge it into its model and convert that"},
};

int metadata_check_kind(const Gguf *gguf, Error *error) {
    for (size_t i = 0; i < sizeof KINDS / sizeof *KINDS; i++) {
        const GgufValue *value = gguf_find(gguf, KINDS[i].key);
        StringView text;
        if (value == NULL || value->type != GGUF_STRING)
            continue;
        gguf_strings(value, &text);
        if (sv_is(text, KINDS[i].value))
            return error_set(error, ERROR_UNSUPPORTED, "%s: is %s (%s is '%s'), not a language model; %s", gguf->path,
                             KINDS[i].is, KINDS[i].key, KINDS[i].value, KINDS[i].cure);
    }
    return 0;
}

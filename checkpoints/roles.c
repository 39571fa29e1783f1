/* The table of roles; see roles.h. */
#include "checkpoints/roles.h"

#include <stdint.h>
#include <stdio.h>

#define MODEL(member) false, offsetof(Weights, member)
#define LAYER(member) true, offsetof(LayerWeights, member)

/* clang-format off */
const TensorRole TENSOR_ROLES[] = {
    /* name, field, {columns, rows}, use, product, presence, what serves otherwise */
    {TOKEN_EMBD_NAME,              MODEL(token_embd),     LENGTH_EMBD,     LENGTH_VOCAB,    TENSOR_ROWS,   PRODUCT_NONE,        ROLE_ALWAYS,      NULL},
    {"attn_norm.weight",           LAYER(attn_norm),      LENGTH_EMBD,     LENGTH_ONE,      TENSOR_VECTOR, PRODUCT_NONE,        ROLE_NORM_BEFORE, NULL},
    {"attn_q.weight",              LAYER(attn_q),         LENGTH_EMBD,     LENGTH_HEADS,    TENSOR_MATRIX, PRODUCT_QKV,         ROLE_ALWAYS,      NULL},
    {"attn_k.weight",              LAYER(attn_k),         LENGTH_EMBD,     LENGTH_KV_HEADS, TENSOR_MATRIX, PRODUCT_QKV,         ROLE_ALWAYS,      NULL},
    {"attn_v.weight",              LAYER(attn_v),         LENGTH_EMBD,     LENGTH_KV_HEADS, TENSOR_MATRIX, PRODUCT_QKV,         ROLE_ALWAYS,      NULL},
    {"attn_q.bias",                LAYER(attn_q_bias),    LENGTH_HEADS,    LENGTH_ONE,      TENSOR_VECTOR, PRODUCT_QKV,         ROLE_QKV_BIAS,    NULL},
    {"attn_k.bias",                LAYER(attn_k_bias),    LENGTH_KV_HEADS, LENGTH_ONE,      TENSOR_VECTOR, PRODUCT_QKV,         ROLE_QKV_BIAS,    NULL},
    {"attn_v.bias",                LAYER(attn_v_bias),    LENGTH_KV_HEADS, LENGTH_ONE,      TENSOR_VECTOR, PRODUCT_QKV,         ROLE_QKV_BIAS,    NULL},
    {"attn_q_norm.weight",         LAYER(attn_q_norm),    LENGTH_Q_NORM,   LENGTH_ONE,      TENSOR_VECTOR, PRODUCT_NONE,        ROLE_QK_NORM,     NULL},
    {"attn_k_norm.weight",         LAYER(attn_k_norm),    LENGTH_K_NORM,   LENGTH_ONE,      TENSOR_VECTOR, PRODUCT_NONE,        ROLE_QK_NORM,     NULL},
    {"attn_output.weight",         LAYER(attn_output),    LENGTH_HEADS,    LENGTH_EMBD,     TENSOR_MATRIX, PRODUCT_ATTN_OUTPUT, ROLE_ALWAYS,      NULL},
    {"post_attention_norm.weight", LAYER(attn_post_norm), LENGTH_EMBD,     LENGTH_ONE,      TENSOR_VECTOR, PRODUCT_NONE,        ROLE_NORM_BEHIND, NULL},
    {"ffn_norm.weight",            LAYER(ffn_norm),       LENGTH_EMBD,     LENGTH_ONE,      TENSOR_VECTOR, PRODUCT_NONE,        ROLE_NORM_BEFORE, NULL},
    {"ffn_gate.weight",            LAYER(ffn_gate),       LENGTH_EMBD,     LENGTH_FFN,      TENSOR_MATRIX, PRODUCT_GATE_UP,     ROLE_ALWAYS,      NULL},
    {"ffn_up.weight",              LAYER(ffn_up),         LENGTH_EMBD,     LENGTH_FFN,      TENSOR_MATRIX, PRODUCT_GATE_UP,     ROLE_ALWAYS,      NULL},
    {"ffn_down.weight",            LAYER(ffn_down),       LENGTH_FFN,      LENGTH_EMBD,     TENSOR_MATRIX, PRODUCT_FFN_DOWN,    ROLE_ALWAYS,      NULL},
    {"post_ffw_norm.weight",       LAYER(ffn_post_norm),  LENGTH_EMBD,     LENGTH_ONE,      TENSOR_VECTOR, PRODUCT_NONE,        ROLE_NORM_BEHIND, NULL},
    {"output_norm.weight",         MODEL(output_norm),    LENGTH_EMBD,     LENGTH_ONE,      TENSOR_VECTOR, PRODUCT_NONE,        ROLE_ALWAYS,      NULL},
    {"output.weight",              MODEL(output),         LENGTH_EMBD,     LENGTH_VOCAB,    TENSOR_MATRIX, PRODUCT_LOGITS,      ROLE_OPTIONAL,    TOKEN_EMBD_NAME},
    {"rope_freqs.weight",          MODEL(rope_freqs),     LENGTH_PAIRS,    LENGTH_ONE,      TENSOR_HOST,   PRODUCT_NONE,        ROLE_OPTIONAL,    NULL},
    {ROPE_LONG_NAME,               MODEL(rope_long),      LENGTH_PAIRS,    LENGTH_ONE,      TENSOR_HOST,   PRODUCT_NONE,        ROLE_OPTIONAL,    NULL},
    {ROPE_SHORT_NAME,              MODEL(rope_short),     LENGTH_PAIRS,    LENGTH_ONE,      TENSOR_HOST,   PRODUCT_NONE,        ROLE_OPTIONAL,    NULL},
};
/* clang-format on */

const size_t TENSOR_ROLE_COUNT = sizeof TENSOR_ROLES / sizeof *TENSOR_ROLES;

const TensorRole *tensor_role(StringView name) {
    for (size_t i = 0; i < TENSOR_ROLE_COUNT; i++)
        if (sv_is(name, TENSOR_ROLES[i].name))
            return &TENSOR_ROLES[i];
    return NULL;
}

const TensorRole *tensor_role_of(StringView name) {
    size_t at = strlen("blk.");
    if (!sv_starts_with(name, sv("blk.")))
        at = 0;
    while (at > 0 && at < name.length && name.bytes[at] >= '0' && name.bytes[at] <= '9')
        at++;
    bool in_layer = at > 0 && at < name.length && name.bytes[at] == '.';
    size_t begin = in_layer ? at + 1 : 0;
    const TensorRole *role = tensor_role((StringView){name.bytes + begin, name.length - begin});
    return role != NULL && role->in_layer == in_layer ? role : NULL;
}

bool role_is_vector(const TensorRole *role) {
    return role->use == TENSOR_VECTOR || role->use == TENSOR_HOST;
}

size_t role_copies(const TensorRole *role, const ModelConfig *config) {
    return role->in_layer ? config->n_layers : 1;
}

Tensor *role_tensor(const TensorRole *role, const Weights *weights, size_t layer) {
    uintptr_t base = role->in_layer ? (uintptr_t)&weights->layers[layer] : (uintptr_t)weights;
    return (Tensor *)(base + role->field);
}

const char *role_name(const TensorRole *role, size_t layer, char name[ROLE_NAME_BYTES]) {
    if (!role->in_layer)
        return role->name;
    snprintf(name, ROLE_NAME_BYTES, "blk.%zu.%s", layer, role->name);
    return name;
}

size_t role_length(RoleLength length, const ModelConfig *config) {
    switch (length) {
    case LENGTH_ONE:
        return 1;
    case LENGTH_EMBD:
        return config->n_embd;
    case LENGTH_FFN:
        return config->n_ffn;
    case LENGTH_HEADS:
        return config->n_heads * config->head_dim;
    case LENGTH_KV_HEADS:
        return config->n_kv_heads * config->head_dim;
    case LENGTH_Q_NORM:
        return config->family->qk_norm == QK_NORM_ROWS ? config->n_heads * config->head_dim : config->head_dim;
    case LENGTH_K_NORM:
        return config->family->qk_norm == QK_NORM_ROWS ? config->n_kv_heads * config->head_dim : config->head_dim;
    case LENGTH_PAIRS:
        return config->head_dim / 2;
    case LENGTH_VOCAB:
        return config->n_vocab;
    }
    return 0;
}

bool role_in_family(const TensorRole *role, const ModelFamily *family) {
    switch (role->presence) {
    case ROLE_ALWAYS:
    case ROLE_OPTIONAL:
        return true;
    case ROLE_QKV_BIAS:
        return family->qkv_bias;
    case ROLE_QK_NORM:
        return family->qk_norm != QK_NORM_NONE;
    case ROLE_NORM_BEFORE:
        return family->norms != NORMS_BEHIND;
    case ROLE_NORM_BEHIND:
        return family->norms != NORMS_BEFORE;
    }
    return false;
}

/* Tensors that no role takes and nothing misses, by the ends of their names: all hold RoPE's frequencies. */
static const struct {
    const char *ending, *why;
} HARMLESS[] = {
    {".attn_rot_embd", "RoPE's frequencies, computed from the configuration"},
    {".attn_rot_embd.weight", "the same"},
    {".rotary_emb.inv_freq", "the same, under Hugging Face's name"},
    {"rope.freqs", "the same, under Meta's"},
};

const char *tensor_harmless(StringView name) {
    for (size_t i = 0; i < sizeof HARMLESS / sizeof *HARMLESS; i++) {
        if (sv_ends_with(name, sv(HARMLESS[i].ending)))
            return HARMLESS[i].why;
    }
    return NULL;
}

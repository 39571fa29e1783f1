/* What tensors a model is made of: a table with a row for each role. Binding, upload, byte counts, llama2.c's layout
 * and the refusal of unknown tensors all read it. A further tensor is a field here, a row of TENSOR_ROLES, and what the
 * forward pass does with it.
 *
 *     for (size_t i = 0; i < TENSOR_ROLE_COUNT; i++)
 *         for (size_t layer = 0; layer < role_copies(&TENSOR_ROLES[i], &config); layer++)
 *             const Tensor *tensor = role_tensor(&TENSOR_ROLES[i], &weights, layer);
 */
#ifndef STOWKV_ROLES_H
#define STOWKV_ROLES_H

#include "base/tensor.h"
#include "checkpoints/config.h"

/* Shapes as GGUF writes them, {columns, rows}: y = W x has one output a row. `data` is NULL where there is no tensor.
 */
typedef struct LayerWeights {
    Tensor attn_norm;      /* {n_embd} of what goes into the block, where the family has such norms */
    Tensor attn_q;         /* {n_embd, n_heads * head_dim} */
    Tensor attn_k;         /* {n_embd, n_kv_heads * head_dim} */
    Tensor attn_v;         /* {n_embd, n_kv_heads * head_dim} */
    Tensor attn_q_bias;    /* {n_heads * head_dim}, where the family has biases */
    Tensor attn_k_bias;    /* {n_kv_heads * head_dim} */
    Tensor attn_v_bias;    /* {n_kv_heads * head_dim} */
    Tensor attn_q_norm;    /* {head_dim} or {n_heads * head_dim}, where the family has norms of q and k */
    Tensor attn_k_norm;    /* {head_dim} or {n_kv_heads * head_dim} */
    Tensor attn_output;    /* {n_heads * head_dim, n_embd} */
    Tensor attn_post_norm; /* {n_embd} of what comes out of the block, where the family has such norms */
    Tensor ffn_norm;       /* {n_embd} as attn_norm */
    Tensor ffn_gate;       /* {n_embd, n_ffn} */
    Tensor ffn_up;         /* {n_embd, n_ffn} */
    Tensor ffn_down;       /* {n_ffn, n_embd} */
    Tensor ffn_post_norm;  /* {n_embd} as attn_post_norm */
} LayerWeights;

typedef struct Weights {
    Tensor token_embd;            /* {n_embd, n_vocab} */
    Tensor output_norm;           /* {n_embd} */
    Tensor output;                /* {n_embd, n_vocab}; token_embd where the checkpoint ties them */
    Tensor rope_freqs;            /* {head_dim / 2} divisors of RoPE's frequencies (Llama 3.1) */
    Tensor rope_long, rope_short; /* the same, by the cache's capacity (LongRope) */
    LayerWeights *layers;         /* (n_layers), owned */
} Weights;

/* A length that follows from the configuration. */
typedef enum RoleLength {
    LENGTH_ONE, /* rows of a vector */
    LENGTH_EMBD,
    LENGTH_FFN,
    LENGTH_HEADS,    /* n_heads * head_dim */
    LENGTH_KV_HEADS, /* n_kv_heads * head_dim */
    LENGTH_Q_NORM,   /* of one head, or of all, as the family's norms of q and k are */
    LENGTH_K_NORM,
    LENGTH_PAIRS, /* head_dim / 2 */
    LENGTH_VOCAB
} RoleLength;

/* What a weight tensor is for. */
typedef enum TensorUse {
    TENSOR_MATRIX, /* of products */
    TENSOR_ROWS,   /* rows are looked up: the token embedding */
    TENSOR_VECTOR, /* F32: gains of a norm, the bias of a product */
    TENSOR_HOST    /* F32, read once when a context opens: no backend sees it */
} TensorUse;

/* Matrices that meet the same activations: one matmul() of a backend takes them together, in the table's order. */
typedef enum Product {
    PRODUCT_NONE,
    PRODUCT_QKV,
    PRODUCT_ATTN_OUTPUT,
    PRODUCT_GATE_UP,
    PRODUCT_FFN_DOWN,
    PRODUCT_LOGITS
} Product;

/* Which checkpoints have it. */
typedef enum RolePresence {
    ROLE_ALWAYS,
    ROLE_OPTIONAL,
    ROLE_QKV_BIAS,    /* where the family's row says so: qkv_bias, */
    ROLE_QK_NORM,     /* qk_norm, */
    ROLE_NORM_BEFORE, /* and norms */
    ROLE_NORM_BEHIND
} RolePresence;

typedef struct TensorRole {
    const char *name; /* GGUF's; in a layer, what follows "blk.N." */
    bool in_layer;
    size_t field; /* offset in LayerWeights, or in Weights */
    RoleLength columns, rows;
    TensorUse use;
    Product product; /* of a bias, too: that of its matrix */
    RolePresence presence;
    const char *otherwise; /* name of the role whose tensor serves where it is absent; NULL: none does */
} TensorRole;

extern const TensorRole TENSOR_ROLES[]; /* (TENSOR_ROLE_COUNT) in the order in which a token meets them */
extern const size_t TENSOR_ROLE_COUNT;

#define TOKEN_EMBD_NAME "token_embd.weight"
#define ROPE_LONG_NAME  "rope_factors_long.weight"
#define ROPE_SHORT_NAME "rope_factors_short.weight"

/* The role by its name in the table, without "blk.N."; NULL where there is none. */
const TensorRole *tensor_role(StringView name);

/* The role by a tensor's name, with "blk.N." in front where it is one of layers, whatever N; NULL where there is none.
 */
const TensorRole *tensor_role_of(StringView name);

/* Whether its tensors are F32 in memory: gains, biases, RoPE's factors. */
bool role_is_vector(const TensorRole *role);

/* Tensors that have the role: 1, or one in each layer. */
size_t role_copies(const TensorRole *role, const ModelConfig *config);

/* The field of `weights`, in `layer` if the role is in layers. As with strchr(), constness is left to the caller. */
Tensor *role_tensor(const TensorRole *role, const Weights *weights, size_t layer);

#define ROLE_NAME_BYTES 64

/* "blk.3.attn_q.weight", in `name`; the table's own name where the role is not of layers. */
const char *role_name(const TensorRole *role, size_t layer, char name[ROLE_NAME_BYTES]);

size_t role_length(RoleLength length, const ModelConfig *config);

/* Whether models of this family have it (ROLE_OPTIONAL: may have it). */
bool role_in_family(const TensorRole *role, const ModelFamily *family);

/* Why a tensor that has no role can be left out without changing the output; NULL where no reason is known. */
const char *tensor_harmless(StringView name);

#endif

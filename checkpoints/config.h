/* The shape of a model and the choices in which families differ, as data: the forward pass has no code path of a
 * family, only of a configuration. */
#ifndef STOWKV_CONFIG_H
#define STOWKV_CONFIG_H

#include "base/error.h"
#include "base/layer_set.h"
#include "base/rope.h"
#include "base/string_view.h"

/* Which RMS norms a block of attention or feed-forward has: of what goes in, of what comes out before it is added. */
typedef enum BlockNorms { NORMS_BEFORE, NORMS_BEHIND, NORMS_BOTH } BlockNorms;

/* RMS norms of q and k before RoPE: each head by itself, or all heads of a token together. */
typedef enum QkNorm { QK_NORM_NONE, QK_NORM_HEADS, QK_NORM_ROWS } QkNorm;

/* The feed-forward network's gate: silu(gate) * up, or gelu(gate) * up with the tanh form of GELU (Shazeer 2020). */
typedef enum GateActivation { GATE_SILU, GATE_GELU } GateActivation;

/* What a family adds to the Llama architecture. A further family is a further row, plus the fields that it needs. */
typedef struct ModelFamily {
    const char *name;         /* general.architecture of GGUF */
    const char *members;      /* for messages */
    RopePairing rope_pairing; /* in GGUF files; other containers may have other rows of q and k */
    bool qkv_bias;            /* the projections to q, k and v have biases */
    bool fused;               /* q, k and v are one tensor, gate and up too (fused.h) */
    BlockNorms norms;
    QkNorm qk_norm;
    GateActivation activation;
    bool scales_embedding;   /* by sqrt(n_embd) */
    bool gains_less_one;     /* what Hugging Face's files have of norms' gains; GGUF's have the gains */
    size_t window_period;    /* which layers a sliding window is for: of each so many all but the last; 0: all; 1: none,
                                and a model that has one is refused */
    double local_rope_theta; /* RoPE's base in those layers, without scaling; 0: as in the others */
    size_t no_rope_period;   /* of each so many layers the last has no RoPE; 0: all have it */
    size_t wide_layers; /* the one size whose scores are divided by sqrt(n_embd / n_heads), by its layers; 0: none */
} ModelFamily;

/* Llama 3.1's scaling of RoPE (rope_factors.h): frequencies of fewer than `low` turns in the original context are
 * divided by `factor`, of more than `high` not at all. */
typedef struct Llama3Scaling {
    double factor; /* 0: none */
    double low, high;
    size_t original_context; /* in tokens */
} Llama3Scaling;

/* RoPE of long contexts (LongRoPE: Ding et al. 2024; Phi-3): its frequencies have divisors of their own, one set for
 * caches of up to `original_context` tokens and one for larger ones (rope_factors_short.weight,
 * rope_factors_long.weight). */
typedef struct LongRope {
    size_t original_context; /* in tokens */
    double stretch;          /* rotated q and k are multiplied by it; 0: 1 */
} LongRope;

typedef struct ModelConfig {
    const ModelFamily *family;
    size_t n_layers;
    size_t n_embd;     /* width of the residual stream */
    size_t n_ffn;      /* hidden width of the feed-forward network */
    size_t n_heads;    /* query heads */
    size_t n_kv_heads; /* key and value heads; divides n_heads */
    size_t head_dim;
    size_t n_vocab;
    size_t n_ctx_train; /* positions that the model was trained for */
    float norm_eps;
    RopePairing rope_pairing;
    double rope_theta;
    double rope_scale; /* positions are divided by this (linear scaling); 1: none */
    Llama3Scaling rope_llama3;
    LongRope rope_long;

    LayerSet local;          /* layers that look back on `lookback` tokens alone, a query's own among them */
    size_t lookback;         /* 0: no layer does */
    double local_rope_theta; /* RoPE's base in those layers, without scaling; 0: as in the others */
    LayerSet no_rope;        /* layers without RoPE */
    float embedding_scale;   /* 0: 1 */
    float score_divisor;     /* scores are q . k / sqrt(score_divisor); 0: head_dim */
    float score_cap;         /* then cap * tanh(score / cap) (Gemma Team 2024); 0: none */
    float logit_cap;         /* likewise */
} ModelConfig;

/* NULL, and an error that names the supported families, where `name` is none of them. */
const ModelFamily *model_family_find(StringView name, const char *path, Error *error);

/* The rows of the table one by one, then NULL. */
const ModelFamily *model_family_at(size_t index);

/* Once, behind the reader: fills in what follows from the family and from the sizes, where it has left it 0: which
 * layers are local or have no RoPE, scales and divisors. */
void model_config_complete(ModelConfig *config);

/* Checks what the readers have filled in from an untrusted file; `path` is for messages. ERROR_FORMAT for values that
 * no model has, ERROR_UNSUPPORTED for an odd head_dim. */
int model_config_check(const ModelConfig *config, const char *path, Error *error);

#endif

/* The shape of a model and the choices in which families differ, as data: the forward pass has no code path of a
 * family, only of a configuration. */
#ifndef STOWKV_CONFIG_H
#define STOWKV_CONFIG_H

#include "base/error.h"
#include "base/rope.h"
#include "base/string_view.h"

/* What a family adds to the Llama architecture. A further family is a further row, plus the fields that it needs. */
typedef struct ModelFamily {
    const char *name;         /* general.architecture of GGUF */
    const char *members;      /* for messages */
    RopePairing rope_pairing; /* in GGUF files; other containers may have other rows of q and k */
    bool qkv_bias;            /* the projections to q, k and v have biases */
} ModelFamily;

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
} ModelConfig;

/* NULL, and an error that names the supported families, where `name` is none of them. */
const ModelFamily *model_family_find(StringView name, const char *path, Error *error);

/* The rows of the table one by one, then NULL. */
const ModelFamily *model_family_at(size_t index);

/* Checks what the readers have filled in from an untrusted file; `path` is for messages. ERROR_FORMAT for values that
 * no model has, ERROR_UNSUPPORTED for an odd head_dim. */
int model_config_check(const ModelConfig *config, const char *path, Error *error);

#endif

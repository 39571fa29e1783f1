/* A model that is ready to run: an opened checkpoint, its weights by role, and the backend that holds them.
 *
 *     Model model;
 *     if (model_open(&model, path, backend, &error) < 0) …          // the model closes the backend
 *     Context context;
 *     if (context_open(&context, &model, &policy, n_ctx, 0, &error) < 0) …
 *     if (forward(&context, tokens, n_tokens, LOGITS_LAST, &error) < 0) …
 *     float *logits = context.logits;                                     // (n_vocab) for the last token
 *     context_close(&context);
 *     model_close(&model);
 */
#ifndef STOWKV_MODEL_H
#define STOWKV_MODEL_H

#include "kvcache/snapshot.h"
#include "model/backend.h"
#include "model/weights.h"

typedef struct Model {
    Checkpoint checkpoint;
    Weights weights;
    Backend *backend; /* owned */
} Model;

/* Owns `backend` from here on; closes it when opening fails. */
int model_open(Model *model, const char *path, Backend *backend, Error *error);

/* The second half of it, for whoever chooses the backend by the configuration: model->checkpoint is open. Owns both,
 * and closes them when it fails. */
int model_open_checkpoint(Model *model, const char *path, Backend *backend, Error *error);
void model_close(Model *model);

#define DEFAULT_BATCH 128 /* tokens that go through a layer together */

/* Layers turn queries and keys with the model's frequencies, local ones may have their own, some turn nothing. */
typedef enum LayerRope { ROPE_OF_MODEL, ROPE_OF_LOCAL, ROPE_OF_NONE, N_LAYER_ROPES } LayerRope;

LayerRope layer_rope(const ModelConfig *config, size_t layer);

typedef struct RopeAngles {
    double *frequencies;   /* (head_dim / 2) radians a position, in the backend's memory; NULL: no layer has this one */
    float *rotation;       /* (n_batch, head_dim / 2, 2) RoPE at each token's position */
    float *shift_rotation; /* (n_batch, head_dim / 2, 2) RoPE by minus the tokens dropped, of `shift_policy` */
    const KvLayerPolicy *shift_policy; /* that it was filled for in this batch; NULL: not yet */
} RopeAngles;

/* The shape of a cache for the model. */
KvShape model_cache_shape(const ModelConfig *config, size_t n_ctx, size_t n_batch);

/* One sequence: its cache and the activations of a batch. Several contexts may share a model, but only one may run at a
 * time. */
typedef struct Context {
    Model *model;
    KvCache cache;
    size_t n_ctx;   /* capacity in tokens */
    size_t n_batch; /* tokens that go through a layer together */

    /* In the backend's memory. */
    RopeAngles ropes[N_LAYER_ROPES];
    float *arena; /* all of the following, and the ropes' arrays of a batch */
    size_t arena_bytes;
    float *x;             /* (n_batch, n_embd) residual stream */
    float *q, *attended;  /* (n_batch, n_heads, head_dim) */
    float *k, *v;         /* (n_batch, n_kv_heads, head_dim) */
    float *gate, *up;     /* (n_batch, n_ffn) */
    float *device_logits; /* (n_batch, n_vocab) */

    /* On the host. */
    float *logits;         /* (n_batch, n_vocab); forward() says which it fills */
    int32_t best;          /* the last token's most likely successor; -1: `logits` must be looked at */
    BackendStep *steps[3]; /* of one token: without logits, with them, with the best alone */

    /* Called in each layer, while q, k, v and attended hold the batch's values; for evaluators. NULL: not called. */
    void (*on_attended)(void *user, size_t layer, size_t n_tokens);
    void *on_attended_user;
} Context;

/* n_ctx: tokens, unless the policy streams; n_batch 0: DEFAULT_BATCH. Must not be moved while it is open. */
int context_open(Context *context, Model *model, const KvPolicy *policy, size_t n_ctx, size_t n_batch, Error *error);
void context_close(Context *context);
void context_clear(Context *context); /* forgets all tokens */

/* How the cache's memory is read and written, which may be a device's; for as long as the model is open. */
KvMemory context_memory(const Context *context);

/* The divisors of RoPE's frequencies in a cache of its capacity; NULL where the model has none. */
const Tensor *context_rope_factors(const Context *context);

/* Which positions of a batch get logits. LOGITS_BEST: the last, and of its logits the largest is all that matters; so a
 * device gives that one alone, as context->best. */
typedef enum LogitsWanted { LOGITS_NONE, LOGITS_LAST, LOGITS_ALL, LOGITS_BEST } LogitsWanted;

/* Runs `n_tokens` (at most n_batch) further tokens through the model. context->logits then holds n_vocab logits for
 * the last token, or for each, unless context->best has come instead. ERROR_ARGUMENT where the cache is full or a token
 * is not in the vocabulary; ERROR_FORMAT where logits are not finite: the message names the tensor that is to blame, if
 * there is one. */
int forward(Context *context, const int32_t *tokens, size_t n_tokens, LogitsWanted wanted, Error *error);

/* How many tokens the next forward() should take of `n_left`: batches end at absolute multiples of n_batch, so that a
 * prompt is cut in the same places however it arrives. */
size_t context_batch(const Context *context, size_t n_left);

#endif

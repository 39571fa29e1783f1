/* Caches beside a context's own: each takes the same keys and values under a policy of its own, and the same queries
 * attend to it. For evaluators that compare what policies do in a layer.
 *
 *     SideCaches side;
 *     if (side_caches_open(&side, &context, policies, n, on_attended, user, &error) < 0) …
 *     side_caches_clear(&side);                       // with context_clear()
 *     void on_attended(…) { … side_caches_attend(&side, i, layer, n_tokens); … }   // forward() calls it in each layer
 *     side_caches_close(&side);
 */
#ifndef STOWKV_SIDE_CACHES_H
#define STOWKV_SIDE_CACHES_H

#include "model/model.h"

typedef struct SideCaches {
    Context *context; /* not owned; its q, k and v are what side_caches_attend() reads */
    KvCache *caches;  /* (n), owned */
    size_t n;
    float *attended; /* (n_batch, n_heads, head_dim) in the backend's memory: what the last one gave */
    size_t attended_bytes;
} SideCaches;

/* From here on forward() of the context calls on_attended. After a failure close it all the same. */
int side_caches_open(SideCaches *side, Context *context, const KvPolicy *policies, size_t n,
                     void (*on_attended)(void *user, size_t layer, size_t n_tokens), void *user, Error *error);
void side_caches_close(SideCaches *side); /* of zeros is fine; before the context */
void side_caches_clear(SideCaches *side);

/* The batch's keys and values of a layer go into cache i, and its queries attend to it. Layers come in their order.
 * Queries are not shifted: policies that drop tokens are not for this. */
void side_caches_attend(SideCaches *side, size_t i, size_t layer, size_t n_tokens);

#endif

/* Attention of one query position and one KV head over the cache's spans: softmax(q K^T / sqrt(head_dim)) V, with an
 * online softmax in F32 over tiles of tokens (Milakov & Gimelshein 2018; Rabe & Staats 2021). It never asks which policy
 * made the spans: encoded tokens are decoded a few at a time into the nearest cache, once for the query heads that share
 * a KV head, and never anywhere else.
 *
 * Tiles are cut over the sequence of visible tokens, not over spans. So the order of sums depends on which tokens a query
 * sees, not on where they are stored: one batch or many, any number of threads, the result is the same to the bit. */
#ifndef STOWKV_ATTENTION_H
#define STOWKV_ATTENTION_H

#include "kvcache/kvcache.h"
#include "model/base/rope.h"

/* The query heads that share one KV head. */
typedef struct AttentionQuery {
    const float *q;              /* (n_group, head_dim) rotated by RoPE at the query's position */
    size_t n_group, head_dim;    /* head_dim at most ATTENTION_MAX_DIM */
    RopePairing pairing;
    const float *shift_rotation; /* (head_dim / 2, 2) RoPE by minus the tokens dropped, for shifted spans; else NULL */
} AttentionQuery;

#define ATTENTION_MAX_DIM 512

typedef void Attend(const KvSpan *spans, // (n_spans) oldest tokens first
                    size_t n_spans, const AttentionQuery *query,
                    float *out);         // (n_group, head_dim)

Attend *attention_kernel(SimdLevel level);

#endif

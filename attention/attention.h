/* Attention of one query position and one KV head over the cache's spans: softmax(q K^T / sqrt(head_dim)) V, with an
 * online softmax in F32 over tiles of tokens (Milakov & Gimelshein 2018; Rabe & Staats 2021), so that no score row is
 * ever stored whole. It never asks which policy made the spans.
 *
 * The result depends on the spans alone, not on how many queries are computed together or by how many threads. */
#ifndef STOWKV_ATTENTION_H
#define STOWKV_ATTENTION_H

#include "kvcache/kvcache.h"
#include "model/base/cpu.h"

/* Computes the query heads that share one KV head. */
typedef void Attend(const KvSpan *spans, // (n_spans)
                    size_t n_spans,
                    const float *q,      // (n_group, head_dim) rotated queries
                    size_t n_group,      // query heads of this KV head
                    size_t head_dim,
                    float *out);         // (n_group, head_dim)

Attend *attention_kernel(SimdLevel level);

#endif

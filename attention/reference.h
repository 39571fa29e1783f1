/* What attention computes, said plainly and in double precision; every kernel is held against it.
 *
 *     out = softmax(q K^T / sqrt(head_dim)) V, or with the scores that ScoreForm says
 *
 * K and V are what the codec's own decoder makes of a span's records, once their form and their rotation are undone.
 * A shifted span's keys are turned forward to where the query expects them (kernels turn the query back instead, which
 * gives the same differences of positions). It is slow, allocates memory, and no program calls it: tests do. */
#ifndef STOWKV_ATTENTION_REFERENCE_H
#define STOWKV_ATTENTION_REFERENCE_H

#include "attention/query.h"

/* One query head over keys and values that are not encoded. An implementation in F32 makes errors relative to
 * `magnitude`, the same sum of absolute values. */
void attention_plain(ScoreForm form, size_t n_tokens, size_t head_dim,
                     const double *q,      // (head_dim)
                     const double *keys,   // (n_tokens, head_dim)
                     const double *values, // (n_tokens, head_dim)
                     double *out,          // (head_dim)
                     double *magnitude);   // (head_dim)

/* The query heads of one token over its spans; query->out is left alone. Fails where memory does not suffice. */
int attention_reference(const AttentionShape *shape, const AttentionQuery *query,
                        const KvRecordForm *form, // of the spans' records
                        double *out,              // (q_per_kv, head_dim)
                        double *magnitude,        // (q_per_kv, head_dim)
                        Error *error);

#endif

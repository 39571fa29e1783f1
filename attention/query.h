/* A query and what it sees: the types that attention.h and the kernels below it have in common. */
#ifndef STOWKV_ATTENTION_QUERY_H
#define STOWKV_ATTENTION_QUERY_H

#include "base/rope.h"
#include "kvcache/kvcache.h"

#include <math.h>

#define ATTENTION_MAX_DIM 512
#define ATTENTION_Q_HEADS 192 /* at most, in a block, over all its queries; a query with more attends alone */

/* What becomes of a query's product with a key before the softmax: s = q . k / sqrt(divisor), and where a cap is set
 * cap * tanh(s / cap) (Gemma Team 2024). */
typedef struct ScoreForm {
    float divisor; /* 0: head_dim (Vaswani et al. 2017) */
    float cap;     /* 0: none */
} ScoreForm;

typedef struct AttentionShape {
    size_t q_per_kv; /* query heads that share a KV head */
    size_t head_dim; /* rows in the cache may be longer, to ATTENTION_MAX_DIM: row_dim_of() */
    RopePairing pairing;
    ScoreForm scores;
} AttentionShape;

/* The query heads of one token that share a KV head, and what they see. */
typedef struct AttentionQuery {
    const float *q;              /* (q_per_kv, head_dim) rotated by RoPE at the query's position */
    const float *shift_rotation; /* (head_dim / 2, 2) RoPE by minus the tokens dropped, for shifted spans; else NULL */
    const KvSpan *spans;         /* (n_spans) oldest tokens first */
    size_t n_spans;
    float *out;      /* (q_per_kv, head_dim) */
    size_t n_hidden; /* of the first tokens in the spans, which it does not see */
} AttentionQuery;

/* What products are divided by before the softmax. */
static inline float score_divisor(const AttentionShape *shape) {
    return sqrtf(shape->scores.divisor > 0 ? shape->scores.divisor : (float)shape->head_dim);
}

/* Elements of the rows that the query sees, the same in all spans; those from head_dim on are padding. */
static inline size_t row_dim_of(const AttentionQuery *query) {
    return query->spans[0].side[KV_KEYS].group.head_dim;
}

/* How keys or values of a codec are read, by the kind of codec and the rows' length. */
typedef enum AttentionPath {
    ATTENTION_INTEGER, /* codes as stored, multiplied with queries and weights of 16 bits */
    ATTENTION_FLOAT,   /* in F32: a query that is alone reads what is stored, a block of them decoded tiles */
    ATTENTION_DECODED  /* in F32, decoded 16 tokens or a tile at a time: rows of no multiple of 32 (fp8: 64) */
} AttentionPath;

/* attend.h */
typedef struct AttentionScratch AttentionScratch;
typedef struct AttentionKernels AttentionKernels;

#endif

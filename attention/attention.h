/* Attention over the cache's spans: softmax(q K^T / sqrt(head_dim)) V, with an online softmax in F32 over tiles of
 * tokens (Milakov & Gimelshein 2018; Rabe & Staats 2021). It never asks which policy made the spans.
 *
 *     AttentionBatch batch = {&cache, layer, n_tokens, n_heads, pairing, q, shift_rotation, out, partials};
 *     size_t n = attention_n_items(&batch);
 *     attention_items(&batch, 0, n, attention_kernels(level), scratch);   // or in parts, in any order, on any threads
 *     attention_merge(&batch, 0, n_kv_heads, attention_kernels(level), scratch);   // when all are done; in parts too
 *
 * Most codecs' codes are multiplied as they are stored. A tile of other codecs is decoded once for all queries of a
 * block; there is no other decoded copy of the cache. The tiles of a query that is alone are spread over the threads.
 *
 * Tiles are cut over the sequence of visible tokens, not over spans; every query sums each tile by itself, and then the
 * tiles in order. So the order of sums depends on which tokens a query sees, not on where they are stored: one batch or
 * many, any number of threads, the result is the same to the bit. */
#ifndef STOWKV_ATTENTION_H
#define STOWKV_ATTENTION_H

#include "attention/query.h"

/* Scratch memory of one thread. Its size is fixed, but what a model's shape does not need is never touched. */
size_t attention_scratch_bytes(void); /* to be zeroed and aligned to 64 */

/* The kernels of an instruction set. */
const AttentionKernels *attention_kernels(SimdLevel level);

/* A batch in one layer, between kvcache_append() and kvcache_commit(). */
typedef struct AttentionBatch {
    KvCache *cache; /* of woven records (codec/weave.h); its counters take what each query reads */
    size_t layer, n_tokens, n_heads;
    RopePairing pairing;
    const float *q;              /* (n_tokens, n_heads, head_dim) */
    const float *shift_rotation; /* (n_tokens, head_dim / 2, 2), or NULL */
    float *out;                  /* (n_tokens, n_heads, head_dim) */
    float *partials;             /* attention_partial_bytes() of memory, for the tiles of a query that is alone */
    ScoreForm scores;
} AttentionBatch;

/* How attention with these kernels reads keys or values of a codec. */
AttentionPath attention_path(const AttentionKernels *kernels, KvCodecId codec, size_t row_dim);

/* Fixed too, and what a short context does not need is never touched. Where a query's tiles need more, its KV heads
 * are shared out among the threads, not its tiles. */
size_t attention_partial_bytes(void);

/* An item is a block of queries, or a tile of a single query, under one KV head. How many there are depends on the
 * batch and its position, not on threads. Different threads may take different items, each with a scratch of its own;
 * best is a run of them: the tiles of a KV head, and the KV heads of a block, follow one another. */
size_t attention_n_items(const AttentionBatch *batch);
void attention_items(const AttentionBatch *batch, size_t begin, size_t end, const AttentionKernels *kernels,
                     AttentionScratch *scratch);

/* Puts together the tiles of a single query under KV heads [begin, end); does nothing for a larger batch. */
void attention_merge(const AttentionBatch *batch, size_t begin, size_t end, const AttentionKernels *kernels,
                     AttentionScratch *scratch);

#endif

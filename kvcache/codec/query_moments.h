/* What queries have looked at: H = sum of q q^T over the queries of a KV head, older ones weighing less. A key's score
 * with q is off by q . e where the key is off by e, so e^T H e is the sum of the squared errors of all those scores:
 * rounding that makes it small spends its errors on directions in which no query looks. H is kept unrotated, and is
 * turned to the basis of the keys to be encoded.
 *
 *     kv_moments_take(&moments, n_heads, n_tokens, stride, queries);
 *     kv_moments_settle(&moments);
 *     if (kv_moments_factor(level, moments.sums, head_dim, row_dim, rotated, factor))
 *         kv_codec_encode_aware(…, factor, …);                                      // codec.h
 *
 * The sums are the lower triangle of H in tiles of 16 x 16, zeros at first. They go over the queries in the order in
 * which these came, one after the other, so that they do not depend on how calls cut them, nor on which queries wait
 * for a while before they are added: some do, since the sums of all heads are more than a processor's cache has room
 * for, and would pass through memory for each token. Every level gives the same bits. */
#ifndef STOWKV_CODEC_QUERY_MOMENTS_H
#define STOWKV_CODEC_QUERY_MOMENTS_H

#include "kvcache/codec/moments.h"

#include <stdbool.h>
#include <stddef.h>

#define KV_MAX_HEAD_DIM 512

/* How much a group's queries count once the next group has been encoded. */
#define KV_MOMENTS_MEMORY 0.8f

/* Elements of a waiting query: whole tiles. */
static inline size_t kv_moments_row(size_t head_dim) {
    return (head_dim + KV_MOMENTS_TILE - 1) / KV_MOMENTS_TILE * KV_MOMENTS_TILE;
}

/* Floats that the sums of heads of this length take. */
static inline size_t kv_moments_floats(size_t head_dim) {
    size_t n_tiles = kv_moments_row(head_dim) / KV_MOMENTS_TILE;
    return n_tiles * (n_tiles + 1) / 2 * KV_MOMENTS_TILE * KV_MOMENTS_TILE;
}

/* Queries that may wait, of each KV head. */
#define KV_MOMENTS_WAITING 16

/* Of one KV head; all of it belongs to the caller. */
typedef struct KvMoments {
    float *sums;    // (kv_moments_floats(head_dim))
    float *waiting; // (KV_MOMENTS_WAITING, kv_moments_row()): the first n_waiting are not in the sums yet
    size_t *n_waiting;
    size_t head_dim;
    SimdLevel level;
} KvMoments;

/* Takes the queries of n_heads neighbouring heads: whenever so many wait, they are added. */
void kv_moments_take(const KvMoments *moments, size_t n_heads, size_t n_tokens,
                     size_t stride,         // floats from one token's queries to the next's
                     const float *queries); // (n_tokens, n_heads, head_dim)

/* From here on none waits: the sums are those of all queries. */
void kv_moments_settle(const KvMoments *moments);

/* What came before counts by this factor from here on. */
void kv_moments_fade(const KvMoments *moments, float factor);

/* The unit triangular factor U of H + damping = U D U^T in the basis of rows of row_dim elements, which are rotated or
 * not, and zero from head_dim on: for each channel what it takes from the errors of those before it.
 * False, with nothing of use in `factor`, where H has none: no query has come, or one was not finite. */
bool kv_moments_factor(SimdLevel level, const float *moments, size_t head_dim, size_t row_dim, bool rotated,
                       float *factor); // (row_dim, row_dim) out: row k holds U[0..k-1, k]; what is behind means nothing

#endif

/* The state of a cache in pieces: what is stored of a token prefix, byte for byte as attention reads it. Nothing is
 * decoded or encoded on the way.
 *
 *     n = kv_pieces(&cache.layout, cache.n_tokens, pieces);                    // what the state consists of
 *     kv_piece_save(&cache, &pieces[i], &memory, bytes, &error);               // each of them: pieces[i].size_bytes
 *
 *     kv_piece_load(&other, n_tokens, &pieces[i], &memory, bytes, &error);     // into a cache of the same policy
 *     kvcache_resume(&other, n_tokens);                                        // goes on behind n_tokens
 *
 * A piece holds the tokens of one store in all layers that share a rule: a group of an encoded tier, or as many rows of
 * FP16, cut at the same positions. What is in it follows from its place and from the first n_decisive tokens alone, so
 * states of longer prefixes consist of the same pieces and a few more. Where keys are rounded with queries, their
 * moments are a piece, too, and a group is decided by the tokens up to that which has it encoded. It does not depend on
 * n_ctx, nor on the batches where the backend's sums do not. */
#ifndef STOWKV_SNAPSHOT_H
#define STOWKV_SNAPSHOT_H

#include "kvcache/kvcache.h"

typedef struct KvPiece {
    size_t rule;       /* index into KvPolicy.rules: all layers that it holds for, */
    bool local;        /* of those that look back on few tokens, or of the others */
    size_t store;      /* KV_SINK, KV_TIER(t), or KV_MOMENTS */
    size_t begin, end; /* positions */
    size_t n_decisive; /* tokens, from the first on, that decide what is in it: `end`, or some more */
    size_t size_bytes;
} KvPiece;

/* How bytes come out of a cache's memory and into it, where that is a device's; NULL functions: it is the host's. */
typedef struct KvMemory {
    void *user;
    int (*read)(void *user, void *host, const void *from, size_t size_bytes, Error *error);
    int (*write)(void *user, void *to, const void *host, size_t size_bytes, Error *error);
} KvMemory;

/* The pieces of the state after n_tokens, oldest store last; `pieces` NULL: only how many there are. */
size_t kv_pieces(const KvCacheLayout *layout, size_t n_tokens, KvPiece *pieces);

/* Copies a piece of the state as it is now: of kv_pieces(&cache->layout, cache->n_tokens). */
int kv_piece_save(const KvCache *cache, const KvPiece *piece, const KvMemory *memory, uint8_t *bytes, Error *error);

/* Puts a piece of the state after n_tokens where it belongs; whatever the cache held counts for nothing until
 * kvcache_resume(). */
int kv_piece_load(KvCache *cache, size_t n_tokens, const KvPiece *piece, const KvMemory *memory, const uint8_t *bytes,
                  Error *error);

/* Of the bits of a state: raised whenever a codec, a backend's form of records or the order within a piece changes, for
 * states outlive the program. tests/test_snapshot.c notices. */
#define KV_STATE_VERSION 3

/* What states must have in common to be exchanged, as lines of text: policy, shape, version. `computed_by` names the
 * model and the device, which decides the form of records: "model 0123…\ncpu avx2, batches of 128". malloc'd; NULL out
 * of memory. */
char *kv_state_identity(const KvCacheLayout *layout, const char *computed_by);

#endif

/* Bytes under hashes of 128 bits, in memory and on disk, for as long as they are fresh and there is room: time to live,
 * the least recently used evicted first, caps in bytes that hold at every moment. Knows nothing of caches and models.
 *
 *     PrefixStore *store;
 *     if (prefix_store_open(&store, &options, &error) < 0) …
 *     prefix_store_put(store, items, n_items);                                  // all of them, or none
 *     if (prefix_store_get(store, &key, &bytes, &size_bytes) == PREFIX_HIT) …   // valid until the next call
 *     prefix_store_close(store);
 *
 * Nothing that goes wrong here is an error of the program: what cannot be stored is a note, and what cannot be had is a
 * miss, with its reason. Not for several threads; for several processes at once, where there is a folder. */
#ifndef STOWKV_PREFIX_STORE_H
#define STOWKV_PREFIX_STORE_H

#include "kvcache/prefix/disk_tier.h"
#include "kvcache/prefix/memory_tier.h"

typedef struct PrefixStoreOptions {
    const char *folder;              /* of the disk tier; NULL: memory alone */
    size_t disk_bytes, memory_bytes; /* caps; 0 in memory: none is kept there */
    uint64_t ttl_ms;                 /* from when an entry was stored, or stored again */
    bool clear;                      /* begin with an empty file */
    uint64_t (*now)(void *user);     /* milliseconds; NULL: the system's clock */
    PrefixNote *note;                /* NULL: no notes */
    void *user;                      /* for both */
} PrefixStoreOptions;

typedef enum PrefixFound {
    PREFIX_HIT,
    PREFIX_ABSENT, /* never stored, or evicted */
    PREFIX_EXPIRED,
    PREFIX_DAMAGED,   /* its checksum is another's: it is removed */
    PREFIX_TRUNCATED, /* it is not as long as it was: likewise */
    PREFIX_FOUND_COUNT
} PrefixFound;

typedef struct PrefixStoreStats {
    size_t found[PREFIX_FOUND_COUNT]; /* calls of prefix_store_get() that ended so */
    size_t from_memory;               /* of the hits */
    size_t n_stored, n_refused;       /* items */
    size_t memory_bytes, memory_entries, memory_evicted;
    size_t expired; /* swept, in both tiers */
    DiskTierStats disk;
} PrefixStoreStats;

typedef struct PrefixStore PrefixStore;

/* Errors: a folder that cannot be used, no memory. */
int prefix_store_open(PrefixStore **out, const PrefixStoreOptions *options, Error *error);
void prefix_store_close(PrefixStore *store); /* NULL is fine */

/* The bytes have been checked; they lie in the store's memory until its next call. */
PrefixFound prefix_store_get(PrefixStore *store, const PrefixKey *key, const uint8_t **bytes, size_t *size_bytes);

/* Whether it is there and fresh, and the checksum that it was stored with; of its bytes nothing is read. No use, and
 * not counted. */
PrefixFound prefix_store_peek(PrefixStore *store, const PrefixKey *key, uint64_t *checksum);

/* Whether a put may leave the bytes out: it is there and fresh, on disk as long as there is one; else as peek(). */
bool prefix_store_keeps(PrefixStore *store, const PrefixKey *key, uint64_t *checksum);

/* Where `bytes` of an item is NULL, the entry must be there, and is as good as stored now. False: a tier that there is
 * has not taken them. */
bool prefix_store_put(PrefixStore *store, const PrefixItem *items, size_t n_items);
void prefix_store_remove(PrefixStore *store, const PrefixKey *key);
void prefix_store_sweep(PrefixStore *store); /* removes what has expired; puts do too */
void prefix_store_stats(PrefixStore *store, PrefixStoreStats *out);

#endif

/* Entries in memory, the least recently used of them evicted before a further one would exceed the cap. A look-up is
 * one step of a hash table, however many entries there are. */
#ifndef STOWKV_PREFIX_MEMORY_TIER_H
#define STOWKV_PREFIX_MEMORY_TIER_H

#include "kvcache/prefix/entry.h"

typedef struct MemoryEntry MemoryEntry;
struct MemoryEntry {
    MemoryEntry *chain;         /* the next of the same bucket */
    MemoryEntry *newer, *older; /* by last use */
    PrefixKey key;
    uint64_t created; /* ms */
    uint64_t checksum;
    size_t size_bytes;
    uint8_t bytes[];
};

typedef struct MemoryTier {
    MemoryEntry **buckets; /* (n_buckets) */
    size_t n_buckets;      /* a power of two */
    MemoryEntry *newest, *oldest;
    size_t cap_bytes;
    size_t used_bytes; /* entries with what they need beside their bytes; never more than the cap */
    size_t n_entries, n_evicted, n_expired;
} MemoryTier;

/* False: no memory for the table. A cap of 0 keeps nothing. */
bool memory_tier_open(MemoryTier *tier, size_t cap_bytes);
void memory_tier_close(MemoryTier *tier); /* closing twice is fine */

/* The entry, not yet checked; NULL where there is none. find(): its last use is now. */
MemoryEntry *memory_tier_look_up(const MemoryTier *tier, const PrefixKey *key);
MemoryEntry *memory_tier_find(MemoryTier *tier, const PrefixKey *key);

/* A new entry in place of one of the same key, evicting what it needs; its bytes are for the caller to fill. NULL where
 * it is larger than the cap or memory is short. */
MemoryEntry *memory_tier_add(MemoryTier *tier, const PrefixKey *key, size_t size_bytes, uint64_t now);
void memory_tier_remove(MemoryTier *tier, MemoryEntry *entry);

/* Removes all entries that have expired. */
void memory_tier_sweep(MemoryTier *tier, uint64_t now, uint64_t ttl_ms);

#endif

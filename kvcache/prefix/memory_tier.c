/* See memory_tier.h. */
#include "kvcache/prefix/memory_tier.h"

#include <stdlib.h>

enum { MOST_BUCKETS = 1 << 18, BYTES_A_BUCKET = 512 };

static size_t entry_bytes(size_t size_bytes) {
    return sizeof(MemoryEntry) + size_bytes;
}

bool memory_tier_open(MemoryTier *tier, size_t cap_bytes) {
    *tier = (MemoryTier){.n_buckets = 64, .cap_bytes = cap_bytes};
    while (tier->n_buckets < MOST_BUCKETS && tier->n_buckets * BYTES_A_BUCKET < cap_bytes)
        tier->n_buckets *= 2;
    tier->buckets = calloc(tier->n_buckets, sizeof(MemoryEntry *));
    return tier->buckets != NULL;
}

void memory_tier_close(MemoryTier *tier) {
    while (tier->oldest != NULL)
        memory_tier_remove(tier, tier->oldest);
    free(tier->buckets);
    *tier = (MemoryTier){0};
}

static MemoryEntry **bucket_of(const MemoryTier *tier, const PrefixKey *key) {
    return &tier->buckets[key->words[0] & (tier->n_buckets - 1)];
}

static void unlink_use(MemoryTier *tier, MemoryEntry *entry) {
    *(entry->newer != NULL ? &entry->newer->older : &tier->newest) = entry->older;
    *(entry->older != NULL ? &entry->older->newer : &tier->oldest) = entry->newer;
}

static void link_newest(MemoryTier *tier, MemoryEntry *entry) {
    entry->newer = NULL;
    entry->older = tier->newest;
    *(tier->newest != NULL ? &tier->newest->newer : &tier->oldest) = entry;
    tier->newest = entry;
}

MemoryEntry *memory_tier_look_up(const MemoryTier *tier, const PrefixKey *key) {
    MemoryEntry *entry = *bucket_of(tier, key);
    while (entry != NULL && !prefix_key_equal(&entry->key, key))
        entry = entry->chain;
    return entry;
}

MemoryEntry *memory_tier_find(MemoryTier *tier, const PrefixKey *key) {
    MemoryEntry *entry = memory_tier_look_up(tier, key);
    if (entry != NULL) {
        unlink_use(tier, entry);
        link_newest(tier, entry);
    }
    return entry;
}

void memory_tier_remove(MemoryTier *tier, MemoryEntry *entry) {
    MemoryEntry **at = bucket_of(tier, &entry->key);
    while (*at != entry)
        at = &(*at)->chain;
    *at = entry->chain;
    unlink_use(tier, entry);
    tier->used_bytes -= entry_bytes(entry->size_bytes);
    tier->n_entries--;
    free(entry);
}

MemoryEntry *memory_tier_add(MemoryTier *tier, const PrefixKey *key, size_t size_bytes, uint64_t now) {
    MemoryEntry *old = memory_tier_look_up(tier, key);
    if (old != NULL)
        memory_tier_remove(tier, old);
    if (tier->cap_bytes < sizeof(MemoryEntry) || size_bytes > tier->cap_bytes - sizeof(MemoryEntry))
        return NULL;
    for (; tier->cap_bytes - tier->used_bytes < entry_bytes(size_bytes); tier->n_evicted++)
        memory_tier_remove(tier, tier->oldest);
    MemoryEntry *entry = malloc(entry_bytes(size_bytes)), **bucket = bucket_of(tier, key);
    if (entry == NULL)
        return NULL;
    entry->key = *key;
    entry->created = now;
    entry->size_bytes = size_bytes;
    entry->chain = *bucket;
    *bucket = entry;
    link_newest(tier, entry);
    tier->used_bytes += entry_bytes(size_bytes);
    tier->n_entries++;
    return entry;
}

void memory_tier_sweep(MemoryTier *tier, uint64_t now, uint64_t ttl_ms) {
    for (MemoryEntry *entry = tier->newest, *older; entry != NULL; entry = older) {
        older = entry->older;
        if (prefix_expired(entry->created, now, ttl_ms)) {
            memory_tier_remove(tier, entry);
            tier->n_expired++;
        }
    }
}

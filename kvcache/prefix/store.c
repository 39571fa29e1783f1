/* See store.h. */
#include "kvcache/prefix/store.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <xxhash.h>

struct PrefixStore {
    PrefixStoreOptions options;
    MemoryTier memory;
    DiskTier *disk; /* NULL: none */
    uint8_t *bytes; /* of an entry of the disk that memory does not keep */
    size_t bytes_size;
    PrefixStoreStats stats;
};

uint64_t prefix_checksum(const PrefixKey *key, const uint8_t *bytes, size_t size_bytes) {
    return XXH3_64bits_withSeed(bytes, size_bytes, key->words[0] ^ key->words[1]);
}

static uint64_t system_now(void *user) {
    struct timespec now;
    (void)user;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static uint64_t now_of(const PrefixStore *store) {
    return store->options.now(store->options.user);
}

int prefix_store_open(PrefixStore **out, const PrefixStoreOptions *options, Error *error) {
    PrefixStore *store = calloc(1, sizeof *store);
    *out = NULL;
    if (store == NULL)
        return error_memory(error, "the prefix cache", sizeof *store);
    store->options = *options;
    if (store->options.now == NULL)
        store->options.now = system_now;
    const DiskTierOptions disk = {options->folder, options->disk_bytes, options->ttl_ms,
                                  options->clear,  options->note,       options->user};
    int status = memory_tier_open(&store->memory, options->memory_bytes)
                     ? 0
                     : error_memory(error, "the prefix cache's table", options->memory_bytes);
    if (status == 0 && options->folder != NULL)
        status = disk_tier_open(&store->disk, &disk, error);
    if (status == 0)
        *out = store;
    else
        prefix_store_close(store);
    return status;
}

void prefix_store_close(PrefixStore *store) {
    if (store == NULL)
        return;
    memory_tier_close(&store->memory);
    disk_tier_close(store->disk);
    free(store->bytes);
    free(store);
}

/* ---- Getting */

static PrefixFound find_in_memory(PrefixStore *store, const PrefixKey *key, uint64_t now, const uint8_t **bytes,
                                  size_t *size_bytes) {
    MemoryEntry *entry = memory_tier_find(&store->memory, key);
    if (entry == NULL)
        return PREFIX_ABSENT;
    bool expired = prefix_expired(entry->created, now, store->options.ttl_ms);
    if (!expired && prefix_checksum(key, entry->bytes, entry->size_bytes) == entry->checksum) {
        *bytes = entry->bytes;
        *size_bytes = entry->size_bytes;
        return PREFIX_HIT;
    }
    memory_tier_remove(&store->memory, entry);
    store->memory.n_expired += expired;
    return expired ? PREFIX_EXPIRED : PREFIX_DAMAGED;
}

/* Memory for a copy: of the memory tier, or else of the store. */
static uint8_t *place_for(PrefixStore *store, const PrefixKey *key, size_t size_bytes, uint64_t created,
                          uint64_t checksum, MemoryEntry **entry) {
    *entry = memory_tier_add(&store->memory, key, size_bytes, created);
    if (*entry != NULL) {
        (*entry)->checksum = checksum;
        return (*entry)->bytes;
    }
    if (size_bytes > store->bytes_size) {
        uint8_t *grown = realloc(store->bytes, size_bytes);
        if (grown == NULL)
            return NULL;
        store->bytes = grown;
        store->bytes_size = size_bytes;
    }
    return store->bytes;
}

/* The copy is what is checked: another process may write to the file. */
static PrefixFound take_from_disk(PrefixStore *store, const PrefixKey *key, uint64_t now, const uint8_t **bytes,
                                  size_t *size_bytes) {
    const uint8_t *mapped;
    uint64_t checksum, created;
    MemoryEntry *entry;
    DiskFound found = disk_tier_find(store->disk, key, now, &mapped, size_bytes, &checksum, &created);
    if (found != DISK_FOUND)
        return found == DISK_EXPIRED ? PREFIX_EXPIRED : found == DISK_TRUNCATED ? PREFIX_TRUNCATED : PREFIX_ABSENT;
    uint8_t *copy = place_for(store, key, *size_bytes, created, checksum, &entry);
    if (copy == NULL && *size_bytes > 0)
        return PREFIX_ABSENT;
    if (*size_bytes > 0)
        memcpy(copy, mapped, *size_bytes);
    *bytes = copy;
    if (prefix_checksum(key, copy, *size_bytes) == checksum)
        return PREFIX_HIT;
    if (entry != NULL)
        memory_tier_remove(&store->memory, entry);
    return PREFIX_DAMAGED;
}

static PrefixFound find_on_disk(PrefixStore *store, const PrefixKey *key, uint64_t now, const uint8_t **bytes,
                                size_t *size_bytes) {
    PrefixFound found = take_from_disk(store, key, now, bytes, size_bytes);
    disk_tier_release(store->disk);
    if (found == PREFIX_DAMAGED || found == PREFIX_TRUNCATED)
        disk_tier_remove(store->disk, key);
    return found;
}

PrefixFound prefix_store_get(PrefixStore *store, const PrefixKey *key, const uint8_t **bytes, size_t *size_bytes) {
    uint64_t now = now_of(store);
    PrefixFound found = find_in_memory(store, key, now, bytes, size_bytes);
    store->stats.from_memory += found == PREFIX_HIT;
    if (found == PREFIX_HIT && store->disk != NULL)
        disk_tier_used(store->disk, key);
    if (found != PREFIX_HIT && store->disk != NULL) {
        PrefixFound on_disk = find_on_disk(store, key, now, bytes, size_bytes);
        found = on_disk == PREFIX_ABSENT ? found : on_disk;
    }
    store->stats.found[found]++;
    return found;
}

static PrefixFound peek_in_memory(const PrefixStore *store, const PrefixKey *key, uint64_t now, uint64_t *checksum) {
    const MemoryEntry *entry = memory_tier_look_up(&store->memory, key);
    if (entry == NULL)
        return PREFIX_ABSENT;
    *checksum = entry->checksum;
    return prefix_expired(entry->created, now, store->options.ttl_ms) ? PREFIX_EXPIRED : PREFIX_HIT;
}

PrefixFound prefix_store_peek(PrefixStore *store, const PrefixKey *key, uint64_t *checksum) {
    uint64_t now = now_of(store);
    PrefixFound in_memory = peek_in_memory(store, key, now, checksum);
    if (in_memory == PREFIX_HIT || store->disk == NULL)
        return in_memory;
    DiskFound found = disk_tier_peek(store->disk, key, now, checksum);
    return found == DISK_FOUND ? PREFIX_HIT : found == DISK_EXPIRED ? PREFIX_EXPIRED : in_memory;
}

bool prefix_store_keeps(PrefixStore *store, const PrefixKey *key, uint64_t *checksum) {
    uint64_t now = now_of(store);
    return store->disk != NULL && disk_tier_works(store->disk)
               ? disk_tier_peek(store->disk, key, now, checksum) == DISK_FOUND
               : peek_in_memory(store, key, now, checksum) == PREFIX_HIT;
}

/* ---- Putting */

static bool renew_in_memory(PrefixStore *store, const PrefixKey *key, uint64_t now) {
    MemoryEntry *entry = memory_tier_find(&store->memory, key);
    if (entry != NULL)
        entry->created = now;
    return entry != NULL;
}

static bool keep_in_memory(PrefixStore *store, const PrefixItem *item, uint64_t now) {
    if (item->bytes == NULL)
        return renew_in_memory(store, &item->key, now);
    MemoryEntry *entry = memory_tier_add(&store->memory, &item->key, item->size_bytes, now);
    if (entry == NULL)
        return false;
    if (item->size_bytes > 0)
        memcpy(entry->bytes, item->bytes, item->size_bytes);
    entry->checksum = prefix_checksum(&item->key, item->bytes, item->size_bytes);
    return true;
}

static void note_too_large(const PrefixStore *store) {
    if (store->options.note != NULL)
        store->options.note(store->options.user,
                            "a part of a prefix is larger than the prefix cache's memory; it is not kept");
}

bool prefix_store_put(PrefixStore *store, const PrefixItem *items, size_t n_items) {
    uint64_t now = now_of(store);
    memory_tier_sweep(&store->memory, now, store->options.ttl_ms);
    bool on_disk = store->disk != NULL && disk_tier_put(store->disk, items, n_items, now), all = true;
    for (size_t i = 0; i < n_items; i++) {
        bool kept = keep_in_memory(store, &items[i], now) || on_disk;
        store->stats.n_stored += kept && items[i].bytes != NULL;
        store->stats.n_refused += !kept;
        if (!kept && items[i].bytes != NULL && store->disk == NULL)
            note_too_large(store);
        all = all && kept;
    }
    return all && (on_disk || store->disk == NULL);
}

void prefix_store_remove(PrefixStore *store, const PrefixKey *key) {
    MemoryEntry *entry = memory_tier_find(&store->memory, key);
    if (entry != NULL)
        memory_tier_remove(&store->memory, entry);
    if (store->disk != NULL)
        disk_tier_remove(store->disk, key);
}

void prefix_store_sweep(PrefixStore *store) {
    memory_tier_sweep(&store->memory, now_of(store), store->options.ttl_ms);
    if (store->disk != NULL)
        disk_tier_sweep(store->disk, now_of(store));
}

void prefix_store_stats(PrefixStore *store, PrefixStoreStats *out) {
    *out = store->stats;
    out->memory_bytes = store->memory.used_bytes;
    out->memory_entries = store->memory.n_entries;
    out->memory_evicted = store->memory.n_evicted;
    out->expired = store->memory.n_expired;
    if (store->disk != NULL) {
        disk_tier_stats(store->disk, &out->disk);
        out->expired += out->disk.n_expired;
    }
}

/* What both tiers of the store keep: bytes under a key, with a checksum that depends on the key too. */
#ifndef STOWKV_PREFIX_ENTRY_H
#define STOWKV_PREFIX_ENTRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct PrefixKey {
    uint64_t words[2]; /* a hash of 128 bits */
} PrefixKey;

static inline bool prefix_key_equal(const PrefixKey *a, const PrefixKey *b) {
    return a->words[0] == b->words[0] && a->words[1] == b->words[1];
}

typedef struct PrefixItem {
    PrefixKey key;
    const uint8_t *bytes; /* (size_bytes) */
    size_t size_bytes;
} PrefixItem;

/* Whether an entry that was stored at `created` is too old at `now`, all in milliseconds. One from the future, of a
 * clock that was set back, is held to be as old as it is young. */
static inline bool prefix_expired(uint64_t created, uint64_t now, uint64_t ttl_ms) {
    return (now >= created ? now - created : created - now) >= ttl_ms;
}

uint64_t prefix_checksum(const PrefixKey *key, const uint8_t *bytes, size_t size_bytes);

#endif

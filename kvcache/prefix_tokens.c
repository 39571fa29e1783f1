/* See prefix_tokens.h. XXH3 of 128 bits, read off after each token. */
#include "kvcache/prefix_tokens.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

int prefix_tokens_open(PrefixTokens *tokens, Error *error) {
    *tokens = (PrefixTokens){.state = XXH3_createState()};
    return tokens->state != NULL ? 0 : error_memory(error, "hashes", 1024);
}

void prefix_tokens_close(PrefixTokens *tokens) {
    XXH3_freeState(tokens->state);
    free(tokens->identity);
    free(tokens->ids);
    free(tokens->keys);
    *tokens = (PrefixTokens){0};
}

static bool start(PrefixTokens *tokens, const char *identity) {
    char *copy = strdup(identity);
    if (copy == NULL)
        return false;
    free(tokens->identity);
    tokens->identity = copy;
    tokens->n_hashed = 0;
    XXH3_128bits_reset(tokens->state);
    XXH3_128bits_update(tokens->state, copy, strlen(copy) + 1);
    return true;
}

static bool reserve(PrefixTokens *tokens, size_t n_tokens) {
    if (n_tokens <= tokens->capacity)
        return true;
    size_t capacity = n_tokens + n_tokens / 2 + 64;
    int32_t *ids = realloc(tokens->ids, capacity * sizeof *ids);
    tokens->ids = ids != NULL ? ids : tokens->ids;
    PrefixKey *keys = realloc(tokens->keys, capacity * sizeof *keys);
    tokens->keys = keys != NULL ? keys : tokens->keys;
    if (ids == NULL || keys == NULL)
        return false;
    tokens->capacity = capacity;
    return true;
}

static PrefixKey key_from(XXH128_hash_t hash) {
    return (PrefixKey){{hash.low64, hash.high64}};
}

bool prefix_tokens_set(PrefixTokens *tokens, const char *identity, const int32_t *ids, size_t n_tokens) {
    size_t n_same = n_tokens < tokens->n_hashed ? n_tokens : tokens->n_hashed;
    bool goes_on = tokens->identity != NULL && strcmp(tokens->identity, identity) == 0 &&
                   (n_same == 0 || memcmp(tokens->ids, ids, n_same * sizeof *ids) == 0);
    if (!reserve(tokens, n_tokens) || (!goes_on && !start(tokens, identity)))
        return false;
    for (size_t i = tokens->n_hashed; i < n_tokens; i++) {
        tokens->ids[i] = ids[i];
        XXH3_128bits_update(tokens->state, &ids[i], sizeof ids[i]);
        tokens->keys[i] = key_from(XXH3_128bits_digest(tokens->state));
        tokens->n_hashed = i + 1;
    }
    return true;
}

PrefixKey prefix_key_of(int kind, const PrefixKey *tokens, const uint64_t *place, size_t n_place) {
    uint64_t words[12] = {(uint64_t)kind, tokens->words[0], tokens->words[1]};
    for (size_t i = 0; i < n_place; i++)
        words[3 + i] = place[i];
    return key_from(XXH3_128bits(words, sizeof words));
}

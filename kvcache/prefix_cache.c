/* See prefix_cache.h. */
#include "kvcache/prefix_cache.h"

#include "base/checked.h"
#include "base/machine/clock.h"
#include "kvcache/prefix_tokens.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct PrefixCache {
    PrefixStore *store;
    PrefixTokens tokens; /* hashes of what was asked for last */
    PrefixCacheStats stats;
};

/* What a state is, beside its pieces: an entry of this, the identity, the tokens, a checksum for each piece in the
 * order of kv_pieces(), the logits. */
typedef struct Head {
    uint64_t n_tokens, n_pieces, n_logits, identity_bytes;
    double seconds;
} Head;

enum { KEY_HEAD, KEY_PIECE, KEY_LAYER, KEY_IDENTITIES };

static const char *const MISS_NAMES[MISS_COUNT] = {
    "not stored", "of another model or policy", "expired", "evicted", "damaged", "truncated", "other tokens"};

const char *prefix_miss_name(PrefixMiss reason) {
    return MISS_NAMES[reason];
}

int prefix_cache_open(PrefixCache **out, const PrefixStoreOptions *options, Error *error) {
    PrefixCache *prefixes = calloc(1, sizeof *prefixes);
    *out = NULL;
    if (prefixes == NULL)
        return error_memory(error, "the prefix cache", sizeof *prefixes);
    if (prefix_store_open(&prefixes->store, options, error) < 0 || prefix_tokens_open(&prefixes->tokens, error) < 0) {
        prefix_cache_close(prefixes);
        return error->code;
    }
    *out = prefixes;
    return 0;
}

void prefix_cache_close(PrefixCache *prefixes) {
    if (prefixes == NULL)
        return;
    prefix_tokens_close(&prefixes->tokens);
    prefix_store_close(prefixes->store);
    free(prefixes);
}

void prefix_cache_stats(PrefixCache *prefixes, PrefixCacheStats *out) {
    *out = prefixes->stats;
    prefix_store_stats(prefixes->store, &out->store);
}

static PrefixMiss miss_of(PrefixFound found, PrefixMiss absent) {
    switch (found) {
    case PREFIX_EXPIRED:
        return MISS_EXPIRED;
    case PREFIX_DAMAGED:
        return MISS_DAMAGED;
    case PREFIX_TRUNCATED:
        return MISS_TRUNCATED;
    default:
        return absent;
    }
}

/* ---- Identities that were stored, so that a miss can say what differs: texts, each behind its zero */

enum { MOST_IDENTITIES_BYTES = 16384 };

static PrefixKey identities_key(void) {
    return prefix_key_of(KEY_IDENTITIES, &(PrefixKey){{0, 0}}, NULL, 0);
}

static bool get_identities(PrefixCache *prefixes, const char **texts, size_t *size_bytes) {
    const PrefixKey key = identities_key();
    const uint8_t *bytes;
    if (prefix_store_get(prefixes->store, &key, &bytes, size_bytes) != PREFIX_HIT || *size_bytes == 0 ||
        bytes[*size_bytes - 1] != '\0')
        return false;
    *texts = (const char *)bytes;
    return true;
}

static bool has_identity(const char *texts, size_t size_bytes, const char *identity) {
    for (size_t at = 0; at < size_bytes; at += strlen(texts + at) + 1)
        if (strcmp(texts + at, identity) == 0)
            return true;
    return false;
}

/* The new one in front; the oldest go. */
static void add_identity(PrefixCache *prefixes, const char *identity) {
    const char *texts = "";
    size_t size_bytes = 0, own = strlen(identity) + 1;
    bool there = get_identities(prefixes, &texts, &size_bytes);
    if (own > MOST_IDENTITIES_BYTES || (there && has_identity(texts, size_bytes, identity)))
        return;
    char *all = malloc(MOST_IDENTITIES_BYTES);
    if (all == NULL)
        return;
    memcpy(all, identity, own);
    for (size_t at = 0; there && at < size_bytes; at += strlen(texts + at) + 1) {
        size_t next = strlen(texts + at) + 1;
        if (next > MOST_IDENTITIES_BYTES - own)
            break;
        memcpy(all + own, texts + at, next);
        own += next;
    }
    prefix_store_put(prefixes->store, &(PrefixItem){identities_key(), (const uint8_t *)all, own}, 1);
    free(all);
}

/* The first line in which a stored identity differs from ours. */
static void say_difference(const char *theirs, const char *ours, char *out, size_t size) {
    while (*theirs != '\0' && *ours != '\0') {
        int a = (int)strcspn(theirs, "\n"), b = (int)strcspn(ours, "\n");
        if (a != b || strncmp(theirs, ours, (size_t)a) != 0) {
            snprintf(out, size, "what is stored is of %.*s, this run of %.*s", a, theirs, b, ours);
            return;
        }
        theirs += a + (theirs[a] != '\0');
        ours += b + (ours[b] != '\0');
    }
}

static PrefixMiss explain_absence(PrefixCache *prefixes, const char *identity, char *out, size_t size) {
    const char *texts;
    size_t size_bytes;
    if (!get_identities(prefixes, &texts, &size_bytes) || has_identity(texts, size_bytes, identity)) {
        snprintf(out, size, "no beginning of these tokens is stored");
        return MISS_ABSENT;
    }
    say_difference(texts, identity, out, size);
    return MISS_IDENTITY;
}

/* ---- Keys */

static PrefixKey head_key(const PrefixTokens *tokens, size_t n_tokens) {
    return prefix_key_of(KEY_HEAD, &tokens->keys[n_tokens - 1], NULL, 0);
}

static PrefixKey piece_key(const PrefixTokens *tokens, const KvPiece *piece) {
    const uint64_t place[] = {piece->rule, piece->local, piece->store, piece->begin, piece->end};
    return prefix_key_of(KEY_PIECE, &tokens->keys[piece->n_decisive - 1], place, sizeof place / sizeof *place);
}

/* ---- Restoring */

/* A head's parts, in the store's memory. */
typedef struct HeadParts {
    Head head;
    const uint8_t *checksums, *logits;
} HeadParts;

/* False where the entry is not this state's: of another identity, of other tokens, of another length. */
static bool read_head(const uint8_t *bytes, size_t size_bytes, const PrefixTokens *tokens, size_t n_tokens,
                      size_t n_pieces, HeadParts *out) {
    size_t identity_bytes = strlen(tokens->identity), token_bytes = n_tokens * sizeof *tokens->ids, rest;
    if (size_bytes < sizeof out->head)
        return false;
    memcpy(&out->head, bytes, sizeof out->head);
    const uint8_t *identity = bytes + sizeof out->head, *ids = identity + identity_bytes;
    if (out->head.n_tokens != n_tokens || out->head.n_pieces != n_pieces ||
        out->head.identity_bytes != identity_bytes || !checked_mul(out->head.n_logits, sizeof(float), &rest))
        return false;
    size_t before = sizeof out->head + identity_bytes + token_bytes + n_pieces * sizeof(uint64_t);
    if (size_bytes < before || size_bytes - before != rest)
        return false;
    out->checksums = ids + token_bytes;
    out->logits = out->checksums + n_pieces * sizeof(uint64_t);
    return memcmp(identity, tokens->identity, identity_bytes) == 0 && memcmp(ids, tokens->ids, token_bytes) == 0;
}

/* A state that is to be restored, or was. */
typedef struct Restoring {
    PrefixCache *prefixes;
    KvCache *cache;
    const KvMemory *memory;
    KvPiece *pieces; /* (n_pieces) */
    size_t n_pieces, n_tokens;
    uint64_t *checksums; /* (n_pieces) */
    size_t bytes;
    double seconds;    /* that it took once */
    bool needs_logits; /* it is of no use without */
    bool useless;      /* it has none */
} Restoring;

static bool load_pieces(Restoring *r, PrefixMiss *miss) {
    for (size_t i = 0; i < r->n_pieces; i++) {
        const KvPiece *piece = &r->pieces[i];
        const PrefixKey key = piece_key(&r->prefixes->tokens, piece);
        const uint8_t *bytes;
        size_t size_bytes;
        PrefixFound found = prefix_store_get(r->prefixes->store, &key, &bytes, &size_bytes);
        *miss = miss_of(found, MISS_EVICTED);
        if (found != PREFIX_HIT)
            return false;
        *miss = size_bytes == piece->size_bytes ? MISS_DAMAGED : MISS_TRUNCATED;
        if (size_bytes != piece->size_bytes || prefix_checksum(&key, bytes, size_bytes) != r->checksums[i] ||
            kv_piece_load(r->cache, r->n_tokens, piece, r->memory, bytes, NULL) < 0)
            return false;
        r->bytes += size_bytes;
    }
    return true;
}

/* The state after n_tokens, whose head is there. */
static bool restore_state(Restoring *r, float *logits, size_t n_logits, PrefixRestored *out) {
    const PrefixTokens *tokens = &r->prefixes->tokens;
    const PrefixKey key = head_key(tokens, r->n_tokens);
    const uint8_t *bytes;
    size_t size_bytes;
    HeadParts parts;
    PrefixFound found = prefix_store_get(r->prefixes->store, &key, &bytes, &size_bytes);
    out->miss = miss_of(found, MISS_EVICTED);
    if (found != PREFIX_HIT)
        return false;
    out->miss = MISS_OTHER_TOKENS;
    if (!read_head(bytes, size_bytes, tokens, r->n_tokens, r->n_pieces, &parts))
        return false;
    out->has_logits = logits != NULL && parts.head.n_logits == n_logits && n_logits > 0;
    if (out->has_logits)
        memcpy(logits, parts.logits, n_logits * sizeof *logits);
    r->useless = r->needs_logits && !out->has_logits;
    if (r->useless)
        return false;
    r->seconds = parts.head.seconds;
    memcpy(r->checksums, parts.checksums, r->n_pieces * sizeof *r->checksums);
    return load_pieces(r, &out->miss);
}

/* Tries one length. Where parts of a state are gone its head goes too. */
static bool try_length(Restoring *r, size_t n_tokens, float *logits, size_t n_logits, PrefixRestored *out) {
    const PrefixKey key = head_key(&r->prefixes->tokens, n_tokens);
    uint64_t checksum;
    PrefixFound found = prefix_store_peek(r->prefixes->store, &key, &checksum);
    if (found == PREFIX_EXPIRED)
        out->miss = MISS_EXPIRED;
    if (found != PREFIX_HIT)
        return false;
    r->n_tokens = n_tokens;
    r->n_pieces = kv_pieces(&r->cache->layout, n_tokens, NULL);
    r->pieces = malloc(r->n_pieces * sizeof *r->pieces);
    r->checksums = malloc(r->n_pieces * sizeof *r->checksums);
    bool restored = r->pieces != NULL && r->checksums != NULL;
    if (restored) {
        kv_pieces(&r->cache->layout, n_tokens, r->pieces);
        restored = restore_state(r, logits, n_logits, out);
    }
    free(r->pieces);
    free(r->checksums);
    if (!restored && !r->useless)
        prefix_store_remove(r->prefixes->store, &key);
    return restored;
}

static void count_restored(PrefixCache *prefixes, const Restoring *r, double start) {
    PrefixCacheStats *stats = &prefixes->stats;
    double seconds = clock_seconds() - start;
    stats->n_hits++;
    stats->tokens_restored += r->n_tokens;
    stats->bytes_restored += r->bytes;
    stats->seconds_restoring += seconds;
    stats->seconds_saved += r->seconds - seconds;
}

/* A state that came in part may have left moments. */
static size_t miss(PrefixCache *prefixes, const char *identity, KvCache *cache, PrefixRestored *out) {
    kvcache_clear(cache);
    if (out->miss == MISS_ABSENT)
        out->miss = explain_absence(prefixes, identity, out->reason, sizeof out->reason);
    else
        snprintf(out->reason, sizeof out->reason, "what is stored of these tokens is %s", MISS_NAMES[out->miss]);
    prefixes->stats.n_misses++;
    prefixes->stats.misses[out->miss]++;
    return 0;
}

size_t prefix_cache_restore(PrefixCache *prefixes, const char *identity, KvCache *cache, const KvMemory *memory,
                            const int32_t *tokens, size_t n_tokens, float *logits, size_t n_logits,
                            PrefixRestored *out) {
    double start = clock_seconds();
    Restoring r = {.prefixes = prefixes, .cache = cache, .memory = memory};
    *out = (PrefixRestored){.miss = MISS_ABSENT};
    kvcache_clear(cache); /* all of its room counts */
    if (!prefix_tokens_set(&prefixes->tokens, identity, tokens, n_tokens))
        return miss(prefixes, identity, cache, out);
    for (size_t n = n_tokens; n > 0; n--) {
        r.needs_logits = n == n_tokens;
        if (!kvcache_has_room(cache, n) || !try_length(&r, n, logits, n_logits, out))
            continue;
        kvcache_resume(cache, n);
        count_restored(prefixes, &r, start);
        out->n_tokens = n;
        out->seconds = r.seconds;
        out->has_logits = out->has_logits && n == n_tokens;
        return n;
    }
    return miss(prefixes, identity, cache, out);
}

/* ---- Saving */

typedef struct Saving {
    PrefixItem *items;   /* (n_pieces + 1), the head last */
    uint64_t *checksums; /* (n_pieces) */
    KvPiece *pieces;
    size_t n_pieces;
    uint8_t *bytes; /* of the pieces that are new */
    uint8_t *head;
} Saving;

static void free_saving(Saving *s) {
    free(s->items);
    free(s->checksums);
    free(s->pieces);
    free(s->bytes);
    free(s->head);
}

/* Which pieces are there already; returns the bytes of the others, or SIZE_MAX out of memory. */
static size_t find_pieces(PrefixCache *prefixes, const KvCacheLayout *layout, size_t n_tokens, Saving *s) {
    size_t new_bytes = 0;
    s->n_pieces = kv_pieces(layout, n_tokens, NULL);
    s->pieces = malloc(s->n_pieces * sizeof *s->pieces);
    s->checksums = calloc(s->n_pieces, sizeof *s->checksums);
    s->items = calloc(s->n_pieces + 1, sizeof *s->items);
    if (s->pieces == NULL || s->checksums == NULL || s->items == NULL)
        return SIZE_MAX;
    kv_pieces(layout, n_tokens, s->pieces);
    for (size_t i = 0; i < s->n_pieces; i++) {
        s->items[i].key = piece_key(&prefixes->tokens, &s->pieces[i]);
        if (prefix_store_keeps(prefixes->store, &s->items[i].key, &s->checksums[i]))
            continue;
        s->items[i].size_bytes = s->pieces[i].size_bytes;
        new_bytes += s->pieces[i].size_bytes;
    }
    return new_bytes;
}

static bool copy_pieces(const KvCache *cache, const KvMemory *memory, size_t new_bytes, Saving *s) {
    uint8_t *at = s->bytes = malloc(new_bytes + 1);
    for (size_t i = 0; i < s->n_pieces && at != NULL; i++) {
        PrefixItem *item = &s->items[i];
        if (item->size_bytes == 0)
            continue;
        if (kv_piece_save(cache, &s->pieces[i], memory, at, NULL) < 0)
            return false;
        item->bytes = at;
        s->checksums[i] = prefix_checksum(&item->key, at, item->size_bytes);
        at += item->size_bytes;
    }
    return s->bytes != NULL;
}

static bool make_head(const PrefixTokens *tokens, size_t n_tokens, const float *logits, size_t n_logits, double seconds,
                      Saving *s) {
    const Head head = {n_tokens, s->n_pieces, logits != NULL ? n_logits : 0, strlen(tokens->identity), seconds};
    const struct {
        const void *bytes;
        size_t size_bytes;
    } parts[] = {{&head, sizeof head},
                 {tokens->identity, head.identity_bytes},
                 {tokens->ids, n_tokens * sizeof *tokens->ids},
                 {s->checksums, s->n_pieces * sizeof *s->checksums},
                 {logits, head.n_logits * sizeof *logits}};
    PrefixItem *item = &s->items[s->n_pieces];
    item->key = head_key(tokens, n_tokens);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        item->size_bytes += parts[i].size_bytes;
    uint8_t *at = s->head = malloc(item->size_bytes);
    for (size_t i = 0; i < sizeof parts / sizeof *parts && at != NULL; at += parts[i++].size_bytes)
        if (parts[i].size_bytes > 0)
            memcpy(at, parts[i].bytes, parts[i].size_bytes);
    item->bytes = s->head;
    return s->head != NULL;
}

static size_t plain_bytes(const KvShape *shape, size_t n_tokens) {
    return n_tokens * shape->n_layers * shape->n_kv_heads * shape->head_dim * KV_SIDES * sizeof(uint16_t);
}

void prefix_cache_save(PrefixCache *prefixes, const char *identity, const KvCache *cache, const KvMemory *memory,
                       const int32_t *tokens, const float *logits, size_t n_logits, double seconds) {
    Saving s = {0};
    size_t n_tokens = cache->n_tokens;
    if (n_tokens == 0 || !prefix_tokens_set(&prefixes->tokens, identity, tokens, n_tokens))
        return;
    size_t new_bytes = find_pieces(prefixes, &cache->layout, n_tokens, &s);
    if (new_bytes != SIZE_MAX && copy_pieces(cache, memory, new_bytes, &s) &&
        make_head(&prefixes->tokens, n_tokens, logits, n_logits, seconds, &s) &&
        prefix_store_put(prefixes->store, s.items, s.n_pieces + 1)) {
        prefixes->stats.bytes_plain += plain_bytes(&cache->layout.shape, n_tokens);
        prefixes->stats.bytes_stored += new_bytes + s.items[s.n_pieces].size_bytes;
        add_identity(prefixes, identity);
    }
    free_saving(&s);
}

/* ---- Tensors */

/* A layer's entry: the shape, then for keys and values each KV head's groups of 64 tokens. */
static KvGroup group_of(const PrefixTensors *shape, KvCodecId id) {
    KvGroup group = {64, shape->head_dim, 64, false};
    group.head_dim = round_up(shape->head_dim, kv_codec_row_multiple(kv_codec(id), &group));
    group.rotated = shape->rotated && is_power_of_two(group.head_dim);
    return group;
}

static PrefixKey layer_key(const PrefixTokens *tokens, const PrefixTensors *shape, size_t layer) {
    const uint64_t place[] = {layer,    shape->n_tokens, shape->n_kv_heads, shape->head_dim,
                              shape->k, shape->v,        shape->rotated,    KV_STATE_VERSION};
    return prefix_key_of(KEY_LAYER, &tokens->keys[shape->n_tokens - 1], place, sizeof place / sizeof *place);
}

static size_t side_bytes(const PrefixTensors *shape, KvSide side, const KvGroup *group, KvCodecId id) {
    return divide_up(shape->n_tokens, group->n_tokens) * shape->n_kv_heads * kv_codec_bytes(kv_codec(id), side, group);
}

/* Rows behind the last token repeat it, which changes no scale. */
static void gather(const PrefixTensors *shape, const KvGroup *group, size_t head, size_t first, const float *from,
                   float *rows) {
    for (size_t t = 0; t < group->n_tokens; t++) {
        size_t token = at_most(first + t, shape->n_tokens - 1);
        memcpy(rows + t * group->head_dim, from + (token * shape->n_kv_heads + head) * shape->head_dim,
               shape->head_dim * sizeof *rows);
    }
}

static void scatter(const PrefixTensors *shape, const KvGroup *group, size_t head, size_t first, const float *rows,
                    float *to) {
    for (size_t t = 0; t < group->n_tokens && first + t < shape->n_tokens; t++)
        memcpy(to + ((first + t) * shape->n_kv_heads + head) * shape->head_dim, rows + t * group->head_dim,
               shape->head_dim * sizeof *rows);
}

static void encode_side(const PrefixTensors *shape, KvSide side, const KvGroup *group, KvCodecId id, const float *from,
                        float *rows, uint8_t *record) {
    for (size_t head = 0; head < shape->n_kv_heads; head++)
        for (size_t first = 0; first < shape->n_tokens; first += group->n_tokens) {
            gather(shape, group, head, first, from, rows);
            kv_codec_pad(kv_codec(id), group, shape->head_dim, rows);
            kv_codec_encode(kv_codec(id), SIMD_SCALAR, side, group, rows, rows + group->n_tokens * group->head_dim,
                            record);
            record += kv_codec_bytes(kv_codec(id), side, group);
        }
}

static void decode_side(const PrefixTensors *shape, KvSide side, const KvGroup *group, KvCodecId id,
                        const uint8_t *record, float *rows, float *to) {
    for (size_t head = 0; head < shape->n_kv_heads; head++)
        for (size_t first = 0; first < shape->n_tokens; first += group->n_tokens) {
            kv_codec_decoder(kv_codec(id), SIMD_SCALAR)(side, group, record, 0, group->n_tokens, rows);
            if (group->rotated)
                kv_rotate(rows, group->n_tokens, group->head_dim);
            scatter(shape, group, head, first, rows, to);
            record += kv_codec_bytes(kv_codec(id), side, group);
        }
}

int prefix_cache_put_layer(PrefixCache *prefixes, const char *name, const int32_t *tokens, const PrefixTensors *shape,
                           size_t layer, const float *keys, const float *values, Error *error) {
    const KvGroup k = group_of(shape, shape->k), v = group_of(shape, shape->v);
    if (shape->n_tokens == 0 || shape->n_kv_heads == 0 || shape->head_dim == 0)
        return error_set(error, ERROR_ARGUMENT, "a prefix without tokens, heads or elements cannot be stored");
    if (kv_codec_check(kv_codec(shape->k), &k, error) < 0 || kv_codec_check(kv_codec(shape->v), &v, error) < 0)
        return error->code;
    size_t k_bytes = side_bytes(shape, KV_KEYS, &k, shape->k), v_bytes = side_bytes(shape, KV_VALUES, &v, shape->v);
    uint8_t *bytes = malloc(k_bytes + v_bytes);
    float *rows = malloc(4 * k.n_tokens * at_least(k.head_dim, v.head_dim) * sizeof *rows);
    int status = 0;
    if (bytes == NULL || rows == NULL || !prefix_tokens_set(&prefixes->tokens, name, tokens, shape->n_tokens)) {
        status = error_memory(error, "a prefix", k_bytes + v_bytes);
    } else {
        encode_side(shape, KV_KEYS, &k, shape->k, keys, rows, bytes);
        encode_side(shape, KV_VALUES, &v, shape->v, values, rows, bytes + k_bytes);
        PrefixItem item = {layer_key(&prefixes->tokens, shape, layer), bytes, k_bytes + v_bytes};
        if (prefix_store_put(prefixes->store, &item, 1)) {
            prefixes->stats.bytes_plain += shape->n_tokens * shape->n_kv_heads * shape->head_dim * KV_SIDES * 2;
            prefixes->stats.bytes_stored += item.size_bytes;
        }
    }
    free(bytes);
    free(rows);
    return status;
}

bool prefix_cache_get_layer(PrefixCache *prefixes, const char *name, const int32_t *tokens, const PrefixTensors *shape,
                            size_t layer, float *keys, float *values) {
    double start = clock_seconds();
    const KvGroup k = group_of(shape, shape->k), v = group_of(shape, shape->v);
    size_t k_bytes = side_bytes(shape, KV_KEYS, &k, shape->k), size_bytes = 0;
    float *rows = malloc(k.n_tokens * at_least(k.head_dim, v.head_dim) * sizeof *rows);
    const uint8_t *bytes;
    PrefixFound found = PREFIX_ABSENT;
    if (rows != NULL && shape->n_tokens > 0 && prefix_tokens_set(&prefixes->tokens, name, tokens, shape->n_tokens)) {
        const PrefixKey key = layer_key(&prefixes->tokens, shape, layer);
        found = prefix_store_get(prefixes->store, &key, &bytes, &size_bytes);
    }
    bool hit = found == PREFIX_HIT && size_bytes == k_bytes + side_bytes(shape, KV_VALUES, &v, shape->v);
    if (hit) {
        decode_side(shape, KV_KEYS, &k, shape->k, bytes, rows, keys);
        decode_side(shape, KV_VALUES, &v, shape->v, bytes + k_bytes, rows, values);
        prefixes->stats.bytes_restored += size_bytes;
        prefixes->stats.seconds_restoring += clock_seconds() - start;
    } else {
        prefixes->stats.misses[found == PREFIX_HIT ? MISS_TRUNCATED : miss_of(found, MISS_ABSENT)]++;
    }
    *(hit ? &prefixes->stats.n_hits : &prefixes->stats.n_misses) += 1;
    free(rows);
    return hit;
}

int prefix_cache_put_layers(PrefixCache *prefixes, const char *name, const int32_t *tokens, const PrefixTensors *shape,
                            size_t n_layers, const float *keys, const float *values, Error *error) {
    size_t stride = shape->n_tokens * shape->n_kv_heads * shape->head_dim;
    for (size_t i = 0; i < n_layers; i++)
        if (prefix_cache_put_layer(prefixes, name, tokens, shape, i, keys + i * stride, values + i * stride, error) < 0)
            return error->code;
    return 0;
}

bool prefix_cache_get_layers(PrefixCache *prefixes, const char *name, const int32_t *tokens, const PrefixTensors *shape,
                             size_t n_layers, float *keys, float *values) {
    size_t stride = shape->n_tokens * shape->n_kv_heads * shape->head_dim;
    for (size_t i = 0; i < n_layers; i++)
        if (!prefix_cache_get_layer(prefixes, name, tokens, shape, i, keys + i * stride, values + i * stride))
            return false;
    return true;
}

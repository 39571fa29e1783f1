/* See snapshot.h. */
#include "kvcache/snapshot.h"

#include "base/checked.h"
#include "kvcache/policy_text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- What a state consists of */

static bool is_in_layer(const KvCacheLayout *layout, size_t layer, const KvPiece *piece) {
    return layout->layers[layer].rule == piece->rule && layout->layers[layer].local == piece->local;
}

/* The first layer that has the piece; n_layers: none has. */
static size_t layer_of(const KvCacheLayout *layout, const KvPiece *piece) {
    size_t layer = 0;
    while (layer < layout->shape.n_layers && !is_in_layer(layout, layer, piece))
        layer++;
    return layer;
}

static size_t bytes_in_layer(const KvCacheLayout *layout, size_t layer, const KvPiece *piece) {
    const KvLayerLayout *l = &layout->layers[layer];
    if (piece->store == KV_MOMENTS)
        return l->moments.n_slots * layout->shape.n_kv_heads * l->moments.slot_bytes;
    const KvStore *store = &l->stores[piece->store];
    return (piece->end - piece->begin) / store->slot_tokens * layout->shape.n_kv_heads *
           (store->array[KV_KEYS].slot_bytes + store->array[KV_VALUES].slot_bytes);
}

static size_t piece_bytes(const KvCacheLayout *layout, const KvPiece *piece) {
    size_t bytes = 0;
    for (size_t layer = 0; layer < layout->shape.n_layers; layer++)
        if (is_in_layer(layout, layer, piece))
            bytes += bytes_in_layer(layout, layer, piece);
    return bytes;
}

/* Keys that are rounded with queries depend on those up to the token that has the group encoded. */
static size_t decisive_tokens(const KvCacheLayout *layout, const KvPiece *piece) {
    size_t layer = layer_of(layout, piece);
    const KvLayerPolicy *policy = kvcache_layer_policy(layout, layer);
    if (piece->store < KV_FIRST_ENCODED || layout->layers[layer].moments.n_slots == 0)
        return piece->end;
    return kv_plan_arrival(policy, layout->policy.group, piece->store - KV_TIER(0), piece->end - policy->sink);
}

/* Cuts positions [begin, end) of a store where groups behind the sink begin. */
static size_t cut(const KvCacheLayout *layout, const KvPiece *whole, size_t sink, KvPiece *pieces) {
    size_t group = layout->policy.group, n = 0;
    KvPiece piece = *whole;
    for (; piece.begin < whole->end; piece.begin = piece.end, n++) {
        size_t next = piece.begin < sink ? sink : sink + ((piece.begin - sink) / group + 1) * group;
        piece.end = at_most(next, whole->end);
        piece.n_decisive = decisive_tokens(layout, &piece);
        piece.size_bytes = piece_bytes(layout, &piece);
        if (pieces != NULL)
            pieces[n] = piece;
    }
    return n;
}

/* The pieces of all layers that are like this one. */
static size_t pieces_like(const KvCacheLayout *layout, const KvPiece *like, size_t n_tokens, KvPiece *pieces) {
    const KvLayerPolicy *policy = kvcache_layer_policy(layout, layer_of(layout, like));
    KvPlan plan = kv_plan(policy, layout->policy.group, n_tokens);
    KvPiece whole = *like;
    whole.end = plan.n_sink;
    size_t n = cut(layout, &whole, policy->sink, pieces);
    for (size_t tier = 0; tier < plan.n_tiers; tier++) {
        whole.store = KV_TIER(tier);
        whole.begin = kv_plan_begin(&plan, tier);
        whole.end = kv_plan_end(&plan, tier);
        n += cut(layout, &whole, policy->sink, pieces == NULL ? NULL : pieces + n);
    }
    KvPiece moments = {
        .rule = like->rule, .local = like->local, .store = KV_MOMENTS, .end = n_tokens, .n_decisive = n_tokens};
    moments.size_bytes = piece_bytes(layout, &moments);
    if (moments.size_bytes > 0 && pieces != NULL)
        pieces[n] = moments;
    return n + (moments.size_bytes > 0);
}

size_t kv_pieces(const KvCacheLayout *layout, size_t n_tokens, KvPiece *pieces) {
    size_t n = 0;
    for (size_t i = 0; i < 2 * layout->policy.n_rules; i++) {
        const KvPiece like = {.rule = i / 2, .local = i % 2 == 1, .store = KV_SINK};
        if (layer_of(layout, &like) < layout->shape.n_layers)
            n += pieces_like(layout, &like, n_tokens, pieces == NULL ? NULL : pieces + n);
    }
    return n;
}

/* ---- Copying */

static size_t first_slot(const KvCacheLayout *layout, size_t layer, const KvPiece *piece, size_t n_tokens) {
    if (piece->store == KV_SINK)
        return piece->begin;
    if (piece->store == KV_TIER(0))
        return piece->begin - kvcache_layout_tail(layout, layer, n_tokens);
    size_t group = (piece->begin - kvcache_layer_policy(layout, layer)->sink) / layout->policy.group;
    return kv_store_slot(&layout->layers[layer].stores[piece->store], group);
}

/* Called with each run of bytes that a piece has in the cache's memory, in the order of the piece. */
typedef int CopyRun(const KvMemory *memory, uint8_t *in_cache, uint8_t *in_piece, size_t size_bytes, Error *error);

/* An array of the layer, for every KV head. */
static int each_head(const KvCache *cache, const KvArray *array, size_t slot, size_t n_slots, const KvMemory *memory,
                     uint8_t **bytes, CopyRun *copy, Error *error) {
    size_t size_bytes = n_slots * array->slot_bytes;
    for (size_t kv_head = 0; kv_head < cache->layout.shape.n_kv_heads; kv_head++, *bytes += size_bytes)
        if (copy(memory, cache->memory + kv_array_at(array, kv_head, slot), *bytes, size_bytes, error) < 0)
            return error->code;
    return 0;
}

static int each_run_of_layer(const KvCache *cache, size_t layer, size_t n_tokens, const KvPiece *piece,
                             const KvMemory *memory, uint8_t **bytes, CopyRun *copy, Error *error) {
    const KvLayerLayout *l = &cache->layout.layers[layer];
    if (piece->store == KV_MOMENTS)
        return each_head(cache, &l->moments, 0, l->moments.n_slots, memory, bytes, copy, error);
    const KvStore *store = &l->stores[piece->store];
    size_t slot = first_slot(&cache->layout, layer, piece, n_tokens);
    size_t n_slots = (piece->end - piece->begin) / store->slot_tokens;
    for (KvSide side = 0; side < KV_SIDES; side++)
        if (each_head(cache, &store->array[side], slot, n_slots, memory, bytes, copy, error) < 0)
            return error->code;
    return 0;
}

static int each_run(const KvCache *cache, size_t n_tokens, const KvPiece *piece, const KvMemory *memory, uint8_t *bytes,
                    CopyRun *copy, Error *error) {
    const KvCacheLayout *layout = &cache->layout;
    for (size_t layer = 0; layer < layout->shape.n_layers; layer++)
        if (is_in_layer(layout, layer, piece) &&
            each_run_of_layer(cache, layer, n_tokens, piece, memory, &bytes, copy, error) < 0)
            return error->code;
    return 0;
}

static int save_run(const KvMemory *memory, uint8_t *in_cache, uint8_t *in_piece, size_t size_bytes, Error *error) {
    if (memory->read != NULL)
        return memory->read(memory->user, in_piece, in_cache, size_bytes, error);
    memcpy(in_piece, in_cache, size_bytes);
    return 0;
}

static int load_run(const KvMemory *memory, uint8_t *in_cache, uint8_t *in_piece, size_t size_bytes, Error *error) {
    if (memory->write != NULL)
        return memory->write(memory->user, in_cache, in_piece, size_bytes, error);
    memcpy(in_cache, in_piece, size_bytes);
    return 0;
}

int kv_piece_save(const KvCache *cache, const KvPiece *piece, const KvMemory *memory, uint8_t *bytes, Error *error) {
    if (piece->store == KV_MOMENTS)
        kvcache_settle(cache);
    return each_run(cache, cache->n_tokens, piece, memory, bytes, save_run, error);
}

int kv_piece_load(KvCache *cache, size_t n_tokens, const KvPiece *piece, const KvMemory *memory, const uint8_t *bytes,
                  Error *error) {
    return each_run(cache, n_tokens, piece, memory, (uint8_t *)bytes, load_run, error);
}

/* ---- What states have in common */

char *kv_state_identity(const KvCacheLayout *layout, const char *computed_by) {
    const KvShape *shape = &layout->shape;
    size_t size = strlen(computed_by) + KV_POLICY_TEXT + 256;
    char *text = malloc(size);
    if (text == NULL)
        return NULL;
    size_t n = (size_t)snprintf(text, size, "%s\npolicy ", computed_by);
    n += kv_policy_print(&layout->policy, text + n, size - n);
    snprintf(text + n, size - n, "\nshape layers=%zu,kv_heads=%zu,head_dim=%zu,row_dim=%zu\nversion %d",
             shape->n_layers, shape->n_kv_heads, shape->head_dim, layout->row_dim, KV_STATE_VERSION);
    return text;
}

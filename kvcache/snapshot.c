/* See snapshot.h. */
#include "kvcache/snapshot.h"

#include "base/checked.h"
#include "kvcache/policy_text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- What a state consists of */

/* A layer that the rule holds for; n_layers: there is none. */
static size_t layer_of_rule(const KvCacheLayout *layout, size_t rule) {
    size_t layer = 0;
    while (layer < layout->shape.n_layers && layout->layers[layer].rule != rule)
        layer++;
    return layer;
}

static size_t moments_bytes(const KvCacheLayout *layout, size_t rule) {
    size_t bytes = 0;
    for (size_t layer = 0; layer < layout->shape.n_layers; layer++)
        if (layout->layers[layer].rule == rule)
            bytes += layout->layers[layer].moments.n_slots * layout->shape.n_kv_heads *
                     layout->layers[layer].moments.slot_bytes;
    return bytes;
}

static size_t piece_bytes(const KvCacheLayout *layout, const KvPiece *piece) {
    size_t bytes = 0;
    for (size_t layer = 0; layer < layout->shape.n_layers; layer++) {
        const KvStore *store = &layout->layers[layer].stores[piece->store];
        if (layout->layers[layer].rule == piece->rule)
            bytes += (piece->end - piece->begin) / store->slot_tokens * layout->shape.n_kv_heads *
                     (store->array[KV_KEYS].slot_bytes + store->array[KV_VALUES].slot_bytes);
    }
    return bytes;
}

/* Keys that are rounded with queries depend on those up to the token that has the group encoded. */
static size_t decisive_tokens(const KvCacheLayout *layout, const KvPiece *piece) {
    const KvLayerPolicy *policy = &layout->policy.rules[piece->rule].policy;
    if (piece->store < KV_FIRST_ENCODED || moments_bytes(layout, piece->rule) == 0)
        return piece->end;
    return kv_plan_arrival(policy, layout->policy.group, piece->store - KV_TIER(0), piece->end - policy->sink);
}

/* Cuts positions [begin, end) of a store where groups behind the sink begin. */
static size_t cut(const KvCacheLayout *layout, const KvPiece *whole, size_t sink, KvPiece *pieces) {
    size_t group = layout->policy.group, n = 0;
    for (size_t begin = whole->begin, end; begin < whole->end; begin = end, n++) {
        end = begin < sink ? sink : sink + ((begin - sink) / group + 1) * group;
        KvPiece piece = {.rule = whole->rule, .store = whole->store, .begin = begin, .end = at_most(end, whole->end)};
        piece.n_decisive = decisive_tokens(layout, &piece);
        piece.size_bytes = piece_bytes(layout, &piece);
        if (pieces != NULL)
            pieces[n] = piece;
        end = piece.end;
    }
    return n;
}

static size_t pieces_of_rule(const KvCacheLayout *layout, size_t rule, size_t n_tokens, KvPiece *pieces) {
    const KvLayerPolicy *policy = &layout->policy.rules[rule].policy;
    KvPlan plan = kv_plan(policy, layout->policy.group, n_tokens);
    KvPiece sink = {.rule = rule, .store = KV_SINK, .end = plan.n_sink};
    size_t n = cut(layout, &sink, policy->sink, pieces);
    for (size_t tier = 0; tier < plan.n_tiers; tier++) {
        KvPiece held = {
            .rule = rule, .store = KV_TIER(tier), .begin = kv_plan_begin(&plan, tier), .end = kv_plan_end(&plan, tier)};
        n += cut(layout, &held, policy->sink, pieces == NULL ? NULL : pieces + n);
    }
    KvPiece moments = {rule, KV_MOMENTS, 0, n_tokens, n_tokens, moments_bytes(layout, rule)};
    if (moments.size_bytes > 0 && pieces != NULL)
        pieces[n] = moments;
    n += moments.size_bytes > 0;
    return n;
}

size_t kv_pieces(const KvCacheLayout *layout, size_t n_tokens, KvPiece *pieces) {
    size_t n = 0;
    for (size_t rule = 0; rule < layout->policy.n_rules; rule++)
        if (layer_of_rule(layout, rule) < layout->shape.n_layers)
            n += pieces_of_rule(layout, rule, n_tokens, pieces == NULL ? NULL : pieces + n);
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
        if (layout->layers[layer].rule == piece->rule &&
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

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

/* Cuts positions [begin, end) of a store where groups behind the sink begin. */
static size_t cut(const KvCacheLayout *layout, const KvPiece *whole, size_t sink, KvPiece *pieces) {
    size_t group = layout->policy.group, n = 0;
    for (size_t begin = whole->begin, end; begin < whole->end; begin = end, n++) {
        end = begin < sink ? sink : sink + ((begin - sink) / group + 1) * group;
        KvPiece piece = {whole->rule, whole->store, begin, at_most(end, whole->end), 0};
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
    KvPiece sink = {rule, KV_SINK, 0, plan.n_sink, 0};
    size_t n = cut(layout, &sink, policy->sink, pieces);
    for (size_t tier = 0; tier < plan.n_tiers; tier++) {
        KvPiece held = {rule, KV_TIER(tier), kv_plan_begin(&plan, tier), kv_plan_end(&plan, tier), 0};
        n += cut(layout, &held, policy->sink, pieces == NULL ? NULL : pieces + n);
    }
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

static int each_run(const KvCache *cache, size_t n_tokens, const KvPiece *piece, const KvMemory *memory, uint8_t *bytes,
                    CopyRun *copy, Error *error) {
    const KvCacheLayout *layout = &cache->layout;
    for (size_t layer = 0; layer < layout->shape.n_layers; layer++) {
        if (layout->layers[layer].rule != piece->rule)
            continue;
        const KvStore *store = &layout->layers[layer].stores[piece->store];
        size_t slot = first_slot(layout, layer, piece, n_tokens);
        size_t n_slots = (piece->end - piece->begin) / store->slot_tokens;
        for (KvSide side = 0; side < KV_SIDES; side++)
            for (size_t kv_head = 0; kv_head < layout->shape.n_kv_heads; kv_head++) {
                const KvArray *array = &store->array[side];
                uint8_t *in_cache = cache->memory + kv_array_at(array, kv_head, slot);
                size_t size_bytes = n_slots * array->slot_bytes;
                if (copy(memory, in_cache, bytes, size_bytes, error) < 0)
                    return error->code;
                bytes += size_bytes;
            }
    }
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

void kv_snapshot_resume(KvCache *cache, size_t n_tokens) {
    kvcache_clear(cache);
    cache->n_tokens = n_tokens;
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

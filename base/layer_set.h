/* A set of a model's layers. */
#ifndef STOWKV_LAYER_SET_H
#define STOWKV_LAYER_SET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LAYER_SET_MAX 4096 /* layers */

typedef struct LayerSet {
    uint64_t bits[LAYER_SET_MAX / 64];
} LayerSet;

static inline bool layer_set_has(const LayerSet *set, size_t layer) {
    return layer < LAYER_SET_MAX && (set->bits[layer / 64] >> layer % 64 & 1) != 0;
}

static inline void layer_set_add(LayerSet *set, size_t layer) {
    if (layer < LAYER_SET_MAX)
        set->bits[layer / 64] |= (uint64_t)1 << layer % 64;
}

/* Of n_layers in periods of so many the last of each, or all but the last; period 0: all. */
static inline void layer_set_add_periodic(LayerSet *set, size_t n_layers, size_t period, bool last) {
    for (size_t i = 0; i < n_layers && i < LAYER_SET_MAX; i++)
        if (period == 0 || (i % period == period - 1) == last)
            layer_set_add(set, i);
}

static inline bool layer_set_is_empty(const LayerSet *set) {
    uint64_t any = 0;
    for (size_t i = 0; i < LAYER_SET_MAX / 64; i++)
        any |= set->bits[i];
    return any == 0;
}

#endif

/* Memory of packed weights, cut from large chunks and freed all at once.
 *
 * Streaming through huge pages costs few page walks; but a whole page lies near the thread that touches it first. So
 * where that matters, matrices of which a thread's share is smaller than a huge page go into ordinary ones. */
#ifndef STOWKV_WEIGHT_STORE_H
#define STOWKV_WEIGHT_STORE_H

#include "base/error.h"
#include "base/machine/pages.h"

#include <stddef.h>
#include <stdint.h>

typedef struct WeightChunk {
    uint8_t *memory;
    size_t size_bytes, used_bytes;
    Pages pages;
} WeightChunk;

typedef struct WeightStore {
    WeightChunk *chunks; /* (n_chunks), owned */
    size_t n_chunks;
} WeightStore;

/* Zeroed, aligned to 64, owned by the store; NULL, with an error, where there is not enough memory. */
void *weight_store_take(WeightStore *store, size_t size_bytes, Pages pages, Error *error);
void weight_store_close(WeightStore *store); /* closing twice is fine */

#endif

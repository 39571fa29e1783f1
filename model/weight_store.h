/* Memory of packed weights: large blocks that are cut from the front, in huge pages where the system has them, so that
 * streaming through them costs few page walks. Nothing is given back before all is. */
#ifndef STOWKV_WEIGHT_STORE_H
#define STOWKV_WEIGHT_STORE_H

#include "model/base/error.h"

#include <stddef.h>
#include <stdint.h>

typedef struct WeightBlock {
    uint8_t *memory;
    size_t size_bytes, used_bytes;
} WeightBlock;

typedef struct WeightStore {
    WeightBlock *blocks; /* (n_blocks), owned */
    size_t n_blocks;
} WeightStore;

/* Zeroed, aligned to 64; NULL where there is not enough memory. */
void *weight_store_take(WeightStore *store, size_t size_bytes, Error *error);
void weight_store_close(WeightStore *store); /* closing twice is fine */

#endif

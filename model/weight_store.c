/* See weight_store.h. */
#include "model/weight_store.h"

#include "model/base/checked.h"

#include <stdlib.h>
#include <sys/mman.h>

#define HUGE_PAGE   ((size_t)2 << 20)
#define BLOCK_BYTES ((size_t)256 << 20) /* of address space; pages that are not used are never taken */

/* Maps a page more than asked for, so that a block can begin at the border of a huge page. */
static uint8_t *map_block(size_t size_bytes) {
    uint8_t *mapped =
        mmap(NULL, size_bytes + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED)
        return NULL;
    size_t before = round_up((uintptr_t)mapped, HUGE_PAGE) - (uintptr_t)mapped;
    if (before > 0)
        munmap(mapped, before);
    munmap(mapped + before + size_bytes, HUGE_PAGE - before);
#if defined(MADV_HUGEPAGE)
    madvise(mapped + before, size_bytes, MADV_HUGEPAGE); /* where the system refuses, ordinary pages do */
#endif
    return mapped + before;
}

static bool add_block(WeightStore *store, size_t size_bytes) {
    WeightBlock *blocks = realloc(store->blocks, (store->n_blocks + 1) * sizeof *blocks);
    if (blocks == NULL)
        return false;
    store->blocks = blocks;
    size_bytes = size_bytes > BLOCK_BYTES ? round_up(size_bytes, HUGE_PAGE) : BLOCK_BYTES;
    uint8_t *memory = map_block(size_bytes);
    if (memory == NULL)
        return false;
    blocks[store->n_blocks++] = (WeightBlock){memory, size_bytes, 0};
    return true;
}

void *weight_store_take(WeightStore *store, size_t size_bytes, Error *error) {
    size_t rounded = round_up(size_bytes, 64);
    WeightBlock *last = store->n_blocks > 0 ? &store->blocks[store->n_blocks - 1] : NULL;
    if (last == NULL || last->size_bytes - last->used_bytes < rounded) {
        if (!add_block(store, rounded)) {
            error_memory(error, "a packed weight matrix", size_bytes);
            return NULL;
        }
        last = &store->blocks[store->n_blocks - 1];
    }
    void *taken = last->memory + last->used_bytes;
    last->used_bytes += rounded;
    return taken;
}

void weight_store_close(WeightStore *store) {
    for (size_t i = 0; i < store->n_blocks; i++)
        munmap(store->blocks[i].memory, store->blocks[i].size_bytes);
    free(store->blocks);
    *store = (WeightStore){0};
}

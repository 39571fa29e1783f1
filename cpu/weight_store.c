/* See weight_store.h. */
#include "cpu/weight_store.h"

#include "base/checked.h"

#include <stdlib.h>

#define BLOCK_BYTES ((size_t)256 << 20) /* of address space; pages that are not used are never taken */

/* Maps a huge page more than asked for, so that a block can begin at the border of one. */
static uint8_t *map_block(size_t size_bytes, Pages pages) {
    uint8_t *mapped = mmap(NULL, size_bytes + HUGE_PAGE_BYTES, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED)
        return NULL;
    size_t before = round_up((uintptr_t)mapped, HUGE_PAGE_BYTES) - (uintptr_t)mapped;
    if (before > 0)
        munmap(mapped, before);
    munmap(mapped + before + size_bytes, HUGE_PAGE_BYTES - before);
    pages_ask(mapped + before, size_bytes, pages);
    return mapped + before;
}

static WeightBlock *add_block(WeightStore *store, size_t size_bytes, Pages pages) {
    WeightBlock *blocks = realloc(store->blocks, (store->n_blocks + 1) * sizeof *blocks);
    if (blocks == NULL)
        return NULL;
    store->blocks = blocks;
    size_bytes = size_bytes > BLOCK_BYTES ? round_up(size_bytes, HUGE_PAGE_BYTES) : BLOCK_BYTES;
    uint8_t *memory = map_block(size_bytes, pages);
    if (memory == NULL)
        return NULL;
    blocks[store->n_blocks] = (WeightBlock){memory, size_bytes, 0, pages};
    return &blocks[store->n_blocks++];
}

/* The last block of such pages, if it has room. */
static WeightBlock *find_block(const WeightStore *store, size_t size_bytes, Pages pages) {
    for (size_t i = store->n_blocks; i-- > 0;) {
        WeightBlock *block = &store->blocks[i];
        if (block->pages == pages)
            return block->size_bytes - block->used_bytes >= size_bytes ? block : NULL;
    }
    return NULL;
}

void *weight_store_take(WeightStore *store, size_t size_bytes, Pages pages, Error *error) {
    size_t rounded = round_up(size_bytes, 64);
    WeightBlock *block = find_block(store, rounded, pages);
    if (block == NULL)
        block = add_block(store, rounded, pages);
    if (block == NULL) {
        error_memory(error, "a packed weight matrix", size_bytes);
        return NULL;
    }
    void *taken = block->memory + block->used_bytes;
    block->used_bytes += rounded;
    return taken;
}

void weight_store_close(WeightStore *store) {
    for (size_t i = 0; i < store->n_blocks; i++)
        munmap(store->blocks[i].memory, store->blocks[i].size_bytes);
    free(store->blocks);
    *store = (WeightStore){0};
}

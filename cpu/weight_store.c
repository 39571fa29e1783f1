/* See weight_store.h. */
#include "cpu/weight_store.h"

#include "base/checked.h"

#include <stdlib.h>

#define CHUNK_BYTES ((size_t)256 << 20) /* of address space; pages that are not used are never taken */

/* Maps a huge page more than asked for, so that a chunk can begin at the border of one. */
static uint8_t *map_chunk(size_t size_bytes, Pages pages) {
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

static WeightChunk *add_chunk(WeightStore *store, size_t size_bytes, Pages pages) {
    WeightChunk *chunks = realloc(store->chunks, (store->n_chunks + 1) * sizeof *chunks);
    if (chunks == NULL)
        return NULL;
    store->chunks = chunks;
    size_bytes = size_bytes > CHUNK_BYTES ? round_up(size_bytes, HUGE_PAGE_BYTES) : CHUNK_BYTES;
    uint8_t *memory = map_chunk(size_bytes, pages);
    if (memory == NULL)
        return NULL;
    chunks[store->n_chunks] = (WeightChunk){memory, size_bytes, 0, pages};
    return &chunks[store->n_chunks++];
}

/* The last chunk of such pages, if that much of it is free. */
static WeightChunk *find_chunk(const WeightStore *store, size_t size_bytes, Pages pages) {
    for (size_t i = store->n_chunks; i-- > 0;) {
        WeightChunk *chunk = &store->chunks[i];
        if (chunk->pages == pages)
            return chunk->size_bytes - chunk->used_bytes >= size_bytes ? chunk : NULL;
    }
    return NULL;
}

void *weight_store_take(WeightStore *store, size_t size_bytes, Pages pages, Error *error) {
    size_t rounded = round_up(size_bytes, 64);
    WeightChunk *chunk = find_chunk(store, rounded, pages);
    if (chunk == NULL)
        chunk = add_chunk(store, rounded, pages);
    if (chunk == NULL) {
        error_memory(error, "a packed weight matrix", size_bytes);
        return NULL;
    }
    void *taken = chunk->memory + chunk->used_bytes;
    chunk->used_bytes += rounded;
    return taken;
}

void weight_store_close(WeightStore *store) {
    for (size_t i = 0; i < store->n_chunks; i++)
        munmap(store->chunks[i].memory, store->chunks[i].size_bytes);
    free(store->chunks);
    *store = (WeightStore){0};
}

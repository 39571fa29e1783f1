/* Pages of mapped memory: their size, and the memory node that they lie on. */
#ifndef STOWKV_PAGES_H
#define STOWKV_PAGES_H

#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>

#define HUGE_PAGE_BYTES ((size_t)2 << 20)

typedef enum Pages { PAGES_HUGE, PAGES_ORDINARY } Pages;

/* Asks for huge or ordinary pages, before any of them is touched. The system may ignore it. */
static inline void pages_ask(void *memory, size_t size_bytes, Pages pages) {
#if defined(MADV_HUGEPAGE)
    madvise(memory, size_bytes, pages == PAGES_HUGE ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
#else
    (void)memory, (void)size_bytes, (void)pages;
#endif
}

/* Touches all pages of [memory, memory + size_bytes) and changes nothing in them. Those that nobody touched before lie
 * near the calling thread then, see cpu_nodes.h. */
static inline void pages_touch(void *memory, size_t size_bytes) {
    const size_t smallest = 4096;
    volatile uint8_t *at = memory, *end = at + size_bytes;
    for (; at < end; at += smallest - (uintptr_t)at % smallest)
        *at = *at;
}

#endif

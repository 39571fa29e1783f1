/* Which codec each part of a cache gets, so that all parts together take no more than so many bytes and do the least
 * harm: a greedy on the convex hull of harm against bytes. Knows no model and no file; budget.h makes a policy of it.
 *
 *     AllocationTable table = {.n_parts = …, .n_ways = …, .bytes = …, .harms = …};
 *     if (!allocate(&table, budget, ways)) …
 */
#ifndef STOWKV_ALLOCATION_H
#define STOWKV_ALLOCATION_H

#include <stdbool.h>
#include <stddef.h>

/* Each part is held in one of the same ways. */
typedef struct AllocationTable {
    size_t n_parts, n_ways;
    const size_t *bytes; /* (n_parts, n_ways); all of them together fit a size_t */
    const double *harms; /* (n_parts, n_ways), finite */
} AllocationTable;

/* Sets the way of each part (n_parts), with bytes in all of at most `budget`. From the smallest ways on it takes the
 * step along a hull that spares the most harm for its bytes, until the next does not fit: what is reached so has the
 * least harm of all that takes no more bytes. What is left of the budget goes into single steps that still fit, the
 * most useful first. False, with the smallest ways set, where even they take more. */
bool allocate(const AllocationTable *table, size_t budget, size_t *ways);

size_t allocation_bytes(const AllocationTable *table, const size_t *ways);
double allocation_harm(const AllocationTable *table, const size_t *ways);

#endif

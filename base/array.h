/* Arrays that grow by one item at a time. Their capacity is not stored: it is their count rounded up to a power of
 * two, at least 16.
 *
 *     Word *items = array_for_one_more(words->items, words->count, sizeof *items, "the words of a text", error);
 *     if (items == NULL)
 *         return ERROR_MEMORY; // words->items is as it was
 *     words->items = items;
 *     words->items[words->count++] = word;
 */
#ifndef STOWKV_ARRAY_H
#define STOWKV_ARRAY_H

#include "base/error.h"

#include <stddef.h>

/* Returns the array, which may have moved, with space for one item behind the first `count`; or NULL, with an error,
 * when memory runs out. `items` is NULL or what this returned before; the caller owns it: free(). `what` is for the
 * message.
 */
void *array_for_one_more(void *items, size_t count, size_t item_bytes, const char *what, Error *error);

#endif

/* Arrays that grow by one item at a time. They keep no capacity: there is room for as many items as the next power of
 * two says, 16 at least.
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

/* `items`: NULL, or what this has returned for the same array, of which `count` items are in use; freed with free().
 * The array, moved perhaps, or NULL out of memory. `what` is for the message. */
void *array_for_one_more(void *items, size_t count, size_t item_bytes, const char *what, Error *error);

#endif

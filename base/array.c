/* See array.h. */
#include "base/array.h"

#include "base/checked.h"

#include <stdlib.h>

#define FIRST_ITEMS 16

void *array_for_one_more(void *items, size_t count, size_t item_bytes, const char *what, Error *error) {
    bool full = count == 0 || (count >= FIRST_ITEMS && is_power_of_two(count));
    if (!full)
        return items;
    size_t n_items = at_least(2 * count, FIRST_ITEMS), size_bytes;
    void *grown = checked_mul(n_items, item_bytes, &size_bytes) ? realloc(items, size_bytes) : NULL;
    if (grown == NULL)
        error_memory(error, what, (unsigned long long)n_items * item_bytes);
    return grown;
}

/* Lists of tokens on a command line: "64,256,1024".
 *
 *     SizeList list;
 *     if (size_list_parse("--distances", "64,256", "64,256,1024", &list, &error) < 0) …
 */
#ifndef STOWKV_SIZE_LIST_H
#define STOWKV_SIZE_LIST_H

#include "base/error.h"

#include <stddef.h>

#define SIZE_LIST_MAX 64

typedef struct SizeList {
    size_t items[SIZE_LIST_MAX]; /* ascending, in tokens */
    size_t count;
} SizeList;

/* ERROR_USAGE, with the character, for what is no list of numbers, and where they do not rise. `flag` and `example` are
 * for the message. */
int size_list_parse(const char *flag, const char *text, const char *example, SizeList *out, Error *error);

#endif

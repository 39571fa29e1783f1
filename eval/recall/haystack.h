/* What a needle is hidden in: RULER's noise, or the sentences of a text.
 *
 *     Haystack haystack;
 *     if (haystack_open(&haystack, NULL, &error) < 0) …              // noise; or a file's name
 *     haystack_close(&haystack);
 */
#ifndef STOWKV_RECALL_HAYSTACK_H
#define STOWKV_RECALL_HAYSTACK_H

#include "base/error.h"
#include "base/string_view.h"

typedef struct Haystack {
    const char *name;      /* for reports: "noise", or the file */
    const char *separator; /* between units: "\n" for noise, " " for sentences */
    StringView *units;     /* (count), repeated from the first where a prompt needs more */
    size_t count;
    char *text; /* that the units point into; NULL for noise */
} Haystack;

/* The file is text in UTF-8. A sentence ends at a full stop, an exclamation mark or a question mark with white space
 * behind it; any run of white space counts as one space. ERROR_FORMAT where there is no text. */
int haystack_open(Haystack *haystack, const char *path, Error *error);
void haystack_close(Haystack *haystack); /* closing twice is fine */

static inline StringView haystack_unit(const Haystack *haystack, size_t index) {
    return haystack->units[index % haystack->count];
}

#endif

/* See token_list.h. */
#include "tokenizer/token_list.h"

#include <stdlib.h>

int token_list_append(TokenList *list, int32_t id, Error *error) {
    if (list->count == list->capacity) {
        size_t capacity = list->capacity == 0 ? 64 : 2 * list->capacity;
        int32_t *ids = realloc(list->ids, capacity * sizeof *ids);
        if (ids == NULL)
            return error_memory(error, "a list of tokens", capacity * sizeof *ids);
        list->ids = ids;
        list->capacity = capacity;
    }
    list->ids[list->count++] = id;
    return 0;
}

void token_list_free(TokenList *list) {
    free(list->ids);
    *list = (TokenList){0};
}

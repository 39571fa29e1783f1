/* See token_list.h. */
#include "tokenizer/token_list.h"

#include "base/array.h"

#include <stdlib.h>

int token_list_append(TokenList *list, int32_t id, Error *error) {
    int32_t *ids = array_for_one_more(list->ids, list->count, sizeof *ids, "a list of tokens", error);
    if (ids == NULL)
        return ERROR_MEMORY;
    list->ids = ids;
    list->ids[list->count++] = id;
    return 0;
}

void token_list_free(TokenList *list) {
    free(list->ids);
    *list = (TokenList){0};
}

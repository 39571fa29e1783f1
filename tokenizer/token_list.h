/* A growing array of token ids; starts as {0}, freed by token_list_free(). */
#ifndef STOWKV_TOKEN_LIST_H
#define STOWKV_TOKEN_LIST_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

typedef struct TokenList {
    int32_t *ids;
    size_t count;
} TokenList;

int token_list_append(TokenList *list, int32_t id, Error *error);
void token_list_free(TokenList *list);

#endif

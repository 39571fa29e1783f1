/* Names of a table's rows, as a message lists them: "GGUF, llama2.c .bin". What does not fit is left out. */
#ifndef STOWKV_NAME_LIST_H
#define STOWKV_NAME_LIST_H

#include <string.h>

#define NAME_LIST_BYTES 256

typedef struct NameList {
    char text[NAME_LIST_BYTES];
    size_t length;
} NameList;

static inline void name_list_put(NameList *list, const char *text) {
    size_t n = strlen(text);
    if (n >= sizeof list->text - list->length)
        return;
    memcpy(list->text + list->length, text, n + 1);
    list->length += n;
}

static inline void name_list_add(NameList *list, const char *name) {
    if (list->length > 0)
        name_list_put(list, ", ");
    name_list_put(list, name);
}

#endif

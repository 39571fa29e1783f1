/* See special_tokens.h. */
#include "tokenizer/special_tokens.h"

#include "base/array.h"
#include "tokenizer/utf8.h"
#include "tokenizer/vocabulary.h"

#include <stdlib.h>

int special_tokens_add(SpecialTokens *special, SpecialToken token, Error *error) {
    if (token.text.length == 0)
        return 0;
    SpecialToken *items = array_for_one_more(special->items, special->n, sizeof *items, "the special tokens", error);
    if (items == NULL)
        return ERROR_MEMORY;
    special->items = items;
    special->items[special->n++] = token;
    return 0;
}

static int compare(const void *left, const void *right) {
    const SpecialToken *a = left, *b = right;
    if (a->text.bytes[0] != b->text.bytes[0])
        return (unsigned char)a->text.bytes[0] < (unsigned char)b->text.bytes[0] ? -1 : 1;
    if (a->text.length != b->text.length)
        return a->text.length > b->text.length ? -1 : 1;
    return a->id < b->id ? -1 : 1;
}

void special_tokens_sort(SpecialTokens *special) {
    if (special->n > 0)
        qsort(special->items, special->n, sizeof *special->items, compare);
    size_t i = 0;
    for (int byte = 0; byte <= 256; byte++) {
        while (i < special->n && (unsigned char)special->items[i].text.bytes[0] < byte)
            i++;
        special->starts[byte] = i;
    }
}

void special_tokens_free(SpecialTokens *special) {
    free(special->items);
    *special = (SpecialTokens){0};
}

/* The first token at or after byte *at; its offset goes to *at. NULL: none. */
static const SpecialToken *find(const SpecialTokens *special, StringView text, const unsigned char *plain, int classes,
                                size_t *at) {
    if (special->n == 0 || classes == 0)
        return NULL;
    for (size_t i = *at; i < text.length; i++) {
        unsigned char first = (unsigned char)text.bytes[i];
        StringView rest = {text.bytes + i, text.length - i};
        for (size_t j = special->starts[first]; j < special->starts[first + 1]; j++) {
            const SpecialToken *token = &special->items[j];
            if ((token->class & classes) == 0 || !sv_starts_with(rest, token->text))
                continue;
            if (plain != NULL && token->class == SPECIAL_CONTROL && memchr(plain + i, 1, token->text.length) != NULL)
                continue;
            *at = i;
            return token;
        }
    }
    return NULL;
}

/* Takes white space off the end of the text from byte `from` on, for a token that takes what stands before it. */
static size_t strip_before(StringView text, size_t from, size_t end) {
    for (size_t i = from, length, n_blank = 0; i < end; i += length) {
        if (!utf8_starts_with_white_space((StringView){text.bytes + i, end - i}, &length))
            n_blank = 0;
        else
            n_blank += length;
        if (i + length >= end)
            return end - n_blank;
    }
    return end;
}

static size_t strip_behind(StringView text, size_t at) {
    size_t length;
    while (at < text.length && utf8_starts_with_white_space((StringView){text.bytes + at, text.length - at}, &length))
        at += length;
    return at;
}

SpecialPlace special_tokens_next(const SpecialTokens *special, StringView text, const unsigned char *plain, int classes,
                                 size_t at) {
    size_t found = at;
    const SpecialToken *token = find(special, text, plain, classes, &found);
    if (token == NULL)
        return (SpecialPlace){NULL, text.length, text.length};
    size_t end = found + token->text.length;
    return (SpecialPlace){token, token->strips & TOKEN_STRIPS_LEFT ? strip_before(text, at, found) : found,
                          token->strips & TOKEN_STRIPS_RIGHT ? strip_behind(text, end) : end};
}

/* See haystack.h. */
#include "eval/recall/haystack.h"

#include "base/array.h"
#include "base/text_file.h"
#include "eval/perplexity/text_rows.h"

#include <stdlib.h>

static const char NOISE[] = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.";

static bool is_space(char c) {
    return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v';
}

static bool ends_sentence(char c) {
    return c == '.' || c == '!' || c == '?';
}

/* Copies the text with each run of white space as one space, and none at the ends; returns its length. */
static size_t fold_space(StringView text, char *out) {
    size_t length = 0;
    for (size_t i = 0; i < text.length; i++) {
        if (!is_space(text.bytes[i]))
            out[length++] = text.bytes[i];
        else if (length > 0 && out[length - 1] != ' ')
            out[length++] = ' ';
    }
    return length > 0 && out[length - 1] == ' ' ? length - 1 : length;
}

static int add_unit(Haystack *haystack, StringView unit, Error *error) {
    StringView *units = array_for_one_more(haystack->units, haystack->count, sizeof *units, "sentences", error);
    if (units == NULL)
        return ERROR_MEMORY;
    haystack->units = units;
    haystack->units[haystack->count++] = unit;
    return 0;
}

static int split(Haystack *haystack, size_t length, Error *error) {
    for (size_t begin = 0, i = 0; i < length; i++) {
        bool is_last = i + 1 == length;
        if (!is_last && !(ends_sentence(haystack->text[i]) && haystack->text[i + 1] == ' '))
            continue;
        if (add_unit(haystack, (StringView){haystack->text + begin, i + 1 - begin}, error) < 0)
            return error->code;
        begin = i + 2;
    }
    return 0;
}

static int read_sentences(Haystack *haystack, StringView text, const char *path, Error *error) {
    if (text_check(text, path, error) < 0)
        return error->code;
    haystack->text = malloc(text.length + 1); /* of an empty text too */
    if (haystack->text == NULL)
        return error_memory(error, "the haystack", text.length + 1);
    size_t length = fold_space(text, haystack->text);
    if (length == 0)
        return error_set(error, ERROR_FORMAT, "%s: is nothing but white space; name a text to hide the needle in",
                         path);
    return split(haystack, length, error);
}

int haystack_open(Haystack *haystack, const char *path, Error *error) {
    *haystack = (Haystack){.name = path != NULL ? path : "noise", .separator = path != NULL ? " " : "\n"};
    if (path == NULL)
        return add_unit(haystack, sv(NOISE), error);
    TextFile file;
    int status = text_file_read(&file, path, TEXT_FILE_MAX, error);
    if (status == 0) {
        text_file_clean(&file);
        status = read_sentences(haystack, file.text, file.name, error);
    }
    text_file_free(&file);
    if (status < 0)
        haystack_close(haystack);
    return status;
}

void haystack_close(Haystack *haystack) {
    free(haystack->units);
    free(haystack->text);
    *haystack = (Haystack){0};
}

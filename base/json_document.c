/* See json_document.h. cJSON reads; what it is lenient about is checked around it. */
#include "base/json_document.h"

#include "base/checked.h"
#include "base/foreign_file.h"
#include "base/mapped_file.h"

#include <stdint.h>
#include <stdlib.h>

/* How deep arrays and objects of `text` go at most; brackets in strings do not count. */
static size_t depth_of(StringView text) {
    size_t depth = 0, deepest = 0;
    bool in_string = false;
    for (size_t i = 0; i < text.length; i++) {
        char c = text.bytes[i];
        if (in_string && c == '\\')
            i++;
        else if (c == '"')
            in_string = !in_string;
        else if (!in_string && (c == '{' || c == '['))
            deepest = at_least(++depth, deepest);
        else if (!in_string && (c == '}' || c == ']') && depth > 0)
            depth--;
    }
    return deepest;
}

static bool is_blank(const char *bytes, size_t length) {
    size_t i = 0;
    while (i < length && strchr(" \t\r\n", bytes[i]) != NULL && bytes[i] != '\0')
        i++;
    return i == length;
}

static int key_order(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int check_object(const cJSON *object, const char *path, Error *error) {
    size_t n = 0;
    for (const cJSON *item = object->child; item != NULL; item = item->next)
        n++;
    const char **keys = malloc((n + 1) * sizeof *keys);
    if (keys == NULL)
        return error_memory(error, "the keys of a JSON object", n * sizeof *keys);
    n = 0;
    for (const cJSON *item = object->child; item != NULL; item = item->next)
        keys[n++] = item->string;
    qsort(keys, n, sizeof *keys, key_order);
    int status = 0;
    for (size_t i = 1; i < n && status == 0; i++)
        if (strcmp(keys[i - 1], keys[i]) == 0)
            status = error_set(error, ERROR_FORMAT, "%s: duplicate key \"%.128s\"; the file is damaged", path, keys[i]);
    free(keys);
    return status;
}

static int check_keys_distinct(const cJSON *value, const char *path, Error *error) {
    if (cJSON_IsObject(value) && check_object(value, path, error) < 0)
        return error->code;
    if (cJSON_IsObject(value) || cJSON_IsArray(value))
        for (const cJSON *item = value->child; item != NULL; item = item->next)
            if (check_keys_distinct(item, path, error) < 0)
                return error->code;
    return 0;
}

cJSON *json_document_parse(StringView text, const char *path, Error *error) {
    if (text.length > 0 && text.bytes[0] != '{' && foreign_file_refuse(text, path, "a JSON document", error) < 0)
        return NULL;
    size_t depth = depth_of(text);
    if (depth > JSON_DOCUMENT_DEPTH) {
        error_set(error, ERROR_FORMAT, "%s: JSON is nested %zu deep, and %d is the limit; the file is damaged", path,
                  depth, JSON_DOCUMENT_DEPTH);
        return NULL;
    }
    const char *end = text.bytes;
    cJSON *root = text.length > 0 ? cJSON_ParseWithLengthOpts(text.bytes, text.length, &end, false) : NULL;
    size_t at = (size_t)(end - text.bytes);
    if (root == NULL || at > text.length || !is_blank(end, text.length - at)) {
        error_set(error, ERROR_FORMAT, "%s: is not JSON at byte %zu; fetch the file again", path,
                  at_most(at, text.length));
        cJSON_Delete(root);
        return NULL;
    }
    if (check_keys_distinct(root, path, error) == 0)
        return root;
    cJSON_Delete(root);
    return NULL;
}

cJSON *json_document_load(const char *path, Error *error) {
    MappedFile file;
    if (mapped_file_open(&file, path, error) < 0)
        return NULL;
    cJSON *root = json_document_parse(mapped_file_bytes(&file), path, error);
    mapped_file_close(&file);
    return root;
}

bool json_whole_number(const cJSON *item, size_t *out) {
    if (!cJSON_IsNumber(item) || !(item->valuedouble >= 0) || item->valuedouble > 0x1p53 ||
        (double)(uint64_t)item->valuedouble != item->valuedouble)
        return false;
    *out = (size_t)item->valuedouble;
    return true;
}

/* See jsonl.h. */
#include "session/jsonl.h"

#include "base/text_file.h"
#include "tokenizer/utf8.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>

int jsonl_open(JsonlReader *reader, const char *path, Error *error) {
    *reader = (JsonlReader){.path = strcmp(path, "-") == 0 ? "stdin" : path};
    reader->stream = strcmp(path, "-") == 0 ? stdin : fopen(path, "rb");
    if (reader->stream == NULL)
        return error_set(error, ERROR_IO, "%s: %s; check the path and its permissions", path, strerror(errno));
    return 0;
}

void jsonl_close(JsonlReader *reader) {
    if (reader->stream != NULL && reader->stream != stdin)
        fclose(reader->stream);
    cJSON_Delete(reader->object);
    free(reader->line);
    *reader = (JsonlReader){0};
}

int jsonl_fault(const JsonlReader *reader, Error *error, const char *format, ...) {
    char cause[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(cause, sizeof cause, format, arguments);
    va_end(arguments);
    return error_set(error, ERROR_FORMAT, "%s:%zu: %s", reader->path, reader->number, cause);
}

int jsonl_settle(JsonlReader *reader, Error *error) {
    if (error->code != ERROR_FORMAT)
        return error->code;
    Error cause = *error;
    if (reader->notes == NULL)
        return error_set(error, ERROR_FORMAT, "%.600s; %s", cause.message,
                         reader->cure != NULL ? reader->cure
                                              : "correct the line, or leave such lines out with --skip_bad_lines");
    fprintf(reader->notes, "skipped: %s\n", cause.message);
    reader->n_bad++;
    *error = (Error){0};
    return 0;
}

/* Whether the line has \u0000, at which cJSON would end a text silently. */
static bool has_nul_escape(StringView line) {
    for (size_t i = 0; i + 1 < line.length; i++) {
        if (line.bytes[i] != '\\')
            continue;
        if (sv_starts_with((StringView){line.bytes + i, line.length - i}, sv("\\u0000")))
            return true;
        i++;
    }
    return false;
}

static bool is_space(char c) {
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static size_t skip_space(StringView line, size_t i) {
    while (i < line.length && is_space(line.bytes[i]))
        i++;
    return i;
}

static int parse(JsonlReader *reader, StringView line, Error *error) {
    if (memchr(line.bytes, '\0', line.length) != NULL)
        return jsonl_fault(reader, error, "the line holds a NUL byte, which no JSON text does");
    if (!utf8_is_valid(line))
        return jsonl_fault(reader, error, "the line is not UTF-8");
    const char *end = NULL;
    reader->object = cJSON_ParseWithLengthOpts(line.bytes, line.length, &end, false);
    size_t parsed = end == NULL ? 0 : (size_t)(end - line.bytes);
    if (reader->object == NULL)
        return jsonl_fault(reader, error, "the line is not JSON: error at byte %zu", parsed + 1);
    if (skip_space(line, parsed) < line.length)
        return jsonl_fault(reader, error, "something stands behind the JSON value, at byte %zu",
                           skip_space(line, parsed) + 1);
    if (!cJSON_IsObject(reader->object))
        return jsonl_fault(reader, error, "expected a JSON object, {\"field\": \"text\"}");
    if (has_nul_escape(line))
        return jsonl_fault(reader, error, "a text holds the character \\u0000");
    return 0;
}

/* 1: there is a line, without what editors put around it; 0: the file ends. */
static int read_line(JsonlReader *reader, StringView *out, Error *error) {
    ssize_t length = getline(&reader->line, &reader->capacity, reader->stream);
    if (length < 0 && !feof(reader->stream)) {
        if (errno == EINTR)
            return error_set(error, ERROR_INTERRUPTED, "interrupted");
        return error_set(error, ERROR_IO, "%s:%zu: %s; name a file of JSON objects, one a line", reader->path,
                         reader->number + 1, strerror(errno));
    }
    if (length < 0)
        return 0;
    StringView whole = {reader->line, (size_t)length};
    if (reader->number++ == 0 && text_check_encoding(whole, reader->path, error) < 0)
        return error->code;
    *out = text_clean_line(reader->line, whole.length - (whole.bytes[whole.length - 1] == '\n'));
    return 1;
}

int jsonl_next(JsonlReader *reader, Error *error) {
    for (;;) {
        StringView line;
        cJSON_Delete(reader->object);
        reader->object = NULL;
        int status = read_line(reader, &line, error);
        if (status <= 0)
            return status;
        if (skip_space(line, 0) == line.length)
            continue;
        if (parse(reader, line, error) == 0)
            return 1;
        if (jsonl_settle(reader, error) < 0)
            return error->code;
    }
}

cJSON *jsonl_field(const cJSON *object, const char *name) {
    cJSON *found = NULL;
    for (cJSON *item = object->child; item != NULL; item = item->next)
        if (strcmp(item->string, name) == 0)
            found = item;
    return found;
}

static const char *kind_name(const cJSON *item) {
    return cJSON_IsString(item)   ? "a text"
           : cJSON_IsNumber(item) ? "a number"
           : cJSON_IsBool(item)   ? "true or false"
           : cJSON_IsNull(item)   ? "null"
           : cJSON_IsArray(item)  ? "an array"
                                  : "an object";
}

/* Names the fields that are there: one of them may be meant. */
static int missing(JsonlReader *reader, const char *name, Error *error) {
    char names[200] = "";
    size_t used = 0;
    for (const cJSON *item = reader->object->child; item != NULL && used + 1 < sizeof names; item = item->next) {
        int n = snprintf(names + used, sizeof names - used, "%s%s", used > 0 ? ", " : "", item->string);
        used += n > 0 ? (size_t)n : 0;
    }
    return jsonl_fault(reader, error, "there is no field \"%s\" (fields: %s)", name, used == 0 ? "none" : names);
}

int jsonl_text(JsonlReader *reader, const char *name, StringView *out, Error *error) {
    const cJSON *item = jsonl_field(reader->object, name);
    if (item == NULL)
        return missing(reader, name, error);
    if (!cJSON_IsString(item))
        return jsonl_fault(reader, error, "\"%s\" is %s, expected a text", name, kind_name(item));
    *out = sv(item->valuestring);
    return 0;
}

int jsonl_texts(JsonlReader *reader, const char *name, cJSON **out, Error *error) {
    cJSON *item = jsonl_field(reader->object, name);
    if (item == NULL)
        return missing(reader, name, error);
    if (!cJSON_IsString(item) && !cJSON_IsArray(item))
        return jsonl_fault(reader, error, "\"%s\" is %s, expected a text or an array of texts", name, kind_name(item));
    if (cJSON_IsArray(item) && item->child == NULL)
        return jsonl_fault(reader, error, "\"%s\" is an empty array, expected at least one text", name);
    for (const cJSON *text = cJSON_IsArray(item) ? item->child : NULL; text != NULL; text = text->next)
        if (!cJSON_IsString(text))
            return jsonl_fault(reader, error, "\"%s\" has %s among its texts", name, kind_name(text));
    *out = item;
    return 0;
}

size_t jsonl_texts_count(const cJSON *texts) {
    size_t count = 0;
    for (const cJSON *text = texts->child; text != NULL; text = text->next)
        count++;
    return cJSON_IsArray(texts) ? count : 1;
}

StringView jsonl_texts_get(const cJSON *texts, size_t index) {
    const cJSON *text = texts;
    if (cJSON_IsArray(texts))
        for (text = texts->child; index > 0; index--)
            text = text->next;
    return sv(text->valuestring);
}

/* See vocabulary_file.h. */
#include "tokenizer/vocabulary_file.h"

#include "base/file_identity.h"
#include "base/foreign_file.h"
#include "base/json_document.h"
#include "tokenizer/tiktoken.h"
#include "tokenizer/tokenizer_json.h"
#include "tokenizer/tokenizer_settings.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define EXPECTED "a tokenizer: tokenizer.json, SentencePiece's .model or tiktoken's ranks"

enum { MAX_FILE_BYTES = 256 << 20 };

/* ---- What a file is */

static int read_model(VocabularyFile *file, StringView bytes, const char *path, Error *error) {
    char *name = vocabulary_allocate(file, strlen(path) + 1, 1, error);
    if (name == NULL)
        return error->code;
    strcpy(name, path);
    file->vocabulary.kind = VOCABULARY_MODEL_FILE;
    file->vocabulary.model = bytes;
    file->vocabulary.name = name;
    return 0;
}

/* cJSON ends a string at the character NUL. */
static bool spells_nul(StringView text) {
    const char *at = text.bytes, *end = text.bytes + text.length;
    while ((at = memchr(at, '\\', (size_t)(end - at))) != NULL && end - at >= 6) {
        if (memcmp(at, "\\u0000", 6) == 0)
            return true;
        at += 2;
    }
    return false;
}

static int read_json(VocabularyFile *file, const char *path, size_t n_vocab, Error *error) {
    StringView text = mapped_file_bytes(&file->mapped);
    if (spells_nul(text))
        return error_set(
            error, ERROR_UNSUPPORTED,
            "%s: a token with the character NUL (\\u0000), which is not supported; use a checkpoint in GGUF", path);
    cJSON *root = json_document_parse(text, path, error);
    if (root == NULL)
        return error->code;
    int status = tokenizer_json_read(file, root, path, n_vocab, error);
    cJSON_Delete(root);
    mapped_file_close(&file->mapped);
    return status;
}

/* A SentencePiece model begins with a newline, the tag of its first piece. What is none of the three is refused as what
 * it is, or as a model that is damaged. */
static int read_file(VocabularyFile *file, const char *path, size_t n_vocab, bool *is_json, Error *error) {
    if (mapped_file_open(&file->mapped, path, error) < 0)
        return error->code;
    StringView bytes = mapped_file_bytes(&file->mapped);
    *is_json = bytes.bytes[0] == '{' || sv_starts_with(bytes, sv("\xef\xbb\xbf{"));
    if (bytes.length > MAX_FILE_BYTES)
        return error_set(error, ERROR_FORMAT, "%s: more than %d MB, so not " EXPECTED "; name the model's tokenizer",
                         path, MAX_FILE_BYTES >> 20);
    if (*is_json)
        return read_json(file, path, n_vocab, error);
    if (tiktoken_recognises(bytes))
        return tiktoken_read(file, bytes, path, n_vocab, error);
    if (bytes.bytes[0] != '\n' && foreign_file_refuse(bytes, path, EXPECTED, error) < 0)
        return error->code = ERROR_FORMAT;
    return read_model(file, bytes, path, error);
}

/* ---- Opening */

/* The path of `name` in `folder`; the caller frees it. NULL without memory. */
static char *path_in(const char *folder, size_t length, const char *name, Error *error) {
    size_t size = length + strlen(name) + 1;
    char *path = malloc(size);
    if (path == NULL)
        error_memory(error, "a path", size);
    else
        snprintf(path, size, "%.*s%s", (int)length, folder, name);
    return path;
}

static int open_file(VocabularyFile **out, const char *path, size_t n_vocab, bool in_folder, Error *error) {
    bool is_json = false;
    VocabularyFile *file = *out = vocabulary_file_new(error);
    if (file == NULL)
        return ERROR_MEMORY;
    int status = read_file(file, path, n_vocab, &is_json, error);
    if (status < 0)
        vocabulary_name_file(path, error);
    if (status == 0 && (is_json || in_folder)) {
        char *folder = path_in(path, path_folder_length(path), "", error);
        status = folder == NULL ? ERROR_MEMORY : tokenizer_settings_read(file, folder, error);
        free(folder);
    }
    if (status < 0) {
        vocabulary_file_free(file);
        *out = NULL;
    }
    return status;
}

int vocabulary_file_open(VocabularyFile **out, const char *path, size_t n_vocab, Error *error) {
    return open_file(out, path, n_vocab, false, error);
}

int vocabulary_folder_open(VocabularyFile **out, const char *folder, size_t n_vocab, Error *error) {
    static const char *const NAMES[] = {"tokenizer.json", "tokenizer.model"};
    *out = NULL;
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++) {
        char *path = path_in(folder, strlen(folder), NAMES[i], error);
        if (path == NULL)
            return ERROR_MEMORY;
        bool there = access(path, F_OK) == 0;
        int status = there ? open_file(out, path, n_vocab, true, error) : 0;
        free(path);
        if (there)
            return status;
    }
    return 0;
}

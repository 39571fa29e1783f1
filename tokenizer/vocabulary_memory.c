/* See vocabulary_memory.h. */
#include "tokenizer/vocabulary_memory.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int vocabulary_own(VocabularyFile *file, void *memory, Error *error) {
    void **allocations = realloc(file->allocations, (file->n_allocations + 1) * sizeof *allocations);
    if (allocations == NULL) {
        free(memory);
        return error_memory(error, "the vocabulary", sizeof *allocations);
    }
    file->allocations = allocations;
    allocations[file->n_allocations++] = memory;
    return 0;
}

void *vocabulary_allocate(VocabularyFile *file, size_t count, size_t size, Error *error) {
    void *memory = calloc(count > 0 ? count : 1, size);
    if (memory == NULL)
        error_memory(error, "the vocabulary", (unsigned long long)count * size);
    return memory != NULL && vocabulary_own(file, memory, error) == 0 ? memory : NULL;
}

int vocabulary_note(VocabularyFile *file, Error *error, const char *format, ...) {
    Error note; /* for its message: one line, whatever names in a file hold */
    char text[sizeof note.message];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    error_set(&note, ERROR_UNSUPPORTED, "%s", text);
    char *copy = strdup(note.message);
    if (copy == NULL)
        return error_memory(error, "a note", sizeof text);
    if (vocabulary_own(file, copy, error) < 0)
        return error->code;
    if (file->n_notes < VOCABULARY_NOTES)
        file->notes[file->n_notes++] = copy;
    return 0;
}

VocabularyFile *vocabulary_file_new(Error *error) {
    VocabularyFile *file = calloc(1, sizeof *file);
    if (file == NULL) {
        error_memory(error, "the vocabulary", sizeof *file);
        return NULL;
    }
    file->vocabulary = vocabulary_empty(VOCABULARY_NONE);
    return file;
}

void vocabulary_file_free(VocabularyFile *file) {
    if (file == NULL)
        return;
    mapped_file_close(&file->mapped);
    for (size_t i = 0; i < file->n_allocations; i++)
        free(file->allocations[i]);
    free(file->allocations);
    free(file);
}

void vocabulary_name_file(const char *path, Error *error) {
    Error named;
    if (error != NULL && strncmp(error->message, path, strlen(path)) != 0) {
        error_set(&named, error->code, "%s: %s", path, error->message);
        *error = named;
    }
}

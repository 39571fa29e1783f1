/* See checkpoint.h. */
#include "checkpoints/checkpoint.h"

#include "tokenizer/vocabulary_file.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <xxhash.h>

const MappedFile *checkpoint_map(Checkpoint *checkpoint, const char *path, Error *error) {
    MappedFile file;
    if (mapped_file_open(&file, path, error) < 0)
        return NULL;
    MappedFile *files = realloc(checkpoint->files, (checkpoint->n_files + 1) * sizeof *files);
    if (files == NULL) {
        mapped_file_close(&file);
        error_memory(error, "the list of files", sizeof *files);
        return NULL;
    }
    checkpoint->files = files;
    files[checkpoint->n_files] = file;
    return &files[checkpoint->n_files++];
}

void *checkpoint_allocate(Checkpoint *checkpoint, size_t count, size_t size, const char *what, Error *error) {
    void **allocations = realloc(checkpoint->allocations, (checkpoint->n_allocations + 1) * sizeof *allocations);
    if (allocations != NULL) {
        checkpoint->allocations = allocations;
        void *memory = calloc(count > 0 ? count : 1, size);
        if (memory != NULL)
            return allocations[checkpoint->n_allocations++] = memory;
    }
    error_memory(error, what, (unsigned long long)count * size);
    return NULL;
}

int checkpoint_note(Checkpoint *checkpoint, Error *error, const char *format, ...) {
    char text[sizeof error->message];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    size_t length = strlen(text);
    char *note = checkpoint_allocate(checkpoint, length + 1, 1, "a note", error);
    if (note == NULL)
        return error->code;
    for (size_t i = 0; i < length; i++) /* names from a file may hold anything: a note stays one line */
        note[i] = (unsigned char)text[i] < ' ' || text[i] == '\x7f' ? '?' : text[i];
    if (checkpoint->n_notes < CHECKPOINT_NOTES)
        checkpoint->notes[checkpoint->n_notes++] = note;
    return 0;
}

int checkpoint_read_tokenizer(Checkpoint *checkpoint, const char *folder, Error *error) {
    VocabularyFile *file;
    if (vocabulary_folder_open(&file, folder, checkpoint->config.n_vocab, &checkpoint->tokenizer_error) < 0 ||
        file == NULL)
        return 0;
    checkpoint->vocabulary_file = file;
    checkpoint->vocabulary = file->vocabulary;
    for (size_t i = 0; i < file->n_notes; i++)
        if (checkpoint_note(checkpoint, error, "%s", file->notes[i]) < 0)
            return error->code;
    return 0;
}

Tensor *checkpoint_add_tensors(Checkpoint *checkpoint, size_t count, Error *error) {
    Tensor *tensors = realloc(checkpoint->tensors, (checkpoint->n_tensors + count) * sizeof *tensors);
    if (tensors == NULL) {
        error_memory(error, "the list of tensors", (unsigned long long)count * sizeof *tensors);
        return NULL;
    }
    checkpoint->tensors = tensors;
    checkpoint->n_tensors += count;
    checkpoint->sorted = false;
    return memset(tensors + checkpoint->n_tensors - count, 0, count * sizeof *tensors);
}

static int by_name(const void *a, const void *b) {
    return sv_compare(((const Tensor *)a)->name, ((const Tensor *)b)->name);
}

int checkpoint_sort_tensors(Checkpoint *checkpoint, const char *path, Error *error) {
    Tensor *tensors = checkpoint->tensors;
    if (checkpoint->n_tensors > 0)
        qsort(tensors, checkpoint->n_tensors, sizeof *tensors, by_name);
    checkpoint->sorted = true;
    for (size_t i = 1; i < checkpoint->n_tensors; i++)
        if (sv_equal(tensors[i - 1].name, tensors[i].name))
            return error_set(error, ERROR_FORMAT, "%s: duplicate tensor %.*s; the file is damaged", path,
                             SV_ARGS(tensors[i].name));
    return 0;
}

const Tensor *checkpoint_tensor(const Checkpoint *checkpoint, const char *name) {
    const Tensor key = {.name = sv(name)};
    if (checkpoint->sorted && checkpoint->n_tensors > 0)
        return bsearch(&key, checkpoint->tensors, checkpoint->n_tensors, sizeof key, by_name);
    for (size_t i = 0; i < checkpoint->n_tensors; i++)
        if (sv_equal(checkpoint->tensors[i].name, key.name))
            return &checkpoint->tensors[i];
    return NULL;
}

void checkpoint_close(Checkpoint *checkpoint) {
    for (size_t i = 0; i < checkpoint->n_files; i++)
        mapped_file_close(&checkpoint->files[i]);
    for (size_t i = 0; i < checkpoint->n_allocations; i++)
        free(checkpoint->allocations[i]);
    vocabulary_file_free(checkpoint->vocabulary_file);
    free(checkpoint->files);
    free(checkpoint->allocations);
    free(checkpoint->tensors);
    *checkpoint = (Checkpoint){0};
}

static uint64_t tensor_hash(const Tensor *t) {
    const uint64_t head[] = {(uint64_t)t->type, t->shape[0], t->shape[1], t->shape[2], t->shape[3], t->group};
    uint64_t hash = XXH3_64bits(t->name.bytes, t->name.length);
    hash = XXH3_64bits_withSeed(head, sizeof head, hash);
    hash = XXH3_64bits_withSeed(t->data, t->size_bytes, hash);
    if (t->scales != NULL)
        hash = XXH3_64bits_withSeed(t->scales, t->size_bytes / t->group * sizeof *t->scales, hash);
    return hash;
}

uint64_t checkpoint_fingerprint(const Checkpoint *checkpoint) {
    uint64_t sum = 0; /* containers have tensors in different orders */
    for (size_t i = 0; i < checkpoint->n_tensors; i++)
        sum += tensor_hash(&checkpoint->tensors[i]);
    return sum;
}

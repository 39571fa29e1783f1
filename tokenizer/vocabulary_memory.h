/* A vocabulary that was read from a file, and owns what it points into: for those who read such files
 * (vocabulary_file.h opens them). */
#ifndef STOWKV_VOCABULARY_MEMORY_H
#define STOWKV_VOCABULARY_MEMORY_H

#include "base/error.h"
#include "base/mapped_file.h"
#include "tokenizer/vocabulary.h"

#define VOCABULARY_NOTES 4

typedef struct VocabularyFile {
    Vocabulary vocabulary;
    const char *notes[VOCABULARY_NOTES]; /* (n_notes) what is left out: lines for the user, "what; cure" */
    size_t n_notes;

    /* Owned: what the views above point into. */
    MappedFile mapped;
    void **allocations; /* (n_allocations) */
    size_t n_allocations;
} VocabularyFile;

/* Empty, with nothing known of BOS, EOS and the like; NULL out of memory. */
VocabularyFile *vocabulary_file_new(Error *error);
void vocabulary_file_free(VocabularyFile *file); /* NULL is fine */

/* Puts the file's path in front of an error that does not begin with it. */
void vocabulary_name_file(const char *path, Error *error);

/* Memory that lives as long as the file, zeroed; NULL on failure. */
void *vocabulary_allocate(VocabularyFile *file, size_t count, size_t size, Error *error);

/* Takes over what malloc() gave; frees it on failure. */
int vocabulary_own(VocabularyFile *file, void *memory, Error *error);

int vocabulary_note(VocabularyFile *file, Error *error, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif

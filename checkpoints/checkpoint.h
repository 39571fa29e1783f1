/* A checkpoint as data: configuration, vocabulary and tensors by name, whatever the container. Tensors are views of
 * mapped files, each checked to lie inside its file, but for vectors in 16 bits, which are copied to F32, and for
 * matrices that are cut over several files, which are joined. open.h fills it. */
#ifndef STOWKV_CHECKPOINT_H
#define STOWKV_CHECKPOINT_H

#include "base/mapped_file.h"
#include "base/tensor.h"
#include "checkpoints/config.h"
#include "tokenizer/vocabulary.h"

#define CHECKPOINT_NOTES 8

typedef struct Checkpoint {
    ModelConfig config;
    Vocabulary vocabulary;
    Error tokenizer_error; /* why the tokenizer beside the weights could not be read; the vocabulary is none then */
    Tensor *tensors;       /* (n_tensors) by name, once all have been read */
    size_t n_tensors;
    bool sorted;                         /* whether they are */
    size_t weights_bytes;                /* of all tensors, as the files encode them */
    bool is_outline;                     /* matrices that are joined of several files have no numbers */
    const char *notes[CHECKPOINT_NOTES]; /* (n_notes) what had to be guessed, or is left out: lines for the user */
    size_t n_notes;

    /* Owned by the checkpoint: what the views above point into. */
    MappedFile *files; /* (n_files) */
    size_t n_files;
    void **allocations; /* (n_allocations), each freed on close */
    size_t n_allocations;
    struct VocabularyFile *vocabulary_file; /* NULL where the vocabulary is the container's */
} Checkpoint;

void checkpoint_close(Checkpoint *checkpoint); /* closing twice is fine */

/* A hash of all weights with their names, types and shapes, whatever the container: reads the whole checkpoint once. */
uint64_t checkpoint_fingerprint(const Checkpoint *checkpoint);

/* By GGUF's name, "blk.0.attn_q.weight", for every container; NULL where there is none. */
const Tensor *checkpoint_tensor(const Checkpoint *checkpoint, const char *name);

/* For readers: */

/* What a file that is none should have been, for messages. */
#define CHECKPOINT_FORMATS "a model in GGUF, safetensors, PyTorch's or llama2.c's format"

/* Maps a further file and returns it, valid until the next is mapped; NULL on failure. */
const MappedFile *checkpoint_map(Checkpoint *checkpoint, const char *path, Error *error);

/* Memory that lives as long as the checkpoint, zeroed; NULL on failure. */
void *checkpoint_allocate(Checkpoint *checkpoint, size_t count, size_t size, const char *what, Error *error);

/* The vocabulary of a container that has none in it: the tokenizer in `folder` (vocabulary_folder_open()), for the
 * model of config.n_vocab tokens. What is wrong with it goes to tokenizer_error, for a run may name another tokenizer.
 */
int checkpoint_read_tokenizer(Checkpoint *checkpoint, const char *folder, Error *error);

/* Adds a note, "what; cure" as in errors. */
int checkpoint_note(Checkpoint *checkpoint, Error *error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Adds `count` zeroed tensors and returns the first, valid until more are added; NULL on failure. */
Tensor *checkpoint_add_tensors(Checkpoint *checkpoint, size_t count, Error *error);

/* Puts tensors in the order of their names, in which checkpoint_tensor() need not look at all of them; names that
 * change must be sorted again. ERROR_FORMAT where two are the same. */
int checkpoint_sort_tensors(Checkpoint *checkpoint, const char *path, Error *error);

#endif

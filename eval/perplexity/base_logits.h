/* A file with the full cache's distributions at every scored token, so that further policies are compared without
 * running the full cache again. Log-probabilities are rounded to 16 bits of each position's own range (a step of about
 * 0.0005 nats, which moves a KL divergence by less than 1e-6), half of F32; each position carries a checksum.
 *
 *     BaseLogits file;
 *     BaseLogitsKey key = {…};                                     // what must agree between writer and reader
 *     if (base_logits_create(&file, path, &key, &error) < 0) …      // or base_logits_open(), which checks the key
 *     if (base_logits_write(&file, logits, nll, n_rows, &error) < 0) …   // or base_logits_read(), in the same order
 *     if (base_logits_commit(&file, &error) < 0) …
 *     base_logits_close(&file); */
#ifndef STOWKV_BASE_LOGITS_H
#define STOWKV_BASE_LOGITS_H

#include "base/mapped_file.h"
#include "base/output_file.h"

/* What a distribution depends on. */
typedef struct BaseLogitsKey {
    uint64_t model;  /* checkpoint_fingerprint() */
    uint64_t tokens; /* a hash of the tokens of all windows, and of the windows */
    uint64_t n_vocab;
    uint64_t n_rows; /* scored tokens */
} BaseLogitsKey;

typedef struct BaseLogits {
    BaseLogitsKey key;
    OutputFile out;
    MappedFile in;
    const char *path; /* not owned */
    size_t row_bytes;
    uint8_t *row; /* (row_bytes) one position's record, owned */
    size_t n_done;
} BaseLogits;

int base_logits_create(BaseLogits *file, const char *path, const BaseLogitsKey *key, Error *error);
int base_logits_open(BaseLogits *file, const char *path, const BaseLogitsKey *key, Error *error);

int base_logits_write(BaseLogits *file,
                      const float *logits, // (n_rows, n_vocab)
                      const double *nll,   // (n_rows) of the true tokens, stored exactly
                      size_t n_rows, Error *error);

/* The next n_rows: log-probabilities, which are logits whose exponentials sum to 1. */
int base_logits_read(BaseLogits *file,
                     float *logits, // (n_rows, n_vocab)
                     double *nll,   // (n_rows)
                     size_t n_rows, Error *error);

/* Puts the created file in its place; without a commit no file is left behind. */
int base_logits_commit(BaseLogits *file, Error *error);
void base_logits_close(BaseLogits *file); /* closing twice is fine */

/* Of a file for this key, in bytes. */
size_t base_logits_size(const BaseLogitsKey *key);

#endif

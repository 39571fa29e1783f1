/* Longest common subsequences of sequences of ids.
 *
 *     size_t length;
 *     if (lcs_length(a, n_a, b, n_b, &length, &error) < 0) …
 */
#ifndef STOWKV_LCS_H
#define STOWKV_LCS_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* In n_a * n_b steps and the memory of the shorter one. */
int lcs_length(const uint32_t *a, size_t n_a, const uint32_t *b, size_t n_b, size_t *length, Error *error);

/* Sets marks[i] (n_a; others stay as they are) for each a[i] that is part of one longest common subsequence, of several
 * the one that rouge-score 0.1.2 finds. Takes a bit for each of n_a * n_b pairs. */
int lcs_mark(const uint32_t *a, size_t n_a, const uint32_t *b, size_t n_b, bool *marks, Error *error);

#endif

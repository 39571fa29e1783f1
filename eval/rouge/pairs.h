/* Scoring texts that are there already: a file of JSON lines {"reference": text or [texts], "prediction": text}.
 *
 *     RougePairs pairs;
 *     if (rouge_pairs_score(&pairs, "pairs.jsonl", false, &options, &interrupted, &error) < 0) …
 *     rouge_pairs_free(&pairs);
 */
#ifndef STOWKV_ROUGE_PAIRS_H
#define STOWKV_ROUGE_PAIRS_H

#include "eval/rouge/texts.h"

#include <signal.h>
#include <stdbool.h>

typedef struct RougePairs {
    RougeScore *scores; /* (count), in the file's order */
    size_t count;
    RougeScore mean;
    size_t n_bad; /* lines left out */
    BlankLines blank;
} RougePairs;

/* Scores every line; `path` may be "-", stdin. With `skip_bad_lines` a line that is no pair is told on stderr and left
 * out. A file without a pair is an error. Freed with rouge_pairs_free(), also after an error. */
int rouge_pairs_score(RougePairs *pairs, const char *path, bool skip_bad_lines, const RougeOptions *options,
                      const volatile sig_atomic_t *interrupted, Error *error);
void rouge_pairs_free(RougePairs *pairs); /* freeing twice is fine */

#endif

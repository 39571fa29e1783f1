/* The sequences of recall at a distance: random tokens that hold a random segment d tokens back, and then that segment
 * again. They stand one behind the other, each a window for an evaluation (eval/perplexity/evaluation.h):
 *
 *     [BOS] lead | segment | filler | segment
 *                ^ p                ^ p + d: its first quarter is read, the rest is scored
 *
 * Everything is drawn by SplitMix64 (base/random.h), in the order in which it is told here, so that the same tokens
 * come out everywhere. The state of sample i at distance d starts as s: s = next(seed) ^ d, then s = next(s) ^ i.
 *
 *  - p: the lead has 64 + below(64) tokens, BOS among them where the model's rule puts it: behind every usual sink, and
 *    at all places within a group of the cache.
 *  - The segment's tokens differ from each other and from all others of the sequence: of the ordinary tokens, in
 *    ascending order, the one at j is exchanged with the one at j + below(n - j), for j = 0, 1, … up to the segment's
 *    length; the first ones are the segment.
 *  - Every other token, in the order of the sequence, is one of the rest: at the segment's length + below(what is
 * left).
 *
 *     RecallTask task = {.segment = 32, .n_samples = 50, .seed = 1, .distances = distances, .bos = -1};
 *     if (recall_ordinary_tokens(tokenizer, &task, &error) < 0 || recall_sequences(&task, &sequences, &error) < 0) …
 *     recall_sequences_free(&sequences);
 *     recall_task_free(&task);
 */
#ifndef STOWKV_RECALL_SEGMENTS_H
#define STOWKV_RECALL_SEGMENTS_H

#include "eval/perplexity/windows.h"
#include "eval/size_list.h"
#include "tokenizer/tokenizer.h"

#define RECALL_LEAD 64 /* tokens in front of the segment, at least; at most twice as many less one */

typedef struct RecallTask {
    SizeList distances; /* from a token to its repetition */
    size_t segment;     /* tokens, a multiple of 4 */
    size_t n_samples;   /* of each distance */
    uint64_t seed;
    int32_t bos;       /* -1: none */
    int32_t *ordinary; /* (n_ordinary) ids in ascending order */
    size_t n_ordinary;
} RecallTask;

/* Sample after sample, in each the distances in order: so that the first n windows are an experiment of their own. */
typedef struct RecallSequences {
    int32_t *tokens; /* (sum of lengths) */
    PplWindows windows;
} RecallSequences;

/* Fills `ordinary` with the tokens that are text: neither control, byte, unknown, unused nor user-defined tokens, nor
 * one that ends a text. ERROR_ARGUMENT where they are too few for the segment. */
int recall_ordinary_tokens(const Tokenizer *tokenizer, RecallTask *task, Error *error);
void recall_task_free(RecallTask *task);

/* Tokens that a context must hold for this distance, and the largest distance for a context; 0: none fits. */
size_t recall_tokens_needed(size_t segment, size_t distance);
size_t recall_largest_distance(size_t segment, size_t n_ctx);

/* Scored tokens of a sequence: three quarters of the segment. */
size_t recall_scored(size_t segment);

int recall_sequences(const RecallTask *task, RecallSequences *out, Error *error);
void recall_sequences_free(RecallSequences *sequences); /* fine after the windows were given to an evaluation */

#endif

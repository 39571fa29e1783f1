/* Penalties for tokens that were there before, by llama.cpp's definitions, against loops. Of the last `window` tokens,
 * of prompt and answer, each has its logit divided by `repetition` (multiplied where it is not positive); then
 * `frequency` is subtracted as often as the token is there, and `presence` once.
 *
 *     PenaltyState state;
 *     if (penalties_open(&state, &penalties, n_vocab, &error) < 0) …
 *     if (penalties_accept(&state, token, &error) < 0) …       // each token that the model reads
 *     penalties_apply(&state, logits);
 *     …                                                        // choose
 *     penalties_undo(&state, logits);
 *     penalties_close(&state);
 */
#ifndef STOWKV_PENALTIES_H
#define STOWKV_PENALTIES_H

#include "tokenizer/token_list.h"

#include <stdbool.h>

/* All zero is none; so is {1, 0, 0, window}. */
typedef struct Penalties {
    double repetition, frequency, presence;
    size_t window; /* in tokens; SIZE_MAX: all */
} Penalties;

typedef struct SeenToken {
    uint32_t count; /* within the window */
    bool listed;    /* in `ids` */
} SeenToken;

typedef struct PenaltyState {
    Penalties penalties;
    TokenList history;
    SeenToken *seen; /* (n_vocab) */
    int32_t *ids;    /* (n_ids) tokens of the window, each once, and perhaps some that have left it */
    float *logits;   /* (n_ids) as they were before penalties_apply() */
    size_t n_vocab, n_ids;
} PenaltyState;

bool penalties_are_on(const Penalties *penalties);

/* Without penalties nothing is allocated, and the functions below do nothing. */
int penalties_open(PenaltyState *state, const Penalties *penalties, size_t n_vocab, Error *error);
void penalties_close(PenaltyState *state); /* closing twice is fine */
void penalties_reset(PenaltyState *state); /* no token was there before */

/* 0 <= token < n_vocab. */
int penalties_accept(PenaltyState *state, int32_t token, Error *error);

/* logits: (n_vocab). What they take is proportional to the window, whatever the vocabulary. */
void penalties_apply(PenaltyState *state, float *logits);
void penalties_undo(const PenaltyState *state, float *logits);

#endif

/* The single needle of RULER (Hsieh et al. 2024, niah_single): a sentence with a number for a key, hidden in a
 * haystack, and the question for it. Texts are RULER's for one needle; keys are two words, "adjective-noun", of lists
 * here.
 *
 *     Needle needle = needle_draw(seed, length, position, sample);
 *     NeedleText text;
 *     if (needle_text(&haystack, &needle, n_units, position, n_positions, &text, &error) < 0) …
 *     text.question …  text.answer                                   // the answer's beginning is given
 *     needle_text_free(&text);
 */
#ifndef STOWKV_RECALL_NEEDLE_H
#define STOWKV_RECALL_NEEDLE_H

#include "eval/recall/haystack.h"
#include "session/prompt.h"

typedef struct Needle {
    char key[32];   /* "brave-otter" */
    char number[8]; /* seven digits, the first not 0 */
} Needle;

/* By SplitMix64 (base/random.h): s = next(seed) ^ length, s = next(s) ^ position, s = next(s) ^ sample; then the
 * adjective below(32), the noun below(32) and the number 1000000 + below(9000000) are drawn. */
Needle needle_draw(uint64_t seed, size_t length, size_t position, size_t sample);

/* In front of which unit of n_units the needle stands: the position's share, position / (n_positions - 1), of them,
 * rounded; half of them where there is one position alone. n_units: behind all. */
size_t needle_place(size_t n_units, size_t position, size_t n_positions);

typedef struct NeedleText {
    char *question, *answer; /* NUL-terminated; the answer begins with a space */
} NeedleText;

int needle_text(const Haystack *haystack, const Needle *needle, size_t n_units, size_t place, NeedleText *out,
                Error *error);
void needle_text_free(NeedleText *text); /* freeing twice is fine */

/* How prompts are made, and how large they may be. */
typedef struct NeedleFrame {
    const Session *session;
    const ChatTemplate *chat; /* NULL: none */
    const Haystack *haystack;
    size_t n_positions, max_new_tokens;
} NeedleFrame;

/* ERROR_ARGUMENT where question and answer are more than `length` tokens without any haystack. `tokens` are replaced.
 */
int needle_check(const NeedleFrame *frame, const Needle *needle, size_t length, TokenList *tokens, Error *error);

/* Replaces `tokens` by the prompt: the question as the user's message, and the beginning of the answer; or both as one
 * text. It has as many units as fit, so that prompt and max_new_tokens are no more than `length`, as RULER counts.
 * The errors are those of needle_check(). Returns the units in *n_units, unless that is NULL. */
int needle_prompt(const NeedleFrame *frame, const Needle *needle, size_t length, size_t position, TokenList *tokens,
                  size_t *n_units, Error *error);

#endif

/* Two texts as ROUGE compares them: their words as ids, equal words with the same id.
 *
 *     RougePair pair;
 *     if (rouge_pair_open(&pair, reference, prediction, stem, by_line, &error) < 0) …
 *     rouge_pair_close(&pair);
 *
 * The words are those of rouge-score 0.1.2: Unicode lower case, then the runs of [a-z0-9]; with `stem` those of more
 * than three letters are stemmed. */
#ifndef STOWKV_ROUGE_TOKENS_H
#define STOWKV_ROUGE_TOKENS_H

#include "base/error.h"
#include "base/string_view.h"

#include <stdint.h>

typedef struct RougeText {
    uint32_t *ids; /* (count) */
    size_t count;
    size_t *ends; /* (n_sentences) index behind each one's last word; without by_line there is one */
    size_t n_sentences;
} RougeText;

typedef struct RougePair {
    RougeText reference, prediction;
} RougePair;

/* With `by_line` a line break ends a sentence. Sentences without words are left out. */
int rouge_pair_open(RougePair *pair, StringView reference, StringView prediction, bool stem, bool by_line,
                    Error *error);
void rouge_pair_close(RougePair *pair); /* closing twice is fine */

/* Whether the text has a word: one without scores 0 against anything. */
bool rouge_has_words(StringView text);

#endif

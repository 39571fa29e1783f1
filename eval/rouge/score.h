/* ROUGE-1, -2, -L and -Lsum (Lin 2004) exactly as Google's rouge-score 0.1.2 computes them.
 *
 *     RougeOptions options = {ROUGE_L, false};
 *     StringView references[] = {sv("testing one two")};
 *     RougeScore score;
 *     if (rouge_score(references, 1, sv("testing two"), &options, &score, &error) < 0) …
 *     // score.precision 1, score.recall 0.666667, score.f 0.8
 */
#ifndef STOWKV_ROUGE_SCORE_H
#define STOWKV_ROUGE_SCORE_H

#include "base/error.h"
#include "base/string_view.h"

typedef enum RougeVariant {
    ROUGE_L,    /* the longest common subsequence of the whole texts */
    ROUGE_LSUM, /* the union, over the prediction's lines, of those of each reference line */
    ROUGE_1,    /* common words */
    ROUGE_2,    /* common pairs of neighbouring words */
    ROUGE_VARIANT_COUNT
} RougeVariant;

typedef struct RougeOptions {
    RougeVariant variant;
    bool stem;
} RougeOptions;

typedef struct RougeScore {
    double precision, recall, f;
} RougeScore;

const char *rouge_variant_name(RougeVariant variant); /* "rougeL" */
int rouge_variant_parse(const char *name, RougeVariant *out, Error *error);

/* Of several references (at least one) the first with the highest F counts. Texts are UTF-8; all is 0 where one has no
 * letters or digits of ASCII. Time grows with the product of the lengths; memory with their sum, except for ROUGE-Lsum,
 * which takes a bit for each pair of words of the two longest lines. */
int rouge_score(const StringView *references, size_t n_references, StringView prediction, const RougeOptions *options,
                RougeScore *out, Error *error);

/* The arithmetic mean of each of the three; n > 0. */
RougeScore rouge_mean(const RougeScore *scores, size_t n);

#endif

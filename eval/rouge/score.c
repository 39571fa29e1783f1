/* Counting what two texts share; see score.h. */
#include "eval/rouge/score.h"

#include "base/options.h"
#include "eval/rouge/lcs.h"
#include "eval/rouge/tokens.h"

#include <stdlib.h>

static const char *const NAMES[] = {[ROUGE_L] = "rougeL",
                                    [ROUGE_LSUM] = "rougeLsum",
                                    [ROUGE_1] = "rouge1",
                                    [ROUGE_2] = "rouge2",
                                    [ROUGE_VARIANT_COUNT] = NULL};

const char *rouge_variant_name(RougeVariant variant) {
    return NAMES[variant];
}

int rouge_variant_parse(const char *name, RougeVariant *out, Error *error) {
    for (RougeVariant variant = 0; variant < ROUGE_VARIANT_COUNT; variant++)
        if (strcmp(name, NAMES[variant]) == 0) {
            *out = variant;
            return 0;
        }
    return error_set(error, ERROR_USAGE,
                     "--variant %s: unknown; did you mean %s? It takes rougeL, rougeLsum, rouge1 or rouge2", name,
                     nearest_name(name, NAMES));
}

static RougeScore score_of(size_t n_common, size_t n_reference, size_t n_prediction) {
    RougeScore score = {0};
    if (n_reference == 0 || n_prediction == 0)
        return score;
    score.precision = (double)n_common / (double)n_prediction;
    score.recall = (double)n_common / (double)n_reference;
    if (n_common > 0)
        score.f = 2 * score.precision * score.recall / (score.precision + score.recall);
    return score;
}

static int ascending(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* The n-grams of a text, n being 1 or 2, as sorted integers of their ids. */
static int list_grams(const RougeText *text, size_t n, uint64_t **grams, size_t *count, Error *error) {
    *count = text->count >= n ? text->count - n + 1 : 0;
    *grams = calloc(*count + 1, sizeof **grams);
    if (*grams == NULL)
        return error_memory(error, "the n-grams of a text", *count * sizeof **grams);
    for (size_t i = 0; i < *count; i++)
        (*grams)[i] = (uint64_t)text->ids[i] << 32 | (n == 2 ? text->ids[i + 1] : 0);
    qsort(*grams, *count, sizeof **grams, ascending);
    return 0;
}

static size_t count_common(const uint64_t *a, size_t n_a, const uint64_t *b, size_t n_b) {
    size_t n_common = 0;
    for (size_t i = 0, j = 0; i < n_a && j < n_b;) {
        n_common += a[i] == b[j];
        bool next_a = a[i] <= b[j], next_b = b[j] <= a[i];
        i += next_a;
        j += next_b;
    }
    return n_common;
}

static int score_grams(const RougePair *pair, size_t n, RougeScore *out, Error *error) {
    uint64_t *reference = NULL, *prediction = NULL;
    size_t n_reference, n_prediction;
    int status = list_grams(&pair->reference, n, &reference, &n_reference, error);
    if (status == 0)
        status = list_grams(&pair->prediction, n, &prediction, &n_prediction, error);
    if (status == 0)
        *out = score_of(count_common(reference, n_reference, prediction, n_prediction), n_reference, n_prediction);
    free(reference);
    free(prediction);
    return status;
}

static int score_lcs(const RougePair *pair, RougeScore *out, Error *error) {
    const RougeText *reference = &pair->reference, *prediction = &pair->prediction;
    size_t length;
    if (lcs_length(reference->ids, reference->count, prediction->ids, prediction->count, &length, error) < 0)
        return error->code;
    *out = score_of(length, reference->count, prediction->count);
    return 0;
}

/* Marks the reference's words that are in the union. */
static int mark_union(const RougePair *pair, bool *marks, Error *error) {
    const RougeText *reference = &pair->reference, *prediction = &pair->prediction;
    for (size_t r = 0, begin = 0; r < reference->n_sentences; begin = reference->ends[r++])
        for (size_t p = 0, from = 0; p < prediction->n_sentences; from = prediction->ends[p++])
            if (lcs_mark(reference->ids + begin, reference->ends[r] - begin, prediction->ids + from,
                         prediction->ends[p] - from, marks + begin, error) < 0)
                return error->code;
    return 0;
}

/* Marked words of the reference, each word at most as often as the prediction has it. left: zeroed, by id. */
static size_t count_hits(const RougePair *pair, const bool *marks, size_t *left) {
    size_t n_hits = 0;
    for (size_t i = 0; i < pair->prediction.count; i++)
        left[pair->prediction.ids[i]]++;
    for (size_t i = 0; i < pair->reference.count; i++)
        if (marks[i] && left[pair->reference.ids[i]] > 0) {
            left[pair->reference.ids[i]]--;
            n_hits++;
        }
    return n_hits;
}

static int score_union(const RougePair *pair, RougeScore *out, Error *error) {
    size_t n_reference = pair->reference.count, n_prediction = pair->prediction.count;
    bool *marks = calloc(n_reference + 1, sizeof *marks);
    size_t *left = calloc(n_reference + n_prediction + 1, sizeof *left); /* ids are smaller than the number of words */
    int status = marks == NULL || left == NULL
                     ? error_memory(error, "comparing texts", (n_reference + n_prediction) * sizeof *left)
                     : mark_union(pair, marks, error);
    if (status == 0)
        *out = score_of(count_hits(pair, marks, left), n_reference, n_prediction);
    free(marks);
    free(left);
    return status;
}

static int score_one(StringView reference, StringView prediction, const RougeOptions *options, RougeScore *out,
                     Error *error) {
    RougePair pair;
    int status;
    if (rouge_pair_open(&pair, reference, prediction, options->stem, options->variant == ROUGE_LSUM, error) < 0)
        return error->code;
    if (options->variant == ROUGE_L)
        status = score_lcs(&pair, out, error);
    else if (options->variant == ROUGE_LSUM)
        status = score_union(&pair, out, error);
    else
        status = score_grams(&pair, options->variant == ROUGE_1 ? 1 : 2, out, error);
    rouge_pair_close(&pair);
    return status;
}

int rouge_score(const StringView *references, size_t n_references, StringView prediction, const RougeOptions *options,
                RougeScore *out, Error *error) {
    *out = (RougeScore){0};
    for (size_t i = 0; i < n_references; i++) {
        RougeScore score;
        if (score_one(references[i], prediction, options, &score, error) < 0)
            return error->code;
        if (i == 0 || score.f > out->f)
            *out = score;
    }
    return 0;
}

RougeScore rouge_mean(const RougeScore *scores, size_t n) {
    RougeScore sum = {0};
    for (size_t i = 0; i < n; i++) {
        sum.precision += scores[i].precision;
        sum.recall += scores[i].recall;
        sum.f += scores[i].f;
    }
    return (RougeScore){sum.precision / (double)n, sum.recall / (double)n, sum.f / (double)n};
}

/* See pairs.h. */
#include "eval/rouge/pairs.h"

#include "base/array.h"

#include <stdlib.h>

static int add_score(RougePairs *pairs, const RougeScore *score, Error *error) {
    RougeScore *scores = array_for_one_more(pairs->scores, pairs->count, sizeof *scores, "scores", error);
    if (scores == NULL)
        return ERROR_MEMORY;
    pairs->scores = scores;
    pairs->scores[pairs->count++] = *score;
    return 0;
}

static int score_line(RougePairs *pairs, JsonlReader *reader, const RougeOptions *options, Error *error) {
    cJSON *references;
    StringView prediction;
    RougeScore score;
    if (jsonl_texts(reader, "reference", &references, error) < 0 ||
        jsonl_text(reader, "prediction", &prediction, error) < 0)
        return jsonl_settle(reader, error);
    if (rouge_score_texts(references, prediction, options, reader->number, &score, &pairs->blank, error) < 0)
        return error->code;
    return add_score(pairs, &score, error);
}

int rouge_pairs_score(RougePairs *pairs, const char *path, bool skip_bad_lines, const RougeOptions *options,
                      const volatile sig_atomic_t *interrupted, Error *error) {
    JsonlReader reader;
    int status;
    *pairs = (RougePairs){0};
    if (jsonl_open(&reader, path, error) < 0)
        return error->code;
    reader.notes = skip_bad_lines ? stderr : NULL;
    while ((status = jsonl_next(&reader, error)) > 0 && (status = score_line(pairs, &reader, options, error)) == 0)
        if (*interrupted) {
            status = error_set(error, ERROR_INTERRUPTED, "interrupted");
            break;
        }
    pairs->n_bad = reader.n_bad;
    if (status == 0 && pairs->count == 0)
        status = error_set(error, ERROR_FORMAT,
                           "%s: has no pair to score (%zu bad lines); give one a line, as {\"reference\": \"text\", "
                           "\"prediction\": \"text\"}",
                           reader.path, reader.n_bad);
    if (status == 0)
        pairs->mean = rouge_mean(pairs->scores, pairs->count);
    jsonl_close(&reader);
    return status;
}

void rouge_pairs_free(RougePairs *pairs) {
    free(pairs->scores);
    *pairs = (RougePairs){0};
}

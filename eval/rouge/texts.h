/* Scoring a text that came as JSON, and keeping count of texts that cannot score.
 *
 *     BlankLines blank = {0};
 *     if (rouge_score_texts(references, prediction, &options, line, &score, &blank, &error) < 0) …
 *     blank_lines_print(&blank, n_texts, "pairs.jsonl", stderr);
 */
#ifndef STOWKV_ROUGE_TEXTS_H
#define STOWKV_ROUGE_TEXTS_H

#include "session/jsonl.h"
#include "eval/rouge/score.h"

/* Lines whose references or prediction have no word, and which score 0 for that reason. */
#define BLANK_LINES_SHOWN 8
typedef struct BlankLines {
    size_t lines[BLANK_LINES_SHOWN]; /* the first of them */
    size_t count;
} BlankLines;

/* `references` is what jsonl_texts() gave, of this line. */
int rouge_score_texts(const cJSON *references, StringView prediction, const RougeOptions *options, size_t line,
                      RougeScore *out, BlankLines *blank, Error *error);

/* A warning that names the lines, of n, where there are any. */
void blank_lines_print(const BlankLines *blank, size_t n, const char *what, FILE *stream);

#endif

/* See texts.h. */
#include "eval/rouge/texts.h"

#include "eval/rouge/tokens.h"

#include <stdlib.h>

static void add_line(BlankLines *blank, size_t line) {
    if (blank->count < BLANK_LINES_SHOWN)
        blank->lines[blank->count] = line;
    blank->count++;
}

int rouge_score_texts(const cJSON *references, StringView prediction, const RougeOptions *options, size_t line,
                      RougeScore *out, BlankLines *blank, Error *error) {
    size_t n = jsonl_texts_count(references);
    StringView *views = calloc(n, sizeof *views);
    bool has_words = false;
    if (views == NULL)
        return error_memory(error, "references", n * sizeof *views);
    const cJSON *text = cJSON_IsArray(references) ? references->child : references;
    for (size_t i = 0; i < n; i++, text = text->next) {
        views[i] = sv(text->valuestring);
        has_words = has_words || rouge_has_words(views[i]);
    }
    if (!has_words || !rouge_has_words(prediction))
        add_line(blank, line);
    int status = rouge_score(views, n, prediction, options, out, error);
    free(views);
    return status;
}

void blank_lines_print(const BlankLines *blank, size_t n, const char *what, FILE *stream) {
    if (blank->count == 0)
        return;
    fprintf(stream, "warning: %s: %zu of %zu have a text without Latin letters or digits and score 0: line%s", what,
            blank->count, n, blank->count > 1 ? "s" : "");
    for (size_t i = 0; i < blank->count && i < BLANK_LINES_SHOWN; i++)
        fprintf(stream, "%s %zu", i > 0 ? "," : "", blank->lines[i]);
    fprintf(stream, "%s\n", blank->count > BLANK_LINES_SHOWN ? ", …" : "");
}

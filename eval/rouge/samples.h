/* What a generate-and-score run works on: the first usable records of a file of JSON lines, each with its references
 * and the tokens of its prompt, so that every cache policy reads the same.
 *
 *     RougeData data = {.path = "xsum.jsonl", .prompt_field = "article", .reference_field = "summary", …};
 *     RougeSamples samples;
 *     if (rouge_samples_read(&samples, &session, chat, &data, &error) < 0) …
 *     rouge_samples_free(&samples);
 */
#ifndef STOWKV_ROUGE_SAMPLES_H
#define STOWKV_ROUGE_SAMPLES_H

#include "session/jsonl.h"
#include "session/prompt.h"

#include <signal.h>

typedef struct RougeData {
    const char *path, *prompt_field, *reference_field;
    const char *prompt_template;              /* "{}", or the prompt field's name in braces, stands for the article */
    size_t n_samples;                         /* at most; 0: all */
    size_t n_prompt_max;                      /* tokens that a prompt may have */
    bool skip_long;                           /* leave records with longer ones out, instead of cutting the article */
    bool skip_bad_lines;                      /* with a note on stderr each */
    const volatile sig_atomic_t *interrupted; /* stop when it is set; may be NULL */
} RougeData;

typedef struct RougeSample {
    size_t line;       /* of the file, from 1 */
    cJSON *references; /* for jsonl_texts_get(); NULL: none, and no score */
    TokenList prompt;
    size_t n_cut; /* tokens that the prompt lost with the end of its article */
} RougeSample;

typedef struct RougeSamples {
    RougeSample *items;
    size_t count;
    size_t n_cut;        /* samples whose article was cut */
    size_t n_tokens_cut; /* of all of them */
    size_t n_too_long;   /* records left out */
    size_t n_bad;        /* lines left out */
} RougeSamples;

/* ERROR_USAGE unless the template names the article exactly once. */
int rouge_template_check(const char *prompt_template, const char *prompt_field, Error *error);

/* A cut article is its longest beginning, in whole characters, with which the prompt fits. The list is freed with
 * rouge_samples_free(), also after an error. A file without a usable record is an error. */
int rouge_samples_read(RougeSamples *samples, const Session *session, const ChatTemplate *chat, const RougeData *data,
                       Error *error);
void rouge_samples_free(RougeSamples *samples); /* freeing twice is fine */

#endif

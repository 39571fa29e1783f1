/* From a text to an evaluation: its tokens, and the windows that a definition cuts of them.
 *
 *     PplText text = {0};
 *     PplSetup setup = {.model_path = …, .settings = {.definition = PPL_LLAMACPP, .context = 512, .stride = 512}};
 *     Evaluation e = {.model = &model, …};
 *     if (ppl_text_read(&text, path, setup.settings.definition, tokenizer, &error) < 0) …
 *     if (ppl_set_up(&setup, text.name, &text.tokens, tokenizer, &e, &error) < 0) …
 *     … evaluation_open(&e, …) …
 *     ppl_text_free(&text);
 */
#ifndef STOWKV_PERPLEXITY_SETUP_H
#define STOWKV_PERPLEXITY_SETUP_H

#include "base/text_file.h"
#include "eval/perplexity/evaluation.h"
#include "tokenizer/tokenizer.h"

/* A file's bytes, or its rows as the definition joins them, as tokens. */
typedef struct PplText {
    const char *name; /* for people: the path, not owned, or "stdin" */
    TokenList tokens;
    size_t n_crlf; /* line ends that were CRLF, and are read as LF */
} PplText;

/* Refuses what is no text, and an empty one. Freed with ppl_text_free(), also after an error. */
int ppl_text_read(PplText *text, const char *path, PplDefinition definition, const Tokenizer *tokenizer, Error *error);
void ppl_text_free(PplText *text); /* twice is fine */

/* What stands beside every figure. */
typedef struct PplSetup {
    const char *model_path;
    PplSettings settings;
    const char *text_path; /* from here on filled by ppl_set_up() */
    size_t n_text_tokens;
    const char *bos; /* "replaced", "once" or "none" */
} PplSetup;

/* Fills the setup, and of `e` tokens, bos, windows and n_ctx. The tokens stay the caller's. */
int ppl_set_up(PplSetup *setup, const char *text_name, const TokenList *tokens, const Tokenizer *tokenizer,
               Evaluation *e, Error *error);

#endif

/* Reading a prompt and generating text from it.
 *
 *     Generation run = {.session = &session, .on_text = print_text};
 *     if (generation_read(&run, prompt.ids, prompt.count, &error) < 0) …
 *     if (generation_continue(&run, &options, &error) < 0) …
 *     generation_free(&run);
 */
#ifndef STOWKV_GENERATION_H
#define STOWKV_GENERATION_H

#include "session/prefix_reuse.h"
#include "session/sampler.h"
#include "session/session.h"

#include <signal.h>

typedef struct GenerationOptions {
    size_t max_new_tokens;
    bool ignore_eos;         /* go on behind the model's end-of-text tokens */
    const StringList *stops; /* text that ends the generation and is not part of it */
} GenerationOptions;

typedef enum GenerationEnd {
    END_NONE,    /* nothing was generated yet */
    END_OF_TEXT, /* the model ended its text */
    END_MAX_TOKENS,
    END_STOP_STRING,
    END_CONTEXT_FULL,
    END_INTERRUPTED
} GenerationEnd;

/* A speed, and the depths (tokens in the cache) from and to which it was measured. */
typedef struct GenerationSpeed {
    size_t n_tokens;
    double seconds;
    size_t depth_begin, depth_end;
} GenerationSpeed;

typedef struct Generation {
    Session *session;                                                /* not owned */
    Sampler *sampler;                                                /* not owned */
    PrefixReuse *reuse;                                              /* not owned; NULL: all is computed */
    void *user;                                                      /* for the callbacks */
    int (*on_text)(void *user, StringView text, Error *error);       /* text as it comes; may be NULL */
    void (*on_progress)(void *user, size_t n_read, size_t n_prompt); /* after each batch of a prompt; may be NULL */
    const volatile sig_atomic_t *interrupted;                        /* stop when it is set; may be NULL */

    TokenList prompt;    /* all tokens of generation_read() */
    TokenList generated; /* all that were generated, without end_token */
    char *text;          /* what they say, without a stop string, all that on_text was given; may hold NULs, and has one
                            behind it; NULL: none yet */
    size_t text_length;
    int32_t end_token; /* the end-of-text token that was generated last, or -1 */
    GenerationEnd end;
    GenerationSpeed prefill, decode;
} Generation;

/* Reads tokens into the cache, those that `reuse` has for an empty one from there. ERROR_ARGUMENT: they do not fit;
 * ERROR_INTERRUPTED: the caller asked to stop. */
int generation_read(Generation *run, const int32_t *tokens, size_t n_tokens, Error *error);

/* Generates from the logits that the generation_read() just before has left; run->end says why it stopped. */
int generation_continue(Generation *run, const GenerationOptions *options, Error *error);

/* Adds to the text what no token says, such as a line's end behind an answer, and hands it to on_text. */
int generation_say(Generation *run, StringView text, Error *error);

/* What to do where the context is full: "use a larger --n_ctx (up to 8192), or --compress_kv, which …". */
#define CONTEXT_CURE_TEXT 128
const char *generation_context_cure(const Generation *run, char text[CONTEXT_CURE_TEXT]);

const char *generation_end_name(GenerationEnd end); /* for a summary: "end of text" */
void generation_free(Generation *run);

#endif

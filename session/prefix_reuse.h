/* What a program does not compute twice: before a prompt is read, the longest beginning of it that is stored goes into
 * the session's cache; behind each whole batch, and where reading or generating ends, the state is stored. Generation
 * calls these functions where a run has a PrefixReuse.
 *
 *     PrefixReuse reuse;
 *     if (prefix_reuse_open(&reuse, &options, &error) < 0 || prefix_reuse_attach(&reuse, &session, &error) < 0) …
 *     Generation run = {.session = &session, .reuse = &reuse, …};
 *     prefix_reuse_close(&reuse);
 */
#ifndef STOWKV_PREFIX_REUSE_H
#define STOWKV_PREFIX_REUSE_H

#include "kvcache/prefix_cache.h"
#include "session/session.h"

#include <cjson/cJSON.h>
#include <stdio.h>

typedef struct PrefixReuseOptions {
    const char *folder; /* NULL: nothing is reused */
    size_t megabytes, ttl_seconds;
    bool stats, clear;
} PrefixReuseOptions;

#define PREFIX_REUSE_DEFAULTS                                                                                          \
    { .megabytes = 1024, .ttl_seconds = 3600 }

#define PREFIX_REUSE_OPTIONS(o)                                                                                        \
    {"Prefix cache", OPTION_HEADING, NULL, NULL, NULL, 0, 0},                                                          \
        {"prefix_cache",                                                                                               \
         OPTION_STRING,                                                                                                \
         &(o).folder,                                                                                                  \
         "DIR",                                                                                                        \
         "reuse what was computed for the beginning of a prompt",                                                      \
         0,                                                                                                            \
         0},                                                                                                           \
        {"prefix_cache_mb", OPTION_SIZE, &(o).megabytes, "N", "of disk it may take; default 1024", 1, 1 << 24},        \
        {"prefix_cache_ttl", OPTION_SIZE, &(o).ttl_seconds, "N", "seconds that it is kept; default 3600", 1, 1 << 30}, \
        {"prefix_stats", OPTION_FLAG, &(o).stats, NULL, "print what it holds and has saved", 0, 0}, {                  \
        "prefix_clear", OPTION_FLAG, &(o).clear, NULL, "empty it first", 0, 0                                          \
    }

typedef struct PrefixReuse {
    PrefixCache *prefixes; /* owned */
    const Session *session;
    uint64_t model_hash;     /* of its files, which a session keeps as long as it is open */
    char *identity;          /* owned; of the session's context */
    TokenList held;          /* what the context holds */
    double seconds;          /* that computing it took */
    PrefixRestored restored; /* of the last prompt that began in an empty context */
    double restoring_seconds;
    size_t n_restored, n_computed; /* tokens of prompts, since it was attached; generation counts the second */
} PrefixReuse;

int prefix_reuse_open(PrefixReuse *reuse, const PrefixReuseOptions *options, Error *error);

/* In memory alone and as long as it is open: what the last runs have read, of up to so many bytes. */
int prefix_reuse_open_memory(PrefixReuse *reuse, size_t bytes, Error *error);
void prefix_reuse_close(PrefixReuse *reuse); /* closing twice is fine */

/* From here on it is about the session's context as it is now: its model, device and policy. A session that is attached
 * again, for another context, must still have its model: files are hashed once. */
int prefix_reuse_attach(PrefixReuse *reuse, const Session *session, Error *error);

/* An empty context is about to read these tokens: returns how many of them it holds now. Where that is all of them,
 * context->logits are the last one's. */
size_t prefix_reuse_restore(PrefixReuse *reuse, Context *context, const int32_t *tokens, size_t n_tokens);

/* The context has computed n further tokens, of a prompt or generated; the state is stored where batches end. */
int prefix_reuse_computed(PrefixReuse *reuse, const Context *context, const int32_t *tokens, size_t n, double seconds,
                          Error *error);

/* Stores the state as it is; of the last token's logits where they lie on the host. */
void prefix_reuse_save(PrefixReuse *reuse, const Context *context, bool with_logits);

/* Adds "prefix": {"tokens_restored", "tokens_computed", …} to a run's report. */
void prefix_reuse_json(PrefixReuse *reuse, cJSON *root);
void prefix_reuse_print(const PrefixReuse *reuse, FILE *stream); /* a line on the last prompt */
void prefix_reuse_print_stats(PrefixReuse *reuse, FILE *stream);

#endif

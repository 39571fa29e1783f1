/* What a prefix cache is worth, measured: each experiment prints a table and returns the same figures as JSON. */
#ifndef STOWKV_PREFIX_EXPERIMENTS_H
#define STOWKV_PREFIX_EXPERIMENTS_H

#include "session/generation.h"

#include <cjson/cJSON.h>
#include <stdio.h>

typedef struct Experiments {
    Session *session;      /* with its policy */
    const char *folder;    /* of a prefix cache that may be emptied */
    const TokenList *text; /* prompts are pieces of it */
    size_t prompt_tokens;  /* of a prompt */
    FILE *out;             /* tables */
} Experiments;

/* Arrays or objects, NULL with an error. Those without a session need none. */
cJSON *experiment_quality(const Experiments *x, Error *error);  /* codecs on several distributions */
cJSON *experiment_memory(const Experiments *x, Error *error);   /* 80 layers, 64 heads of 128, 2,048 tokens */
cJSON *experiment_lookups(const Experiments *x, Error *error);  /* time of a look-up among 10 to 100,000 entries */
cJSON *experiment_requests(const Experiments *x, Error *error); /* 50 requests for 5 prompts */
cJSON *experiment_agents(const Experiments *x, Error *error);   /* 5 contexts that grow for 10 rounds */
cJSON *experiment_restored(const Experiments *x, Error *error); /* tensors and states, before and after; times */

#endif

/* What a prompt or a turn gets from the model: its text goes to stdout as it comes, how far it is to stderr.
 *
 *     Answer answer = {.options = &options, .session = &session, .sampler = &sampler, .generation = {…}, .prints =
 * true}; if (answer_begin(&answer, &policy, &error) < 0) …                  // an empty cache, the seed from its start
 *     if (answer_prompt(&answer, sv("Once upon a time"), &error) < 0) …
 *     answer.run has what was read and generated
 *     answer_free(&answer);
 */
#ifndef STOWKV_ANSWER_H
#define STOWKV_ANSWER_H

#include "eval/progress.h"
#include "session/prompt.h"

typedef struct Answer {
    const SessionOptions *options; /* this and the next three: not owned */
    Session *session;
    Sampler *sampler;
    PrefixReuse *reuse; /* NULL: all is computed */
    PromptOptions prompt;
    GenerationOptions generation;
    bool prints;     /* text on stdout: not where a report is there, which must be parsed */
    bool is_seen;    /* the text tells how far it is */
    bool tells_cuts; /* a note says that the context is full; of a single run its summary does */

    Generation run;
    Progress progress; /* of reading, then of generating */
} Answer;

/* A fresh run with this policy. */
int answer_begin(Answer *answer, const KvPolicy *policy, Error *error);

/* A fresh run with the policy that it has; nothing of it goes to stdout. */
void answer_begin_unprinted(Answer *answer);

int answer_prompt(Answer *answer, StringView prompt, Error *error);

/* Reads what is new, and answers it. */
int answer_tokens(Answer *answer, const TokenList *tokens, Error *error);

/* Text of the program's own. */
int answer_print(const Answer *answer, StringView text, Error *error);

void answer_free(Answer *answer); /* what it owns: the run */

#endif

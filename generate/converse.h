/* --interactive: a conversation with whoever writes to stdin, a message a line, until the input ends or Ctrl-C. */
#ifndef STOWKV_CONVERSE_H
#define STOWKV_CONVERSE_H

#include "generate/answer.h"

/* `answer` has begun, with a chat template. `first`: the message to begin with; "": all come from stdin. */
int converse(Answer *answer, StringView first, Error *error);

#endif

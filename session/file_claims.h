/* Which files a command line reads and writes: one that would be both, or be written twice, is refused before anything
 * is opened. */
#ifndef STOWKV_FILE_CLAIMS_H
#define STOWKV_FILE_CLAIMS_H

#include "base/options.h"
#include "session/session.h"

/* ERROR_USAGE where an output (OPTION_OUTPUT) is the file of an input (OPTION_INPUT), of another output, or of stdin,
 * stdout or stderr, by whatever path; where the checkpoint brings it along: its other parts, a tokenizer beside it;
 * where stdout or stderr would overwrite an input; or where two outputs want stdout, or two inputs stdin. */
int file_claims_check(const Option *options, const SessionOptions *session, Error *error);

#endif

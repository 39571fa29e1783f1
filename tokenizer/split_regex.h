/* The regular expressions of tokenizer.json, which are Oniguruma's, in PCRE2's syntax: what means the same in both is
 * taken over, spelled differently where need be; all else is refused by name.
 *
 *     char *regex;
 *     if (split_regex_translate(sv(" ?\\p{L}+|\\s+(?!\\S)|\\s+"), &regex, &error) < 0) …
 *     free(regex);                                                 // " ?\\p{L}+|\\p{White_Space}+(?!…"
 */
#ifndef STOWKV_SPLIT_REGEX_H
#define STOWKV_SPLIT_REGEX_H

#include "base/error.h"
#include "base/string_view.h"

/* ERROR_UNSUPPORTED for what may mean something else in PCRE2, and for repeated groups, which may take for ever. That
 * it compiles is not checked. */
int split_regex_translate(StringView regex, char **out, Error *error);

/* A pattern that matches `text` itself. */
int split_regex_quote(StringView text, char **out, Error *error);

#endif

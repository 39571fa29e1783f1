/* What utf8proc leaves open about bytes that are no UTF-8: how many of them are one error, and whether a character may
 * still become complete.
 *
 *     size_t length;
 *     switch (utf8_scan(bytes, n, &length)) {          // the first `length` of n bytes are …
 *     case UTF8_VALID: …                               // … one character
 *     case UTF8_INVALID: …                             // … one U+FFFD
 *     case UTF8_INCOMPLETE: …                          // … the start of a character that ends after byte n
 *     }
 */
#ifndef STOWKV_UTF8_H
#define STOWKV_UTF8_H

#include "base/string_view.h"

#define UTF8_REPLACEMENT "\xEF\xBF\xBD" /* U+FFFD */
#define PIECE_SPACE      "\xE2\x96\x81" /* U+2581: how SentencePiece's pieces spell a space */

typedef enum Utf8Status { UTF8_VALID, UTF8_INVALID, UTF8_INCOMPLETE } Utf8Status;

/* Looks at the start of `bytes` (n > 0). An invalid part is maximal in the sense of the Unicode Standard, section 3.9
 * ("substitution of maximal subparts"), as Python and the WHATWG decoder count it. */
Utf8Status utf8_scan(const char *bytes, size_t n, size_t *length);

bool utf8_is_valid(StringView text);

/* Where the first byte is that is not UTF-8; text.length where all is. */
size_t utf8_first_invalid(StringView text);

/* Copies `text` to `out` (3 * text.length bytes suffice), U+FFFD for each maximal invalid part; returns the length. */
size_t utf8_repair(StringView text, char *out);

/* Whether a character that Python's str.strip() removes starts at `text`; *length is the character's length. */
bool utf8_starts_with_space(StringView text, size_t *length);

/* The same for Unicode's property White_Space, which separators of information (U+001C to U+001F) do not have. */
bool utf8_starts_with_white_space(StringView text, size_t *length);

#endif

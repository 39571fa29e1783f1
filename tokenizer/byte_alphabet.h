/* GPT-2's byte alphabet: each of the 256 bytes is written as one printable character, so that a byte-level BPE
 * vocabulary is text. Bytes that are printable Latin-1 stand for themselves, the other 68 become U+0100 … U+0143 in
 * order (bytes_to_unicode in GPT-2's encoder.py). */
#ifndef STOWKV_BYTE_ALPHABET_H
#define STOWKV_BYTE_ALPHABET_H

#include "base/string_view.h"

/* Writes `bytes` in the alphabet to `out` (2 * bytes.length suffice); returns the length. */
size_t byte_alphabet_write(StringView bytes, char *out);

/* Writes what a token in the alphabet stands for to `out` (token.length suffices) and returns the length. A token with
 * any character outside the alphabet is taken as it is, as Hugging Face's ByteLevel decoder does. */
size_t byte_alphabet_read(StringView token, char *out);

#endif

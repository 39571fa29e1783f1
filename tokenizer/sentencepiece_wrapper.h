/* The SentencePiece library behind a C interface: no exception and no log line of its own gets out.
 *
 *     SentencePiece *sp;
 *     if (sentencepiece_open_proto(&sp, bytes, "tok512.model", &error) < 0) …
 *     sentencepiece_encode(sp, sv("Once upon a time"), &tokens, &error);
 *     sentencepiece_free(sp);
 */
#ifndef STOWKV_SENTENCEPIECE_WRAPPER_H
#define STOWKV_SENTENCEPIECE_WRAPPER_H

#include "tokenizer/token_list.h"
#include "tokenizer/vocabulary.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct SentencePiece SentencePiece;

/* From a serialized ModelProto, which is copied; `name` is for messages. ERROR_FORMAT where it is not a whole one. */
int sentencepiece_open_proto(SentencePiece **out, StringView proto, const char *name, Error *error);

void sentencepiece_free(SentencePiece *sp); /* NULL is fine */

size_t sentencepiece_n_pieces(const SentencePiece *sp);
bool sentencepiece_adds_dummy_prefix(const SentencePiece *sp);

/* An id's text, valid as long as `sp`, and its type; `id` must be in range. */
StringView sentencepiece_piece(const SentencePiece *sp, int32_t id);
TokenType sentencepiece_type(const SentencePiece *sp, int32_t id);

int32_t sentencepiece_bos(const SentencePiece *sp); /* -1: none */
int32_t sentencepiece_eos(const SentencePiece *sp); /* -1: none */

/* Appends the ids of `text`, which must be valid UTF-8. No BOS; text that spells a control piece stays text, text that
 * spells a user-defined piece is that piece. */
int sentencepiece_encode(const SentencePiece *sp, StringView text, TokenList *out, Error *error);

#ifdef __cplusplus
}
#endif

#endif

/* Token ids back to text, as they come.
 *
 *     TextStream stream = text_stream_start(tokenizer, tokens.ids, tokens.count);
 *     StringView text = text_stream_next(&stream, next_id, &error);   // whole UTF-8 characters, may be empty
 *     text = text_stream_finish(&stream);
 *     text_stream_free(&stream);
 */
#ifndef STOWKV_TEXT_STREAM_H
#define STOWKV_TEXT_STREAM_H

#include "tokenizer/tokenizer.h"

/* Bytes of a character that is not complete yet are held back; what can never become one comes out as U+FFFD, so the
 * output is always valid UTF-8. Control tokens have no text. */
typedef struct TextStream {
    const Tokenizer *tokenizer;
    bool strip_space; /* the text starts here, so SentencePiece's dummy prefix space is not part of it */
    char held[4];     /* an incomplete character */
    size_t n_held;
    char *buffer; /* the last returned view points here */
} TextStream;

/* `context` is what the ids follow: empty or only control tokens means that a text starts. */
TextStream text_stream_start(const Tokenizer *tokenizer, const int32_t *context, size_t n_context);

/* The text that `id` completes; the view is valid until the next call. Out of memory: empty, and error->code is set. */
StringView text_stream_next(TextStream *stream, int32_t id, Error *error);

/* What is still held back when generation ends (U+FFFD or nothing). */
StringView text_stream_finish(TextStream *stream);

void text_stream_free(TextStream *stream);

#endif

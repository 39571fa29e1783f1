/* Text to token ids and back, for SentencePiece models and byte-level BPE vocabularies.
 *
 *     Tokenizer *tokenizer;
 *     TokenList tokens = {0};
 *     if (tokenizer_open_file(&tokenizer, "tok512.model", &error) < 0) …
 *     if (tokenizer_encode(tokenizer, sv("Once upon a time"), TOKENIZE_ADD_BOS, &tokens, &error) < 0) …
 *     TextStream stream = text_stream_start(tokenizer, tokens.ids, tokens.count);
 *     StringView text = text_stream_next(&stream, next_id);   // whole UTF-8 characters, may be empty
 *     token_list_free(&tokens);
 *     tokenizer_free(tokenizer);
 */
#ifndef STOWKV_TOKENIZER_H
#define STOWKV_TOKENIZER_H

#include "base/error.h"
#include "tokenizer/vocabulary.h"

typedef struct Tokenizer Tokenizer;

/* A growing array of token ids; starts as {0}, freed by token_list_free. */
typedef struct TokenList {
    int32_t *ids;
    size_t count, capacity;
} TokenList;

int token_list_append(TokenList *list, int32_t id, Error *error);
void token_list_free(TokenList *list);

/* Opens a SentencePiece .model file (ERROR_FORMAT where it is not one). */
int tokenizer_open_file(Tokenizer **out, const char *path, Error *error);

/* Builds a tokenizer from a checkpoint's vocabulary, which must outlive it. */
int tokenizer_open_vocabulary(Tokenizer **out, const Vocabulary *vocabulary, Error *error);

void tokenizer_free(Tokenizer *tokenizer); /* NULL is fine */

size_t tokenizer_n_tokens(const Tokenizer *tokenizer);
int32_t tokenizer_bos(const Tokenizer *tokenizer); /* -1: none */
int32_t tokenizer_eos(const Tokenizer *tokenizer); /* -1: none */

/* Whether the model's own rule puts BOS in front of a text. */
bool tokenizer_adds_bos(const Tokenizer *tokenizer);

/* Whether generating `id` ends a text: EOS, end of turn, or BOS (a new document begins). */
bool tokenizer_is_end(const Tokenizer *tokenizer, int32_t id);

/* The id of the special token (control, or user defined) spelled exactly `text`, or -1. */
int32_t tokenizer_special(const Tokenizer *tokenizer, StringView text);

/* User-defined ("added") tokens are matched in every text, as Hugging Face and SentencePiece do. Control tokens are
 * matched only where the caller asks for them; the turn marks of the common chat templates (<|im_end|>, <|eot_id|>, …)
 * count as control tokens in a checkpoint's vocabulary, whatever type it gives them. */
enum {
    TOKENIZE_ADD_BOS = 1,      /* put BOS first where the model's rule says so */
    TOKENIZE_PARSE_SPECIAL = 2 /* text that spells a control token becomes that token; otherwise it stays text */
};

/* Appends the ids of `text` to `out`. Bytes that are not UTF-8 are read as U+FFFD, one for each maximal invalid part
 * (as Python's errors="replace" and the WHATWG decoder do). */
int tokenizer_encode(const Tokenizer *tokenizer, StringView text, unsigned flags, TokenList *out, Error *error);

/* Turns generated ids into text as they come. Bytes of a character that is not complete yet are held back; what can
 * never become one comes out as U+FFFD, so the output is always valid UTF-8. Control tokens have no text. */
typedef struct TextStream {
    const Tokenizer *tokenizer;
    bool strip_space; /* the text starts here, so SentencePiece's dummy prefix space is not part of it */
    char held[4];     /* an incomplete character */
    size_t n_held;
    char *buffer; /* grows; the last returned view points here */
    size_t capacity;
} TextStream;

/* `context` is what the ids follow: empty or only control tokens means that a text starts. */
TextStream text_stream_start(const Tokenizer *tokenizer, const int32_t *context, size_t n_context);

/* The text that `id` completes; the view is valid until the next call. Empty, with error->code set, out of memory. */
StringView text_stream_next(TextStream *stream, int32_t id, Error *error);

/* What is still held back when generation ends (U+FFFD or nothing). */
StringView text_stream_finish(TextStream *stream);

void text_stream_free(TextStream *stream);

#endif

/* Text to token ids, for SentencePiece models and byte-pair encoding of bytes or pieces. The way back is text_stream.h.
 *
 *     Tokenizer *tokenizer;
 *     TokenList tokens = {0};
 *     if (tokenizer_open_file(&tokenizer, "tok512.model", 0, &error) < 0) …
 *     if (tokenizer_encode(tokenizer, sv("Once upon a time"), TOKENIZE_ADD_BOS, &tokens, &error) < 0) …
 *     token_list_free(&tokens);
 *     tokenizer_free(tokenizer);
 */
#ifndef STOWKV_TOKENIZER_H
#define STOWKV_TOKENIZER_H

#include "tokenizer/token_list.h"
#include "tokenizer/vocabulary.h"

typedef struct Tokenizer Tokenizer;

/* Opens a tokenizer's file: SentencePiece's .model, tokenizer.json, tiktoken's ranks (vocabulary_file.h; n_vocab:
 * tokens of the model, or 0). ERROR_FORMAT where it is none of these. */
int tokenizer_open_file(Tokenizer **out, const char *path, size_t n_vocab, Error *error);

/* Builds a tokenizer from a checkpoint's vocabulary, which must outlive it. */
int tokenizer_open_vocabulary(Tokenizer **out, const Vocabulary *vocabulary, Error *error);

void tokenizer_free(Tokenizer *tokenizer); /* NULL is fine */

/* What tokenizer_open_file() has read, with its notes and chat template; NULL after tokenizer_open_vocabulary(). */
const struct VocabularyFile *tokenizer_file(const Tokenizer *tokenizer);

size_t tokenizer_n_tokens(const Tokenizer *tokenizer);
int32_t tokenizer_bos(const Tokenizer *tokenizer); /* -1: none */
int32_t tokenizer_eos(const Tokenizer *tokenizer); /* -1: none */

/* Whether the model's own rule puts BOS in front of a text. */
bool tokenizer_adds_bos(const Tokenizer *tokenizer);

/* Whether generating `id` ends a text: EOS, BOS (a new document begins), and what the file or a name (marks.h) says is
 * an end of a turn, a message or a text. */
bool tokenizer_is_end(const Tokenizer *tokenizer, int32_t id);

/* A token as the vocabulary spells it, and its type (the file's, corrected by the ids that the file names); `id` must
 * be in range. */
StringView tokenizer_token(const Tokenizer *tokenizer, int32_t id);
TokenType tokenizer_type(const Tokenizer *tokenizer, int32_t id);
size_t tokenizer_longest_token(const Tokenizer *tokenizer); /* in bytes */

/* How tokens are spelled: in the byte alphabet of byte_alphabet.h, else as SentencePiece's pieces. */
bool tokenizer_is_byte_level(const Tokenizer *tokenizer);

/* Whether a text is read with a space in front, which is no part of it. */
bool tokenizer_adds_space(const Tokenizer *tokenizer);

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

/* The same for text between markup, as a chat template writes it, from byte `begin` on, where a character begins. plain:
 * (text.length), set where a byte is text: control tokens are read where all of a spelling is markup. The text must be
 * valid UTF-8. */
int tokenizer_encode_marked(const Tokenizer *tokenizer, StringView text, const unsigned char *plain, size_t begin,
                            TokenList *out, Error *error);

#endif

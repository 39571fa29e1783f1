/* SentencePiece's ModelProto as protobuf wire format, without protobuf: checked before the library may see it, and
 * rebuilt from a GGUF vocabulary (sentencepiece_model.proto; protobuf.dev, "Encoding").
 *
 *     SentencePieceFacts facts;
 *     if (sentencepiece_model_check(proto, "tok512.model", &facts, &error) < 0) …
 *
 *     char *bytes; size_t size_bytes;
 *     if (sentencepiece_model_build(&vocabulary, types, &bytes, &size_bytes, &error) < 0) …
 *     free(bytes);
 */
#ifndef STOWKV_SENTENCEPIECE_MODEL_H
#define STOWKV_SENTENCEPIECE_MODEL_H

#include "base/error.h"
#include "tokenizer/vocabulary.h"

typedef struct SentencePieceFacts {
    size_t n_pieces;
    bool add_dummy_prefix; /* a text is read with a space in front */
} SentencePieceFacts;

/* Walks every field of the proto, so that a damaged one is an error here rather than a log line or worse there. `name`
 * is the file's, for messages. */
int sentencepiece_model_check(StringView proto, const char *name, SentencePieceFacts *facts, Error *error);

/* A BPE model with Llama's settings: no normalization, spaces escaped as U+2581, byte fallback where the vocabulary has
 * byte tokens. `types` (n_tokens) replaces vocabulary->types. The caller frees *out. */
int sentencepiece_model_build(const Vocabulary *vocabulary, const uint8_t *types, char **out, size_t *size_bytes,
                              Error *error);

#endif

/* What tokenizer.c and text_stream.c share: a tokenizer is one of two engines, the vocabulary's types as this program
 * reads them, and the rules about BOS and ends. */
#ifndef STOWKV_TOKENIZER_INTERNAL_H
#define STOWKV_TOKENIZER_INTERNAL_H

#include "tokenizer/byte_level_bpe.h"
#include "tokenizer/sentencepiece_wrapper.h"
#include "tokenizer/special_tokens.h"
#include "tokenizer/tokenizer.h"

struct Tokenizer {
    SentencePiece *sp; /* one of these two */
    ByteLevelBpe *bpe;
    const Vocabulary *vocabulary; /* NULL for a .model file */
    size_t n_tokens;
    size_t longest_token; /* in bytes */
    uint8_t *types;       /* (n_tokens) TokenType */
    SpecialTokens special;
    int32_t bos, eos, eot; /* -1: none */
    bool adds_bos, strips_space;
};

/* A token as the vocabulary spells it; `id` must be in range. */
StringView tokenizer_token(const Tokenizer *tokenizer, int32_t id);

#endif

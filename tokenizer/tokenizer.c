/* What the two kinds of tokenizer have in common: opening, UTF-8 repair, special tokens, BOS and end rules. See
 * tokenizer.h. */
#include "tokenizer/tokenizer.h"

#include "base/checked.h"
#include "tokenizer/bpe.h"
#include "tokenizer/marks.h"
#include "tokenizer/sentencepiece_model.h"
#include "tokenizer/sentencepiece_wrapper.h"
#include "tokenizer/special_tokens.h"
#include "tokenizer/token_types.h"
#include "tokenizer/utf8.h"
#include "tokenizer/vocabulary_file.h"

#include <stdlib.h>

struct Tokenizer {
    SentencePiece *sp; /* this one or `bpe`; the other is NULL */
    Bpe *bpe;
    VocabularyFile *file; /* what `vocabulary` is of, or NULL: the caller's */
    const Vocabulary *vocabulary;
    size_t n_tokens;
    size_t longest_token; /* in bytes */
    uint8_t *types;       /* (n_tokens) TokenType */
    bool *ends;           /* (n_tokens) generating it ends a text */
    SpecialTokens special;
    int32_t bos, eos, eot; /* -1: none */
    bool adds_bos, adds_space;
};

/* An id that a file gives, or `fallback` where it gives none (-1 if the vocabulary ends before it). */
static int read_id(const Vocabulary *vocabulary, const char *name, int64_t id, int32_t fallback, int32_t *out,
                   Error *error) {
    if (id >= 0 && (uint64_t)id >= vocabulary->n_tokens)
        return error_set(error, ERROR_FORMAT,
                         "vocabulary: the %s token is %lld of %zu tokens; convert the checkpoint again", name,
                         (long long)id, vocabulary->n_tokens);
    *out = id >= 0 ? (int32_t)id : (size_t)fallback < vocabulary->n_tokens ? fallback : -1;
    return 0;
}

/* The ids that end a text because the file says so. Of SentencePiece's own files that is EOS. */
static int mark_named_ends(Tokenizer *tokenizer, Error *error) {
    const int32_t named[] = {tokenizer->bos, tokenizer->eos, tokenizer->eot};
    const Vocabulary *vocabulary = tokenizer->vocabulary;
    tokenizer->ends = calloc(tokenizer->n_tokens, sizeof *tokenizer->ends);
    if (tokenizer->ends == NULL)
        return error_memory(error, "the tokenizer", tokenizer->n_tokens);
    for (size_t i = 0; i < sizeof named / sizeof *named; i++)
        if (named[i] >= 0)
            tokenizer->ends[named[i]] = true;
    for (size_t i = 0; i < vocabulary->n_end_ids; i++) {
        int64_t id = vocabulary->end_ids[i];
        if (id < 0 || (uint64_t)id >= tokenizer->n_tokens)
            return error_set(error, ERROR_FORMAT,
                             "vocabulary: an end token is %lld of %zu tokens; convert the checkpoint again",
                             (long long)id, tokenizer->n_tokens);
        tokenizer->ends[id] = true;
    }
    return 0;
}

static int add_special_tokens(Tokenizer *tokenizer, Error *error) {
    for (size_t id = 0; id < tokenizer->n_tokens; id++) {
        uint8_t type = tokenizer->types[id];
        StringView token = tokenizer_token(tokenizer, (int32_t)id);
        tokenizer->longest_token = at_least(token.length, tokenizer->longest_token);
        if (type != TOKEN_CONTROL && type != TOKEN_UNKNOWN && type != TOKEN_USER_DEFINED)
            continue;
        int class = type == TOKEN_USER_DEFINED ? SPECIAL_USER_DEFINED : SPECIAL_CONTROL;
        const uint8_t *strips = tokenizer->vocabulary->strips;
        SpecialToken special = {token, (int32_t)id, class, strips != NULL ? strips[id] : 0};
        int status = special_tokens_add(&tokenizer->special, special, error);
        if (status < 0)
            return status;
    }
    special_tokens_sort(&tokenizer->special);
    return 0;
}

static int allocate_types(Tokenizer *tokenizer, Error *error) {
    tokenizer->types = malloc(tokenizer->n_tokens);
    return tokenizer->types != NULL ? 0 : error_memory(error, "the tokenizer", tokenizer->n_tokens);
}

/* A .model file has ids, types and rules of its own; the files beside it may say otherwise. */
static int open_model_file(Tokenizer *tokenizer, const Vocabulary *vocabulary, Error *error) {
    int status = sentencepiece_open_proto(&tokenizer->sp, vocabulary->model, vocabulary->name, error);
    if (status < 0)
        return status;
    tokenizer->n_tokens = sentencepiece_n_pieces(tokenizer->sp);
    tokenizer->bos = sentencepiece_bos(tokenizer->sp);
    tokenizer->eos = sentencepiece_eos(tokenizer->sp);
    tokenizer->eot = -1;
    tokenizer->adds_bos = vocabulary->add_bos != 0;
    tokenizer->adds_space = sentencepiece_adds_dummy_prefix(tokenizer->sp);
    if (allocate_types(tokenizer, error) < 0 || mark_named_ends(tokenizer, error) < 0)
        return error->code;
    for (size_t id = 0; id < tokenizer->n_tokens; id++) {
        TokenType type = sentencepiece_type(tokenizer->sp, (int32_t)id);
        tokenizer->types[id] = (uint8_t)type;
        if (type == TOKEN_CONTROL && token_mark(tokenizer_token(tokenizer, (int32_t)id), type) == MARK_END)
            tokenizer->ends[id] = true;
    }
    return add_special_tokens(tokenizer, error);
}

static int open_sentencepiece(Tokenizer *tokenizer, const Vocabulary *vocabulary, Error *error) {
    char *proto;
    size_t size_bytes;
    int status = sentencepiece_model_build(vocabulary, tokenizer->types, &proto, &size_bytes, error);
    if (status == 0)
        status = sentencepiece_open_proto(&tokenizer->sp, (StringView){proto, size_bytes}, "vocabulary", error);
    free(proto);
    tokenizer->adds_bos = vocabulary->add_bos != 0;
    tokenizer->adds_space = vocabulary->add_space_prefix != 0;
    return status;
}

static int open_bpe(Tokenizer *tokenizer, const Vocabulary *vocabulary, Error *error) {
    int status = bpe_open(&tokenizer->bpe, vocabulary, error);
    if (status == 0)
        tokenizer->adds_bos = vocabulary->add_bos < 0 ? bpe_adds_bos(tokenizer->bpe) : vocabulary->add_bos != 0;
    tokenizer->adds_space = vocabulary->rules != NULL && vocabulary->rules->prefix != SPACE_PREFIX_NONE;
    return status;
}

/* Where the file does not say, SentencePiece vocabularies have Llama's unknown 0, BOS 1 and EOS 2, as in llama.cpp. */
static int open_vocabulary(Tokenizer *tokenizer, const Vocabulary *vocabulary, Error *error) {
    bool sentencepiece = vocabulary->kind == VOCABULARY_SENTENCEPIECE;
    int32_t unknown = -1;
    tokenizer->vocabulary = vocabulary;
    if (vocabulary->kind == VOCABULARY_MODEL_FILE)
        return open_model_file(tokenizer, vocabulary, error);
    if (vocabulary->kind == VOCABULARY_NONE)
        return error_set(error, ERROR_UNSUPPORTED,
                         "the checkpoint carries no tokenizer; name one with --tokenizer_path");
    if (vocabulary->n_tokens == 0 || vocabulary->n_tokens > INT32_MAX / 2)
        return error_set(error, ERROR_FORMAT, "vocabulary: %zu tokens; convert the checkpoint again",
                         vocabulary->n_tokens);
    tokenizer->n_tokens = vocabulary->n_tokens;
    if (allocate_types(tokenizer, error) < 0)
        return error->code;
    int status = read_id(vocabulary, "BOS", vocabulary->bos_id, sentencepiece ? 1 : -1, &tokenizer->bos, error);
    if (status == 0)
        status = read_id(vocabulary, "EOS", vocabulary->eos_id, sentencepiece ? 2 : -1, &tokenizer->eos, error);
    if (status == 0)
        status = read_id(vocabulary, "end-of-turn", vocabulary->eot_id, -1, &tokenizer->eot, error);
    if (status == 0)
        status = read_id(vocabulary, "unknown", vocabulary->unknown_id, sentencepiece ? 0 : -1, &unknown, error);
    if (status == 0)
        status = mark_named_ends(tokenizer, error);
    if (status == 0)
        status = token_types_read(vocabulary, unknown, tokenizer->types, tokenizer->ends, error);
    if (status == 0)
        status =
            sentencepiece ? open_sentencepiece(tokenizer, vocabulary, error) : open_bpe(tokenizer, vocabulary, error);
    return status == 0 ? add_special_tokens(tokenizer, error) : status;
}

/* From `vocabulary`, of `file` where that is not NULL: the tokenizer owns it then, and frees it on failure too. */
static int open_from(Tokenizer **out, VocabularyFile *file, const Vocabulary *vocabulary, Error *error) {
    Tokenizer *tokenizer = *out = calloc(1, sizeof *tokenizer);
    if (tokenizer == NULL) {
        vocabulary_file_free(file);
        return error_memory(error, "the tokenizer", sizeof *tokenizer);
    }
    tokenizer->file = file;
    int status = open_vocabulary(tokenizer, vocabulary, error);
    if (status < 0) {
        tokenizer_free(tokenizer);
        *out = NULL;
    }
    return status;
}

int tokenizer_open_file(Tokenizer **out, const char *path, size_t n_vocab, Error *error) {
    VocabularyFile *file;
    *out = NULL;
    if (vocabulary_file_open(&file, path, n_vocab, error) < 0)
        return error->code;
    int status = open_from(out, file, &file->vocabulary, error);
    if (status < 0)
        vocabulary_name_file(path, error);
    return status;
}

int tokenizer_open_vocabulary(Tokenizer **out, const Vocabulary *vocabulary, Error *error) {
    return open_from(out, NULL, vocabulary, error);
}

const VocabularyFile *tokenizer_file(const Tokenizer *tokenizer) {
    return tokenizer->file;
}

void tokenizer_free(Tokenizer *tokenizer) {
    if (tokenizer == NULL)
        return;
    sentencepiece_free(tokenizer->sp);
    bpe_free(tokenizer->bpe);
    vocabulary_file_free(tokenizer->file);
    special_tokens_free(&tokenizer->special);
    free(tokenizer->types);
    free(tokenizer->ends);
    free(tokenizer);
}

StringView tokenizer_token(const Tokenizer *tokenizer, int32_t id) {
    const StringView *tokens = tokenizer->vocabulary->tokens;
    return tokens != NULL ? tokens[id] : sentencepiece_piece(tokenizer->sp, id);
}

TokenType tokenizer_type(const Tokenizer *tokenizer, int32_t id) {
    return (TokenType)tokenizer->types[id];
}

bool tokenizer_is_byte_level(const Tokenizer *tokenizer) {
    return tokenizer->vocabulary->kind == VOCABULARY_BYTE_LEVEL_BPE;
}

bool tokenizer_adds_space(const Tokenizer *tokenizer) {
    return tokenizer->adds_space;
}

size_t tokenizer_longest_token(const Tokenizer *tokenizer) {
    return tokenizer->longest_token;
}

size_t tokenizer_n_tokens(const Tokenizer *tokenizer) {
    return tokenizer->n_tokens;
}

int32_t tokenizer_bos(const Tokenizer *tokenizer) {
    return tokenizer->bos;
}

int32_t tokenizer_eos(const Tokenizer *tokenizer) {
    return tokenizer->eos;
}

bool tokenizer_adds_bos(const Tokenizer *tokenizer) {
    return tokenizer->adds_bos && tokenizer->bos >= 0;
}

bool tokenizer_is_end(const Tokenizer *tokenizer, int32_t id) {
    return id >= 0 && (size_t)id < tokenizer->n_tokens && tokenizer->ends[id];
}

int32_t tokenizer_special(const Tokenizer *tokenizer, StringView text) {
    for (size_t i = 0; i < tokenizer->special.n; i++)
        if (sv_equal(tokenizer->special.items[i].text, text))
            return tokenizer->special.items[i].id;
    return -1;
}

/* Text without special tokens; `first`: nothing stands in front of it. */
static int encode_plain(const Tokenizer *tokenizer, StringView text, bool first, TokenList *out, Error *error) {
    if (text.length == 0)
        return 0;
    return tokenizer->sp != NULL ? sentencepiece_encode(tokenizer->sp, text, out, error)
                                 : bpe_encode(tokenizer->bpe, text, first, out, error);
}

/* Valid text from byte `begin` on, split at special tokens. SentencePiece looks for its user-defined pieces itself. */
static int encode_valid(const Tokenizer *tokenizer, StringView text, const unsigned char *plain, size_t begin,
                        unsigned flags, TokenList *out, Error *error) {
    int classes =
        (flags & TOKENIZE_PARSE_SPECIAL ? SPECIAL_CONTROL : 0) | (tokenizer->sp == NULL ? SPECIAL_USER_DEFINED : 0);
    size_t at = begin;
    for (;;) {
        SpecialPlace place = special_tokens_next(&tokenizer->special, text, plain, classes, at);
        int status = encode_plain(tokenizer, (StringView){text.bytes + at, place.begin - at}, at == 0, out, error);
        if (status == 0 && place.token != NULL)
            status = token_list_append(out, place.token->id, error);
        if (status < 0 || place.token == NULL)
            return status;
        at = place.end;
    }
}

int tokenizer_encode(const Tokenizer *tokenizer, StringView text, unsigned flags, TokenList *out, Error *error) {
    size_t n_before = out->count;
    int status = 0;
    char *repaired = NULL;
    if (text.bytes == NULL)
        text = sv("");
    if (!utf8_is_valid(text)) {
        if (text.length > SIZE_MAX / 3 || (repaired = malloc(3 * text.length)) == NULL)
            return error_memory(error, "a text", 3ull * text.length);
        text = (StringView){repaired, utf8_repair(text, repaired)};
    }
    if ((flags & TOKENIZE_ADD_BOS) && tokenizer_adds_bos(tokenizer))
        status = token_list_append(out, tokenizer->bos, error);
    if (status == 0)
        status = encode_valid(tokenizer, text, NULL, 0, flags, out, error);
    free(repaired);
    if (status < 0)
        out->count = n_before;
    return status;
}

int tokenizer_encode_marked(const Tokenizer *tokenizer, StringView text, const unsigned char *plain, size_t begin,
                            TokenList *out, Error *error) {
    size_t n_before = out->count;
    int status = encode_valid(tokenizer, text, plain, begin, TOKENIZE_PARSE_SPECIAL, out, error);
    if (status < 0)
        out->count = n_before;
    return status;
}

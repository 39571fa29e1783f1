/* See bpe.h: tables, what a word is made of at first, and spaces as pieces spell them. */
#include "tokenizer/bpe.h"

#include "base/checked.h"
#include "tokenizer/byte_alphabet.h"
#include "tokenizer/pre_tokenizer.h"
#include "tokenizer/token_table.h"
#include "tokenizer/utf8.h"
#include "tokenizer/word_merger.h"

#include <stdio.h>
#include <stdlib.h>

struct Bpe {
    PreTokenizer *pre;
    TokenTable tokens;
    MergeTable merges;
    int32_t byte_ids[256]; /* the token of a byte alone, or -1 */
    int32_t unknown;       /* -1: none */
    size_t longest_token;  /* in bytes */
    bool pieces, fuses_unknown;
    SpacePrefix prefix;
};

/* What encoding a text needs beside the tables. */
typedef struct Work {
    const Bpe *bpe;
    TokenList *out;
    WordMerger merger;
    char *spelling; /* (2 * longest_token) a word in the byte alphabet */
} Work;

/* ---- Opening */

static int find_alphabet(Bpe *bpe, Error *error) {
    for (int byte = 0; byte < 256; byte++) {
        char character[2];
        StringView one = {(const char[]){(char)byte}, 1}, token = {character, byte_alphabet_write(one, character)};
        bpe->byte_ids[byte] = token_table_find(&bpe->tokens, token);
        if (bpe->byte_ids[byte] < 0 && byte >= 0x20 && byte < 0x7F)
            return error_set(error, ERROR_FORMAT,
                             "vocabulary: no token for the character '%c' (byte 0x%02X), so this is not a whole "
                             "byte-level BPE vocabulary; convert the checkpoint again",
                             byte, (unsigned)byte);
    }
    return 0;
}

/* "<0x0A>" of pieces: all or none. */
static int find_byte_pieces(Bpe *bpe, bool wanted, Error *error) {
    for (int byte = 0; byte < 256; byte++) {
        char piece[8];
        snprintf(piece, sizeof piece, "<0x%02X>", (unsigned)byte);
        bpe->byte_ids[byte] = wanted ? token_table_find(&bpe->tokens, sv(piece)) : -1;
        if (wanted && bpe->byte_ids[byte] < 0)
            return error_set(error, ERROR_FORMAT,
                             "vocabulary: no token %s, and characters without tokens are read as bytes; use the "
                             "tokenizer that came with the model",
                             piece);
    }
    return 0;
}

/* Without merges nothing but single bytes would come out. An empty list of them is right where there are only bytes. */
static int check_merges(const Vocabulary *vocabulary, Error *error) {
    size_t n_joined = 0;
    for (size_t i = 0; i < vocabulary->n_tokens; i++) {
        StringView token = vocabulary->tokens[i];
        bool one_byte = token.length < 2 || (token.length == 2 && (unsigned char)token.bytes[0] >= 0x80);
        n_joined += !one_byte && (vocabulary->types == NULL || vocabulary->types[i] == TOKEN_NORMAL);
    }
    if (vocabulary->n_merges > 0 || vocabulary->merges_by_id || (vocabulary->merges != NULL && n_joined == 0))
        return 0;
    return error_set(
        error, ERROR_FORMAT,
        "vocabulary: byte-level BPE without merges (tokenizer.ggml.merges), so text would be split into single "
        "bytes; convert the checkpoint again, from a folder whose tokenizer.json or merges.txt has them");
}

static int open_pre_tokenizer(Bpe *bpe, const Vocabulary *vocabulary, Error *error) {
    const TextRules *rules = vocabulary->rules;
    bpe->pieces = vocabulary->kind == VOCABULARY_PIECE_BPE;
    bpe->unknown = rules != NULL ? (int32_t)rules->unknown_id : -1;
    bpe->fuses_unknown = rules != NULL && rules->fuses_unknown;
    bpe->prefix = rules != NULL ? rules->prefix : SPACE_PREFIX_NONE;
    return rules != NULL ? pre_tokenizer_open_rules(&bpe->pre, rules, error)
                         : pre_tokenizer_open(&bpe->pre, vocabulary->pre_tokenizer, error);
}

static int open_tables(Bpe *bpe, const Vocabulary *vocabulary, Error *error) {
    int status = check_merges(vocabulary, error);
    if (status == 0)
        status = open_pre_tokenizer(bpe, vocabulary, error);
    if (status == 0)
        status = token_table_build(&bpe->tokens, vocabulary->tokens, vocabulary->n_tokens, error);
    if (status == 0)
        status =
            bpe->pieces ? find_byte_pieces(bpe, vocabulary->rules->byte_fallback, error) : find_alphabet(bpe, error);
    if (status == 0)
        status = merge_table_build(&bpe->merges, vocabulary, &bpe->tokens, error);
    for (size_t i = 0; i < vocabulary->n_tokens; i++)
        bpe->longest_token = at_least(vocabulary->tokens[i].length, bpe->longest_token);
    return status;
}

int bpe_open(Bpe **out, const Vocabulary *vocabulary, Error *error) {
    *out = NULL;
    Bpe *bpe = calloc(1, sizeof *bpe);
    if (bpe == NULL)
        return error_memory(error, "the tokenizer", sizeof *bpe);
    int status = open_tables(bpe, vocabulary, error);
    if (status < 0) {
        bpe_free(bpe);
        return status;
    }
    *out = bpe;
    return 0;
}

void bpe_free(Bpe *bpe) {
    if (bpe == NULL)
        return;
    pre_tokenizer_free(bpe->pre);
    token_table_free(&bpe->tokens);
    merge_table_free(&bpe->merges);
    free(bpe);
}

bool bpe_adds_bos(const Bpe *bpe) {
    return pre_tokenizer_adds_bos(bpe->pre);
}

/* ---- Words */

/* The id of a word that is a token as a whole, or -1. */
static int32_t whole_word(const Work *work, StringView word) {
    if (word.length > work->bpe->longest_token)
        return -1;
    if (work->bpe->pieces)
        return token_table_find(&work->bpe->tokens, word);
    StringView spelling = {work->spelling, byte_alphabet_write(word, work->spelling)};
    return token_table_find(&work->bpe->tokens, spelling);
}

/* What has no token of its own: its bytes' tokens, else the unknown token, one for a run of such characters where the
 * vocabulary says so, else nothing. */
static void add_without_token(Work *work, StringView character) {
    const Bpe *bpe = work->bpe;
    WordMerger *merger = &work->merger;
    if (bpe->pieces && bpe->byte_ids[0] >= 0) {
        for (size_t i = 0; i < character.length; i++)
            word_merger_add(merger, bpe->byte_ids[(unsigned char)character.bytes[i]], 1);
    } else if (bpe->unknown >= 0) {
        Symbol *last = merger->n > 0 ? &merger->symbols[merger->n - 1] : NULL;
        if (bpe->fuses_unknown && last != NULL && last->id == bpe->unknown)
            last->n_bytes += (int32_t)character.length;
        else
            word_merger_add(merger, bpe->unknown, (int32_t)character.length);
    }
}

/* A symbol for each byte, or for each character. */
static void add_symbols(Work *work, StringView word) {
    const Bpe *bpe = work->bpe;
    for (size_t i = 0, length = 1; i < word.length; i += length) {
        if (bpe->pieces)
            utf8_scan(word.bytes + i, word.length - i, &length);
        StringView character = {word.bytes + i, length};
        int32_t id =
            bpe->pieces ? token_table_find(&bpe->tokens, character) : bpe->byte_ids[(unsigned char)word.bytes[i]];
        if (id >= 0)
            word_merger_add(&work->merger, id, (int32_t)length);
        else
            add_without_token(work, character);
    }
}

static int encode_word(void *context, StringView word, Error *error) {
    Work *work = context;
    if (pre_tokenizer_ignores_merges(work->bpe->pre)) {
        int32_t id = whole_word(work, word);
        if (id >= 0)
            return token_list_append(work->out, id, error);
    }
    int status = word_merger_start(&work->merger, word.length, error);
    if (status < 0)
        return status;
    add_symbols(work, word);
    return word_merger_finish(&work->merger, &work->bpe->merges, work->out, error);
}

/* ---- Texts */

/* `text` with U+2581 for spaces, and in front where the rule wants one, in a new allocation; NULL without memory. */
static char *spell_spaces(StringView text, SpacePrefix prefix, bool first, size_t *length) {
    StringView space = sv(PIECE_SPACE);
    bool begins_with_one = text.bytes[0] == ' ' || sv_starts_with(text, space);
    bool prefixed = prefix == SPACE_PREFIX_ALWAYS || (prefix == SPACE_PREFIX_UNLESS_SPACE && !begins_with_one) ||
                    (prefix == SPACE_PREFIX_FIRST && first && !begins_with_one);
    char *out = text.length < SIZE_MAX / 3 - 1 ? malloc(space.length * (text.length + 1)) : NULL;
    size_t n = 0;
    if (out == NULL)
        return NULL;
    for (size_t i = prefixed ? 0 : 1; i <= text.length; i++) {
        bool is_space = i == 0 || text.bytes[i - 1] == ' ';
        memcpy(out + n, is_space ? space.bytes : text.bytes + i - 1, is_space ? space.length : 1);
        n += is_space ? space.length : 1;
    }
    *length = n;
    return out;
}

int bpe_encode(const Bpe *bpe, StringView text, bool first, TokenList *out, Error *error) {
    Work work = {.bpe = bpe, .out = out, .spelling = malloc(2 * bpe->longest_token + 1)};
    char *spelled = NULL;
    int status = work.spelling == NULL ? error_memory(error, "a word", 2 * bpe->longest_token) : 0;
    if (status == 0 && bpe->pieces && text.length > 0) {
        spelled = spell_spaces(text, bpe->prefix, first, &text.length);
        if (spelled == NULL)
            status = error_memory(error, "a text", 3ull * text.length);
        text.bytes = spelled;
    }
    if (status == 0)
        status = pre_tokenizer_split(bpe->pre, text, encode_word, &work, error);
    word_merger_free(&work.merger);
    free(work.spelling);
    free(spelled);
    return status;
}

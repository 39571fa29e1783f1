/* See token_types.h. */
#include "tokenizer/token_types.h"

#include "tokenizer/marks.h"

/* "<0x0A>": of these SentencePiece has 256 or none. */
static bool spells_byte(StringView token) {
    bool spells = token.length == 6 && sv_starts_with(token, sv("<0x")) && token.bytes[5] == '>';
    for (size_t i = 3; spells && i < 5; i++)
        spells = (token.bytes[i] >= '0' && token.bytes[i] <= '9') || (token.bytes[i] >= 'A' && token.bytes[i] <= 'F');
    return spells;
}

/* Whether tokens are bytes by their spelling: some converters give all of them the type of normal ones. */
static bool spells_all_bytes(const Vocabulary *vocabulary) {
    size_t n_bytes = 0;
    for (size_t id = 0; id < vocabulary->n_tokens; id++)
        n_bytes += spells_byte(vocabulary->tokens[id]);
    return vocabulary->kind == VOCABULARY_SENTENCEPIECE && (vocabulary->types == NULL || n_bytes == 256);
}

int token_types_read(const Vocabulary *vocabulary, int32_t unknown, uint8_t *types, bool *ends, Error *error) {
    bool sentencepiece = vocabulary->kind == VOCABULARY_SENTENCEPIECE, bytes = spells_all_bytes(vocabulary);
    for (size_t id = 0; id < vocabulary->n_tokens; id++) {
        StringView token = vocabulary->tokens[id];
        int32_t type = vocabulary->types != NULL ? vocabulary->types[id] : TOKEN_NORMAL;
        if (type < TOKEN_NORMAL || type > TOKEN_BYTE)
            return error_set(error, ERROR_FORMAT,
                             "vocabulary: token %zu has type %d, and types are 1 to 6; convert the checkpoint again",
                             id, type);
        if (bytes && type == TOKEN_NORMAL && spells_byte(token))
            type = TOKEN_BYTE;
        TokenMark mark = token_mark(token, (TokenType)type);
        ends[id] = ends[id] || mark == MARK_END;
        if (mark != MARK_NONE || ends[id])
            type = TOKEN_CONTROL;
        /* SentencePiece wants exactly one unknown piece. */
        if (sentencepiece && (int32_t)id == unknown)
            type = TOKEN_UNKNOWN;
        else if (sentencepiece && type == TOKEN_UNKNOWN)
            type = TOKEN_CONTROL;
        types[id] = (uint8_t)type;
    }
    return 0;
}

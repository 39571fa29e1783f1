/* Tokens of a template. Internal to this room. */
#ifndef STOWKV_JINJA_LEXER_H
#define STOWKV_JINJA_LEXER_H

#include "jinja/value.h"

typedef enum TokenKind {
    TOKEN_DATA,
    TOKEN_OPEN_PRINT, /* {{ */
    TOKEN_OPEN_BLOCK, /* {% */
    TOKEN_CLOSE,      /* the end of either */
    TOKEN_NAME,
    TOKEN_CONSTANT, /* a text or a number */
    TOKEN_OPERATOR,
    TOKEN_END
} TokenKind;

typedef struct Token {
    TokenKind kind;
    StringView text; /* as it is written */
    Value value;     /* of constants */
    size_t line;
    struct Token *condition; /* of the first token of `a if b else c`: b's first token */
} Token;

/* Ends with TOKEN_END. `source`: valid UTF-8, newlines are "\n". */
Token *jinja_lex(Machine *m, StringView source);

#endif

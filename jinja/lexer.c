/* Tokens of a template, with the white space that its tags take away. The rules are those of Jinja2's lexer with
 * trim_blocks and lstrip_blocks. */
#include "jinja/lexer.h"

#include "tokenizer/utf8.h"

typedef struct Lexer {
    Machine *m;
    StringView source;
    size_t at, line;
    Token *tokens;
    size_t n, capacity;
} Lexer;

/* Adds what is `length` bytes from here on, and goes on behind it. */
static Token *add(Lexer *lexer, TokenKind kind, size_t length) {
    jinja_step(lexer->m, length);
    if (lexer->n == lexer->capacity) {
        Token *grown = jinja_take(lexer->m, 2 * (lexer->n + 32) * sizeof *grown);
        if (lexer->n > 0)
            memcpy(grown, lexer->tokens, lexer->n * sizeof *grown);
        lexer->tokens = grown;
        lexer->capacity = 2 * (lexer->n + 32);
    }
    Token *token = &lexer->tokens[lexer->n++];
    lexer->m->line = lexer->line;
    *token = (Token){.kind = kind, .text = {lexer->source.bytes + lexer->at, length}, .line = lexer->line};
    for (size_t i = 0; i < length; i++)
        lexer->line += token->text.bytes[i] == '\n';
    lexer->at += length;
    return token;
}

static StringView rest(const Lexer *lexer) {
    return (StringView){lexer->source.bytes + lexer->at, lexer->source.length - lexer->at};
}

static char peek(const Lexer *lexer, size_t ahead) {
    return lexer->at + ahead < lexer->source.length ? lexer->source.bytes[lexer->at + ahead] : '\0';
}

static void skip_space(Lexer *lexer) {
    for (size_t length; utf8_starts_with_space(rest(lexer), &length); lexer->at += length)
        lexer->line += peek(lexer, 0) == '\n';
}

static _Noreturn void fail(Lexer *lexer, ErrorCode code, const char *cause) {
    StringView text = rest(lexer);
    lexer->m->line = lexer->line;
    jinja_fail(lexer->m, code, "%s at '%.*s'", cause, (int)(text.length < 20 ? text.length : 20), text.bytes);
}

static void skip(Lexer *lexer, size_t length) {
    for (size_t end = lexer->at + length; lexer->at < end; lexer->at++)
        lexer->line += peek(lexer, 0) == '\n';
}

/* `sign` stands in front of the end of a tag, which is behind us. */
static void close_tag(Lexer *lexer, char sign, bool trims) {
    size_t newline = trims && sign != '+' && peek(lexer, 0) == '\n';
    if (sign == '-')
        skip_space(lexer);
    else
        skip(lexer, newline);
}

static void lex_text(Lexer *lexer, char quote) {
    static const char ESCAPES[] = "ntr\\'\"", MEANT[] = "\n\t\r\\'\"";
    Buffer out = {0};
    size_t length = 1;
    for (char c; (c = peek(lexer, length)) != quote; length++) {
        if (lexer->at + length >= lexer->source.length)
            fail(lexer, ERROR_FORMAT, "a text without an end");
        if (c == '\\') {
            char escaped = peek(lexer, ++length);
            const char *found = escaped != '\0' ? strchr(ESCAPES, escaped) : NULL;
            if (found == NULL)
                fail(lexer, ERROR_UNSUPPORTED, "an escape that is not supported in the text");
            c = MEANT[found - ESCAPES];
        }
        jinja_write(lexer->m, &out, (Text){&c, 1, NULL});
    }
    Text text = jinja_written(&out);
    add(lexer, TOKEN_CONSTANT, length + 1)->value = jinja_string((StringView){text.bytes, text.length});
}

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

static bool in_name(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || is_digit(c) || c == '_';
}

static void lex_number(Lexer *lexer) {
    size_t length = 0;
    int64_t n = 0;
    for (; length < 18 && is_digit(peek(lexer, length)); length++)
        n = 10 * n + peek(lexer, length) - '0';
    bool fraction = peek(lexer, length) == '.' && is_digit(peek(lexer, length + 1));
    if (fraction || in_name(peek(lexer, length)) || (length > 1 && peek(lexer, 0) == '0'))
        fail(lexer, ERROR_UNSUPPORTED, "a number that is not supported");
    add(lexer, TOKEN_CONSTANT, length)->value = jinja_integer(n);
}

static void lex_operator(Lexer *lexer, int *nesting) {
    static const char *const OPERATORS[] = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "*", "/", "%", "~", "(",
                                            ")",  "[",  "]",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ","};
    for (size_t i = 0; i < sizeof OPERATORS / sizeof *OPERATORS; i++)
        if (sv_starts_with(rest(lexer), sv(OPERATORS[i]))) {
            *nesting += (strchr("([{", OPERATORS[i][0]) != NULL) - (strchr(")]}", OPERATORS[i][0]) != NULL);
            add(lexer, TOKEN_OPERATOR, strlen(OPERATORS[i]));
            return;
        }
    fail(lexer, ERROR_FORMAT, "no value and no operator");
}

/* What is between the marks of a tag, and its end. */
static void lex_inside(Lexer *lexer, const char *end) {
    for (int nesting = 0;;) {
        skip_space(lexer);
        char c = peek(lexer, 0);
        size_t sign = c == '-' || (c == '+' && end[0] == '%'), length = 0;
        if (lexer->at == lexer->source.length)
            fail(lexer, ERROR_FORMAT, "a tag without an end");
        if (nesting <= 0 && peek(lexer, sign) == end[0] && peek(lexer, sign + 1) == '}') {
            add(lexer, TOKEN_CLOSE, sign + 2);
            close_tag(lexer, sign > 0 ? c : ' ', end[0] == '%');
            return;
        }
        while (in_name(peek(lexer, length)))
            length++;
        if (is_digit(c))
            lex_number(lexer);
        else if (length > 0)
            add(lexer, TOKEN_NAME, length);
        else if (c == '\'' || c == '"')
            lex_text(lexer, c);
        else
            lex_operator(lexer, &nesting);
    }
}

/* The text up to the next tag, without what the tag takes away: its line's white space, or all with a minus. */
static void lex_data(Lexer *lexer, size_t end, char kind, char sign) {
    size_t begin = lexer->at, kept = begin, length;
    bool takes = kind != '\0' && (sign == '-' || (sign != '+' && kind != '{'));
    for (size_t i = begin; takes && i < end; i += length)
        if (!utf8_starts_with_space((StringView){lexer->source.bytes + i, end - i}, &length) ||
            (sign != '-' && lexer->source.bytes[i] == '\n'))
            kept = i + length;
    bool line_begins = kept == 0 || lexer->source.bytes[kept - 1] == '\n';
    if (!takes || (sign != '-' && !line_begins))
        kept = end;
    if (kept > begin)
        add(lexer, TOKEN_DATA, kept - begin);
    skip(lexer, end - lexer->at);
}

static void lex_tag(Lexer *lexer, char kind, char sign) {
    size_t opening = sign == '-' || sign == '+' ? 3 : 2;
    if (kind != '#') {
        add(lexer, kind == '{' ? TOKEN_OPEN_PRINT : TOKEN_OPEN_BLOCK, opening);
        lex_inside(lexer, kind == '{' ? "}}" : "%}");
        return;
    }
    size_t end = sv_find(lexer->source, sv("#}"), lexer->at + opening);
    if (end == lexer->source.length)
        fail(lexer, ERROR_FORMAT, "a comment without an end");
    char last = end > lexer->at + opening ? lexer->source.bytes[end - 1] : ' ';
    skip(lexer, end + 2 - lexer->at);
    close_tag(lexer, last, true);
}

Token *jinja_lex(Machine *m, StringView source) {
    Lexer lexer = {.m = m, .source = source, .line = 1};
    while (lexer.at < source.length) {
        size_t begin = lexer.at;
        char kind = '\0', sign;
        for (; begin + 1 < source.length; begin++) {
            kind = source.bytes[begin + 1];
            if (source.bytes[begin] == '{' && (kind == '{' || kind == '%' || kind == '#'))
                break;
            kind = '\0';
        }
        begin = kind == '\0' ? source.length : begin;
        sign = begin + 2 < source.length ? source.bytes[begin + 2] : ' ';
        lex_data(&lexer, begin, kind, sign);
        if (kind != '\0')
            lex_tag(&lexer, kind, sign);
    }
    add(&lexer, TOKEN_END, 0);
    return lexer.tokens;
}

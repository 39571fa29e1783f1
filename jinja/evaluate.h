/* Reading tokens by Jinja2's grammar and doing what they say: expressions.c and statements.c. Internal to this room. */
#ifndef STOWKV_JINJA_EVALUATE_H
#define STOWKV_JINJA_EVALUATE_H

#include "jinja/builtins.h"
#include "jinja/lexer.h"

typedef struct Scope {
    struct Scope *parent;
    Items names;
} Scope;

typedef struct Macro {
    Token *at;    /* its parameters */
    Scope *scope; /* around it */
} Macro;

/* The next token, an operator or a word: whether it is `text`, and if so, going on behind it. The others fail where it
 * is not what it has to be. */
bool jinja_next_is(const Machine *m, const char *text);
bool jinja_accept(Machine *m, const char *text);
void jinja_expect(Machine *m, const char *text);
StringView jinja_expect_kind(Machine *m, TokenKind kind, const char *wanted);
void jinja_close_tag(Machine *m);

Value jinja_expression(Machine *m);
Value jinja_condition(Machine *m, bool skips); /* an expression without `if`; read and not done if `skips` */
Value jinja_lookup(Machine *m, StringView name);

/* Does what stands up to the next tag that is one of `ends`, "else endif", and goes on behind its {%. */
void jinja_body(Machine *m, const char *ends);

/* The same into a text, with names of its own within those of `around`. given: a macro is at its parameters; or NULL.
 */
Text jinja_captured(Machine *m, const char *ends, Scope *around, const Arguments *given);

#endif

/* Reads tokens by the grammar of Jinja2 and does what they say as it goes; what is not to be done is read without.
 * jinja_parse() reads a whole template so, once: then its syntax is right, and of each `a if b else c` it is known
 * where b is, which comes before a in time. */
#include "jinja/builtins.h"
#include "jinja/lexer.h"
#include "tokenizer/utf8.h"

#include <stdlib.h>

enum { MAX_TARGETS = 4 };

typedef struct JinjaScope {
    struct JinjaScope *parent;
    JinjaItems names;
} Scope;

typedef struct JinjaMacro {
    JinjaToken *at; /* its parameters */
    Scope *scope;   /* around it */
} Macro;

struct JinjaTemplate {
    JinjaMachine m;
    JinjaToken *tokens;
};

static JinjaValue expression(JinjaMachine *m);
static JinjaValue unary(JinjaMachine *m, bool with_filters);
static void body(JinjaMachine *m, const char *ends);

static bool next_is(const JinjaMachine *m, const char *text) {
    return (m->at->kind == TOKEN_OPERATOR || m->at->kind == TOKEN_NAME) && sv_is(m->at->text, text);
}

static bool accept(JinjaMachine *m, const char *text) {
    bool there = next_is(m, text);
    m->at += there;
    return there;
}

static StringView expect_kind(JinjaMachine *m, JinjaTokenKind kind, const char *wanted) {
    m->line = m->at->line;
    if (m->at->kind != kind)
        jinja_fail(m, ERROR_FORMAT, "'%.*s' where %s should be", SV_ARGS(m->at->text), wanted);
    return m->at++->text;
}

static void expect(JinjaMachine *m, const char *text) {
    if (!accept(m, text))
        expect_kind(m, TOKEN_END + 1, text);
}

static void close_tag(JinjaMachine *m) {
    expect_kind(m, TOKEN_CLOSE, "the end of the tag");
}

/* --- expressions ---------------------------------------------------------------------------------------------------
 */

static JinjaValue lookup(JinjaMachine *m, StringView name) {
    static const char OTHERS[] = " lipsum cycler joiner dict varargs kwargs caller self super unk_token pad_token "
                                 "sep_token cls_token mask_token ";
    for (const Scope *scope = m->scope; scope != NULL; scope = scope->parent) {
        const JinjaValue *found = jinja_find(m, &scope->names, jinja_string(name));
        if (found != NULL)
            return *found;
    }
    const JinjaBuiltin *row = jinja_builtin(GROUP_GLOBAL, name);
    if (row == NULL) {
        size_t at = sv_find(sv(OTHERS), name, 0);
        if (at < strlen(OTHERS) && OTHERS[at - 1] == ' ' && OTHERS[at + name.length] == ' ')
            jinja_fail(m, ERROR_UNSUPPORTED, "'%.*s' is not supported", SV_ARGS(name));
        return jinja_undefined(name);
    }
    JinjaValue function = {.kind = JINJA_FUNCTION, .bound = jinja_take(m, sizeof(JinjaBound))};
    function.bound->row = row;
    return function;
}

static void arguments(JinjaMachine *m, JinjaArguments *out) {
    for (out->n = 0; !accept(m, ")"); out->n++) {
        if (out->n == JINJA_MAX_ARGUMENTS || next_is(m, "*") || next_is(m, "**"))
            jinja_fail(m, ERROR_UNSUPPORTED, "more than %d arguments, or a list of them, are not supported",
                       JINJA_MAX_ARGUMENTS);
        bool keyword = m->at->kind == TOKEN_NAME && sv_is(m->at[1].text, "=");
        out->names[out->n] = keyword ? m->at->text : (StringView){"", 0};
        m->at += keyword ? 2 : 0;
        out->values[out->n] = expression(m);
        if (!next_is(m, ")"))
            expect(m, ",");
    }
}

/* Gives the macro's parameters their values: the arguments', else their own. Ends behind the opening tag. */
static void parameters(JinjaMachine *m, const JinjaArguments *given, size_t n_positional) {
    bool skips = m->skips;
    size_t n_used = 0;
    expect(m, "(");
    for (size_t i = 0; !accept(m, ")"); i++) {
        StringView name = expect_kind(m, TOKEN_NAME, "a parameter");
        JinjaValue value = jinja_undefined(name);
        size_t j = i;
        if (j >= n_positional)
            for (j = n_positional; j < given->n && !sv_equal(given->names[j], name); j++)
                ;
        bool there = j < given->n;
        m->skips = skips || there;
        if (accept(m, "="))
            value = expression(m);
        m->skips = skips;
        n_used += there;
        if (!skips)
            jinja_assign(m, &m->scope->names, jinja_string(name), there ? given->values[j] : value);
        if (!next_is(m, ")"))
            expect(m, ",");
    }
    if (n_used < given->n)
        jinja_fail(m, ERROR_FORMAT, "a macro is called with other arguments than it has");
    close_tag(m);
}

/* Reads up to one of `ends` into a text, with names of its own. */
static JinjaText captured(JinjaMachine *m, const char *ends, Scope *around, const JinjaArguments *given) {
    Scope *scope = m->scope;
    JinjaBuffer buffer = {0}, *out = m->out;
    size_t n_positional = 0, n_loops = m->n_loops;
    m->n_loops = 0;
    m->scope = jinja_take(m, sizeof *m->scope);
    m->scope->parent = around;
    m->out = &buffer;
    while (given != NULL && n_positional < given->n && given->names[n_positional].length == 0)
        n_positional++;
    if (given != NULL)
        parameters(m, given, n_positional);
    body(m, ends);
    m->scope = scope;
    m->out = out;
    m->n_loops = n_loops;
    return jinja_written(&buffer);
}

static JinjaValue call(JinjaMachine *m, JinjaValue function, const JinjaArguments *given) {
    if (m->skips)
        return function;
    if (function.kind == JINJA_MACRO) {
        JinjaToken *at = m->at;
        m->at = function.macro->at;
        jinja_enter(m);
        JinjaText text = captured(m, "endmacro", function.macro->scope, given);
        m->depth--;
        m->at = at;
        return jinja_text(text);
    }
    if (function.kind != JINJA_FUNCTION)
        jinja_fail(m, ERROR_FORMAT, "%s '%.*s' is called", jinja_kind_name(function),
                   SV_ARGS(function.kind == JINJA_UNDEFINED ? jinja_view(function.text) : sv("")));
    const JinjaBuiltin *row = function.bound->row;
    if (row->call != NULL)
        return jinja_call(m, row->group, sv(row->name), function.bound->self, given);
    JinjaValue namespace = jinja_items(m, JINJA_NAMESPACE);
    for (size_t i = 0; i < given->n; i++) {
        if (given->names[i].length == 0)
            jinja_fail(m, ERROR_UNSUPPORTED, "namespace() of values without names is not supported");
        jinja_assign(m, namespace.items, jinja_string(given->names[i]), given->values[i]);
    }
    return namespace;
}

static JinjaValue item(JinjaMachine *m, JinjaValue of, JinjaValue key) {
    if (m->skips)
        return of;
    if (of.kind == JINJA_UNDEFINED)
        jinja_fail(m, ERROR_FORMAT, "'%.*s' is undefined", SV_ARGS(jinja_view(of.text)));
    const JinjaValue *found = of.kind == JINJA_MAPPING ? jinja_find(m, of.items, key) : NULL;
    if (found != NULL)
        return *found;
    if (key.kind == JINJA_TEXT)
        return jinja_attribute(m, of, jinja_view(key.text));
    bool indexed = of.kind >= JINJA_TEXT && of.kind <= JINJA_TUPLE;
    if (indexed && (key.kind == JINJA_INTEGER || key.kind == JINJA_BOOLEAN))
        return jinja_at(m, of, key.integer);
    return jinja_undefined(sv("an item that is not there"));
}

static JinjaValue subscript(JinjaMachine *m, JinjaValue of) {
    JinjaValue bounds[3] = {0};
    bool slices = false;
    for (int i = 0; i < 3; i++) {
        if (!next_is(m, ":") && !next_is(m, "]"))
            bounds[i] = expression(m);
        if (i == 2 || !accept(m, ":"))
            break;
        slices = true;
    }
    expect(m, "]");
    if (m->skips)
        return of;
    return slices ? jinja_slice(m, of, bounds) : item(m, of, bounds[0]);
}

static JinjaValue items(JinjaMachine *m, JinjaKind kind, const char *end, JinjaValue out) {
    while (!accept(m, end)) {
        JinjaValue value = expression(m);
        if (kind == JINJA_MAPPING) {
            expect(m, ":");
            JinjaValue key = value;
            value = expression(m);
            if (!m->skips)
                jinja_assign(m, out.items, key, value);
        } else if (!m->skips) {
            jinja_append(m, out.items, value);
        }
        if (!next_is(m, end))
            expect(m, ",");
    }
    return out;
}

static JinjaValue parentheses(JinjaMachine *m) {
    JinjaValue tuple = jinja_items(m, JINJA_TUPLE);
    if (accept(m, ")"))
        return tuple;
    JinjaValue first = expression(m);
    if (accept(m, ")"))
        return first;
    expect(m, ",");
    jinja_append(m, tuple.items, first);
    return items(m, JINJA_TUPLE, ")", tuple);
}

static JinjaValue constant(JinjaMachine *m) {
    JinjaValue value = m->at++->value;
    while (value.kind == JINJA_TEXT && m->at->kind == TOKEN_CONSTANT && m->at->value.kind == JINJA_TEXT) {
        JinjaBuffer both = {0};
        jinja_write(m, &both, value.text);
        jinja_write(m, &both, m->at++->value.text);
        value = jinja_text(jinja_written(&both));
    }
    return value;
}

static JinjaValue primary(JinjaMachine *m) {
    if (m->at->kind == TOKEN_CONSTANT)
        return constant(m);
    if (accept(m, "true") || accept(m, "True"))
        return jinja_boolean(true);
    if (accept(m, "false") || accept(m, "False"))
        return jinja_boolean(false);
    if (accept(m, "none") || accept(m, "None"))
        return (JinjaValue){.kind = JINJA_NONE};
    if (accept(m, "("))
        return parentheses(m);
    if (accept(m, "["))
        return items(m, JINJA_LIST, "]", jinja_items(m, JINJA_LIST));
    if (accept(m, "{"))
        return items(m, JINJA_MAPPING, "}", jinja_items(m, JINJA_MAPPING));
    StringView name = expect_kind(m, TOKEN_NAME, "a value");
    return m->skips ? jinja_undefined(name) : lookup(m, name);
}

static JinjaValue postfix(JinjaMachine *m, JinjaValue value) {
    for (;;) {
        if (accept(m, "[")) {
            value = subscript(m, value);
        } else if (accept(m, "(")) {
            JinjaArguments given;
            arguments(m, &given);
            value = call(m, value, &given);
        } else if (accept(m, ".")) {
            bool number = m->at->kind == TOKEN_CONSTANT && m->at->value.kind == JINJA_INTEGER;
            JinjaValue key = number ? m->at++->value : jinja_string(expect_kind(m, TOKEN_NAME, "a name"));
            value = number ? item(m, value, key) : m->skips ? value : jinja_attribute(m, value, jinja_view(key.text));
        } else {
            return value;
        }
    }
}

/* A filter or, behind `is`, a test. */
static JinjaValue filtered(JinjaMachine *m, JinjaValue value, JinjaGroup group) {
    bool negated = group == GROUP_TEST && accept(m, "not");
    StringView name = expect_kind(m, TOKEN_NAME, "a name");
    JinjaArguments given = {0};
    bool word = m->at->kind == TOKEN_NAME && !next_is(m, "else") && !next_is(m, "or") && !next_is(m, "and");
    if (accept(m, "(")) {
        arguments(m, &given);
    } else if (group == GROUP_TEST && (word || m->at->kind == TOKEN_CONSTANT || next_is(m, "[") || next_is(m, "{"))) {
        given.n = 1;
        given.names[0] = (StringView){"", 0};
        given.values[0] = postfix(m, primary(m));
    }
    if (m->skips)
        return value;
    value = jinja_call(m, group, name, value, &given);
    return negated ? jinja_boolean(!jinja_truth(value)) : value;
}

static JinjaValue unary(JinjaMachine *m, bool with_filters) {
    jinja_enter(m);
    bool negative = accept(m, "-");
    JinjaValue value = postfix(m, negative ? unary(m, false) : primary(m));
    if (negative && !m->skips)
        value = jinja_compare(m, "-", jinja_integer(0), value);
    while (with_filters && (next_is(m, "|") || next_is(m, "is")))
        value = filtered(m, value, accept(m, "|") ? GROUP_FILTER : (accept(m, "is"), GROUP_TEST));
    m->depth--;
    return value;
}

enum { LEVEL_OR, LEVEL_AND, LEVEL_NOT, LEVEL_COMPARE, LEVEL_SUM, LEVEL_JOIN, LEVEL_PRODUCT, LEVEL_UNARY };

static JinjaValue level(JinjaMachine *m, int n);

/* Reads, and does not do if `skips`. */
static JinjaValue level_unless(JinjaMachine *m, bool skips, int n) {
    bool before = m->skips;
    m->skips = before || skips;
    JinjaValue value = level(m, n);
    m->skips = before;
    return value;
}

/* a < b < c is a < b and b < c. */
static JinjaValue comparison(JinjaMachine *m) {
    static const char *const OPERATORS[] = {"==", "!=", "<=", ">=", "<", ">", "in", "not", NULL};
    JinjaValue left = level(m, LEVEL_SUM), result = left;
    for (int i = 0, n = 0; OPERATORS[i] != NULL; i++) {
        bool negated = OPERATORS[i][0] == 'n';
        if (!next_is(m, OPERATORS[i]) || (negated && !sv_is(m->at[1].text, "in")))
            continue;
        m->at += 1 + negated;
        bool decided = n++ > 0 && !jinja_truth(result);
        JinjaValue right = level_unless(m, decided, LEVEL_SUM);
        if (!m->skips && !decided)
            result = jinja_compare(m, OPERATORS[i], left, right);
        left = right;
        i = -1;
    }
    return result;
}

/* Operators of one level, from the loosest to the tightest. */
static JinjaValue level(JinjaMachine *m, int n) {
    static const char *const OPERATORS[][5] = {[LEVEL_OR] = {"or"},
                                               [LEVEL_AND] = {"and"},
                                               [LEVEL_SUM] = {"+", "-"},
                                               [LEVEL_JOIN] = {"~"},
                                               [LEVEL_PRODUCT] = {"*", "//", "/", "%"}};
    if (n == LEVEL_UNARY)
        return unary(m, true);
    if (n == LEVEL_COMPARE)
        return comparison(m);
    if (n == LEVEL_NOT) {
        jinja_enter(m);
        bool negated = accept(m, "not");
        JinjaValue value = level(m, negated ? LEVEL_NOT : LEVEL_COMPARE);
        m->depth--;
        return negated ? jinja_boolean(!jinja_truth(value)) : value;
    }
    JinjaValue value = level(m, n + 1);
    for (int i = 0; OPERATORS[n][i] != NULL; i++) {
        if (!accept(m, OPERATORS[n][i]))
            continue;
        bool decided = n == LEVEL_OR ? jinja_truth(value) : n == LEVEL_AND && !jinja_truth(value);
        JinjaValue right = level_unless(m, decided, n + 1);
        if (!m->skips && !decided)
            value = n <= LEVEL_AND ? right : jinja_compare(m, OPERATORS[n][i], value, right);
        i = -1;
    }
    return value;
}

static JinjaValue conditional(JinjaMachine *m, JinjaToken *start) {
    bool skips = m->skips;
    m->at = start->condition;
    bool truth = jinja_truth(level(m, LEVEL_OR));
    JinjaValue value = jinja_undefined(sv("the value of an if without else"));
    m->skips = skips || truth;
    if (accept(m, "else"))
        value = expression(m);
    m->skips = skips;
    if (!skips && truth) {
        JinjaToken *end = m->at;
        m->at = start;
        value = level(m, LEVEL_OR);
        m->at = end;
    }
    return value;
}

static JinjaValue expression(JinjaMachine *m) {
    jinja_enter(m);
    jinja_step(m, 0);
    JinjaToken *start = m->at;
    JinjaValue value;
    m->line = start->line;
    if (start->condition == NULL) {
        value = level(m, LEVEL_OR);
        if (accept(m, "if"))
            start->condition = m->at;
    }
    if (start->condition != NULL)
        value = conditional(m, start);
    m->depth--;
    return value;
}

/* --- statements ----------------------------------------------------------------------------------------------------
 */

/* Names, or attributes of namespaces, that take a value. */
typedef struct Targets {
    StringView names[MAX_TARGETS], attributes[MAX_TARGETS];
    size_t n;
} Targets;

static Targets targets(JinjaMachine *m) {
    Targets out = {0};
    bool parenthesis = accept(m, "(");
    do {
        if (out.n == MAX_TARGETS)
            jinja_fail(m, ERROR_UNSUPPORTED, "more than %d names at once are not supported", MAX_TARGETS);
        out.names[out.n] = expect_kind(m, TOKEN_NAME, "a name");
        if (accept(m, "."))
            out.attributes[out.n] = expect_kind(m, TOKEN_NAME, "a name");
        out.n++;
    } while (accept(m, ","));
    if (parenthesis)
        expect(m, ")");
    return out;
}

static void assign(JinjaMachine *m, const Targets *to, JinjaValue value) {
    const JinjaItems *values = to->n > 1 ? jinja_iterate(m, value) : NULL;
    if (values != NULL && values->count != to->n)
        jinja_fail(m, ERROR_FORMAT, "%zu values for %zu names", values->count, to->n);
    for (size_t i = 0; i < to->n; i++) {
        JinjaItems *into = &m->scope->names;
        StringView name = to->names[i];
        if (to->attributes[i].length > 0) {
            JinjaValue namespace = lookup(m, name);
            if (namespace.kind != JINJA_NAMESPACE)
                jinja_fail(m, ERROR_FORMAT, "'%.*s' is no namespace", SV_ARGS(name));
            into = namespace.items;
            name = to->attributes[i];
        }
        jinja_assign(m, into, jinja_string(name), values != NULL ? values->at[i] : value);
    }
}

static Scope *inner_scope(JinjaMachine *m) {
    Scope *inner = jinja_take(m, sizeof *inner);
    inner->parent = m->scope;
    return inner;
}

/* The items that the loop's condition, at `filter`, lets through. */
static const JinjaItems *chosen(JinjaMachine *m, const JinjaItems *all, const Targets *to, JinjaToken *filter) {
    JinjaToken *at = m->at;
    Scope *scope = m->scope;
    JinjaItems *kept = jinja_items(m, JINJA_LIST).items;
    for (size_t i = 0; i < all->count; i++) {
        m->at = filter;
        m->scope = inner_scope(m);
        assign(m, to, all->at[i]);
        if (jinja_truth(expression(m)))
            jinja_append(m, kept, all->at[i]);
        m->scope = scope;
    }
    m->at = at;
    return kept;
}

static void for_statement(JinjaMachine *m) {
    bool skips = m->skips;
    Scope *scope = m->scope;
    Targets to = targets(m);
    expect(m, "in");
    JinjaValue over = level(m, LEVEL_OR);
    JinjaToken *filter = accept(m, "if") ? m->at : NULL;
    m->skips = true;
    if (filter != NULL)
        expression(m);
    m->skips = skips;
    close_tag(m);
    const JinjaItems *all = skips ? &(JinjaItems){0} : jinja_iterate(m, over);
    if (filter != NULL && !skips)
        all = chosen(m, all, &to, filter);
    JinjaToken *start = m->at;
    JinjaLoop *loop = jinja_take(m, sizeof *loop);
    loop->items = all;
    m->n_loops++;
    for (bool ends = false; loop->index < all->count && !ends; loop->index++) {
        m->at = start;
        m->scope = inner_scope(m);
        jinja_assign(m, &m->scope->names, jinja_string(sv("loop")), (JinjaValue){.kind = JINJA_LOOP, .loop = loop});
        assign(m, &to, all->at[loop->index]);
        body(m, "else endfor");
        ends = m->breaks;
        m->breaks = m->continues = m->skips = false;
        m->scope = scope;
    }
    m->skips = skips || all->count > 0;
    if (all->count == 0) {
        m->skips = true;
        body(m, "else endfor");
        m->skips = skips;
    }
    m->n_loops--;
    if (accept(m, "else")) {
        close_tag(m);
        body(m, "endfor");
    }
    m->skips = skips || m->breaks || m->continues;
    expect(m, "endfor");
}

static void if_statement(JinjaMachine *m) {
    bool skips = m->skips, done = skips;
    do {
        bool truth = jinja_truth(level_unless(m, done, LEVEL_OR)) && !done;
        close_tag(m);
        m->skips = !truth;
        body(m, "elif else endif");
        done = done || truth;
        m->skips = skips || m->breaks || m->continues;
    } while (accept(m, "elif"));
    if (accept(m, "else")) {
        close_tag(m);
        m->skips = m->skips || done;
        body(m, "endif");
        m->skips = skips || m->breaks || m->continues;
    }
    expect(m, "endif");
}

static void set_statement(JinjaMachine *m) {
    Targets to = targets(m);
    JinjaValue value;
    if (accept(m, "=")) {
        value = expression(m);
    } else {
        close_tag(m);
        value = jinja_text(captured(m, "endset", m->scope, NULL));
        expect(m, "endset");
    }
    if (!m->skips)
        assign(m, &to, value);
}

static void macro_statement(JinjaMachine *m) {
    bool skips = m->skips;
    JinjaValue name = jinja_string(expect_kind(m, TOKEN_NAME, "a name"));
    JinjaValue macro = {.kind = JINJA_MACRO, .macro = jinja_take(m, sizeof(Macro))};
    *macro.macro = (Macro){m->at, m->scope};
    m->skips = true;
    captured(m, "endmacro", m->scope, &(JinjaArguments){0});
    m->skips = skips;
    expect(m, "endmacro");
    if (!skips)
        jinja_assign(m, &m->scope->names, name, macro);
}

/* {% generation %} marks what an assistant has said, for training; its names are its own. */
static void generation_statement(JinjaMachine *m) {
    close_tag(m);
    JinjaText text = captured(m, "endgeneration", m->scope, NULL);
    expect(m, "endgeneration");
    if (!m->skips)
        jinja_write(m, m->out, text);
}

/* {% break %} and {% continue %}: the rest of the loop's body is skipped. */
static void leave(JinjaMachine *m, bool *how) {
    if (m->n_loops == 0)
        jinja_fail(m, ERROR_FORMAT, "a break or continue outside of a loop");
    *how = *how || !m->skips;
    m->skips = true;
}

static void break_statement(JinjaMachine *m) {
    leave(m, &m->breaks);
}

static void continue_statement(JinjaMachine *m) {
    leave(m, &m->continues);
}

static void statement(JinjaMachine *m) {
    static const struct {
        const char *name;
        void (*run)(JinjaMachine *m);
    } STATEMENTS[] = {{"for", for_statement},
                      {"if", if_statement},
                      {"set", set_statement},
                      {"macro", macro_statement},
                      {"break", break_statement},
                      {"continue", continue_statement},
                      {"generation", generation_statement}};
    for (size_t i = 0; i < sizeof STATEMENTS / sizeof *STATEMENTS; i++)
        if (accept(m, STATEMENTS[i].name)) {
            STATEMENTS[i].run(m);
            close_tag(m);
            return;
        }
    jinja_fail(m, ERROR_UNSUPPORTED, "the tag '%.*s' is not supported", SV_ARGS(m->at->text));
}

/* Whether the next tag is one of `ends`, names with spaces between. */
static bool at_end(const JinjaMachine *m, const char *ends) {
    if (m->at->kind != TOKEN_OPEN_BLOCK || m->at[1].kind != TOKEN_NAME)
        return m->at->kind == TOKEN_END && ends[0] == '\0';
    StringView name = m->at[1].text;
    size_t at = sv_find(sv(ends), name, 0);
    return at < strlen(ends) && (at == 0 || ends[at - 1] == ' ') && (ends[at + name.length] & ~' ') == '\0';
}

/* Up to behind the {% in front of one of `ends`. */
static void body(JinjaMachine *m, const char *ends) {
    jinja_enter(m);
    while (!at_end(m, ends)) {
        if (m->at->kind == TOKEN_END)
            jinja_fail(m, ERROR_FORMAT, "a block without its end (%s)", ends);
        const JinjaToken *token = m->at++;
        if (token->kind == TOKEN_OPEN_BLOCK) {
            statement(m);
            continue;
        }
        JinjaValue value = token->kind == TOKEN_DATA ? jinja_string(token->text) : expression(m);
        if (token->kind == TOKEN_OPEN_PRINT)
            close_tag(m);
        if (!m->skips)
            jinja_write(m, m->out, jinja_shown(m, value));
    }
    m->at++;
    m->depth--;
}

/* --- templates -----------------------------------------------------------------------------------------------------
 */

/* As Jinja2 reads a file: "\n" for each kind of newline, and without the last one. */
static StringView normalised(JinjaMachine *m, StringView source) {
    char *bytes = jinja_take(m, source.length);
    size_t length = 0;
    for (size_t i = 0; i < source.length; i++)
        if (source.bytes[i] != '\n' || i == 0 || source.bytes[i - 1] != '\r')
            bytes[length++] = source.bytes[i] == '\r' ? '\n' : source.bytes[i];
    return (StringView){bytes, length - (length > 0 && bytes[length - 1] == '\n')};
}

int jinja_parse(JinjaTemplate **out, StringView source, Error *error) {
    JinjaTemplate *template = *out = calloc(1, sizeof **out);
    if (template == NULL)
        return error_memory(error, "a chat template", sizeof **out);
    template->m.error = error;
    template->m.line = 1;
    template->m.max_steps = JINJA_MAX_STEPS;
    if (setjmp(template->m.on_failure) == 0) {
        if (!utf8_is_valid(source))
            jinja_fail(&template->m, ERROR_FORMAT, "the text is no UTF-8");
        template->m.at = template->tokens = jinja_lex(&template->m, normalised(&template->m, source));
        template->m.skips = true;
        body(&template->m, "");
        return 0;
    }
    jinja_template_free(*out);
    *out = NULL;
    return error->code;
}

static void define(JinjaMachine *m, const char *name, JinjaValue value) {
    if (value.kind != JINJA_TEXT || value.text.bytes != NULL)
        jinja_assign(m, &m->scope->names, jinja_string(sv(name)), value);
}

static JinjaValue list_messages(JinjaMachine *m, const JinjaInput *input) {
    JinjaValue list = jinja_items(m, JINJA_LIST);
    for (size_t i = 0; i < input->n_messages; i++) {
        JinjaText content = {input->messages[i].content.bytes, input->messages[i].content.length, NULL};
        unsigned char *marks = jinja_take(m, content.length);
        memset(marks, 1, content.length);
        content.from_message = marks;
        JinjaValue message = jinja_items(m, JINJA_MAPPING);
        jinja_assign(m, message.items, jinja_string(sv("role")), jinja_string(input->messages[i].role));
        jinja_assign(m, message.items, jinja_string(sv("content")), jinja_text(content));
        jinja_append(m, list.items, message);
    }
    return list;
}

static void run(JinjaMachine *m, JinjaOutput *out) {
    JinjaBuffer buffer = {0};
    m->scope = jinja_take(m, sizeof *m->scope);
    m->out = &buffer;
    define(m, "messages", list_messages(m, m->input));
    define(m, "add_generation_prompt", jinja_boolean(m->input->add_generation_prompt));
    define(m, "tools", (JinjaValue){.kind = JINJA_NONE});
    define(m, "documents", (JinjaValue){.kind = JINJA_NONE});
    define(m, "bos_token", jinja_string(m->input->bos_token));
    define(m, "eos_token", jinja_string(m->input->eos_token));
    body(m, "");
    m->at--;
    *out = (JinjaOutput){malloc(buffer.length + 1), malloc(buffer.length + 1), buffer.length};
    if (out->bytes == NULL || out->from_message == NULL)
        jinja_fail(m, ERROR_MEMORY, "out of memory");
    memcpy(out->bytes, jinja_written(&buffer).bytes, buffer.length);
    if (buffer.length > 0)
        memcpy(out->from_message, buffer.from_message, buffer.length);
}

int jinja_render(const JinjaTemplate *template, const JinjaInput *input, JinjaOutput *out, Error *error) {
    JinjaMachine m = {.error = error, .at = template->tokens, .input = input, .max_steps = JINJA_MAX_STEPS};
    for (size_t i = 0; i < input->n_messages; i++)
        m.max_steps += input->messages[i].content.length;
    *out = (JinjaOutput){0};
    if (setjmp(m.on_failure) == 0) {
        run(&m, out);
        jinja_machine_free(&m);
        return 0;
    }
    jinja_machine_free(&m);
    jinja_output_free(out);
    return error->code;
}

void jinja_output_free(JinjaOutput *output) {
    free(output->bytes);
    free(output->from_message);
    *output = (JinjaOutput){0};
}

void jinja_template_free(JinjaTemplate *template) {
    if (template != NULL)
        jinja_machine_free(&template->m);
    free(template);
}

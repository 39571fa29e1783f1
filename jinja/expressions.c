/* Expressions. What is not to be done, for it stands in a branch not taken, is read without. jinja_parse() reads a
 * whole template so, once: then its syntax is right, and of each `a if b else c` it is known where b is, which comes
 * before a in time. */
#include "jinja/evaluate.h"

static Value unary(Machine *m, bool with_filters);

bool jinja_next_is(const Machine *m, const char *text) {
    return (m->at->kind == TOKEN_OPERATOR || m->at->kind == TOKEN_NAME) && sv_is(m->at->text, text);
}

bool jinja_accept(Machine *m, const char *text) {
    bool there = jinja_next_is(m, text);
    m->at += there;
    return there;
}

StringView jinja_expect_kind(Machine *m, TokenKind kind, const char *wanted) {
    m->line = m->at->line;
    if (m->at->kind != kind)
        jinja_fail(m, ERROR_FORMAT, "'%.*s' where %s should be", SV_ARGS(m->at->text), wanted);
    return m->at++->text;
}

void jinja_expect(Machine *m, const char *text) {
    if (!jinja_accept(m, text))
        jinja_expect_kind(m, TOKEN_END + 1, text);
}

void jinja_close_tag(Machine *m) {
    jinja_expect_kind(m, TOKEN_CLOSE, "the end of the tag");
}

Value jinja_lookup(Machine *m, StringView name) {
    static const char OTHERS[] =
        "lipsum cycler joiner dict varargs kwargs caller self super unk_token pad_token sep_token cls_token mask_token";
    for (const Scope *scope = m->scope; scope != NULL; scope = scope->parent) {
        const Value *found = jinja_find(m, &scope->names, jinja_string(name));
        if (found != NULL)
            return *found;
    }
    const Row *row = jinja_builtin(GROUP_GLOBAL, name);
    if (row == NULL && jinja_word(OTHERS, name) >= 0)
        jinja_fail(m, ERROR_UNSUPPORTED, "'%.*s' is not supported", SV_ARGS(name));
    if (row == NULL)
        return jinja_undefined(name);
    Value function = {.kind = JINJA_FUNCTION, .bound = jinja_take(m, sizeof(Bound))};
    function.bound->row = row;
    return function;
}

static void arguments(Machine *m, Arguments *out) {
    for (out->n = 0; !jinja_accept(m, ")"); out->n++) {
        if (out->n == MAX_ARGUMENTS || jinja_next_is(m, "*") || jinja_next_is(m, "**"))
            jinja_fail(m, ERROR_UNSUPPORTED, "more than %d arguments, or a list of them, are not supported",
                       MAX_ARGUMENTS);
        bool keyword = m->at->kind == TOKEN_NAME && sv_is(m->at[1].text, "=");
        if (!keyword && out->n > 0 && out->names[out->n - 1].length > 0)
            jinja_fail(m, ERROR_FORMAT, "an argument by position behind one by name");
        out->names[out->n] = keyword ? m->at->text : (StringView){"", 0};
        m->at += keyword ? 2 : 0;
        out->values[out->n] = jinja_expression(m);
        if (!jinja_next_is(m, ")"))
            jinja_expect(m, ",");
    }
}

static Value call(Machine *m, Value function, const Arguments *given) {
    if (m->skips)
        return function;
    if (function.kind == JINJA_MACRO) {
        Token *at = m->at;
        m->at = function.macro->at;
        jinja_enter(m);
        Text text = jinja_captured(m, "endmacro", function.macro->scope, given);
        m->depth--;
        m->at = at;
        return jinja_text(text);
    }
    if (function.kind != JINJA_FUNCTION)
        jinja_fail(m, ERROR_FORMAT, "%s '%.*s' is called", jinja_kind_name(function),
                   SV_ARGS(function.kind == JINJA_UNDEFINED ? jinja_view(function.text) : sv("")));
    const Row *row = function.bound->row;
    if (row->call != NULL)
        return jinja_call(m, row->group, sv(row->name), function.bound->self, given);
    Value namespace = jinja_items(m, JINJA_NAMESPACE);
    for (size_t i = 0; i < given->n; i++) {
        if (given->names[i].length == 0)
            jinja_fail(m, ERROR_UNSUPPORTED, "namespace() of values without names is not supported");
        jinja_assign(m, namespace.items, jinja_string(given->names[i]), given->values[i]);
    }
    return namespace;
}

static Value item(Machine *m, Value of, Value key) {
    if (m->skips)
        return of;
    if (of.kind == JINJA_UNDEFINED)
        jinja_fail(m, ERROR_FORMAT, "'%.*s' is undefined", SV_ARGS(jinja_view(of.text)));
    const Value *found = of.kind == JINJA_MAPPING ? jinja_find(m, of.items, key) : NULL;
    if (found != NULL)
        return *found;
    if (key.kind == JINJA_TEXT)
        return jinja_attribute(m, of, jinja_view(key.text));
    bool indexed = of.kind >= JINJA_TEXT && of.kind <= JINJA_TUPLE;
    if (indexed && (key.kind == JINJA_INTEGER || key.kind == JINJA_BOOLEAN))
        return jinja_at(m, of, key.integer);
    return jinja_undefined(sv("an item that is not there"));
}

static Value subscript(Machine *m, Value of) {
    Value bounds[3] = {0};
    bool slices = false;
    for (int i = 0; i < 3; i++) {
        if (!jinja_next_is(m, ":") && !jinja_next_is(m, "]"))
            bounds[i] = jinja_expression(m);
        if (i == 2 || !jinja_accept(m, ":"))
            break;
        slices = true;
    }
    jinja_expect(m, "]");
    if (m->skips)
        return of;
    return slices ? jinja_slice(m, of, bounds) : item(m, of, bounds[0]);
}

static Value items(Machine *m, Kind kind, const char *end, Value out) {
    while (!jinja_accept(m, end)) {
        Value value = jinja_expression(m);
        if (kind == JINJA_MAPPING) {
            jinja_expect(m, ":");
            Value key = value;
            value = jinja_expression(m);
            if (!m->skips)
                jinja_assign(m, out.items, key, value);
        } else if (!m->skips) {
            jinja_append(m, out.items, value);
        }
        if (!jinja_next_is(m, end))
            jinja_expect(m, ",");
    }
    return out;
}

static Value parentheses(Machine *m) {
    Value tuple = jinja_items(m, JINJA_TUPLE);
    if (jinja_accept(m, ")"))
        return tuple;
    Value first = jinja_expression(m);
    if (jinja_accept(m, ")"))
        return first;
    jinja_expect(m, ",");
    jinja_append(m, tuple.items, first);
    return items(m, JINJA_TUPLE, ")", tuple);
}

static Value constant(Machine *m) {
    Value value = m->at++->value;
    while (value.kind == JINJA_TEXT && m->at->kind == TOKEN_CONSTANT && m->at->value.kind == JINJA_TEXT) {
        Buffer both = {0};
        jinja_write(m, &both, value.text);
        jinja_write(m, &both, m->at++->value.text);
        value = jinja_text(jinja_written(&both));
    }
    return value;
}

static Value primary(Machine *m) {
    if (m->at->kind == TOKEN_CONSTANT)
        return constant(m);
    if (jinja_accept(m, "true") || jinja_accept(m, "True"))
        return jinja_boolean(true);
    if (jinja_accept(m, "false") || jinja_accept(m, "False"))
        return jinja_boolean(false);
    if (jinja_accept(m, "none") || jinja_accept(m, "None"))
        return (Value){.kind = JINJA_NONE};
    if (jinja_accept(m, "("))
        return parentheses(m);
    if (jinja_accept(m, "["))
        return items(m, JINJA_LIST, "]", jinja_items(m, JINJA_LIST));
    if (jinja_accept(m, "{"))
        return items(m, JINJA_MAPPING, "}", jinja_items(m, JINJA_MAPPING));
    StringView name = jinja_expect_kind(m, TOKEN_NAME, "a value");
    return m->skips ? jinja_undefined(name) : jinja_lookup(m, name);
}

static Value postfix(Machine *m, Value value) {
    for (;;) {
        if (jinja_accept(m, "[")) {
            value = subscript(m, value);
        } else if (jinja_accept(m, "(")) {
            Arguments given;
            arguments(m, &given);
            value = call(m, value, &given);
        } else if (jinja_accept(m, ".")) {
            bool number = m->at->kind == TOKEN_CONSTANT && m->at->value.kind == JINJA_INTEGER;
            Value key = number ? m->at++->value : jinja_string(jinja_expect_kind(m, TOKEN_NAME, "a name"));
            value = number ? item(m, value, key) : m->skips ? value : jinja_attribute(m, value, jinja_view(key.text));
        } else {
            return value;
        }
    }
}

/* A filter or, behind `is`, a test. */
static Value filtered(Machine *m, Value value, Group group) {
    bool negated = group == GROUP_TEST && jinja_accept(m, "not");
    StringView name = jinja_expect_kind(m, TOKEN_NAME, "a name");
    Arguments given = {0};
    bool word =
        m->at->kind == TOKEN_NAME && !jinja_next_is(m, "else") && !jinja_next_is(m, "or") && !jinja_next_is(m, "and");
    if (jinja_accept(m, "(")) {
        arguments(m, &given);
    } else if (group == GROUP_TEST &&
               (word || m->at->kind == TOKEN_CONSTANT || jinja_next_is(m, "[") || jinja_next_is(m, "{"))) {
        given.n = 1;
        given.names[0] = (StringView){"", 0};
        given.values[0] = postfix(m, primary(m));
    }
    if (m->skips)
        return value;
    value = jinja_call(m, group, name, value, &given);
    return negated ? jinja_boolean(!jinja_truth(value)) : value;
}

static Value unary(Machine *m, bool with_filters) {
    jinja_enter(m);
    jinja_step(m, 0);
    bool negative = jinja_accept(m, "-");
    Value value = postfix(m, negative ? unary(m, false) : primary(m));
    if (negative && !m->skips)
        value = jinja_operate(m, "-", jinja_integer(0), value);
    while (with_filters && (jinja_next_is(m, "|") || jinja_next_is(m, "is"))) {
        bool filter = jinja_accept(m, "|");
        if (!filter)
            jinja_expect(m, "is");
        value = filtered(m, value, filter ? GROUP_FILTER : GROUP_TEST);
    }
    m->depth--;
    return value;
}

enum { LEVEL_OR, LEVEL_AND, LEVEL_NOT, LEVEL_COMPARE, LEVEL_SUM, LEVEL_JOIN, LEVEL_PRODUCT, LEVEL_UNARY };

static Value level(Machine *m, int n);

/* Reads, and does not do if `skips`. */
static Value level_unless(Machine *m, bool skips, int n) {
    bool before = m->skips;
    m->skips = before || skips;
    Value value = level(m, n);
    m->skips = before;
    return value;
}

/* a < b < c is a < b and b < c. */
static Value comparison(Machine *m) {
    static const char *const OPERATORS[] = {"==", "!=", "<=", ">=", "<", ">", "in", "not", NULL};
    Value left = level(m, LEVEL_SUM), result = left;
    for (int i = 0, n = 0; OPERATORS[i] != NULL; i++) {
        bool negated = OPERATORS[i][0] == 'n';
        if (!jinja_next_is(m, OPERATORS[i]) || (negated && !sv_is(m->at[1].text, "in")))
            continue;
        m->at += 1 + negated;
        bool decided = n++ > 0 && !jinja_truth(result);
        Value right = level_unless(m, decided, LEVEL_SUM);
        if (!m->skips && !decided)
            result = jinja_operate(m, OPERATORS[i], left, right);
        left = right;
        i = -1;
    }
    return result;
}

/* Operators of one level, from the loosest to the tightest. */
static Value level(Machine *m, int n) {
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
        bool negated = jinja_accept(m, "not");
        Value value = level(m, negated ? LEVEL_NOT : LEVEL_COMPARE);
        m->depth--;
        return negated ? jinja_boolean(!jinja_truth(value)) : value;
    }
    Value value = level(m, n + 1);
    for (int i = 0; OPERATORS[n][i] != NULL; i++) {
        if (!jinja_accept(m, OPERATORS[n][i]))
            continue;
        bool decided = n == LEVEL_OR ? jinja_truth(value) : n == LEVEL_AND && !jinja_truth(value);
        Value right = level_unless(m, decided, n + 1);
        if (!m->skips && !decided)
            value = n <= LEVEL_AND ? right : jinja_operate(m, OPERATORS[n][i], value, right);
        i = -1;
    }
    return value;
}

static Value conditional(Machine *m, Token *start) {
    bool skips = m->skips;
    m->at = start->condition;
    bool truth = jinja_truth(level(m, LEVEL_OR));
    Value value = jinja_undefined(sv("the value of an if without else"));
    m->skips = skips || truth;
    if (jinja_accept(m, "else"))
        value = jinja_expression(m);
    m->skips = skips;
    if (!skips && truth) {
        Token *end = m->at;
        m->at = start;
        value = level(m, LEVEL_OR);
        m->at = end;
    }
    return value;
}

Value jinja_expression(Machine *m) {
    jinja_enter(m);
    jinja_step(m, 0);
    Token *start = m->at;
    Value value;
    m->line = start->line;
    if (start->condition == NULL) {
        value = level(m, LEVEL_OR);
        if (jinja_accept(m, "if"))
            start->condition = m->at;
    }
    if (start->condition != NULL)
        value = conditional(m, start);
    m->depth--;
    return value;
}

Value jinja_condition(Machine *m, bool skips) {
    return level_unless(m, skips, LEVEL_OR);
}

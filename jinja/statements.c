/* What stands between tags, and the tags that are statements. */
#include "jinja/evaluate.h"

enum { MAX_TARGETS = 4 };

/* Gives the macro's parameters their values: the arguments', else their own. Ends behind the opening tag. */
static void parameters(Machine *m, const Arguments *given, size_t n_positional) {
    bool skips = m->skips, optional = false;
    size_t n_used = 0;
    jinja_expect(m, "(");
    for (size_t i = 0; !jinja_accept(m, ")"); i++) {
        if (i > 0)
            jinja_expect(m, ",");
        StringView name = jinja_expect_kind(m, TOKEN_NAME, "a parameter");
        Value value = jinja_undefined(name);
        size_t j = i;
        if (j >= n_positional)
            for (j = n_positional; j < given->n && !sv_equal(given->names[j], name); j++)
                ;
        bool there = j < given->n;
        m->skips = skips || there;
        if (optional && !jinja_next_is(m, "="))
            jinja_fail(m, ERROR_FORMAT, "a parameter without a value behind one with a value");
        if ((optional = jinja_accept(m, "=")))
            value = jinja_expression(m);
        m->skips = skips;
        n_used += there;
        if (!skips)
            jinja_assign(m, &m->scope->names, jinja_string(name), there ? given->values[j] : value);
    }
    if (n_used < given->n)
        jinja_fail(m, ERROR_FORMAT, "a macro is called with other arguments than it has");
    jinja_close_tag(m);
}

Text jinja_captured(Machine *m, const char *ends, Scope *around, const Arguments *given) {
    Scope *scope = m->scope;
    Buffer buffer = {0}, *out = m->out;
    size_t n_positional = 0, n_loops = m->n_loops;
    m->n_loops = 0;
    m->scope = jinja_take(m, sizeof *m->scope);
    m->scope->parent = around;
    m->out = &buffer;
    while (given != NULL && n_positional < given->n && given->names[n_positional].length == 0)
        n_positional++;
    if (given != NULL)
        parameters(m, given, n_positional);
    jinja_body(m, ends);
    m->scope = scope;
    m->out = out;
    m->n_loops = n_loops;
    return jinja_written(&buffer);
}

/* Names, or attributes of namespaces, that take a value. */
typedef struct Targets {
    StringView names[MAX_TARGETS], attributes[MAX_TARGETS];
    size_t n;
} Targets;

static Targets targets(Machine *m, bool attributes) {
    Targets out = {0};
    bool parenthesis = jinja_accept(m, "(");
    do {
        if (out.n == MAX_TARGETS)
            jinja_fail(m, ERROR_UNSUPPORTED, "more than %d names at once are not supported", MAX_TARGETS);
        out.names[out.n] = jinja_expect_kind(m, TOKEN_NAME, "a name");
        if (attributes && jinja_accept(m, "."))
            out.attributes[out.n] = jinja_expect_kind(m, TOKEN_NAME, "a name");
        out.n++;
    } while (jinja_accept(m, ","));
    if (parenthesis)
        jinja_expect(m, ")");
    return out;
}

static void assign(Machine *m, const Targets *to, Value value) {
    const Items *values = to->n > 1 ? jinja_iterate(m, value) : NULL;
    if (values != NULL && values->count != to->n)
        jinja_fail(m, ERROR_FORMAT, "%zu values for %zu names", values->count, to->n);
    for (size_t i = 0; i < to->n; i++) {
        Items *into = &m->scope->names;
        StringView name = to->names[i];
        if (to->attributes[i].length > 0) {
            Value namespace = jinja_lookup(m, name);
            if (namespace.kind != JINJA_NAMESPACE)
                jinja_fail(m, ERROR_FORMAT, "'%.*s' is no namespace", SV_ARGS(name));
            into = namespace.items;
            name = to->attributes[i];
        }
        jinja_assign(m, into, jinja_string(name), values != NULL ? values->at[i] : value);
    }
}

static Scope *inner_scope(Machine *m) {
    Scope *inner = jinja_take(m, sizeof *inner);
    inner->parent = m->scope;
    return inner;
}

/* The items that the loop's condition, at `filter`, lets through. */
static const Items *chosen(Machine *m, const Items *all, const Targets *to, Token *filter) {
    Token *at = m->at;
    Scope *scope = m->scope;
    Items *kept = jinja_items(m, JINJA_LIST).items;
    for (size_t i = 0; i < all->count; i++) {
        m->at = filter;
        m->scope = inner_scope(m);
        assign(m, to, all->at[i]);
        if (jinja_truth(jinja_expression(m)))
            jinja_append(m, kept, all->at[i]);
        m->scope = scope;
    }
    m->at = at;
    return kept;
}

/* Reads the rest of the loop's opening tag; none where it is skipped. */
static const Items *loop_items(Machine *m, const Targets *to) {
    bool skips = m->skips;
    jinja_expect(m, "in");
    Value over = jinja_condition(m, false);
    Token *filter = jinja_accept(m, "if") ? m->at : NULL;
    m->skips = true;
    if (filter != NULL)
        jinja_expression(m);
    m->skips = skips;
    jinja_close_tag(m);
    if (skips)
        return jinja_items(m, JINJA_LIST).items;
    const Items *all = jinja_iterate(m, over);
    return filter != NULL ? chosen(m, all, to, filter) : all;
}

static void for_statement(Machine *m) {
    bool skips = m->skips;
    Scope *scope = m->scope;
    Targets to = targets(m, false);
    Loop *loop = jinja_take(m, sizeof *loop);
    loop->items = loop_items(m, &to);
    const Items *all = loop->items;
    Token *start = m->at;
    m->n_loops++;
    for (bool ends = false; loop->index < all->count && !ends; loop->index++) {
        m->at = start;
        m->scope = inner_scope(m);
        jinja_assign(m, &m->scope->names, jinja_string(sv("loop")), (Value){.kind = JINJA_LOOP, .loop = loop});
        assign(m, &to, all->at[loop->index]);
        jinja_body(m, "else endfor");
        ends = m->breaks;
        m->breaks = m->continues = m->skips = false;
        m->scope = scope;
    }
    m->skips = true;
    if (all->count == 0)
        jinja_body(m, "else endfor");
    m->n_loops--;
    m->skips = skips || all->count > 0;
    if (jinja_accept(m, "else")) {
        jinja_close_tag(m);
        jinja_body(m, "endfor");
    }
    m->skips = skips || m->breaks || m->continues;
    jinja_expect(m, "endfor");
}

static void if_statement(Machine *m) {
    bool skips = m->skips, done = skips;
    do {
        bool truth = jinja_truth(jinja_condition(m, done)) && !done;
        jinja_close_tag(m);
        m->skips = !truth;
        jinja_body(m, "elif else endif");
        done = done || truth;
        m->skips = skips || m->breaks || m->continues;
    } while (jinja_accept(m, "elif"));
    if (jinja_accept(m, "else")) {
        jinja_close_tag(m);
        m->skips = m->skips || done;
        jinja_body(m, "endif");
        m->skips = skips || m->breaks || m->continues;
    }
    jinja_expect(m, "endif");
}

static void set_statement(Machine *m) {
    Targets to = targets(m, true);
    Value value;
    if (jinja_accept(m, "=")) {
        value = jinja_expression(m);
    } else {
        jinja_close_tag(m);
        value = jinja_text(jinja_captured(m, "endset", m->scope, NULL));
        jinja_expect(m, "endset");
    }
    if (!m->skips)
        assign(m, &to, value);
}

static void macro_statement(Machine *m) {
    bool skips = m->skips;
    Value name = jinja_string(jinja_expect_kind(m, TOKEN_NAME, "a name"));
    Value macro = {.kind = JINJA_MACRO, .macro = jinja_take(m, sizeof(Macro))};
    *macro.macro = (Macro){m->at, m->scope};
    m->skips = true;
    jinja_captured(m, "endmacro", m->scope, &(Arguments){0});
    m->skips = skips;
    jinja_expect(m, "endmacro");
    if (!skips)
        jinja_assign(m, &m->scope->names, name, macro);
}

/* {% generation %} marks what an assistant has said, for training; its names are its own. */
static void generation_statement(Machine *m) {
    jinja_close_tag(m);
    Text text = jinja_captured(m, "endgeneration", m->scope, NULL);
    jinja_expect(m, "endgeneration");
    if (!m->skips)
        jinja_write(m, m->out, text);
}

/* {% break %} and {% continue %}: the rest of the loop's body is skipped. */
static void leave(Machine *m, bool *how) {
    if (m->n_loops == 0)
        jinja_fail(m, ERROR_FORMAT, "a break or continue outside of a loop");
    *how = *how || !m->skips;
    m->skips = true;
}

static void break_statement(Machine *m) {
    leave(m, &m->breaks);
}

static void continue_statement(Machine *m) {
    leave(m, &m->continues);
}

static void statement(Machine *m) {
    static const struct {
        const char *name;
        void (*run)(Machine *m);
    } STATEMENTS[] = {{"for", for_statement},
                      {"if", if_statement},
                      {"set", set_statement},
                      {"macro", macro_statement},
                      {"break", break_statement},
                      {"continue", continue_statement},
                      {"generation", generation_statement}};
    for (size_t i = 0; i < sizeof STATEMENTS / sizeof *STATEMENTS; i++)
        if (jinja_accept(m, STATEMENTS[i].name)) {
            STATEMENTS[i].run(m);
            jinja_close_tag(m);
            return;
        }
    jinja_fail(m, ERROR_UNSUPPORTED, "the tag '%.*s' is not supported", SV_ARGS(m->at->text));
}

static bool at_end(const Machine *m, const char *ends) {
    if (m->at->kind == TOKEN_END)
        return ends[0] == '\0';
    return m->at->kind == TOKEN_OPEN_BLOCK && m->at[1].kind == TOKEN_NAME && jinja_word(ends, m->at[1].text) >= 0;
}

void jinja_body(Machine *m, const char *ends) {
    jinja_enter(m);
    while (!at_end(m, ends)) {
        if (m->at->kind == TOKEN_END)
            jinja_fail(m, ERROR_FORMAT, "a block without its end (%s)", ends);
        jinja_step(m, 0);
        const Token *token = m->at++;
        if (token->kind == TOKEN_OPEN_BLOCK) {
            statement(m);
            continue;
        }
        Value value = token->kind == TOKEN_DATA ? jinja_string(token->text) : jinja_expression(m);
        if (token->kind == TOKEN_OPEN_PRINT)
            jinja_close_tag(m);
        if (!m->skips)
            jinja_write(m, m->out, jinja_shown(m, value));
    }
    m->at++;
    m->depth--;
}

/* The table of filters, tests, functions and methods, and how its rows are called. What a row does not do as Python or
 * Jinja2 would, it refuses. */
#include "jinja/builtins.h"

static Value compares(Machine *m, const Row *row, Value self, const Value *p) {
    static const char *const OPERATORS[] = {"==", "!=", "<", "<=", ">", ">=", "in"};
    return jinja_operate(m, OPERATORS[row->variant], self, p[0]);
}

static Value is_kind(Machine *m, const Row *row, Value self, const Value *p) {
    return jinja_boolean((row->variant >> self.kind & 1) != 0);
}

static Value is_divisible(Machine *m, const Row *row, Value self, const Value *p) {
    Value rest = jinja_operate(m, "%", self, row->variant > 0 ? jinja_integer(2) : p[0]);
    return jinja_boolean((rest.integer == 0) == (row->variant != 1));
}

static Value is_constant(Machine *m, const Row *row, Value self, const Value *p) {
    return jinja_boolean(self.kind == JINJA_BOOLEAN && self.integer == row->variant);
}

static Value raise_exception(Machine *m, const Row *row, Value self, const Value *p) {
    jinja_fail(m, ERROR_ARGUMENT, "\"%.*s\", it says", SV_ARGS(jinja_view(jinja_shown(m, p[0]))));
}

static Value range(Machine *m, const Row *row, Value self, const Value *p) {
    Value out = jinja_items(m, JINJA_LIST);
    bool one = p[1].kind == JINJA_UNSET;
    for (int i = 0; i < 3; i++)
        if (p[i].kind != JINJA_INTEGER && p[i].kind != JINJA_UNSET)
            jinja_fail(m, ERROR_FORMAT, "range of %s", jinja_kind_name(p[i]));
    int64_t start = one ? 0 : p[0].integer, stop = one ? p[0].integer : p[1].integer,
            step = p[2].kind == JINJA_UNSET ? 1 : p[2].integer;
    if (step == 0)
        jinja_fail(m, ERROR_FORMAT, "range with step 0");
    while (step > 0 ? start < stop : start > stop) {
        jinja_step(m, 0);
        jinja_append(m, out.items, jinja_integer(start));
        start = jinja_operate(m, "+", jinja_integer(start), jinja_integer(step)).integer;
    }
    return out;
}

static Value strftime_now(Machine *m, const Row *row, Value self, const Value *p) {
    Text format = jinja_text_of(m, p[0]);
    char text[256], terminated[64] = "";
    for (size_t i = 0; i + 1 < format.length; i++)
        if (format.bytes[i] == '%' && strchr("aAbBdeFHIjmMpSTyY%", format.bytes[++i]) == NULL && format.bytes[i] != '-')
            jinja_fail(m, ERROR_UNSUPPORTED, "%s of %%%c is not supported", row->name, format.bytes[i]);
    if (format.length >= sizeof terminated || memchr(format.bytes, '\0', format.length) != NULL)
        jinja_fail(m, ERROR_UNSUPPORTED, "%s of so long a format is not supported", row->name);
    memcpy(terminated, format.bytes, format.length);
    size_t (*format_time)(char *, size_t, const char *, const struct tm *) = strftime; /* with a format just checked */
    size_t written = format_time(text, sizeof text, terminated, &m->input->date);
    Buffer out = {0};
    jinja_write(m, &out, (Text){text, written, NULL});
    return jinja_text(jinja_written(&out));
}

#define OF(kind) (1 << JINJA_##kind)

static const Row BUILTINS[] = {
    {"trim", "chars", 0, jinja_strip_text, LEFT | RIGHT, GROUP_FILTER},
    {"length", "", 0, jinja_length_of, 0, GROUP_FILTER},
    {"count", "", 0, jinja_length_of, 0, GROUP_FILTER},
    {"upper", "", 0, jinja_change_case, UPPER, GROUP_FILTER},
    {"lower", "", 0, jinja_change_case, LOWER, GROUP_FILTER},
    {"capitalize", "", 0, jinja_change_case, CAPITALIZE, GROUP_FILTER},
    {"title", "", 0, jinja_change_case, TITLE_FILTER, GROUP_FILTER},
    {"replace", "old new", 2, jinja_replace_text, 0, GROUP_FILTER},
    {"join", "d", 0, jinja_joined, 0, GROUP_FILTER},
    {"string", "", 0, jinja_to_text, false, GROUP_FILTER},
    {"safe", "", 0, jinja_to_text, true, GROUP_FILTER},
    {"int", "default", 0, jinja_to_integer, 0, GROUP_FILTER},
    {"tojson", "ensure_ascii indent separators sort_keys", 0, jinja_to_json, 0, GROUP_FILTER},
    {"list", "", 0, jinja_list_of, 0, GROUP_FILTER},
    {"first", "", 0, jinja_first_item, 0, GROUP_FILTER},
    {"last", "", 0, jinja_first_item, -1, GROUP_FILTER},
    {"reverse", "", 0, jinja_reversed, 0, GROUP_FILTER},
    {"items", "", 0, jinja_mapping_items, PAIRS, GROUP_FILTER},
    {"dictsort", "", 0, jinja_mapping_items, SORTED, GROUP_FILTER},
    {"default", "default_value boolean", 0, jinja_default_value, 0, GROUP_FILTER},
    {"d", "default_value boolean", 0, jinja_default_value, 0, GROUP_FILTER},
    {"map", "filter 1 2 3 attribute", 0, jinja_map_items, MAPS, GROUP_FILTER},
    {"select", "test 1 2", 0, jinja_map_items, SELECTS, GROUP_FILTER},
    {"reject", "test 1 2", 0, jinja_map_items, REJECTS, GROUP_FILTER},
    {"selectattr", "attribute test 1 2", 1, jinja_map_items, SELECTS | OF_ATTRIBUTE, GROUP_FILTER},
    {"rejectattr", "attribute test 1 2", 1, jinja_map_items, REJECTS | OF_ATTRIBUTE, GROUP_FILTER},

    {"defined", "", 0, is_kind, ~OF(UNDEFINED), GROUP_TEST},
    {"undefined", "", 0, is_kind, OF(UNDEFINED), GROUP_TEST},
    {"none", "", 0, is_kind, OF(NONE), GROUP_TEST},
    {"boolean", "", 0, is_kind, OF(BOOLEAN), GROUP_TEST},
    {"integer", "", 0, is_kind, OF(INTEGER), GROUP_TEST},
    {"float", "", 0, is_kind, 0, GROUP_TEST},
    {"number", "", 0, is_kind, OF(INTEGER) | OF(BOOLEAN), GROUP_TEST},
    {"string", "", 0, is_kind, OF(TEXT), GROUP_TEST},
    {"mapping", "", 0, is_kind, OF(MAPPING), GROUP_TEST},
    {"sequence", "", 0, is_kind, OF(UNDEFINED) | OF(TEXT) | OF(LIST) | OF(TUPLE) | OF(MAPPING), GROUP_TEST},
    {"iterable", "", 0, is_kind,
     OF(UNDEFINED) | OF(TEXT) | OF(LIST) | OF(TUPLE) | OF(MAPPING) | OF(ITERATOR) | OF(LOOP), GROUP_TEST},
    {"callable", "", 0, is_kind, OF(UNDEFINED) | OF(MACRO) | OF(FUNCTION), GROUP_TEST},
    {"true", "", 0, is_constant, true, GROUP_TEST},
    {"false", "", 0, is_constant, false, GROUP_TEST},
    {"even", "", 0, is_divisible, 2, GROUP_TEST},
    {"odd", "", 0, is_divisible, 1, GROUP_TEST},
    {"divisibleby", "num", 1, is_divisible, 0, GROUP_TEST},
    {"equalto", "other", 1, compares, 0, GROUP_TEST},
    {"eq", "other", 1, compares, 0, GROUP_TEST},
    {"==", "other", 1, compares, 0, GROUP_TEST},
    {"ne", "other", 1, compares, 1, GROUP_TEST},
    {"!=", "other", 1, compares, 1, GROUP_TEST},
    {"lt", "other", 1, compares, 2, GROUP_TEST},
    {"le", "other", 1, compares, 3, GROUP_TEST},
    {"gt", "other", 1, compares, 4, GROUP_TEST},
    {"ge", "other", 1, compares, 5, GROUP_TEST},
    {"in", "seq", 1, compares, 6, GROUP_TEST},

    {"namespace", "", 0, NULL, 0, GROUP_GLOBAL},
    {"range", "start stop step", 1, range, 0, GROUP_GLOBAL},
    {"raise_exception", "message", 1, raise_exception, 0, GROUP_GLOBAL},
    {"strftime_now", "format", 1, strftime_now, 0, GROUP_GLOBAL},

    {"strip", "chars", 0, jinja_strip_text, LEFT | RIGHT, GROUP_TEXT},
    {"lstrip", "chars", 0, jinja_strip_text, LEFT, GROUP_TEXT},
    {"rstrip", "chars", 0, jinja_strip_text, RIGHT, GROUP_TEXT},
    {"upper", "", 0, jinja_change_case, UPPER, GROUP_TEXT},
    {"lower", "", 0, jinja_change_case, LOWER, GROUP_TEXT},
    {"capitalize", "", 0, jinja_change_case, CAPITALIZE, GROUP_TEXT},
    {"title", "", 0, jinja_change_case, TITLE, GROUP_TEXT},
    {"replace", "old new", 2, jinja_replace_text, 0, GROUP_TEXT},
    {"split", "sep maxsplit", 0, jinja_split_text, 0, GROUP_TEXT},
    {"startswith", "prefix", 1, jinja_begins_with, LEFT, GROUP_TEXT},
    {"endswith", "suffix", 1, jinja_begins_with, RIGHT, GROUP_TEXT},
    {"join", "iterable", 1, jinja_joined, 0, GROUP_TEXT},
    {"get", "key default", 1, jinja_get_item, 0, GROUP_MAPPING},
    {"items", "", 0, jinja_mapping_items, PAIRS, GROUP_MAPPING},
    {"keys", "", 0, jinja_mapping_items, KEYS, GROUP_MAPPING},
    {"values", "", 0, jinja_mapping_items, VALUES, GROUP_MAPPING},
};

const Row *jinja_builtin(Group group, StringView name) {
    for (size_t i = 0; i < sizeof BUILTINS / sizeof *BUILTINS; i++)
        if (BUILTINS[i].group == group && sv_is(name, BUILTINS[i].name))
            return &BUILTINS[i];
    return NULL;
}

Value jinja_call(Machine *m, Group group, StringView name, Value self, const Arguments *given) {
    static const char *const GROUPS[] = {"filter", "test", "function", "method", "method"};
    const Row *row = jinja_builtin(group, name);
    Value p[MAX_ARGUMENTS] = {0};
    int n_parameters = 0;
    jinja_step(m, 0);
    if (row == NULL)
        jinja_fail(m, ERROR_UNSUPPORTED, "the %s '%.*s' is not supported", GROUPS[group], SV_ARGS(name));
    for (const char *at = row->parameters; *at != '\0'; at++)
        n_parameters += at == row->parameters || *at == ' ';
    for (size_t i = 0; i < given->n; i++) {
        bool positional = given->names[i].length == 0;
        int place = positional ? (int)i : jinja_word(row->parameters, given->names[i]);
        if (place < 0 || place >= n_parameters || p[place].kind != JINJA_UNSET)
            jinja_fail(m, ERROR_UNSUPPORTED, "the %s '%s' with these arguments is not supported", GROUPS[group],
                       row->name);
        p[place] = given->values[i];
    }
    for (int i = 0; i < row->n_required; i++)
        if (p[i].kind == JINJA_UNSET)
            jinja_fail(m, ERROR_FORMAT, "the %s '%s' needs %d arguments", GROUPS[group], row->name, row->n_required);
    return row->call(m, row, self, p);
}

static Value loop_attribute(Machine *m, const Loop *loop, StringView name) {
    size_t i = loop->index, n = loop->items->count;
    const struct {
        const char *name;
        Value value;
    } ATTRIBUTES[] = {
        {"index0", jinja_integer((int64_t)i)},
        {"index", jinja_integer((int64_t)i + 1)},
        {"revindex0", jinja_integer((int64_t)(n - i) - 1)},
        {"revindex", jinja_integer((int64_t)(n - i))},
        {"first", jinja_boolean(i == 0)},
        {"last", jinja_boolean(i + 1 == n)},
        {"length", jinja_integer((int64_t)n)},
        {"previtem", i > 0 ? loop->items->at[i - 1] : jinja_undefined(name)},
        {"nextitem", i + 1 < n ? loop->items->at[i + 1] : jinja_undefined(name)},
    };
    for (size_t j = 0; j < sizeof ATTRIBUTES / sizeof *ATTRIBUTES; j++)
        if (sv_is(name, ATTRIBUTES[j].name))
            return ATTRIBUTES[j].value;
    jinja_fail(m, ERROR_UNSUPPORTED, "loop.%.*s is not supported", SV_ARGS(name));
}

/* Python's other methods, which are there and not supported, where any other name is undefined. */
static const char OTHER_METHODS[] =
    "casefold center count encode expandtabs find format format_map index isalnum isalpha isascii isdecimal isdigit "
    "isidentifier islower isnumeric isprintable isspace istitle isupper ljust maketrans partition removeprefix "
    "removesuffix rfind rindex rjust rpartition rsplit splitlines swapcase translate zfill "
    "append clear copy extend insert pop remove reverse sort fromkeys popitem setdefault update";

Value jinja_attribute(Machine *m, Value of, StringView name) {
    Group group = of.kind == JINJA_TEXT ? GROUP_TEXT : GROUP_MAPPING;
    if (of.kind == JINJA_UNDEFINED)
        jinja_fail(m, ERROR_FORMAT, "'%.*s' is undefined", SV_ARGS(jinja_view(of.text)));
    if (of.kind == JINJA_LOOP)
        return loop_attribute(m, of.loop, name);
    const Row *row = of.kind == JINJA_TEXT || of.kind == JINJA_MAPPING ? jinja_builtin(group, name) : NULL;
    if (row != NULL) {
        Value method = {.kind = JINJA_FUNCTION, .bound = jinja_take(m, sizeof(Bound))};
        *method.bound = (Bound){row, of};
        return method;
    }
    const Value *found =
        of.kind == JINJA_MAPPING || of.kind == JINJA_NAMESPACE ? jinja_find(m, of.items, jinja_string(name)) : NULL;
    if (found != NULL)
        return *found;
    bool method = of.kind >= JINJA_TEXT && of.kind < JINJA_NAMESPACE && jinja_word(OTHER_METHODS, name) >= 0;
    if (sv_starts_with(name, sv("_")) || of.kind > JINJA_NAMESPACE || method)
        jinja_fail(m, ERROR_UNSUPPORTED, "'%.*s' of %s is not supported", SV_ARGS(name), jinja_kind_name(of));
    return jinja_undefined(name);
}

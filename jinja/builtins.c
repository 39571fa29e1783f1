/* See builtins.h. What a row does not do as Python or Jinja2 would, it refuses. */
#include "jinja/builtins.h"

#include "tokenizer/utf8.h"

typedef JinjaMachine Machine;
typedef JinjaValue Value;
typedef JinjaText Text;
typedef JinjaBuiltin Row;

/* --- texts ---------------------------------------------------------------------------------------------------------
 */

enum { LEFT = 1, RIGHT = 2 };

/* Whether `end` bytes of the text end in white space or, where they are given, one of `characters`; how long it is. */
static bool is_stripped(Text text, bool left, Text characters, size_t *length) {
    size_t begin = left ? 0 : text.length - 1;
    while (!left && begin > 0 && (text.bytes[begin] & 0xC0) == 0x80)
        begin--;
    StringView last = {text.bytes + begin, text.length - begin};
    bool space = utf8_starts_with_space(last, length);
    StringView one = {last.bytes, *length};
    return characters.bytes == NULL ? space : sv_find(jinja_view(characters), one, 0) < characters.length;
}

static Value strip(Machine *m, const Row *row, Value self, const Value *p) {
    Text text = jinja_text_of(m, self);
    Text characters = p[0].kind > JINJA_NONE ? jinja_text_of(m, p[0]) : (Text){0};
    jinja_step(m, text.length);
    size_t length;
    while ((row->variant & LEFT) && text.length > 0 && is_stripped(text, true, characters, &length))
        text = jinja_part(text, length, text.length);
    while ((row->variant & RIGHT) && text.length > 0 && is_stripped(text, false, characters, &length))
        text.length -= length;
    return jinja_text(text);
}

/* Where `part` begins in `text` at or after byte `at`; text.length: nowhere. */
static size_t find(Machine *m, Text text, Text part, size_t at) {
    size_t found = sv_find(jinja_view(text), jinja_view(part), at);
    jinja_step(m, (found - at) * (1 + part.length / 64));
    return found;
}

static bool is_upper(char c) {
    return c >= 'A' && c <= 'Z';
}

static bool is_letter(char c) {
    return is_upper(c) || (c >= 'a' && c <= 'z');
}

enum { UPPER, LOWER, CAPITALIZE, TITLE, TITLE_FILTER };

static Value change_case(Machine *m, const Row *row, Value self, const Value *p) {
    (void)p;
    Text text = jinja_text_of(m, self);
    char *bytes = jinja_take(m, text.length);
    jinja_step(m, text.length);
    for (size_t i = 0; i < text.length; i++) {
        char c = text.bytes[i], before = i > 0 ? text.bytes[i - 1] : ' ';
        bool begins =
            row->variant == TITLE ? !is_letter(before) : strchr("- \t\n\v\f\r\x1c\x1d\x1e\x1f({[<", before) != NULL;
        bool upper =
            row->variant == UPPER || (row->variant == CAPITALIZE && i == 0) || (row->variant >= TITLE && begins);
        if ((c & 0x80) != 0)
            jinja_fail(m, ERROR_UNSUPPORTED, "%s of text beyond ASCII is not supported", row->name);
        bytes[i] = (char)(is_letter(c) && is_upper(c) != upper ? c ^ 0x20 : c);
    }
    text.bytes = bytes;
    return jinja_text(text);
}

static Value replace(Machine *m, const Row *row, Value self, const Value *p) {
    (void)row;
    Text text = jinja_text_of(m, self), old = jinja_text_of(m, p[0]), new = jinja_text_of(m, p[1]);
    JinjaBuffer out = {0};
    if (old.length == 0)
        jinja_fail(m, ERROR_UNSUPPORTED, "replace of an empty text is not supported");
    for (size_t at = 0;;) {
        size_t found = find(m, text, old, at);
        jinja_write(m, &out, jinja_part(text, at, found));
        if (found == text.length)
            return jinja_text(jinja_written(&out));
        jinja_write(m, &out, new);
        at = found + old.length;
    }
}

/* At `separator` or, where that is none, at runs of white space. */
static Value split(Machine *m, const Row *row, Value self, const Value *p) {
    static const Row STRIP = {.variant = LEFT};
    Text text = jinja_text_of(m, self), separator = p[0].kind > JINJA_NONE ? jinja_text_of(m, p[0]) : (Text){0};
    int64_t n_left = p[1].kind == JINJA_INTEGER && p[1].integer >= 0 ? p[1].integer : INT64_MAX;
    Value out = jinja_items(m, JINJA_LIST);
    (void)row;
    if (separator.bytes != NULL && separator.length == 0)
        jinja_fail(m, ERROR_FORMAT, "split by an empty text");
    for (;;) {
        size_t found = text.length, length = separator.length;
        if (separator.bytes == NULL) {
            text = strip(m, &STRIP, jinja_text(text), p).text;
            if (text.length == 0)
                return out;
            for (found = 0; found < text.length &&
                            !utf8_starts_with_space((StringView){text.bytes + found, text.length - found}, &length);)
                found += length;
            length = 0;
        } else if (n_left > 0) {
            found = find(m, text, separator, 0);
        }
        jinja_step(m, found);
        bool last = n_left-- == 0 || (found == text.length && separator.bytes != NULL);
        jinja_append(m, out.items, jinja_text(last ? text : jinja_part(text, 0, found)));
        if (last)
            return out;
        text = jinja_part(text, found + length, text.length);
    }
}

/* Whether the text begins (LEFT) or ends with another, or with one of several. */
static Value begins(Machine *m, const Row *row, Value self, const Value *p) {
    Text text = jinja_text_of(m, self);
    if (p[0].kind != JINJA_TEXT && p[0].kind != JINJA_TUPLE)
        jinja_fail(m, ERROR_FORMAT, "%s with %s", row->name, jinja_kind_name(p[0]));
    for (size_t i = 0; i < (p[0].kind == JINJA_TEXT ? 1 : p[0].items->count); i++) {
        Text part = jinja_text_of(m, p[0].kind == JINJA_TEXT ? p[0] : p[0].items->at[i]);
        size_t at = row->variant == LEFT ? 0 : text.length - part.length;
        if (part.length <= text.length &&
            sv_equal(jinja_view(jinja_part(text, at, at + part.length)), jinja_view(part)))
            return jinja_boolean(true);
    }
    return jinja_boolean(false);
}

/* As a filter, of items by a separator; as a method, of a separator: the other way round. */
static Value join(Machine *m, const Row *row, Value self, const Value *p) {
    Value separator = row->group == GROUP_TEXT ? self : p[0];
    const JinjaItems *items = jinja_iterate(m, row->group == GROUP_TEXT ? p[0] : self);
    JinjaBuffer out = {0};
    for (size_t i = 0; i < items->count; i++) {
        if (row->group == GROUP_TEXT && items->at[i].kind != JINJA_TEXT)
            jinja_fail(m, ERROR_FORMAT, "join of %s", jinja_kind_name(items->at[i]));
        if (i > 0)
            jinja_write(m, &out, jinja_text_of(m, separator));
        jinja_write(m, &out, jinja_text_of(m, items->at[i]));
    }
    return jinja_text(jinja_written(&out));
}

static Value to_text(Machine *m, const Row *row, Value self, const Value *p) {
    (void)p;
    Value text = jinja_text(jinja_shown(m, self));
    text.safe = self.safe || row->variant;
    return text;
}

static Value to_integer(Machine *m, const Row *row, Value self, const Value *p) {
    if (self.kind == JINJA_INTEGER || self.kind == JINJA_BOOLEAN)
        return jinja_integer(self.integer);
    if (self.kind == JINJA_UNDEFINED)
        jinja_fail(m, ERROR_FORMAT, "'%.*s' is undefined", SV_ARGS(jinja_view(self.text)));
    Text text = self.kind == JINJA_TEXT ? strip(m, &(Row){.variant = LEFT | RIGHT}, self, &(Value){0}).text : (Text){0};
    size_t sign = text.length > 0 && (text.bytes[0] == '-' || text.bytes[0] == '+'), n_digits = 0;
    int64_t n = 0;
    for (size_t i = sign; i < text.length; i++) {
        bool digit = text.bytes[i] >= '0' && text.bytes[i] <= '9';
        n_digits += digit;
        n = digit && n_digits < 19 ? 10 * n + text.bytes[i] - '0' : n;
    }
    if (n_digits > 0 && (n_digits != text.length - sign || n_digits > 18))
        jinja_fail(m, ERROR_UNSUPPORTED, "%s of '%.*s' is not supported", row->name, SV_ARGS(jinja_view(text)));
    if (n_digits == 0)
        return p[0].kind == JINJA_UNSET ? jinja_integer(0) : p[0];
    return jinja_integer(text.bytes[0] == '-' ? -n : n);
}

/* --- JSON ----------------------------------------------------------------------------------------------------------
 */

static void write_plain(Machine *m, JinjaBuffer *out, const char *text) {
    jinja_write(m, out, (Text){text, strlen(text), NULL});
}

static void write_json(Machine *m, JinjaBuffer *out, Value value);

static void write_json_text(Machine *m, JinjaBuffer *out, Text text) {
    static const char CODES[] = "\b\f\n\r\t\"\\", NAMES[] = "bfnrt\"\\", HEX[] = "0123456789abcdef";
    write_plain(m, out, "\"");
    for (size_t i = 0; i < text.length; i++) {
        unsigned char c = (unsigned char)text.bytes[i];
        const char *code = c != '\0' ? strchr(CODES, c) : NULL;
        char escape[] = {'\\', code != NULL ? NAMES[code - CODES] : 'u', '0', '0', HEX[c >> 4], HEX[c & 15]};
        if (code != NULL || c < 0x20)
            jinja_write(m, out, (Text){escape, code != NULL ? 2 : 6, NULL});
        else
            jinja_write(m, out, jinja_part(text, i, i + 1));
    }
    write_plain(m, out, "\"");
}

static void write_json_items(Machine *m, JinjaBuffer *out, Value value) {
    bool mapping = value.kind == JINJA_MAPPING;
    write_plain(m, out, mapping ? "{" : "[");
    for (size_t i = 0; i < value.items->count; i++) {
        bool key = mapping && i % 2 == 0;
        if (i > 0)
            write_plain(m, out, mapping && !key ? ": " : ", ");
        if (key && value.items->at[i].kind != JINJA_TEXT)
            jinja_fail(m, ERROR_UNSUPPORTED, "tojson of keys that are no texts is not supported");
        write_json(m, out, value.items->at[i]);
    }
    write_plain(m, out, mapping ? "}" : "]");
}

static void write_json(Machine *m, JinjaBuffer *out, Value value) {
    jinja_enter(m);
    if (value.kind == JINJA_NONE)
        write_plain(m, out, "null");
    else if (value.kind == JINJA_BOOLEAN)
        write_plain(m, out, value.integer ? "true" : "false");
    else if (value.kind == JINJA_INTEGER)
        jinja_write(m, out, jinja_shown(m, value));
    else if (value.kind == JINJA_TEXT)
        write_json_text(m, out, value.text);
    else if (value.kind >= JINJA_LIST && value.kind <= JINJA_MAPPING)
        write_json_items(m, out, value);
    else
        jinja_fail(m, ERROR_FORMAT, "tojson of %s", jinja_kind_name(value));
    m->depth--;
}

static Value to_json(Machine *m, const Row *row, Value self, const Value *p) {
    JinjaBuffer out = {0};
    for (int i = 0; i < 4; i++)
        if (jinja_truth(p[i]))
            jinja_fail(m, ERROR_UNSUPPORTED, "%s with ensure_ascii, indent, separators or sort_keys is not supported",
                       row->name);
    write_json(m, &out, self);
    return jinja_text(jinja_written(&out));
}

/* --- lists and mappings --------------------------------------------------------------------------------------------
 */

static Value length(Machine *m, const Row *row, Value self, const Value *p) {
    (void)row;
    (void)p;
    return jinja_integer((int64_t)jinja_length(m, self));
}

static Value list(Machine *m, const Row *row, Value self, const Value *p) {
    (void)row;
    (void)p;
    Value out = {.kind = JINJA_LIST, .items = jinja_take(m, sizeof(JinjaItems))};
    *out.items = *jinja_iterate(m, self);
    out.items->capacity = out.items->count;
    return out;
}

static Value first(Machine *m, const Row *row, Value self, const Value *p) {
    (void)p;
    if (self.kind == JINJA_ITERATOR && row->variant != 0)
        jinja_fail(m, ERROR_FORMAT, "%s of an iterator", row->name);
    if (self.kind != JINJA_ITERATOR || self.items->count == 0)
        return jinja_at(m, (Value){.kind = JINJA_LIST, .items = list(m, row, self, p).items}, row->variant);
    *self.items = (JinjaItems){self.items->at + 1, self.items->count - 1, 0};
    return self.items->at[-1];
}

static Value reverse(Machine *m, const Row *row, Value self, const Value *p) {
    const Value bounds[] = {{0}, {0}, jinja_integer(-1)};
    if (self.kind == JINJA_TEXT)
        return jinja_slice(m, self, bounds);
    Value out = jinja_slice(m, list(m, row, self, p), bounds);
    out.kind = JINJA_ITERATOR;
    return out;
}

enum { PAIRS, KEYS, VALUES, SORTED };

static int compare_texts(Text a, Text b) {
    size_t length = a.length < b.length ? a.length : b.length;
    int order = length > 0 ? memcmp(a.bytes, b.bytes, length) : 0;
    return order != 0 ? order : (a.length > b.length) - (a.length < b.length);
}

static Value mapping_items(Machine *m, const Row *row, Value self, const Value *p) {
    static const Row LOWERED = {.name = "dictsort", .variant = LOWER};
    Value out = jinja_items(m, row->group == GROUP_FILTER && row->variant == PAIRS ? JINJA_ITERATOR : JINJA_LIST);
    if (self.kind != JINJA_MAPPING && self.kind != JINJA_UNDEFINED)
        jinja_fail(m, ERROR_FORMAT, "%s of %s", row->name, jinja_kind_name(self));
    for (size_t i = 0; self.kind == JINJA_MAPPING && i < self.items->count; i += 2) {
        Value pair = {.kind = JINJA_TUPLE, .items = jinja_take(m, sizeof(JinjaItems))};
        *pair.items = (JinjaItems){&self.items->at[i], 2, 2};
        jinja_append(m, out.items,
                     row->variant == KEYS     ? pair.items->at[0]
                     : row->variant == VALUES ? pair.items->at[1]
                                              : pair);
        for (size_t j = i / 2; row->variant == SORTED && j > 0; j--) {
            Value *later = &out.items->at[j], before = later[-1];
            Text a = change_case(m, &LOWERED, before.items->at[0], p).text,
                 b = change_case(m, &LOWERED, later->items->at[0], p).text;
            if (compare_texts(a, b) <= 0)
                break;
            later[-1] = *later;
            *later = before;
        }
    }
    return out;
}

static Value get(Machine *m, const Row *row, Value self, const Value *p) {
    (void)row;
    const Value *found = jinja_find(m, self.items, p[0]);
    return found != NULL ? *found : p[1].kind == JINJA_UNSET ? (Value){.kind = JINJA_NONE} : p[1];
}

static Value default_value(Machine *m, const Row *row, Value self, const Value *p) {
    (void)m;
    (void)row;
    bool missing = self.kind == JINJA_UNDEFINED || (jinja_truth(p[1]) && !jinja_truth(self));
    return !missing ? self : p[0].kind == JINJA_UNSET ? jinja_string(sv("")) : p[0];
}

/* map, and with the bits KEEPS and OF_ATTRIBUTE select, reject, selectattr, rejectattr. */
enum { MAPS, SELECTS = 1, REJECTS = 2, OF_ATTRIBUTE = 4 };

static Value map(Machine *m, const Row *row, Value self, const Value *p) {
    Value out = jinja_items(m, JINJA_ITERATOR), attribute = row->variant == MAPS ? p[4] : p[0];
    const Value *called = p + ((row->variant & OF_ATTRIBUTE) != 0);
    bool by_attribute = row->variant == MAPS ? attribute.kind != JINJA_UNSET : (row->variant & OF_ATTRIBUTE) != 0;
    const JinjaItems *all = jinja_truth(self) || row->variant == MAPS ? jinja_iterate(m, self) : out.items;
    for (size_t i = 0, n = all->count; i < n; i++) {
        Value item = all->at[i], value = item;
        JinjaArguments given = {{called[1], called[2]}, {{"", 0}, {"", 0}}, 0};
        given.n = (called[1].kind != JINJA_UNSET) + (size_t)(called[2].kind != JINJA_UNSET);
        if (by_attribute)
            value = jinja_attribute(m, item, jinja_view(jinja_text_of(m, attribute)));
        if (row->variant == MAPS && !by_attribute)
            value = jinja_call(m, GROUP_FILTER, jinja_view(jinja_text_of(m, p[0])), item, &given);
        else if (row->variant != MAPS && called[0].kind != JINJA_UNSET)
            value = jinja_call(m, GROUP_TEST, jinja_view(jinja_text_of(m, called[0])), value, &given);
        if (row->variant == MAPS)
            jinja_append(m, out.items, value);
        else if (jinja_truth(value) == ((row->variant & SELECTS) != 0))
            jinja_append(m, out.items, item);
    }
    return out;
}

/* --- tests and functions -------------------------------------------------------------------------------------------
 */

static bool contains(Machine *m, Value self, Value in) {
    if (in.kind == JINJA_TEXT) {
        if (self.kind != JINJA_TEXT)
            jinja_fail(m, ERROR_FORMAT, "%s in a text", jinja_kind_name(self));
        return self.text.length == 0 || find(m, in.text, self.text, 0) < in.text.length;
    }
    const JinjaItems *items = jinja_iterate(m, in);
    for (size_t i = 0; i < items->count; i++)
        if (jinja_equal(m, items->at[i], self))
            return true;
    return false;
}

static bool is_number(Value value) {
    return value.kind == JINJA_INTEGER || value.kind == JINJA_BOOLEAN;
}

static Value add(Machine *m, Value a, Value b) {
    if (a.kind == JINJA_TEXT && b.kind == JINJA_TEXT) {
        JinjaBuffer out = {0};
        jinja_write(m, &out, jinja_text_of(m, a));
        jinja_write(m, &out, jinja_text_of(m, b));
        return jinja_text(jinja_written(&out));
    }
    if (a.kind != b.kind || (a.kind != JINJA_LIST && a.kind != JINJA_TUPLE))
        jinja_fail(m, ERROR_FORMAT, "%s + %s", jinja_kind_name(a), jinja_kind_name(b));
    Value out = jinja_items(m, a.kind);
    for (size_t i = 0; i < a.items->count + b.items->count; i++)
        jinja_append(m, out.items, i < a.items->count ? a.items->at[i] : b.items->at[i - a.items->count]);
    return out;
}

static Value calculate(Machine *m, const char *operator, int64_t a, int64_t b) {
    int64_t out = 0;
    bool overflow = false;
    if (operator[0] == '+')
        overflow = __builtin_add_overflow(a, b, &out);
    else if (operator[0] == '-')
        overflow = __builtin_sub_overflow(a, b, &out);
    else if (operator[0] == '*')
        overflow = __builtin_mul_overflow(a, b, &out);
    else if (b == 0 || b == -1 || strcmp(operator, "/") == 0)
        jinja_fail(m, ERROR_UNSUPPORTED, "a division that is not of whole numbers, or by %lld", (long long)b);
    else /* rounded down, as Python does */
        out = operator[0] == '%' ? (a % b + b) % b : a / b -(a % b != 0 && (a < 0) != (b < 0));
    if (overflow)
        jinja_fail(m, ERROR_UNSUPPORTED, "a number of more than 64 bits is not supported");
    return jinja_integer(out);
}

Value jinja_compare(Machine *m, const char *operator, Value a, Value b) {
    bool equality = operator[0] == '=' || operator[0] == '!';
    jinja_step(m, 0);
    if (equality)
        return jinja_boolean(jinja_equal(m, a, b) == (operator[0] == '='));
    if (operator[0] == 'i' || operator[0] == 'n')
        return jinja_boolean(contains(m, a, b) == (operator[0] == 'i'));
    if (operator[0] == '~')
        return add(m, jinja_text(jinja_text_of(m, a)), jinja_text(jinja_text_of(m, b)));
    bool numbers = is_number(a) && is_number(b);
    if (operator[0] != '<' && operator[0] != '>') {
        if (!numbers && operator[0] != '+')
            jinja_fail(m, ERROR_UNSUPPORTED, "%s %s %s is not supported", jinja_kind_name(a), operator,
                       jinja_kind_name(b));
        return numbers ? calculate(m, operator, a.integer, b.integer) : add(m, a, b);
    }
    if (!numbers && (a.kind != JINJA_TEXT || b.kind != JINJA_TEXT))
        jinja_fail(m, ERROR_FORMAT, "%s %s %s", jinja_kind_name(a), operator, jinja_kind_name(b));
    int order = numbers ? (a.integer > b.integer) - (a.integer < b.integer) : compare_texts(a.text, b.text);
    bool less = operator[0] == '<', or_equal = operator[1] == '=';
    return jinja_boolean((less ? order < 0 : order > 0) || (or_equal && order == 0));
}

static Value compares(Machine *m, const Row *row, Value self, const Value *p) {
    static const char *const OPERATORS[] = {"==", "!=", "<", "<=", ">", ">=", "in"};
    return jinja_compare(m, OPERATORS[row->variant], self, p[0]);
}

static Value is_kind(Machine *m, const Row *row, Value self, const Value *p) {
    (void)m;
    (void)p;
    return jinja_boolean((row->variant >> self.kind & 1) != 0);
}

static Value is_divisible(Machine *m, const Row *row, Value self, const Value *p) {
    Value by = row->variant > 0 ? jinja_integer(2) : p[0];
    if (!is_number(self) || !is_number(by))
        jinja_fail(m, ERROR_FORMAT, "%s of %s", row->name, jinja_kind_name(self));
    return jinja_boolean((calculate(m, "%", self.integer, by.integer).integer == 0) == (row->variant != 1));
}

static Value is_constant(Machine *m, const Row *row, Value self, const Value *p) {
    (void)m;
    (void)p;
    return jinja_boolean(self.kind == JINJA_BOOLEAN && self.integer == row->variant);
}

static Value raise_exception(Machine *m, const Row *row, Value self, const Value *p) {
    (void)row;
    (void)self;
    jinja_fail(m, ERROR_ARGUMENT, "\"%.*s\", it says", SV_ARGS(jinja_view(jinja_shown(m, p[0]))));
}

static Value range(Machine *m, const Row *row, Value self, const Value *p) {
    (void)row;
    (void)self;
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
        start = calculate(m, "+", start, step).integer;
    }
    return out;
}

static Value strftime_now(Machine *m, const Row *row, Value self, const Value *p) {
    (void)self;
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
    JinjaBuffer out = {0};
    jinja_write(m, &out, (Text){text, written, NULL});
    return jinja_text(jinja_written(&out));
}

#define OF(kind) (1 << JINJA_##kind)

static const Row BUILTINS[] = {
    {"trim", "chars", strip, LEFT | RIGHT, GROUP_FILTER},
    {"length", "", length, 0, GROUP_FILTER},
    {"count", "", length, 0, GROUP_FILTER},
    {"upper", "", change_case, UPPER, GROUP_FILTER},
    {"lower", "", change_case, LOWER, GROUP_FILTER},
    {"capitalize", "", change_case, CAPITALIZE, GROUP_FILTER},
    {"title", "", change_case, TITLE_FILTER, GROUP_FILTER},
    {"replace", "old new", replace, 0, GROUP_FILTER},
    {"join", "d", join, 0, GROUP_FILTER},
    {"string", "", to_text, false, GROUP_FILTER},
    {"safe", "", to_text, true, GROUP_FILTER},
    {"int", "default", to_integer, 0, GROUP_FILTER},
    {"tojson", "ensure_ascii indent separators sort_keys", to_json, 0, GROUP_FILTER},
    {"list", "", list, 0, GROUP_FILTER},
    {"first", "", first, 0, GROUP_FILTER},
    {"last", "", first, -1, GROUP_FILTER},
    {"reverse", "", reverse, 0, GROUP_FILTER},
    {"items", "", mapping_items, PAIRS, GROUP_FILTER},
    {"dictsort", "", mapping_items, SORTED, GROUP_FILTER},
    {"default", "default_value boolean", default_value, 0, GROUP_FILTER},
    {"d", "default_value boolean", default_value, 0, GROUP_FILTER},
    {"map", "filter 1 2 3 attribute", map, MAPS, GROUP_FILTER},
    {"select", "test 1 2", map, SELECTS, GROUP_FILTER},
    {"reject", "test 1 2", map, REJECTS, GROUP_FILTER},
    {"selectattr", "attribute test 1 2", map, SELECTS | OF_ATTRIBUTE, GROUP_FILTER},
    {"rejectattr", "attribute test 1 2", map, REJECTS | OF_ATTRIBUTE, GROUP_FILTER},

    {"defined", "", is_kind, ~OF(UNDEFINED), GROUP_TEST},
    {"undefined", "", is_kind, OF(UNDEFINED), GROUP_TEST},
    {"none", "", is_kind, OF(NONE), GROUP_TEST},
    {"boolean", "", is_kind, OF(BOOLEAN), GROUP_TEST},
    {"integer", "", is_kind, OF(INTEGER), GROUP_TEST},
    {"float", "", is_kind, 0, GROUP_TEST},
    {"number", "", is_kind, OF(INTEGER) | OF(BOOLEAN), GROUP_TEST},
    {"string", "", is_kind, OF(TEXT), GROUP_TEST},
    {"mapping", "", is_kind, OF(MAPPING), GROUP_TEST},
    {"sequence", "", is_kind, OF(UNDEFINED) | OF(TEXT) | OF(LIST) | OF(TUPLE) | OF(MAPPING), GROUP_TEST},
    {"iterable", "", is_kind, OF(UNDEFINED) | OF(TEXT) | OF(LIST) | OF(TUPLE) | OF(MAPPING) | OF(ITERATOR) | OF(LOOP),
     GROUP_TEST},
    {"callable", "", is_kind, OF(UNDEFINED) | OF(MACRO) | OF(FUNCTION), GROUP_TEST},
    {"true", "", is_constant, true, GROUP_TEST},
    {"false", "", is_constant, false, GROUP_TEST},
    {"even", "", is_divisible, 2, GROUP_TEST},
    {"odd", "", is_divisible, 1, GROUP_TEST},
    {"divisibleby", "num", is_divisible, 0, GROUP_TEST},
    {"equalto", "other", compares, 0, GROUP_TEST},
    {"eq", "other", compares, 0, GROUP_TEST},
    {"==", "other", compares, 0, GROUP_TEST},
    {"ne", "other", compares, 1, GROUP_TEST},
    {"!=", "other", compares, 1, GROUP_TEST},
    {"lt", "other", compares, 2, GROUP_TEST},
    {"le", "other", compares, 3, GROUP_TEST},
    {"gt", "other", compares, 4, GROUP_TEST},
    {"ge", "other", compares, 5, GROUP_TEST},
    {"in", "seq", compares, 6, GROUP_TEST},

    {"namespace", "", NULL, 0, GROUP_GLOBAL},
    {"range", "start stop step", range, 0, GROUP_GLOBAL},
    {"raise_exception", "message", raise_exception, 0, GROUP_GLOBAL},
    {"strftime_now", "format", strftime_now, 0, GROUP_GLOBAL},

    {"strip", "chars", strip, LEFT | RIGHT, GROUP_TEXT},
    {"lstrip", "chars", strip, LEFT, GROUP_TEXT},
    {"rstrip", "chars", strip, RIGHT, GROUP_TEXT},
    {"upper", "", change_case, UPPER, GROUP_TEXT},
    {"lower", "", change_case, LOWER, GROUP_TEXT},
    {"capitalize", "", change_case, CAPITALIZE, GROUP_TEXT},
    {"title", "", change_case, TITLE, GROUP_TEXT},
    {"replace", "old new", replace, 0, GROUP_TEXT},
    {"split", "sep maxsplit", split, 0, GROUP_TEXT},
    {"startswith", "prefix", begins, LEFT, GROUP_TEXT},
    {"endswith", "suffix", begins, RIGHT, GROUP_TEXT},
    {"join", "iterable", join, 0, GROUP_TEXT},
    {"get", "key default", get, 0, GROUP_MAPPING},
    {"items", "", mapping_items, PAIRS, GROUP_MAPPING},
    {"keys", "", mapping_items, KEYS, GROUP_MAPPING},
    {"values", "", mapping_items, VALUES, GROUP_MAPPING},
};

const Row *jinja_builtin(JinjaGroup group, StringView name) {
    for (size_t i = 0; i < sizeof BUILTINS / sizeof *BUILTINS; i++)
        if (BUILTINS[i].group == group && sv_is(name, BUILTINS[i].name))
            return &BUILTINS[i];
    return NULL;
}

/* The place of a parameter in "a b c"; -1 where there is none. */
static int parameter(const char *parameters, size_t position, StringView name) {
    int n = 0;
    for (StringView rest = sv(parameters); rest.length > 0; n++) {
        size_t end = sv_find(rest, sv(" "), 0);
        if (name.length == 0 ? (size_t)n == position : sv_equal(name, (StringView){rest.bytes, end}))
            return n;
        end += end < rest.length;
        rest = (StringView){rest.bytes + end, rest.length - end};
    }
    return -1;
}

Value jinja_call(Machine *m, JinjaGroup group, StringView name, Value self, const JinjaArguments *given) {
    static const char *const GROUPS[] = {"filter", "test", "function", "method", "method"};
    const Row *row = jinja_builtin(group, name);
    Value p[JINJA_MAX_ARGUMENTS] = {0};
    jinja_step(m, 0);
    if (row == NULL)
        jinja_fail(m, ERROR_UNSUPPORTED, "the %s '%.*s' is not supported", GROUPS[group], SV_ARGS(name));
    for (size_t i = 0; i < given->n; i++) {
        int place = parameter(row->parameters, i, given->names[i]);
        if (place < 0 || p[place].kind != JINJA_UNSET)
            jinja_fail(m, ERROR_UNSUPPORTED, "the %s '%s' with these arguments is not supported", GROUPS[group],
                       row->name);
        p[place] = given->values[i];
    }
    return row->call(m, row, self, p);
}

static Value loop_attribute(Machine *m, const JinjaLoop *loop, StringView name) {
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
    " casefold center count encode expandtabs find format format_map index isalnum isalpha isascii isdecimal isdigit "
    "isidentifier islower isnumeric isprintable isspace istitle isupper ljust maketrans partition removeprefix "
    "removesuffix "
    "rfind rindex rjust rpartition rsplit splitlines swapcase translate zfill "
    "append clear copy extend insert pop remove reverse sort fromkeys popitem setdefault update ";

Value jinja_attribute(Machine *m, Value of, StringView name) {
    JinjaGroup group = of.kind == JINJA_TEXT ? GROUP_TEXT : GROUP_MAPPING;
    if (of.kind == JINJA_UNDEFINED)
        jinja_fail(m, ERROR_FORMAT, "'%.*s' is undefined", SV_ARGS(jinja_view(of.text)));
    if (of.kind == JINJA_LOOP)
        return loop_attribute(m, of.loop, name);
    const Row *row = of.kind == JINJA_TEXT || of.kind == JINJA_MAPPING ? jinja_builtin(group, name) : NULL;
    if (row != NULL) {
        Value method = {.kind = JINJA_FUNCTION, .bound = jinja_take(m, sizeof(JinjaBound))};
        *method.bound = (JinjaBound){row, of};
        return method;
    }
    const Value *found =
        of.kind == JINJA_MAPPING || of.kind == JINJA_NAMESPACE ? jinja_find(m, of.items, jinja_string(name)) : NULL;
    if (found != NULL)
        return *found;
    size_t at = sv_find(sv(OTHER_METHODS), name, 0), end = at + name.length;
    bool method = at < strlen(OTHER_METHODS) && OTHER_METHODS[at - 1] == ' ' && OTHER_METHODS[end] == ' ';
    if (sv_starts_with(name, sv("_")) || of.kind > JINJA_NAMESPACE ||
        (method && of.kind >= JINJA_TEXT && of.kind < JINJA_NAMESPACE))
        jinja_fail(m, ERROR_UNSUPPORTED, "'%.*s' of %s is not supported", SV_ARGS(name), jinja_kind_name(of));
    return jinja_undefined(name);
}

/* Filters and methods of texts. */
#include "jinja/builtins.h"
#include "tokenizer/utf8.h"

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

/* A parameter that Python wants to be a text; .bytes is NULL where it is none or not given. */
static Text text_or_none(Machine *m, const Row *row, Value parameter) {
    if (parameter.kind == JINJA_UNSET || parameter.kind == JINJA_NONE)
        return (Text){0};
    if (parameter.kind != JINJA_TEXT)
        jinja_fail(m, ERROR_FORMAT, "%s with %s", row->name, jinja_kind_name(parameter));
    return jinja_text_of(m, parameter);
}

Value jinja_strip_text(Machine *m, const Row *row, Value self, const Value *p) {
    Text text = jinja_text_of(m, self);
    Text characters = text_or_none(m, row, p[0]);
    jinja_step(m, text.length);
    size_t length;
    while ((row->variant & LEFT) && text.length > 0 && is_stripped(text, true, characters, &length))
        text = jinja_part(text, length, text.length);
    while ((row->variant & RIGHT) && text.length > 0 && is_stripped(text, false, characters, &length))
        text.length -= length;
    return jinja_text(text);
}

size_t jinja_find_text(Machine *m, Text text, Text part, size_t at) {
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

Value jinja_change_case(Machine *m, const Row *row, Value self, const Value *p) {
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

Value jinja_replace_text(Machine *m, const Row *row, Value self, const Value *p) {
    bool method = row->group == GROUP_TEXT; /* which takes nothing but texts */
    Text text = jinja_text_of(m, self), old = method ? text_or_none(m, row, p[0]) : jinja_text_of(m, p[0]);
    Text new = method ? text_or_none(m, row, p[1]) : jinja_text_of(m, p[1]);
    Buffer out = {0};
    if (old.length == 0)
        jinja_fail(m, ERROR_UNSUPPORTED, "replace of an empty text is not supported");
    for (size_t at = 0;;) {
        size_t found = jinja_find_text(m, text, old, at);
        jinja_write(m, &out, jinja_part(text, at, found));
        if (found == text.length)
            return jinja_text(jinja_written(&out));
        jinja_write(m, &out, new);
        at = found + old.length;
    }
}

/* At `separator` or, where that is none, at runs of white space. */
Value jinja_split_text(Machine *m, const Row *row, Value self, const Value *p) {
    static const Row STRIP = {.variant = LEFT};
    Text text = jinja_text_of(m, self), separator = text_or_none(m, row, p[0]);
    int64_t n_left = p[1].kind == JINJA_INTEGER && p[1].integer >= 0 ? p[1].integer : INT64_MAX;
    if (p[1].kind != JINJA_UNSET && p[1].kind != JINJA_INTEGER)
        jinja_fail(m, ERROR_FORMAT, "split into %s pieces", jinja_kind_name(p[1]));
    Value out = jinja_items(m, JINJA_LIST);
    if (separator.bytes != NULL && separator.length == 0)
        jinja_fail(m, ERROR_FORMAT, "split by an empty text");
    for (;;) {
        size_t found = text.length, length = separator.length;
        if (separator.bytes == NULL) {
            text = jinja_strip_text(m, &STRIP, jinja_text(text), p).text;
            if (text.length == 0)
                return out;
            for (found = 0; found < text.length &&
                            !utf8_starts_with_space((StringView){text.bytes + found, text.length - found}, &length);)
                found += length;
            length = 0;
        } else if (n_left > 0) {
            found = jinja_find_text(m, text, separator, 0);
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
Value jinja_begins_with(Machine *m, const Row *row, Value self, const Value *p) {
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
Value jinja_joined(Machine *m, const Row *row, Value self, const Value *p) {
    Value separator = row->group == GROUP_TEXT ? self : p[0];
    const Items *items = jinja_iterate(m, row->group == GROUP_TEXT ? p[0] : self);
    Buffer out = {0};
    for (size_t i = 0; i < items->count; i++) {
        if (row->group == GROUP_TEXT && items->at[i].kind != JINJA_TEXT)
            jinja_fail(m, ERROR_FORMAT, "join of %s", jinja_kind_name(items->at[i]));
        if (i > 0)
            jinja_write(m, &out, jinja_text_of(m, separator));
        jinja_write(m, &out, jinja_text_of(m, items->at[i]));
    }
    return jinja_text(jinja_written(&out));
}

Value jinja_to_text(Machine *m, const Row *row, Value self, const Value *p) {
    Value text = jinja_text(jinja_shown(m, self));
    text.safe = self.safe || row->variant;
    return text;
}

Value jinja_to_integer(Machine *m, const Row *row, Value self, const Value *p) {
    if (self.kind == JINJA_INTEGER || self.kind == JINJA_BOOLEAN)
        return jinja_integer(self.integer);
    if (self.kind == JINJA_UNDEFINED)
        jinja_fail(m, ERROR_FORMAT, "'%.*s' is undefined", SV_ARGS(jinja_view(self.text)));
    Text text = self.kind == JINJA_TEXT ? jinja_strip_text(m, &(Row){.variant = LEFT | RIGHT}, self, &(Value){0}).text
                                        : (Text){0};
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

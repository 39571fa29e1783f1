/* Operators on values. */
#include "jinja/builtins.h"

int jinja_compare_texts(Text a, Text b) {
    size_t length = a.length < b.length ? a.length : b.length;
    int order = length > 0 ? memcmp(a.bytes, b.bytes, length) : 0;
    return order != 0 ? order : (a.length > b.length) - (a.length < b.length);
}

static bool contains(Machine *m, Value self, Value in) {
    if (in.kind == JINJA_TEXT) {
        if (self.kind != JINJA_TEXT)
            jinja_fail(m, ERROR_FORMAT, "%s in a text", jinja_kind_name(self));
        return self.text.length == 0 || jinja_find_text(m, in.text, self.text, 0) < in.text.length;
    }
    if (in.kind == JINJA_MAPPING)
        jinja_check_key(m, self);
    const Items *items = jinja_iterate(m, in);
    for (size_t i = 0; i < items->count; i++)
        if (jinja_equal(m, items->at[i], self))
            return true;
    return false;
}

static Value add(Machine *m, Value a, Value b) {
    if (a.kind == JINJA_TEXT && b.kind == JINJA_TEXT) {
        Buffer out = {0};
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

Value jinja_operate(Machine *m, const char *operator, Value a, Value b) {
    bool equality = operator[0] == '=' || operator[0] == '!';
    jinja_step(m, 0);
    if (equality)
        return jinja_boolean(jinja_equal(m, a, b) == (operator[0] == '='));
    if (operator[0] == 'i' || operator[0] == 'n')
        return jinja_boolean(contains(m, a, b) == (operator[0] == 'i'));
    if (operator[0] == '~')
        return add(m, jinja_text(jinja_text_of(m, a)), jinja_text(jinja_text_of(m, b)));
    bool numbers = jinja_is_number(a) && jinja_is_number(b);
    if (operator[0] != '<' && operator[0] != '>') {
        if (!numbers && operator[0] != '+')
            jinja_fail(m, ERROR_UNSUPPORTED, "%s %s %s is not supported", jinja_kind_name(a), operator,
                       jinja_kind_name(b));
        return numbers ? calculate(m, operator, a.integer, b.integer) : add(m, a, b);
    }
    if (!numbers && (a.kind != JINJA_TEXT || b.kind != JINJA_TEXT))
        jinja_fail(m, ERROR_FORMAT, "%s %s %s", jinja_kind_name(a), operator, jinja_kind_name(b));
    int order = numbers ? (a.integer > b.integer) - (a.integer < b.integer) : jinja_compare_texts(a.text, b.text);
    bool less = operator[0] == '<', or_equal = operator[1] == '=';
    return jinja_boolean((less ? order < 0 : order > 0) || (or_equal && order == 0));
}

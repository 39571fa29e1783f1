/* See value.h. */
#include "jinja/value.h"

#include <stdio.h>

Value jinja_integer(int64_t integer) {
    return (Value){.kind = JINJA_INTEGER, .integer = integer};
}

Value jinja_boolean(bool truth) {
    return (Value){.kind = JINJA_BOOLEAN, .integer = truth};
}

Value jinja_text(Text text) {
    return (Value){.kind = JINJA_TEXT, .text = text};
}

Value jinja_string(StringView text) {
    return jinja_text((Text){text.bytes, text.length, NULL});
}

Value jinja_undefined(StringView name) {
    return (Value){.kind = JINJA_UNDEFINED, .text = {name.bytes, name.length, NULL}};
}

Value jinja_items(Machine *m, Kind kind) {
    return (Value){.kind = kind, .items = jinja_take(m, sizeof(Items))};
}

void jinja_append(Machine *m, Items *items, Value value) {
    if (items->count == items->capacity) {
        size_t capacity = 2 * items->capacity + 4;
        Value *grown = jinja_take(m, capacity * sizeof *grown);
        if (items->count > 0)
            memcpy(grown, items->at, items->count * sizeof *grown);
        *items = (Items){grown, items->count, capacity};
    }
    items->at[items->count++] = value;
}

Value *jinja_find(Machine *m, const Items *mapping, Value key) {
    for (size_t i = 0; i + 1 < mapping->count; i += 2)
        if (jinja_equal(m, mapping->at[i], key))
            return &mapping->at[i + 1];
    return NULL;
}

void jinja_check_key(Machine *m, Value key) {
    if (key.kind == JINJA_LIST || key.kind == JINJA_MAPPING)
        jinja_fail(m, ERROR_FORMAT, "%s as a key", jinja_kind_name(key));
}

void jinja_assign(Machine *m, Items *mapping, Value key, Value value) {
    jinja_check_key(m, key);
    Value *found = jinja_find(m, mapping, key);
    if (found == NULL) {
        jinja_append(m, mapping, key);
        jinja_append(m, mapping, value);
    } else {
        *found = value;
    }
}

const char *jinja_kind_name(Value value) {
    static const char *const NAMES[] = {
        "nothing", "an undefined value", "none",        "a boolean",   "a number", "a text",  "a list",
        "a tuple", "a mapping",          "an iterator", "a namespace", "a loop",   "a macro", "a function"};
    return NAMES[value.kind];
}

bool jinja_truth(Value value) {
    if (value.kind <= JINJA_NONE)
        return false;
    if (value.kind <= JINJA_INTEGER)
        return value.integer != 0;
    if (value.kind == JINJA_TEXT)
        return value.text.length > 0;
    return value.kind > JINJA_MAPPING || value.items->count > 0;
}

bool jinja_is_number(Value value) {
    return value.kind == JINJA_BOOLEAN || value.kind == JINJA_INTEGER;
}

static bool equal_items(Machine *m, Value a, Value b) {
    size_t step = a.kind == JINJA_MAPPING ? 2 : 1;
    bool equal = a.items->count == b.items->count;
    jinja_enter(m);
    for (size_t i = 0; equal && i < a.items->count; i += step) {
        const Value *other = step == 1 ? &b.items->at[i] : jinja_find(m, b.items, a.items->at[i]);
        equal = other != NULL && jinja_equal(m, a.items->at[i + step - 1], *other);
    }
    m->depth--;
    return equal;
}

bool jinja_equal(Machine *m, Value a, Value b) {
    jinja_step(m, 0);
    if (jinja_is_number(a) && jinja_is_number(b))
        return a.integer == b.integer;
    if (a.kind != b.kind || a.kind <= JINJA_NONE)
        return a.kind == b.kind;
    if (a.kind == JINJA_TEXT) {
        jinja_step(m, a.text.length == b.text.length ? a.text.length : 0);
        return sv_equal(jinja_view(a.text), jinja_view(b.text));
    }
    if (a.kind > JINJA_MAPPING)
        jinja_fail(m, ERROR_UNSUPPORTED, "comparing %s is not supported", jinja_kind_name(a));
    return equal_items(m, a, b);
}

/* The length of the character that begins at byte `at`. */
static size_t character(Text text, size_t at) {
    unsigned char first = (unsigned char)text.bytes[at];
    return first < 0xC0 ? 1 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
}

size_t jinja_length(Machine *m, Value value) {
    size_t n = 0;
    if (value.kind == JINJA_UNDEFINED)
        return 0;
    if (value.kind == JINJA_LOOP)
        return value.loop->items->count;
    if (value.kind < JINJA_TEXT || value.kind > JINJA_MAPPING)
        jinja_fail(m, ERROR_FORMAT, "%s has no length", jinja_kind_name(value));
    if (value.kind != JINJA_TEXT)
        return value.items->count / (value.kind == JINJA_MAPPING ? 2 : 1);
    jinja_step(m, value.text.length);
    for (size_t i = 0; i < value.text.length; i += character(value.text, i))
        n++;
    return n;
}

const Items *jinja_iterate(Machine *m, Value value) {
    if (value.kind == JINJA_LIST || value.kind == JINJA_TUPLE)
        return value.items;
    Items *items = jinja_items(m, JINJA_LIST).items;
    if (value.kind == JINJA_TEXT) {
        jinja_text_of(m, value);
        for (size_t i = 0, n; i < value.text.length; i += n) {
            n = character(value.text, i);
            jinja_step(m, 0);
            jinja_append(m, items, jinja_text(jinja_part(value.text, i, i + n)));
        }
    } else if (value.kind == JINJA_ITERATOR) {
        *items = *value.items;
        *value.items = (Items){0};
    } else if (value.kind == JINJA_MAPPING) {
        for (size_t i = 0; i < value.items->count; i += 2)
            jinja_append(m, items, value.items->at[i]);
    } else if (value.kind != JINJA_UNDEFINED) {
        jinja_fail(m, ERROR_FORMAT, "%s has no items to go through", jinja_kind_name(value));
    }
    return items;
}

Text jinja_shown(Machine *m, Value value) {
    if (value.kind == JINJA_TEXT)
        return value.text;
    if (value.kind > JINJA_TEXT)
        jinja_fail(m, ERROR_UNSUPPORTED, "%s as text is not supported", jinja_kind_name(value));
    if (value.kind != JINJA_INTEGER)
        return jinja_string(sv(value.kind == JINJA_NONE  ? "None"
                               : value.kind < JINJA_NONE ? ""
                               : value.integer           ? "True"
                                                         : "False"))
            .text;
    char *number = jinja_take(m, 24);
    snprintf(number, 24, "%lld", (long long)value.integer);
    return jinja_string(sv(number)).text;
}

Text jinja_text_of(Machine *m, Value value) {
    if (value.safe)
        jinja_fail(m, ERROR_UNSUPPORTED, "changing a text marked safe is not supported");
    return jinja_shown(m, value);
}

void jinja_write(Machine *m, Buffer *buffer, Text text) {
    jinja_step(m, text.length);
    if (text.length > buffer->capacity - buffer->length) {
        size_t capacity = 2 * (buffer->length + text.length) + 32;
        Buffer grown = {jinja_take(m, capacity), jinja_take(m, capacity), buffer->length, capacity};
        if (buffer->length > 0) {
            memcpy(grown.bytes, buffer->bytes, buffer->length);
            memcpy(grown.from_message, buffer->from_message, buffer->length);
        }
        *buffer = grown;
    }
    if (text.length > 0)
        memcpy(buffer->bytes + buffer->length, text.bytes, text.length);
    if (text.length > 0 && text.from_message != NULL)
        memcpy(buffer->from_message + buffer->length, text.from_message, text.length);
    buffer->length += text.length;
}

Text jinja_written(const Buffer *buffer) {
    return (Text){buffer->length > 0 ? buffer->bytes : "", buffer->length, buffer->from_message};
}

Text jinja_part(Text text, size_t begin, size_t end) {
    return (Text){text.bytes + begin, end - begin, text.from_message != NULL ? text.from_message + begin : NULL};
}

Value jinja_at(Machine *m, Value value, int64_t index) {
    const Items *items = jinja_iterate(m, value);
    if (index < 0)
        index += (int64_t)items->count;
    return index >= 0 && (size_t)index < items->count ? items->at[index]
                                                      : jinja_undefined(sv("an item that is not there"));
}

/* A bound as Python clips it: from the end where negative, then into [low, high]. */
static int64_t clip(Machine *m, Value bound, int64_t count, int64_t low, int64_t high, int64_t left_out) {
    if (bound.kind == JINJA_UNSET || bound.kind == JINJA_NONE)
        return left_out;
    if (!jinja_is_number(bound))
        jinja_fail(m, ERROR_FORMAT, "%s as the bound of a slice", jinja_kind_name(bound));
    int64_t at = bound.integer < 0 ? bound.integer + count : bound.integer;
    return at < low ? low : at > high ? high : at;
}

Value jinja_slice(Machine *m, Value value, const Value bounds[3]) {
    if (value.kind < JINJA_TEXT || value.kind > JINJA_TUPLE)
        jinja_fail(m, ERROR_FORMAT, "a slice of %s", jinja_kind_name(value));
    const Items *items = jinja_iterate(m, value);
    int64_t count = (int64_t)items->count, step = clip(m, bounds[2], 0, -count - 1, count + 1, 1);
    if (step == 0)
        jinja_fail(m, ERROR_FORMAT, "a slice with step 0");
    int64_t low = step < 0 ? -1 : 0, high = step < 0 ? count - 1 : count;
    int64_t start = clip(m, bounds[0], count, low, high, step < 0 ? high : low);
    int64_t stop = clip(m, bounds[1], count, low, high, step < 0 ? low : high);
    Value out = jinja_items(m, value.kind == JINJA_TEXT ? JINJA_LIST : value.kind);
    Buffer buffer = {0};
    for (int64_t i = start; step < 0 ? i > stop : i < stop; i += step)
        if (value.kind == JINJA_TEXT)
            jinja_write(m, &buffer, items->at[i].text);
        else
            jinja_append(m, out.items, items->at[i]);
    return value.kind == JINJA_TEXT ? jinja_text(jinja_written(&buffer)) : out;
}

int jinja_word(const char *words, StringView word) {
    StringView rest = sv(words);
    for (int n = 0; rest.length > 0; n++) {
        size_t end = sv_find(rest, sv(" "), 0);
        if (sv_equal(word, (StringView){rest.bytes, end}))
            return n;
        end += end < rest.length;
        rest = (StringView){rest.bytes + end, rest.length - end};
    }
    return -1;
}

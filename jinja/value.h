/* Values as templates see them, with Python's rules for truth, equality and text. Internal to this room. */
#ifndef STOWKV_JINJA_VALUE_H
#define STOWKV_JINJA_VALUE_H

#include "jinja/machine.h"

#include <stdint.h>

typedef enum Kind {
    JINJA_UNSET, /* no value at all: a parameter that was not given */
    JINJA_UNDEFINED,
    JINJA_NONE,
    JINJA_BOOLEAN,
    JINJA_INTEGER,
    JINJA_TEXT,
    JINJA_LIST,
    JINJA_TUPLE,
    JINJA_MAPPING,
    JINJA_ITERATOR, /* gives its items once */
    JINJA_NAMESPACE,
    JINJA_LOOP,
    JINJA_MACRO,
    JINJA_FUNCTION /* a global, or a method of a value */
} Kind;

typedef struct Text {
    const char *bytes;
    size_t length;
    const unsigned char *from_message; /* (length) as in JinjaOutput; NULL: all is the template's */
} Text;

/* Of mappings and namespaces: key, value, key, value … */
typedef struct Items {
    struct Value *at;
    size_t count, capacity;
} Items;

typedef struct Value {
    Kind kind;
    bool safe; /* a text that was marked so: whatever is put to it would have to be escaped, which is not supported */
    union {
        int64_t integer; /* and boolean */
        Text text;       /* an undefined value's name, too */
        Items *items;    /* list to namespace */
        struct Loop *loop;
        struct Macro *macro;
        struct Bound *bound;
    };
} Value;

typedef struct Loop {
    const Items *items;
    size_t index;
} Loop;

/* A text that grows. */
typedef struct Buffer {
    char *bytes;
    unsigned char *from_message;
    size_t length, capacity;
} Buffer;

Value jinja_integer(int64_t integer);
Value jinja_boolean(bool truth);
Value jinja_text(Text text);
Value jinja_string(StringView text); /* the template's */
Value jinja_undefined(StringView name);
Value jinja_items(Machine *m, Kind kind); /* empty */

void jinja_append(Machine *m, Items *items, Value value);
Value *jinja_find(Machine *m, const Items *mapping, Value key); /* NULL: not there */
void jinja_check_key(Machine *m, Value key);                    /* fails where Python says "unhashable" */
void jinja_assign(Machine *m, Items *mapping, Value key, Value value);

const char *jinja_kind_name(Value value); /* "a list" */
bool jinja_is_number(Value value);        /* or a boolean, which Python takes for one */
bool jinja_truth(Value value);
bool jinja_equal(Machine *m, Value a, Value b);
size_t jinja_length(Machine *m, Value value);
const Items *jinja_iterate(Machine *m, Value value);

/* str(value). The second refuses text marked safe: for whatever changes text. */
Text jinja_shown(Machine *m, Value value);
Text jinja_text_of(Machine *m, Value value);

void jinja_write(Machine *m, Buffer *buffer, Text text);
Text jinja_written(const Buffer *buffer);
Text jinja_part(Text text, size_t begin, size_t end);

/* value[index], and value[start:stop:step], where bounds that are left out are UNSET. */
Value jinja_at(Machine *m, Value value, int64_t index);
Value jinja_slice(Machine *m, Value value, const Value bounds[3]);

int jinja_word(const char *words, StringView word); /* its place in "a b c"; -1: it is not there */

static inline StringView jinja_view(Text text) {
    return (StringView){text.bytes, text.length};
}

#endif

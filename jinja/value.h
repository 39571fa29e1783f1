/* Values as templates see them, with Python's rules for truth, equality and text. Internal to this room. */
#ifndef STOWKV_JINJA_VALUE_H
#define STOWKV_JINJA_VALUE_H

#include "jinja/machine.h"

#include <stdint.h>

typedef enum JinjaKind {
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
} JinjaKind;

typedef struct JinjaText {
    const char *bytes;
    size_t length;
    const unsigned char *from_message; /* (length) as in JinjaOutput; NULL: all is the template's */
} JinjaText;

/* Of mappings and namespaces: key, value, key, value … */
typedef struct JinjaItems {
    struct JinjaValue *at;
    size_t count, capacity;
} JinjaItems;

typedef struct JinjaValue {
    JinjaKind kind;
    bool safe; /* a text that was marked so: whatever is put to it would have to be escaped, which is not supported */
    union {
        int64_t integer;   /* and boolean */
        JinjaText text;    /* an undefined value's name, too */
        JinjaItems *items; /* list to namespace */
        struct JinjaLoop *loop;
        struct JinjaMacro *macro;
        struct JinjaBound *bound;
    };
} JinjaValue;

typedef struct JinjaLoop {
    const JinjaItems *items;
    size_t index;
} JinjaLoop;

/* A text that grows. */
typedef struct JinjaBuffer {
    char *bytes;
    unsigned char *from_message;
    size_t length, capacity;
} JinjaBuffer;

JinjaValue jinja_integer(int64_t integer);
JinjaValue jinja_boolean(bool truth);
JinjaValue jinja_text(JinjaText text);
JinjaValue jinja_string(StringView text); /* the template's */
JinjaValue jinja_undefined(StringView name);
JinjaValue jinja_items(JinjaMachine *m, JinjaKind kind); /* empty */

void jinja_append(JinjaMachine *m, JinjaItems *items, JinjaValue value);
JinjaValue *jinja_find(JinjaMachine *m, const JinjaItems *mapping, JinjaValue key); /* NULL: not there */
void jinja_assign(JinjaMachine *m, JinjaItems *mapping, JinjaValue key, JinjaValue value);

const char *jinja_kind_name(JinjaValue value);
bool jinja_truth(JinjaValue value);
bool jinja_equal(JinjaMachine *m, JinjaValue a, JinjaValue b);
size_t jinja_length(JinjaMachine *m, JinjaValue value);
const JinjaItems *jinja_iterate(JinjaMachine *m, JinjaValue value);

/* str(value). The second refuses text marked safe: for whatever changes text. */
JinjaText jinja_shown(JinjaMachine *m, JinjaValue value);
JinjaText jinja_text_of(JinjaMachine *m, JinjaValue value);

void jinja_write(JinjaMachine *m, JinjaBuffer *buffer, JinjaText text);
JinjaText jinja_written(const JinjaBuffer *buffer);
JinjaText jinja_part(JinjaText text, size_t begin, size_t end);

/* value[index], and value[start:stop:step], where bounds that are left out are UNSET. */
JinjaValue jinja_at(JinjaMachine *m, JinjaValue value, int64_t index);
JinjaValue jinja_slice(JinjaMachine *m, JinjaValue value, const JinjaValue bounds[3]);

static inline StringView jinja_view(JinjaText text) {
    return (StringView){text.bytes, text.length};
}

#endif

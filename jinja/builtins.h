/* Filters, tests, global functions and methods, as rows of one table. Internal to this room. */
#ifndef STOWKV_JINJA_BUILTINS_H
#define STOWKV_JINJA_BUILTINS_H

#include "jinja/value.h"

enum { MAX_ARGUMENTS = 16 };

typedef enum Group { GROUP_FILTER, GROUP_TEST, GROUP_GLOBAL, GROUP_TEXT, GROUP_MAPPING } Group;

/* What stands in the parentheses of a call. */
typedef struct Arguments {
    Value values[MAX_ARGUMENTS];
    StringView names[MAX_ARGUMENTS]; /* empty: by position */
    size_t n;
} Arguments;

typedef struct Row {
    const char *name, *parameters; /* "a b c" */
    int n_required;                /* of them, the first */
    Value (*call)(Machine *m, const struct Row *row, Value self, const Value *p);
    int variant;
    Group group;
} Row;

/* A function, and the value that it is a method of. */
typedef struct Bound {
    const Row *row;
    Value self;
} Bound;

const Row *jinja_builtin(Group group, StringView name); /* NULL: there is none */

/* Fails where the group has no such row, or its parameters do not take the arguments. */
Value jinja_call(Machine *m, Group group, StringView name, Value self, const Arguments *given);

Value jinja_operate(Machine *m, const char *operator, Value a, Value b);
Value jinja_attribute(Machine *m, Value of, StringView name); /* of.name */

/* What there is in several variants. */
enum { LEFT = 1, RIGHT = 2 }; /* strip_text, begins_with */
enum { UPPER, LOWER, CAPITALIZE, TITLE, TITLE_FILTER };
enum { PAIRS, KEYS, VALUES, SORTED };                      /* mapping_items */
enum { MAPS, SELECTS = 1, REJECTS = 2, OF_ATTRIBUTE = 4 }; /* map_items */

/* The functions of the table. */
typedef Value Function(Machine *m, const Row *row, Value self, const Value *p);

Function jinja_strip_text, jinja_change_case, jinja_replace_text, jinja_split_text, jinja_begins_with, jinja_joined,
    jinja_to_text, jinja_to_integer, jinja_to_json, jinja_length_of, jinja_list_of, jinja_first_item, jinja_reversed,
    jinja_mapping_items, jinja_get_item, jinja_default_value, jinja_map_items;

size_t jinja_find_text(Machine *m, Text text, Text part, size_t at); /* text.length: nowhere */
int jinja_compare_texts(Text a, Text b);                             /* as memcmp */

#endif

/* Filters, tests, global functions and methods, as rows of one table. Internal to this room. */
#ifndef STOWKV_JINJA_BUILTINS_H
#define STOWKV_JINJA_BUILTINS_H

#include "jinja/value.h"

enum { JINJA_MAX_ARGUMENTS = 16 };

typedef enum JinjaGroup { GROUP_FILTER, GROUP_TEST, GROUP_GLOBAL, GROUP_TEXT, GROUP_MAPPING } JinjaGroup;

/* What stands in the parentheses of a call. */
typedef struct JinjaArguments {
    JinjaValue values[JINJA_MAX_ARGUMENTS];
    StringView names[JINJA_MAX_ARGUMENTS]; /* empty: by position */
    size_t n;
} JinjaArguments;

typedef struct JinjaBuiltin {
    const char *name, *parameters; /* "a b c" */
    JinjaValue (*call)(JinjaMachine *m, const struct JinjaBuiltin *row, JinjaValue self, const JinjaValue *p);
    int variant;
    JinjaGroup group;
} JinjaBuiltin;

/* A function, and the value that it is a method of. */
typedef struct JinjaBound {
    const JinjaBuiltin *row;
    JinjaValue self;
} JinjaBound;

const JinjaBuiltin *jinja_builtin(JinjaGroup group, StringView name); /* NULL: there is none */

/* Fails where the group has no such row, or its parameters do not take the arguments. */
JinjaValue jinja_call(JinjaMachine *m, JinjaGroup group, StringView name, JinjaValue self, const JinjaArguments *given);

JinjaValue jinja_compare(JinjaMachine *m, const char *operator, JinjaValue a, JinjaValue b);
JinjaValue jinja_attribute(JinjaMachine *m, JinjaValue of, StringView name); /* of.name */

#endif

/* Command lines from a table: parsing, range checks, --help and suggestions all read the same rows, so that --help
 * cannot name a flag that does not exist. A thin layer over getopt_long: "--name value" and "--name=value".
 *
 *     static Settings s = {.threads = 0};
 *     const Option options[] = {
 *         {"threads", OPTION_SIZE, &s.threads, "N", "CPU threads", .min = 1, .max = 1024},
 *         {0},
 *     };
 *     int status = options_parse(options, argc, argv, &error);   // 0, or ERROR_USAGE
 */
#ifndef STOWKV_OPTIONS_H
#define STOWKV_OPTIONS_H

#include "base/error.h"

#include <stdio.h>

typedef enum OptionKind {
    OPTION_FLAG,   /* target: bool, set to true */
    OPTION_STRING, /* target: const char *, points into argv */
    OPTION_TEXT,   /* the same, a text for the model: text_clean_argument() has cleaned it, in argv */
    OPTION_INPUT,  /* the same, a file to read; "-" is stdin */
    OPTION_OUTPUT, /* the same, a file to write; "-" is stdout */
    OPTION_PAIR,   /* target: const char *[2], files to read, one behind the other */
    OPTION_LIST,   /* target: StringList, one more each time */
    OPTION_SIZE,   /* target: size_t within [min, max]; min -1: or -1, which gives SIZE_MAX */
    OPTION_SEED,   /* target: uint64_t, any value */
    OPTION_NUMBER, /* target: double within [min, max] */
    OPTION_HEADING /* no flag: a line in --help */
} OptionKind;

#define STRING_LIST_MAX 64

typedef struct StringList {
    const char *items[STRING_LIST_MAX];
    size_t count;
} StringList;

typedef struct Option {
    const char *name; /* without the dashes; NULL ends the table */
    OptionKind kind;
    void *target;
    const char *argument; /* its name in --help; NULL for a flag */
    const char *help;
    double min, max; /* of a size or a number, both allowed */
} Option;

/* Sets the targets of the flags that are given; the others stay as they are. */
int options_parse(const Option *options, int argc, char **argv, Error *error);
void options_help(const Option *options, FILE *stream);

/* The candidate with the smallest edit distance to `text`: what the user may have meant. `candidates` ends with NULL,
 * after one name at least. */
const char *nearest_name(const char *text, const char *const *candidates);

#endif

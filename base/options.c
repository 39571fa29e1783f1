/* Table-driven command lines; see options.h. */
#include "base/options.h"

#include "base/text_file.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define MAX_OPTIONS 64
#define MAX_NAME    64

/* Levenshtein distance; `b` is cut at MAX_NAME. */
static size_t edit_distance(const char *a, const char *b) {
    size_t n = strnlen(b, MAX_NAME), row[MAX_NAME + 1];
    for (size_t j = 0; j <= n; j++)
        row[j] = j;
    for (size_t i = 0; a[i] != '\0'; i++) {
        size_t diagonal = row[0];
        row[0] = i + 1;
        for (size_t j = 0; j < n; j++) {
            size_t above = row[j + 1], cost = diagonal + (a[i] != b[j]);
            diagonal = above;
            cost = row[j] + 1 < cost ? row[j] + 1 : cost;
            row[j + 1] = above + 1 < cost ? above + 1 : cost;
        }
    }
    return row[n];
}

const char *nearest_name(const char *text, const char *const *candidates) {
    const char *nearest = candidates[0];
    for (size_t i = 1; candidates[i] != NULL; i++)
        if (edit_distance(text, candidates[i]) < edit_distance(text, nearest))
            nearest = candidates[i];
    return nearest;
}

static int unknown_option(const Option *options, const char *given, Error *error) {
    const char *names[MAX_OPTIONS] = {0};
    size_t n = 0;
    for (const Option *option = options; option->name != NULL; option++)
        if (option->kind != OPTION_HEADING)
            names[n++] = option->name;
    char name[MAX_NAME] = {0};
    size_t length = strcspn(given, "=");
    memcpy(name, given, length < MAX_NAME ? length : MAX_NAME - 1);
    const char *bare = name + strspn(name, "-");
    return error_set(error, ERROR_USAGE, "unknown flag %s; did you mean --%s? --help lists all", name,
                     nearest_name(bare, names));
}

static int out_of_range(const Option *option, const char *text, Error *error) {
    return error_set(error, ERROR_USAGE, "--%s %s: expected %s from %.15g to %.15g", option->name, text,
                     option->kind == OPTION_NUMBER ? "a number" : "a whole number", option->min, option->max);
}

static int set_size(const Option *option, const char *text, Error *error) {
    if (option->min < 0 && strcmp(text, "-1") == 0) {
        *(size_t *)option->target = SIZE_MAX;
        return 0;
    }
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    bool digits = text[0] >= '0' && text[0] <= '9' && *end == '\0';
    if (!digits || errno != 0 || (double)value < option->min || (double)value > option->max)
        return out_of_range(option, text, error);
    *(size_t *)option->target = (size_t)value;
    return 0;
}

static int set_seed(const Option *option, const char *text, Error *error) {
    char *end;
    errno = 0;
    *(uint64_t *)option->target = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0)
        return error_set(error, ERROR_USAGE, "--%s %s: expected a whole number from 0 to 18446744073709551615",
                         option->name, text);
    return 0;
}

static int set_number(const Option *option, const char *text, Error *error) {
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end != '\0' || !isfinite(value) || value < option->min || value > option->max)
        return out_of_range(option, text, error);
    *(double *)option->target = value;
    return 0;
}

static int set_list(const Option *option, const char *text, Error *error) {
    StringList *list = option->target;
    if (list->count == STRING_LIST_MAX)
        return error_set(error, ERROR_USAGE, "--%s: given more than %d times", option->name, STRING_LIST_MAX);
    list->items[list->count++] = text;
    return 0;
}

static int set_option(const Option *option, char *text, Error *error) {
    switch (option->kind) {
    case OPTION_FLAG:
        *(bool *)option->target = true;
        return 0;
    case OPTION_TEXT:
        text = text_clean_argument(text);
        /* fall through */
    case OPTION_STRING:
    case OPTION_INPUT:
    case OPTION_OUTPUT:
        *(const char **)option->target = text;
        return 0;
    case OPTION_PAIR:
        *(const char **)option->target = text; /* the second one: options_parse() */
        return 0;
    case OPTION_LIST:
        return set_list(option, text, error);
    case OPTION_SIZE:
        return set_size(option, text, error);
    case OPTION_SEED:
        return set_seed(option, text, error);
    case OPTION_NUMBER:
        return set_number(option, text, error);
    case OPTION_HEADING:
        break;
    }
    return 0;
}

int options_parse(const Option *options, int argc, char **argv, Error *error) {
    struct option table[MAX_OPTIONS + 1] = {0};
    const Option *rows[MAX_OPTIONS];
    int n = 0;
    for (const Option *option = options; option->name != NULL && n < MAX_OPTIONS; option++)
        if (option->kind != OPTION_HEADING) {
            int argument = option->kind == OPTION_FLAG ? no_argument : required_argument;
            table[n] = (struct option){option->name, argument, NULL, 0};
            rows[n++] = option;
        }
    opterr = 0;
    optind = 1;
    for (;;) {
        int index = -1, given = optind;
        int result = getopt_long(argc, argv, ":", table, &index);
        if (result == -1)
            break;
        if (result == ':')
            return error_set(error, ERROR_USAGE, "%s: needs a value; --help lists all", argv[optind - 1]);
        if (result == '?') { /* an unknown or ambiguous name, or a value for a flag that takes none */
            const char *text = argv[given > optind - 1 ? given : optind - 1];
            for (int i = 0; i < n; i++)
                if (optopt == 0 && strncmp(text + 2, rows[i]->name, strlen(rows[i]->name)) == 0 &&
                    text[2 + strlen(rows[i]->name)] == '=')
                    return error_set(error, ERROR_USAGE, "--%s: takes no value", rows[i]->name);
            return unknown_option(options, text, error);
        }
        if (set_option(rows[index], optarg, error) < 0)
            return error->code;
        if (rows[index]->kind == OPTION_PAIR) {
            if (optind == argc || strncmp(argv[optind], "--", 2) == 0)
                return error_set(error, ERROR_USAGE, "--%s: needs two values; --help lists all", rows[index]->name);
            ((const char **)rows[index]->target)[1] = argv[optind++];
        }
    }
    if (optind < argc)
        return error_set(error, ERROR_USAGE,
                         "unexpected argument '%s'; every value belongs to a flag, --help lists all", argv[optind]);
    return 0;
}

void options_help(const Option *options, FILE *stream) {
    for (const Option *option = options; option->name != NULL; option++) {
        if (option->kind == OPTION_HEADING) {
            fprintf(stream, "\n%s\n", option->name);
            continue;
        }
        char flag[MAX_NAME];
        snprintf(flag, sizeof flag, "--%s%s%s", option->name, option->argument ? " " : "",
                 option->argument ? option->argument : "");
        fprintf(stream, "  %-26s %s\n", flag, option->help);
    }
}

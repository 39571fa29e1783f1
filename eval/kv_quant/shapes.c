/* See shapes.h. */
#include "eval/kv_quant/shapes.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#define MOST          ((size_t)UINT32_MAX) /* rows or columns: what a loop on threads counts */
#define MOST_ELEMENTS ((size_t)1 << 44)

QuantShapes quant_shapes_published(void) {
    return (QuantShapes){{{1024, 64},
                          {2048, 128},
                          {16384, 256},
                          {65536, 256},
                          {131072, 256},
                          {131072, 1024},
                          {131072, 2048},
                          {131072, 4096},
                          {131072, 8192},
                          {262144, 128}},
                         10};
}

/* A number from `text` on; *end behind it. 0 where there is none, or one that is too large. */
static size_t read_size(const char *text, char **end) {
    *end = (char *)text;
    if (*text < '0' || *text > '9')
        return 0;
    errno = 0;
    unsigned long long n = strtoull(text, end, 10);
    return errno != 0 || n > MOST ? 0 : (size_t)n;
}

static bool parse_shape(const char *text, QuantShape *out) {
    char *end;
    out->n_tokens = read_size(text, &end);
    if (out->n_tokens == 0 || (*end != 'x' && *end != 'X'))
        return false;
    out->n_channels = read_size(end + 1, &end);
    return out->n_channels > 0 && *end == '\0' && out->n_tokens <= MOST_ELEMENTS / out->n_channels;
}

int quant_shapes_parse(const StringList *texts, QuantShapes *out, Error *error) {
    *out = (QuantShapes){.count = 0};
    for (size_t i = 0; i < texts->count; i++)
        if (!parse_shape(texts->items[i], &out->items[out->count++]))
            return error_set(error, ERROR_USAGE,
                             "--shape %s: not tokens x channels, each from 1 on, 2^44 in all at most; write --shape "
                             "131072x1024",
                             texts->items[i]);
    return 0;
}

const char *quant_shape_text(QuantShape shape, char text[QUANT_SHAPE_TEXT]) {
    snprintf(text, QUANT_SHAPE_TEXT, "%zux%zu", shape.n_tokens, shape.n_channels);
    return text;
}

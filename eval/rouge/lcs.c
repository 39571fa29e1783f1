/* The textbook table, with one row in memory at a time; see lcs.h. */
#include "eval/rouge/lcs.h"

#include "base/checked.h"

#include <stdlib.h>

/* A row of the table, zeroed: row[j] is the length for the first j of n. */
static int open_row(size_t **row, size_t n, Error *error) {
    size_t count;
    *row = checked_add(n, 1, &count) ? calloc(count, sizeof **row) : NULL;
    return *row == NULL ? error_memory(error, "comparing texts", (n + 1) * sizeof **row) : 0;
}

int lcs_length(const uint32_t *a, size_t n_a, const uint32_t *b, size_t n_b, size_t *length, Error *error) {
    size_t *row;
    if (n_a < n_b)
        return lcs_length(b, n_b, a, n_a, length, error);
    if (open_row(&row, n_b, error) < 0)
        return error->code;
    for (size_t i = 0; i < n_a; i++) {
        size_t diagonal = 0;
        for (size_t j = 1; j <= n_b; j++) {
            size_t above = row[j];
            row[j] = a[i] == b[j - 1] ? diagonal + 1 : above > row[j - 1] ? above : row[j - 1];
            diagonal = above;
        }
    }
    *length = row[n_b];
    free(row);
    return 0;
}

/* Which way the table is read back where the ids differ: a bit for each pair, set where the left neighbour is longer
 * than the upper one. */
typedef struct Directions {
    uint8_t *bits;
    size_t stride; /* bytes a row */
} Directions;

static bool go_left(const Directions *directions, size_t i, size_t j) {
    return directions->bits[i * directions->stride + j / 8] >> j % 8 & 1;
}

static int open_directions(Directions *directions, size_t n_a, size_t n_b, Error *error) {
    size_t size;
    directions->stride = n_b / 8 + 1;
    if (!checked_mul(directions->stride, n_a, &size))
        size = SIZE_MAX;
    directions->bits = size < SIZE_MAX ? calloc(size, 1) : NULL;
    return directions->bits == NULL ? error_memory(error, "comparing two sentences", size) : 0;
}

static void fill_directions(Directions *directions, const uint32_t *a, size_t n_a, const uint32_t *b, size_t n_b,
                            size_t *row) {
    for (size_t i = 0; i < n_a; i++) {
        size_t diagonal = 0;
        for (size_t j = 1; j <= n_b; j++) {
            size_t above = row[j], left = row[j - 1];
            if (left > above)
                directions->bits[i * directions->stride + (j - 1) / 8] |= (uint8_t)(1u << (j - 1) % 8);
            row[j] = a[i] == b[j - 1] ? diagonal + 1 : above > left ? above : left;
            diagonal = above;
        }
    }
}

int lcs_mark(const uint32_t *a, size_t n_a, const uint32_t *b, size_t n_b, bool *marks, Error *error) {
    Directions directions;
    size_t *row;
    if (n_a == 0 || n_b == 0)
        return 0;
    if (open_row(&row, n_b, error) < 0)
        return error->code;
    if (open_directions(&directions, n_a, n_b, error) < 0) {
        free(row);
        return error->code;
    }
    fill_directions(&directions, a, n_a, b, n_b, row);
    for (size_t i = n_a, j = n_b; i > 0 && j > 0;) {
        if (a[i - 1] == b[j - 1]) {
            marks[i - 1] = true;
            i--, j--;
        } else if (go_left(&directions, i - 1, j - 1)) {
            j--;
        } else {
            i--;
        }
    }
    free(directions.bits);
    free(row);
    return 0;
}

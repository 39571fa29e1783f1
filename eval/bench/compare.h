/* Two results of `bench --json`, of the same policies and depths: how the second one's speeds compare with the first's,
 * and which differences are larger than the repetitions' own spread.
 *
 *     BenchComparison comparison;
 *     if (bench_compare((const char *[]){"before.json", "after.json"}, &comparison, &error) < 0) …
 *     bench_comparison_print(&comparison, stdout);
 *     bench_comparison_free(&comparison);
 */
#ifndef STOWKV_BENCH_COMPARE_H
#define STOWKV_BENCH_COMPARE_H

#include "base/error.h"

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdio.h>

/* A speed in both: tokens a second, medians. */
typedef struct BenchChange {
    double before, after;
    double noise; /* half of each one's spread, (max - min) / median, together; NAN: a single repetition has none */
} BenchChange;

typedef struct BenchCompared {
    const char *mode, *policy; /* into the files' JSON */
    size_t depth;
    BenchChange decode, prefill;
} BenchCompared;

typedef struct BenchComparison {
    const char *paths[2];
    cJSON *files[2];
    BenchCompared *rows; /* (count) that are in both, in the first one's order */
    size_t count;
    size_t n_alone; /* points that are in one of them only */
} BenchComparison;

/* ERROR_FORMAT for what is no such result, or has no point of the other. Freed with bench_comparison_free() also after
 * an error. */
int bench_compare(const char *const paths[2], BenchComparison *out, Error *error);
void bench_comparison_free(BenchComparison *comparison);

/* -1 slower, 1 faster, 0 within the noise, or not known. */
int bench_change_sign(const BenchChange *change);

void bench_comparison_print(const BenchComparison *comparison, FILE *stream);
cJSON *bench_comparison_json(const BenchComparison *comparison); /* NULL out of memory */

#endif

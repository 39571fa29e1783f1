/* Per-channel INT8 measured: every variant of every device on every shape, timed, and compared with the reference.
 *
 *     QuantBench bench = {.shapes = quant_shapes_published(), .seed = 1, .repetitions = 3, .time_limit = 60, …};
 *     if (quant_bench_open(&bench, n_threads, device, &error) < 0) …
 *     int status = quant_bench_run(&bench, &error);
 *     … quant_bench_print(&bench, stdout); …                        // report.h
 *     quant_bench_close(&bench);
 *
 * K is uniform in [-1, 1), as in Taneja & Shingvi 2026, so that errors compare. Each variant is timed as timing.h says;
 * one that would take longer than the limit, by its speed on the shape before, is left out, which is told. */
#ifndef STOWKV_QUANT_BENCH_H
#define STOWKV_QUANT_BENCH_H

#include "eval/kv_quant/errors.h"
#include "eval/kv_quant/shapes.h"
#include "eval/kv_quant/timing.h"

#define QUANT_MAX_DEVICES 2

/* One variant on one shape. */
typedef struct QuantRow {
    QuantShape shape;
    const ChannelDevice *device;
    const ChannelVariant *variant;
    char skipped[256]; /* why there are no figures; "" where there are */
    bool from_cache;   /* ChannelDevice */
    QuantTimes times;
    ChannelTransfers transfers;
    QuantErrors errors;
} QuantRow;

typedef struct QuantBench {
    QuantShapes shapes;
    StringList names; /* of the variants to run; none: all */
    uint64_t seed;
    size_t repetitions;
    double time_limit; /* seconds for a run of a variant */
    const volatile sig_atomic_t *interrupted;

    ThreadPool *pool;
    ChannelDevice *devices[QUANT_MAX_DEVICES];
    size_t n_devices;
    char no_device[320]; /* why there is no GPU; "" where there is one, or none is asked for */
    QuantRow *rows;
    size_t n_rows;
} QuantBench;

/* `device`: "auto", "cpu" or "cuda". ERROR_USAGE for names that no device's variants have. */
int quant_bench_open(QuantBench *bench, int n_threads, const char *device, Error *error);
void quant_bench_close(QuantBench *bench); /* twice is fine */

/* ERROR_INTERRUPTED leaves the rows that were through. */
int quant_bench_run(QuantBench *bench, Error *error);

/* The row of another variant on the same shape; NULL where it has no figures. */
const QuantRow *quant_bench_find(const QuantBench *bench, QuantShape shape, const ChannelVariant *variant);

/* Bytes that all steps move, and that in a second. */
double quant_row_bytes(const QuantRow *row);
double quant_row_rate(const QuantRow *row);

/* Uniform in [-1, 1); row t has the same numbers whatever the number of threads. */
void quant_fill_keys(ThreadPool *pool, uint64_t seed, size_t n_tokens, size_t n_channels, float *keys);

#endif

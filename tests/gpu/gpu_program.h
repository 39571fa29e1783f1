/* What the programs for the day of a GPU have in common: results as JSON, one object a line on stdout; time by the
 * device's clock; an exit status that says why.
 *
 *     double us;
 *     if (gpu_time(stream, launch_all, &work, &timing, &error) < 0)
 *         return gpu_exit("gpu_attention", &error);
 *     cJSON_AddNumberToObject(line, "us", timing.median_us);
 *     gpu_print(line);
 */
#ifndef STOWKV_GPU_PROGRAM_H
#define STOWKV_GPU_PROGRAM_H

#include "cuda/device.h"

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdint.h>

enum { GPU_SKIPPED = 77 }; /* exit status where there is no GPU */

/* Prints the error, if there is one, as "NAME: error: …", and returns the exit status: 0, 77 where a GPU is missing or
 * cannot be used, else 1. */
int gpu_exit(const char *name, const Error *error);

/* Prints the object in one line, at once, and frees it. */
void gpu_print(cJSON *line);

/* "8192,32768": numbers that rise; returns how many, or -1 with an error. */
int gpu_parse_numbers(const char *text, size_t *numbers, size_t most, Error *error);

/* Normally distributed, the same numbers each time. */
void gpu_fill_normal(float *x, size_t n, uint64_t seed);

typedef struct GpuTiming {
    double median_us, min_us;
    size_t n; /* repetitions */
} GpuTiming;

/* Time of `work`, which launches kernels into the stream, and nothing else: it is recorded once as a graph, so that
 * what is timed are the kernels and not the host. Repeated for about 0.2 s, 3 times at least, after one that is not
 * timed. */
int gpu_time(cudaStream_t stream, void (*work)(void *context), void *context, GpuTiming *out, Error *error);

#endif

/* See gpu_program.h. */
#include "tests/gpu/gpu_program.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define SECONDS     0.2
#define MOST_TIMES  200
#define LEAST_TIMES 3

int gpu_exit(const char *name, const Error *error) {
    if (error->code == 0)
        return 0;
    fprintf(stderr, "%s: error: %s\n", name, error->message);
    return error->code == ERROR_UNSUPPORTED ? GPU_SKIPPED : error->code == ERROR_USAGE ? 2 : 1;
}

void gpu_print(cJSON *line) {
    char *text = cJSON_PrintUnformatted(line);
    cJSON_Delete(line);
    if (text == NULL)
        return;
    puts(text);
    fflush(stdout);
    free(text);
}

int gpu_parse_numbers(const char *text, size_t *numbers, size_t most, Error *error) {
    size_t n = 0;
    for (const char *at = text;; at++) {
        char *end;
        unsigned long long number = strtoull(at, &end, 10);
        if (end == at || n == most || (*end != ',' && *end != '\0') || (n > 0 && number <= numbers[n - 1]))
            return error_set(error, ERROR_USAGE, "\"%s\": expected up to %zu numbers that rise, like 8192,32768", text,
                             most);
        numbers[n++] = (size_t)number;
        if (*end == '\0')
            return (int)n;
        at = end;
    }
}

void gpu_fill_normal(float *x, size_t n, uint64_t seed) {
    uint64_t state = seed * 2 + 1;
    double u[2];
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < 2; j++) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            u[j] = ((double)(state >> 11) + 0.5) * 0x1p-53;
        }
        x[i] = (float)(sqrt(-2 * log(u[0])) * cos(6.283185307179586 * u[1]));
    }
}

/* ---- Time */

static cudaError_t record(cudaStream_t stream, void (*work)(void *), void *context, cudaGraphExec_t *out) {
    cudaGraph_t graph = NULL;
    cudaError_t status = cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal);
    if (status != cudaSuccess)
        return status;
    work(context);
    status = cudaStreamEndCapture(stream, &graph);
    if (status == cudaSuccess)
        status = cudaGraphInstantiate(out, graph, 0);
    if (graph != NULL)
        cudaGraphDestroy(graph);
    return status;
}

static cudaError_t time_once(cudaGraphExec_t work, cudaStream_t stream, cudaEvent_t events[2], float *ms) {
    cudaError_t status = cudaEventRecord(events[0], stream);
    if (status == cudaSuccess)
        status = cudaGraphLaunch(work, stream);
    if (status == cudaSuccess)
        status = cudaEventRecord(events[1], stream);
    if (status == cudaSuccess)
        status = cudaStreamSynchronize(stream);
    return status == cudaSuccess ? cudaEventElapsedTime(ms, events[0], events[1]) : status;
}

static int ascending(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static cudaError_t time_many(cudaGraphExec_t work, cudaStream_t stream, cudaEvent_t events[2], GpuTiming *out) {
    float ms[MOST_TIMES], sum = 0, first;
    size_t n = 0;
    cudaError_t status = time_once(work, stream, events, &first);
    while (status == cudaSuccess && n < MOST_TIMES && (n < LEAST_TIMES || sum < 1e3 * SECONDS)) {
        status = time_once(work, stream, events, &ms[n]);
        sum += ms[n++];
    }
    qsort(ms, n, sizeof *ms, ascending);
    *out = (GpuTiming){1e3 * (double)ms[n / 2], 1e3 * (double)ms[0], n};
    return status;
}

int gpu_time(cudaStream_t stream, void (*work)(void *context), void *context, GpuTiming *out, Error *error) {
    cudaGraphExec_t graph = NULL;
    cudaEvent_t events[2] = {NULL, NULL};
    cudaError_t status = record(stream, work, context, &graph);
    for (size_t i = 0; i < 2 && status == cudaSuccess; i++)
        status = cudaEventCreate(&events[i]);
    *out = (GpuTiming){0};
    if (status == cudaSuccess)
        status = time_many(graph, stream, events, out);
    for (size_t i = 0; i < 2 && events[i] != NULL; i++)
        cudaEventDestroy(events[i]);
    if (graph != NULL)
        cudaGraphExecDestroy(graph);
    return cuda_check(status, "timing", error);
}

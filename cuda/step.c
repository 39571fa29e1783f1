/* See step.h. */
#include "cuda/step.h"

#include "base/array.h"

#include <stdlib.h>
#include <string.h>

/* The first time kernels may be loaded and attributes set, which no recording allows; the second time it is made. */
struct BackendStep {
    bool was_run;
    cudaGraphExec_t graph; /* NULL: not yet */
    CudaInput *input;      /* that the graph reads */
};

static void note(CudaBatches *batches, cudaError_t status) {
    if (batches->failure == cudaSuccess)
        batches->failure = status;
}

int cuda_batches_open(CudaBatches *batches, cudaStream_t stream, Error *error) {
    *batches = (CudaBatches){.stream = stream};
    cudaError_t status = cudaEventCreateWithFlags(&batches->copied, cudaEventDisableTiming);
    void *best = NULL, *host_best = NULL;
    if (status == cudaSuccess)
        status = cudaMalloc(&best, sizeof *batches->best);
    batches->best = best;
    if (status == cudaSuccess)
        status = cudaMallocHost(&host_best, sizeof *batches->host_best);
    batches->host_best = host_best;
    return cuda_check(status, "opening the GPU", error);
}

void cuda_batches_close(CudaBatches *batches) {
    cuda_device_release(batches->input);
    if (batches->host != NULL)
        cudaFreeHost(batches->host);
    cuda_device_release(batches->best);
    if (batches->host_best != NULL)
        cudaFreeHost(batches->host_best);
    if (batches->copied != NULL)
        cudaEventDestroy(batches->copied);
    for (size_t i = 0; i < batches->n_marks; i++)
        cudaEventDestroy(batches->marks[i]);
    free(batches->marks);
    *batches = (CudaBatches){0};
}

int cuda_batches_reserve(CudaBatches *batches, CudaDevice *device, size_t n_tokens, Error *error) {
    size_t size_bytes = sizeof(CudaInput) + n_tokens * sizeof(int32_t);
    void *host = NULL;
    CudaInput *input = cuda_device_allocate(device, size_bytes, "a batch", error);
    if (input == NULL)
        return error->code;
    if (cuda_check(cudaMallocHost(&host, size_bytes), "a batch", error) < 0) {
        cuda_device_release(input);
        return error->code;
    }
    cuda_device_release(batches->input);
    if (batches->host != NULL)
        cudaFreeHost(batches->host);
    batches->host = host;
    batches->input = input;
    batches->n_max = n_tokens;
    return 0;
}

static void send_input(CudaBatches *batches, size_t n_tokens) {
    size_t size_bytes = sizeof(CudaInput) + n_tokens * sizeof(int32_t);
    note(batches, cudaMemcpyAsync(batches->input, batches->host, size_bytes, cudaMemcpyHostToDevice, batches->stream));
}

static bool begin_recording(CudaBatches *batches, BackendStep *step) {
    if (cudaStreamBeginCapture(batches->stream, cudaStreamCaptureModeThreadLocal) != cudaSuccess)
        return false;
    batches->record = step;
    return true;
}

/* Whether the step is there already; else it may begin to be recorded. */
static bool repeat(CudaBatches *batches, BackendStep **step) {
    if (*step == NULL)
        *step = calloc(1, sizeof **step);
    if (*step == NULL) /* then without */
        return false;
    if ((*step)->graph != NULL && (*step)->input != batches->input) { /* another context has made more room */
        cudaGraphExecDestroy((*step)->graph);
        (*step)->graph = NULL;
    }
    if ((*step)->graph != NULL) {
        note(batches, cudaGraphLaunch((*step)->graph, batches->stream));
        note(batches, cudaEventRecord(batches->copied, batches->stream));
        return true;
    }
    if ((*step)->was_run)
        begin_recording(batches, *step);
    (*step)->was_run = true;
    return false;
}

bool cuda_batch_begin(CudaBatches *batches, const int32_t *tokens, size_t n_tokens, size_t position,
                      BackendStep **step) {
    note(batches, cudaEventSynchronize(batches->copied));
    batches->host->position = position;
    memcpy(batches->host->tokens, tokens, n_tokens * sizeof *tokens);
    if (step != NULL && repeat(batches, step))
        return true;
    send_input(batches, n_tokens);
    if (batches->record == NULL)
        note(batches, cudaEventRecord(batches->copied, batches->stream));
    return false;
}

void cuda_batch_find_best(CudaBatches *batches, const float *logits, size_t n) {
    cuda_find_best(logits, n, batches->best, batches->stream);
    note(batches, cudaMemcpyAsync(batches->host_best, batches->best, sizeof *batches->best, cudaMemcpyDeviceToHost,
                                  batches->stream));
}

/* What was recorded has not been done: it is now. */
void cuda_batch_end(CudaBatches *batches) {
    BackendStep *step = batches->record;
    cudaGraph_t graph = NULL;
    if (step == NULL)
        return;
    batches->record = NULL;
    cudaError_t status = cudaStreamEndCapture(batches->stream, &graph);
    if (status == cudaSuccess)
        status = cudaGraphInstantiate(&step->graph, graph, 0);
    step->input = batches->input;
    if (graph != NULL)
        cudaGraphDestroy(graph);
    if (status == cudaSuccess)
        status = cudaGraphLaunch(step->graph, batches->stream);
    if (status == cudaSuccess)
        status = cudaEventRecord(batches->copied, batches->stream);
    note(batches, status);
}

static bool make_marks(CudaBatches *batches, size_t n) {
    Error error;
    while (batches->n_marks < n) {
        cudaEvent_t *marks =
            array_for_one_more(batches->marks, batches->n_marks, sizeof *marks, "marks of a step", &error);
        cudaError_t status = marks != NULL ? cudaSuccess : cudaErrorMemoryAllocation;
        batches->marks = marks != NULL ? marks : batches->marks;
        if (status == cudaSuccess)
            status = cudaEventCreate(&batches->marks[batches->n_marks]);
        note(batches, status);
        if (status != cudaSuccess)
            return false;
        batches->n_marks++;
    }
    return true;
}

/* Without that flag an event of a recording is an order of its parts, and no time. */
void cuda_batch_mark(CudaBatches *batches, size_t index) {
    if (!make_marks(batches, index + 1))
        return;
    unsigned flags = batches->record != NULL ? cudaEventRecordExternal : cudaEventRecordDefault;
    note(batches, cudaEventRecordWithFlags(batches->marks[index], batches->stream, flags));
}

int cuda_batch_elapsed(CudaBatches *batches, size_t from, size_t to, double *seconds, Error *error) {
    float ms = 0;
    if (from >= batches->n_marks || to >= batches->n_marks)
        return error_set(error, ERROR_ARGUMENT, "marks %zu and %zu of %zu that were set", from, to, batches->n_marks);
    cudaError_t status = cudaEventSynchronize(batches->marks[to]);
    if (status == cudaSuccess)
        status = cudaEventElapsedTime(&ms, batches->marks[from], batches->marks[to]);
    *seconds = ms * 1e-3;
    return cuda_check(status, "timing the GPU", error);
}

void cuda_step_close(BackendStep *step) {
    if (step != NULL && step->graph != NULL)
        cudaGraphExecDestroy(step->graph);
    free(step);
}

/* Graphs of the simulated runtime: a list of what a stream was given while it was captured, done again in order. */
#include "tests/cuda_shim/graph.h"

#include <stdlib.h>
#include <string.h>

typedef struct Node {
    struct Node *next;
    void (*redo)(void *data, cudaStream_t stream);
    _Alignas(16) unsigned char data[];
} Node;

struct CUgraph_st {
    Node *first, **end;
};

/* The graph's nodes, which it takes over. */
struct CUgraphExec_st {
    Node *first;
};

static int n_captured;

int cuda_shim_n_captured(void) {
    return n_captured;
}

bool cuda_shim_is_captured(cudaStream_t stream) {
    return stream != NULL && stream->captured != NULL;
}

void cuda_shim_capture(cudaStream_t stream, void (*redo)(void *data, cudaStream_t stream), const void *data,
                       size_t data_bytes) {
    Node *node = malloc(sizeof *node + data_bytes);
    if (node == NULL)
        abort();
    node->next = NULL;
    node->redo = redo;
    memcpy(node->data, data, data_bytes);
    *stream->captured->end = node;
    stream->captured->end = &node->next;
}

static void free_nodes(Node *node) {
    while (node != NULL) {
        Node *next = node->next;
        free(node);
        node = next;
    }
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
    cudaError_t error = cuda_shim_count_call();
    (void)mode;
    if (error != cudaSuccess)
        return error;
    if (stream == NULL || stream->captured != NULL)
        return cuda_shim_fail(cudaErrorStreamCaptureUnsupported);
    stream->captured = malloc(sizeof *stream->captured);
    if (stream->captured == NULL)
        return cuda_shim_fail(cudaErrorMemoryAllocation);
    *stream->captured = (struct CUgraph_st){NULL, &stream->captured->first};
    n_captured++;
    return cudaSuccess;
}

/* Ends the capture where it fails too. */
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph) {
    cudaError_t error = cuda_shim_count_call();
    *graph = NULL;
    if (stream->captured == NULL)
        return error != cudaSuccess ? error : cuda_shim_fail(cudaErrorStreamCaptureInvalidated);
    n_captured--;
    if (error == cudaSuccess)
        *graph = stream->captured;
    else
        cudaGraphDestroy(stream->captured);
    stream->captured = NULL;
    return error;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *executable, cudaGraph_t graph, unsigned long long flags) {
    cudaError_t error = cuda_shim_count_call();
    (void)flags;
    *executable = NULL;
    if (error != cudaSuccess)
        return error;
    *executable = malloc(sizeof **executable);
    if (*executable == NULL)
        return cuda_shim_fail(cudaErrorMemoryAllocation);
    (*executable)->first = graph->first;
    *graph = (struct CUgraph_st){NULL, &graph->first};
    return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
    cudaError_t error = cuda_shim_count_call();
    for (Node *node = executable->first; error == cudaSuccess && node != NULL; node = node->next)
        node->redo(node->data, stream);
    return error;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    cudaError_t error = cuda_shim_count_call();
    free_nodes(graph->first);
    free(graph);
    return error;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
    cudaError_t error = cuda_shim_count_call();
    free_nodes(executable->first);
    free(executable);
    return error;
}

/* The CPU backend: spreads rows, tokens and heads over OpenMP threads and calls the kernels of one instruction set.
 * How work is split never changes a sum, so results do not depend on the number of threads. */
#include "attention/attention.h"
#include "model/backend.h"
#include "model/kernels.h"

#include <omp.h>
#include <stdlib.h>
#include <sys/mman.h>

#define SMALL_WORK 16384 /* numbers below which starting threads costs more than it saves */

typedef struct CpuBackend {
    Backend base;
    SimdLevel level;
    const Kernels *kernels;
    Attend *attend;
    float *scratch;        /* (n_threads, scratch_stride): decoded rows */
    size_t scratch_stride;
} CpuBackend;

static CpuBackend *cpu(Backend *backend) {
    return (CpuBackend *)backend;
}

static void cpu_close(Backend *backend) {
    if (backend == NULL)
        return;
    free(cpu(backend)->scratch);
    free(backend);
}

/* Mapped, not malloc'd: pages that a long context never reaches are never taken from the machine. */
static void *cpu_allocate(Backend *backend, size_t size_bytes, const char *what, Error *error) {
    (void)backend;
    void *memory = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory != MAP_FAILED)
        return memory;
    error_memory(error, what, size_bytes);
    return NULL;
}

static void cpu_release(Backend *backend, void *memory, size_t size_bytes) {
    (void)backend;
    if (memory != NULL)
        munmap(memory, size_bytes);
}

/* Weights are used where they are mapped; only the scratch rows must be as long as the longest matrix row. */
static int cpu_upload(Backend *backend, Tensor *tensor, Error *error) {
    CpuBackend *b = cpu(backend);
    size_t stride = (tensor->shape[0] + 15) / 16 * 16 * MATMUL_ROWS;
    if (stride <= b->scratch_stride)
        return 0;
    size_t size_bytes = stride * (size_t)backend->n_threads * sizeof(float);
    float *scratch = aligned_alloc(64, size_bytes);
    if (scratch == NULL)
        return error_memory(error, "decoded weight rows", size_bytes);
    free(b->scratch);
    b->scratch = scratch;
    b->scratch_stride = stride;
    return 0;
}

static void cpu_write(Backend *backend, float *to, const float *host, size_t n) {
    (void)backend;
    memcpy(to, host, n * sizeof *to);
}

static void cpu_read(Backend *backend, float *host, const float *from, size_t n) {
    (void)backend;
    memcpy(host, from, n * sizeof *host);
}

static void cpu_embed(Backend *backend, const Tensor *embedding, const int32_t *tokens, size_t n_tokens, float *x) {
    TensorDecode *decode = tensor_decoder(embedding->type, cpu(backend)->level);
    size_t n_embd = embedding->shape[0];
    for (size_t t = 0; t < n_tokens; t++)
        decode(embedding, (size_t)tokens[t] * n_embd, n_embd, x + t * n_embd);
}

static void cpu_matmul(Backend *backend, const Tensor *w, const float *x, size_t n_tokens, float *y) {
    const CpuBackend *b = cpu(backend);
    TensorDecode *decode = tensor_decoder(w->type, b->level);
    size_t n_rows = w->shape[1], n_tiles = (n_rows + MATMUL_ROWS - 1) / MATMUL_ROWS;
#pragma omp parallel num_threads(backend->n_threads) if (w->shape[0] * n_rows > SMALL_WORK)
    {
        size_t n_threads = (size_t)omp_get_num_threads(), thread = (size_t)omp_get_thread_num();
        size_t begin = n_tiles * thread / n_threads * MATMUL_ROWS;
        size_t end = n_tiles * (thread + 1) / n_threads * MATMUL_ROWS;
        b->kernels->matmul_rows(w, decode, x, n_tokens, begin, end < n_rows ? end : n_rows,
                                b->scratch + thread * b->scratch_stride, y);
    }
}

static void cpu_rmsnorm(Backend *backend, const float *x, const Tensor *gain, float eps, size_t n_tokens, float *y) {
    const CpuBackend *b = cpu(backend);
    size_t n = gain->shape[0];
    float *gains = b->scratch; /* norms are as wide as a row of the matrices that follow them */
    tensor_decoder(gain->type, b->level)(gain, 0, n, gains);
#pragma omp parallel for num_threads(backend->n_threads) if (n_tokens * n > SMALL_WORK)
    for (size_t t = 0; t < n_tokens; t++)
        b->kernels->rmsnorm(x + t * n, gains, eps, n, y + t * n);
}

static void cpu_rope(Backend *backend, float *x, size_t n_tokens, size_t n_heads, size_t head_dim, RopePairing pairing,
                     const float *rotation) {
#pragma omp parallel for num_threads(backend->n_threads) if (n_tokens * n_heads * head_dim > SMALL_WORK)
    for (size_t t = 0; t < n_tokens; t++)
        for (size_t h = 0; h < n_heads; h++)
            rope_rotate(x + (t * n_heads + h) * head_dim, head_dim, pairing, rotation + t * head_dim);
}

static void cpu_append(Backend *backend, KvCache *cache, size_t layer, size_t n_tokens, const float *k,
                       const float *v) {
    size_t n_kv_heads = cache->shape.n_kv_heads, n = n_tokens * n_kv_heads * cache->shape.head_dim;
#pragma omp parallel for num_threads(backend->n_threads) if (n > SMALL_WORK)
    for (size_t kv_head = 0; kv_head < n_kv_heads; kv_head++)
        kvcache_append(cache, layer, kv_head, n_tokens, k, v);
}

static void cpu_attention(Backend *backend, KvCache *cache, size_t layer, size_t n_tokens, size_t n_heads,
                          RopePairing pairing, const float *q, const float *shift_rotation, float *out) {
    const CpuBackend *b = cpu(backend);
    size_t n_kv_heads = cache->shape.n_kv_heads, head_dim = cache->shape.head_dim, n_group = n_heads / n_kv_heads;
#pragma omp parallel for collapse(2) schedule(dynamic) num_threads(backend->n_threads)
    for (size_t t = 0; t < n_tokens; t++)
        for (size_t kv_head = 0; kv_head < n_kv_heads; kv_head++) {
            KvSpan spans[KV_MAX_SPANS];
            size_t n_spans = kvcache_view(cache, layer, kv_head, cache->n_tokens + t, spans);
            size_t first = (t * n_heads + kv_head * n_group) * head_dim;
            const float *shift = shift_rotation == NULL ? NULL : shift_rotation + t * head_dim;
            b->attend(spans, n_spans, &(AttentionQuery){q + first, n_group, head_dim, pairing, shift}, out + first);
            kvcache_count_read(cache, layer, spans, n_spans);
        }
    for (size_t kv_head = 0; kv_head < n_kv_heads; kv_head++)
        kvcache_commit(cache, layer, kv_head, n_tokens);
}

static void cpu_swiglu(Backend *backend, float *gate, const float *up, size_t n) {
    const CpuBackend *b = cpu(backend);
    size_t n_pieces = (n + SMALL_WORK - 1) / SMALL_WORK;
#pragma omp parallel for num_threads(backend->n_threads) if (n_pieces > 1)
    for (size_t piece = 0; piece < n_pieces; piece++) {
        size_t first = piece * SMALL_WORK;
        b->kernels->swiglu(gate + first, up + first, n - first < SMALL_WORK ? n - first : SMALL_WORK);
    }
}

static void cpu_add(Backend *backend, float *x, const float *y, size_t n) {
    (void)backend;
    for (size_t i = 0; i < n; i++)
        x[i] += y[i];
}

static const BackendOps CPU_OPS = {
    .close = cpu_close,
    .allocate = cpu_allocate,
    .release = cpu_release,
    .upload = cpu_upload,
    .write = cpu_write,
    .read = cpu_read,
    .embed = cpu_embed,
    .matmul = cpu_matmul,
    .rmsnorm = cpu_rmsnorm,
    .rope = cpu_rope,
    .append = cpu_append,
    .attention = cpu_attention,
    .swiglu = cpu_swiglu,
    .add = cpu_add,
};

int cpu_backend_open(Backend **out, SimdLevel level, int n_threads, Error *error) {
    static const Kernels *const KERNELS[SIMD_LEVEL_COUNT] = SIMD_ADDRESSES(model_kernels);
    CpuBackend *b = calloc(1, sizeof *b);
    if (b == NULL)
        return error_memory(error, "the CPU backend", sizeof *b);
    b->base = (Backend){.ops = &CPU_OPS,
                        .device = "cpu",
                        .simd = simd_level_name(level),
                        .n_threads = n_threads > 0 ? n_threads : cpu_physical_cores()};
    b->level = level;
    b->kernels = KERNELS[level];
    b->attend = attention_kernel(level);
    *out = &b->base;
    return 0;
}

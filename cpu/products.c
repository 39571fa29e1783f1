/* See products.h. How work is split changes no sum, so that results do not depend on the number of threads. */
#include "cpu/products.h"

#include "base/checked.h"

#include <stdlib.h>

/* Pieces of a thread's share of a loop: the more, the shorter threads wait for each other at the end. */
#define MATVEC_PIECES 8
#define MATMUL_PIECES 16

void cpu_matmul_open(CpuMatmul *matmul, SimdLevel level, ThreadPool *pool) {
    static const MatmulKernels *const KERNELS[SIMD_LEVEL_COUNT] = SIMD_ADDRESSES(matmul_kernels);
    *matmul = (CpuMatmul){.kernels = KERNELS[level], .pool = pool};
    cpu_weights_open(&matmul->weights, pool);
}

static void free_scratch(CpuMatmul *matmul) {
    free(matmul->strips);
    free(matmul->columns);
    free(matmul->scratch);
    matmul->strips = NULL;
    matmul->columns = NULL;
    matmul->scratch = NULL;
    matmul->n_tokens = 0;
}

void cpu_matmul_close(CpuMatmul *matmul) {
    free_scratch(matmul);
    cpu_weights_close(&matmul->weights);
}

/* ---- Scratch memory */

int cpu_matmul_reserve(CpuMatmul *matmul, size_t n_tokens, Error *error) {
    if (n_tokens <= matmul->n_tokens)
        return 0;
    free_scratch(matmul);
    size_t columns = round_up(matmul->weights.max_columns, PACKED_BLOCK),
           tokens = round_up(n_tokens, matmul->kernels->strip_tokens);
    size_t strips_bytes = round_up(columns / PACKED_BLOCK * STRIP_INTS * tokens * sizeof *matmul->strips, 64);
    size_t columns_bytes = round_up(columns * tokens * sizeof *matmul->columns, 64);
    matmul->scratch_bytes = round_up(matmul_scratch_bytes(columns), 64);
    size_t thread_scratch_bytes = matmul->scratch_bytes * (size_t)thread_pool_size(matmul->pool);
    matmul->strips = aligned_alloc(64, strips_bytes);
    matmul->columns = aligned_alloc(64, columns_bytes);
    matmul->scratch = aligned_alloc(64, thread_scratch_bytes);
    if (matmul->strips == NULL || matmul->columns == NULL || matmul->scratch == NULL) {
        free_scratch(matmul);
        return error_memory(error, "activations of a batch", strips_bytes + columns_bytes + thread_scratch_bytes);
    }
    matmul->n_tokens = n_tokens;
    return cpu_weights_ready(&matmul->weights, error);
}

/* ---- Products */

typedef struct MatmulJob {
    const CpuMatmul *matmul;
    const WeightProduct *products;
    size_t n_products;
    const float *x;
    size_t n_columns, n_tokens;
    size_t n_chunks, chunk; /* chunks of the batch; tokens of each, a multiple of the strip's */
} MatmulJob;

static const PackedMatrix *packed_of(const WeightProduct *product) {
    return product->w->uploaded;
}

static size_t n_pairs(const PackedMatrix *w) {
    return w->n_panels / 2;
}

/* y += bias for the rows of some panels: one rounding of the whole sum, whatever the number of tokens or threads. */
static void add_bias(const WeightProduct *product, size_t panel_begin, size_t panel_end, size_t n_tokens, float *y) {
    if (product->bias == NULL)
        return;
    const float *bias = (const float *)(const void *)product->bias->data; /* F32, see model/weights.c */
    size_t n_rows = packed_of(product)->n_rows, end = at_most(panel_end * PANEL_ROWS, n_rows);
    for (size_t t = 0; t < n_tokens; t++, y += n_rows)
        for (size_t row = panel_begin * PANEL_ROWS; row < end; row++)
            y[row] += bias[row];
}

static void matvec_panels(void *context, size_t begin, size_t end, int thread) {
    const MatmulJob *job = context;
    (void)thread;
    for (size_t i = 0, first = 0; i < job->n_products; i++) {
        const PackedMatrix *w = packed_of(&job->products[i]);
        WeightPart part = weight_part(begin, end, first, weight_panels(w));
        if (part.from < part.to) {
            job->matmul->kernels->matvec(w, packed_is_coded(w->type) ? (const void *)job->matmul->strips : job->x,
                                         part.from, part.to, job->products[i].y);
            add_bias(&job->products[i], part.from, part.to, 1, job->products[i].y);
        }
        first += weight_panels(w);
    }
}

static void matmul_item(const MatmulJob *job, const WeightProduct *product, size_t pair, size_t chunk, void *scratch) {
    const PackedMatrix *w = packed_of(product);
    const CpuMatmul *matmul = job->matmul;
    size_t first = chunk * job->chunk, n_tokens = at_most(job->n_tokens - first, job->chunk);
    float *y = product->y + first * w->n_rows;
    const int32_t *strips = packed_is_coded(w->type) ? matmul->strips : (const int32_t *)(const void *)matmul->columns;
    strips += first / matmul->kernels->strip_tokens *
              activation_strip_words(w->type, w->n_columns, matmul->kernels->strip_tokens);
    matmul->kernels->matmul(w, strips, n_tokens, pair, pair + 1, scratch, y);
    add_bias(product, 2 * pair, 2 * pair + 2, n_tokens, y);
}

static void matmul_items(void *context, size_t begin, size_t end, int thread) {
    const MatmulJob *job = context;
    void *scratch = job->matmul->scratch + (size_t)thread * job->matmul->scratch_bytes;
    for (size_t i = 0, first = 0; i < job->n_products; i++) {
        size_t n = n_pairs(packed_of(&job->products[i])) * job->n_chunks;
        WeightPart part = weight_part(begin, end, first, n);
        for (size_t item = part.from; item < part.to; item++)
            matmul_item(job, &job->products[i], item / job->n_chunks, item % job->n_chunks, scratch);
        first += n;
    }
}

static void prepare_strips(void *context, size_t begin, size_t end, int thread) {
    const MatmulJob *job = context;
    const CpuMatmul *matmul = job->matmul;
    size_t strip = matmul->kernels->strip_tokens, columns = job->n_columns;
    bool coded = false, floats = false;
    (void)thread;
    for (size_t i = 0; i < job->n_products; i++) {
        coded = coded || packed_is_coded(packed_of(&job->products[i])->type);
        floats = floats || !packed_is_coded(packed_of(&job->products[i])->type);
    }
    for (size_t t = begin; t < end; t++) {
        size_t n = at_most(job->n_tokens - t * strip, strip);
        const float *x = job->x + t * strip * columns;
        if (coded)
            matmul->kernels->to_strip(x, n, columns, job->n_tokens == 1 ? 1 : strip,
                                      matmul->strips + t * strip * (columns / PACKED_BLOCK * STRIP_INTS));
        if (floats && job->n_tokens > 1)
            matmul->kernels->to_columns(x, n, columns, matmul->columns + t * strip * columns);
    }
}

void cpu_matmul_run(CpuMatmul *matmul, const WeightProduct *products, size_t n_products, const float *x,
                    size_t n_tokens) {
    size_t strip = matmul->kernels->strip_tokens, n_strips = (n_tokens + strip - 1) / strip, panels = 0, pairs = 0;
    MatmulJob job = {matmul, products, n_products, x, products[0].w->shape[0], n_tokens, 1, n_strips * strip};
    for (size_t i = 0; i < n_products; i++) {
        panels += weight_panels(packed_of(&products[i]));
        pairs += n_pairs(packed_of(&products[i]));
    }
    thread_pool_share(matmul->pool, n_strips, MATMUL_PIECES, prepare_strips, &job);
    if (n_tokens == 1) {
        cpu_weights_begin(&matmul->weights, packed_of(&products[0]));
        thread_pool_halve(matmul->pool, panels, MATVEC_PIECES, matvec_panels, &job);
        return;
    }
    /* Few rows for many threads: tokens are shared out too, and each thread unpacks its rows. */
    size_t wanted = (size_t)thread_pool_size(matmul->pool) * 4, chunks = divide_up(wanted, pairs);
    job.chunk = divide_up(n_strips, chunks) * strip;
    job.n_chunks = divide_up(n_strips * strip, job.chunk);
    thread_pool_share(matmul->pool, pairs * job.n_chunks, MATMUL_PIECES, matmul_items, &job);
}

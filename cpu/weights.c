/* See weights.h. */
#include "cpu/weights.h"

#include "base/checked.h"
#include "base/machine/pages.h"

#include <stdlib.h>

/* What a thread prefetches between two products: about what memory delivers in that time, and well below a cache's
 * size; and what it prefetches in one call. */
#define AHEAD_BYTES    65536
#define PREFETCH_BYTES 1024

void cpu_weights_open(CpuWeights *weights, ThreadPool *pool) {
    *weights = (CpuWeights){.pool = pool};
}

void cpu_weights_close(CpuWeights *weights) {
    weight_store_close(&weights->store);
    for (size_t i = 0; i < weights->n_matrices; i++)
        free(weights->matrices[i]);
    free(weights->matrices);
    free(weights->products);
    free(weights->ahead);
    *weights = (CpuWeights){0};
}

/* ---- Packing */

/* A product that is being packed. */
typedef struct PackJob {
    Tensor *const *tensors;
    size_t n_tensors;
} PackJob;

/* Calls `each` for the panels of each matrix in a run of indices. The last panel with rows brings along the one without
 * that makes a matrix's panels even. */
static void for_panels(const PackJob *job, size_t begin, size_t end,
                       void (*each)(const PackedMatrix *packed, const Tensor *tensor, size_t from, size_t to)) {
    for (size_t i = 0, first = 0; i < job->n_tensors; i++) {
        const PackedMatrix *packed = job->tensors[i]->uploaded;
        size_t n = weight_panels(packed);
        WeightPart part = weight_part(begin, end, first, n);
        if (part.from < part.to)
            each(packed, job->tensors[i], part.from, part.to == n ? packed->n_panels : part.to);
        first += n;
    }
}

static void touch_panels(const PackedMatrix *packed, const Tensor *tensor, size_t from, size_t to) {
    (void)tensor;
    pages_touch(packed->data + from * packed->panel_bytes, (to - from) * packed->panel_bytes);
}

static void touch_run(void *context, size_t begin, size_t end, int thread) {
    (void)thread;
    for_panels(context, begin, end, touch_panels);
}

static void pack_run(void *context, size_t begin, size_t end, int thread) {
    (void)thread;
    for_panels(context, begin, end, packed_matrix_fill);
}

/* Headers are malloc'd: writing them into the store would first-touch weight pages. */
static int add_matrix(CpuWeights *weights, Tensor *tensor, Error *error) {
    PackedMatrix **matrices = realloc(weights->matrices, (weights->n_matrices + 1) * sizeof *matrices);
    if (matrices != NULL)
        weights->matrices = matrices;
    PackedMatrix *packed = matrices == NULL ? NULL : malloc(sizeof *packed);
    if (packed == NULL)
        return error_memory(error, "a packed weight matrix", sizeof *packed);
    matrices[weights->n_matrices++] = packed;
    packed_matrix_measure(packed, tensor);
    weights->max_columns = at_least(packed->n_columns, weights->max_columns);
    tensor->uploaded = packed;
    return 0;
}

static int add_product(CpuWeights *weights, Tensor *const *tensors, size_t n_tensors, Error *error) {
    ProductWeights *products = realloc(weights->products, (weights->n_products + 1) * sizeof *products);
    if (products == NULL)
        return error_memory(error, "the list of weight matrices", (weights->n_products + 1) * sizeof *products);
    weights->products = products;
    ProductWeights product = {.first = weights->n_matrices, .n_matrices = n_tensors};
    for (size_t i = 0; i < n_tensors; i++) {
        if (add_matrix(weights, tensors[i], error) < 0)
            return error->code;
        product.n_panels += weight_panels(tensors[i]->uploaded);
    }
    products[weights->n_products++] = product;
    return 0;
}

/* Where some memory is nearer than other memory, a page must not hold what several threads read. */
static Pages choose_pages(const CpuWeights *weights, const ProductWeights *product) {
    size_t bytes = 0;
    for (size_t i = 0; i < product->n_matrices; i++)
        bytes += weights->matrices[product->first + i]->size_bytes;
    bool small = bytes / (size_t)thread_pool_size(weights->pool) < HUGE_PAGE_BYTES;
    return small && thread_pool_n_nodes(weights->pool) > 1 ? PAGES_ORDINARY : PAGES_HUGE;
}

/* Any thread may pack a panel; the thread that will read it must touch it first. */
int cpu_weights_pack(CpuWeights *weights, Tensor *const *tensors, size_t n_tensors, Error *error) {
    if (add_product(weights, tensors, n_tensors, error) < 0)
        return error->code;
    const ProductWeights *product = &weights->products[weights->n_products - 1];
    Pages pages = choose_pages(weights, product);
    for (size_t i = 0; i < n_tensors; i++) {
        PackedMatrix *packed = weights->matrices[product->first + i];
        packed->data = weight_store_take(&weights->store, packed->size_bytes, pages, error);
        if (packed->data == NULL)
            return error->code;
    }
    PackJob job = {tensors, n_tensors};
    if (thread_pool_n_nodes(weights->pool) > 1)
        thread_pool_each(weights->pool, product->n_panels, touch_run, &job);
    thread_pool_run(weights->pool, product->n_panels, 1, pack_run, &job);
    return 0;
}

/* ---- Prefetching */

/* The beginning of a thread's share of a product, as far as it lies in one matrix. */
static void find_share(const CpuWeights *weights, const ProductWeights *product, int thread, WeightsAhead *ahead) {
    size_t begin = thread_pool_share_begin(weights->pool, product->n_panels, thread);
    size_t end = thread_pool_share_begin(weights->pool, product->n_panels, thread + 1);
    ahead->at = ahead->end = NULL;
    for (size_t i = 0, first = 0; i < product->n_matrices && ahead->at == NULL; i++) {
        const PackedMatrix *w = weights->matrices[product->first + i];
        WeightPart part = weight_part(begin, end, first, weight_panels(w));
        size_t bytes = part.from < part.to ? (part.to - part.from) * w->panel_bytes : 0;
        if (bytes > 0) {
            ahead->at = w->data + part.from * w->panel_bytes;
            ahead->end = ahead->at + (bytes < AHEAD_BYTES ? bytes : AHEAD_BYTES);
        }
        first += weight_panels(w);
    }
}

static void prefetch_ahead(void *context, int thread) {
    CpuWeights *weights = context;
    WeightsAhead *ahead = &weights->ahead[thread];
    uint64_t next = atomic_load_explicit(&weights->next, memory_order_relaxed);
    if (next != ahead->next) {
        ahead->next = next;
        find_share(weights, &weights->products[next & UINT32_MAX], thread, ahead);
    }
    for (size_t i = 0; i < PREFETCH_BYTES && ahead->at < ahead->end; i += 64, ahead->at += 64)
        __builtin_prefetch(ahead->at, 0, 2);
}

int cpu_weights_ready(CpuWeights *weights, Error *error) {
    if (weights->ahead != NULL || weights->n_products == 0)
        return 0;
    size_t n_threads = (size_t)thread_pool_size(weights->pool);
    weights->ahead = aligned_alloc(64, n_threads * sizeof *weights->ahead);
    if (weights->ahead == NULL)
        return error_memory(error, "threads", n_threads * sizeof *weights->ahead);
    for (size_t i = 0; i < n_threads; i++)
        weights->ahead[i] = (WeightsAhead){0};
    thread_pool_set_idle(weights->pool, prefetch_ahead, weights);
    return 0;
}

/* The same products come in the same order for every token, so the first one looked at is nearly always it. */
void cpu_weights_begin(CpuWeights *weights, const PackedMatrix *first) {
    size_t n = weights->n_products;
    for (size_t i = 1; i <= n; i++) {
        size_t product = (weights->current + i) % n;
        if (weights->matrices[weights->products[product].first] != first)
            continue;
        weights->current = product;
        uint64_t count = (atomic_load_explicit(&weights->next, memory_order_relaxed) >> 32) + 1;
        atomic_store_explicit(&weights->next, count << 32 | (product + 1) % n, memory_order_relaxed);
        return;
    }
}

/* See cpu_matmul.h. How work is split changes no sum, so that results do not depend on the number of threads. */
#include "model/cpu_matmul.h"

#include "model/base/checked.h"
#include "model/base/cpu_nodes.h"

#include <stdlib.h>

/* Pieces of a thread's share of a loop: the smaller, the less it waits for others in the end. */
#define MATVEC_PIECES 8
#define MATMUL_PIECES 16

/* What is asked for between products, as much as memory gives in the time and well below a cache; and at once. */
#define NEXT_BYTES 131072
#define ASK_BYTES  1024

/* Threads take turns; a range that was replaced between the two loads is asked for in vain. */
static void ask_for_next(void *context) {
    CpuMatmul *matmul = context;
    const uint8_t *at = atomic_load_explicit(&matmul->next, memory_order_relaxed);
    if (at == NULL || at >= atomic_load_explicit(&matmul->next_end, memory_order_relaxed) ||
        !atomic_compare_exchange_weak(&matmul->next, &at, at + ASK_BYTES))
        return;
    for (size_t i = 0; i < ASK_BYTES; i += 64)
        __builtin_prefetch(at + i, 0, 2);
}

/* Idle threads may look at any time: what they ask for need not be there. */
static void set_next(CpuMatmul *matmul, const uint8_t *next) {
    atomic_store_explicit(&matmul->next_end, next == NULL ? NULL : next + NEXT_BYTES, memory_order_relaxed);
    atomic_store_explicit(&matmul->next, next, memory_order_relaxed);
}

void cpu_matmul_open(CpuMatmul *matmul, SimdLevel level, ThreadPool *pool) {
    static const MatmulKernels *const KERNELS[SIMD_LEVEL_COUNT] = SIMD_ADDRESSES(matmul_kernels);
    *matmul = (CpuMatmul){.kernels = KERNELS[level], .pool = pool};
    thread_pool_set_idle(pool, ask_for_next, matmul);
}

static void free_room(CpuMatmul *matmul) {
    free(matmul->tiles);
    free(matmul->columns);
    free(matmul->rooms);
    matmul->tiles = NULL;
    matmul->columns = NULL;
    matmul->rooms = NULL;
    matmul->n_tokens = 0;
}

void cpu_matmul_close(CpuMatmul *matmul) {
    free_room(matmul);
    weight_store_close(&matmul->weights);
    for (size_t i = 0; i < matmul->n_matrices; i++)
        free(matmul->matrices[i]);
    free(matmul->matrices);
    matmul->matrices = NULL;
    matmul->n_matrices = 0;
}

/* ---- Runs */

/* The part of [begin, end) that is in [first, first + n), counted from first; empty where to <= from. */
typedef struct Part {
    size_t from, to;
} Part;

static Part part_of(size_t begin, size_t end, size_t first, size_t n) {
    size_t left = end > first ? end - first : 0;
    return (Part){begin > first ? begin - first : 0, left < n ? left : n};
}

/* Panels that hold rows: those of a product's matrices, one matrix behind the other, are what threads share out. */
static size_t n_used_panels(const PackedMatrix *w) {
    return (w->n_rows + PANEL_ROWS - 1) / PANEL_ROWS;
}

/* ---- Packing */

typedef struct PackJob {
    Tensor *const *tensors;
    size_t n_tensors;
} PackJob;

/* Calls `each` for a run's panels of each matrix; the last panel takes what makes their number even with it. */
static void for_panels(const PackJob *job, size_t begin, size_t end,
                       void (*each)(const PackedMatrix *packed, const Tensor *tensor, size_t from, size_t to)) {
    for (size_t i = 0, first = 0; i < job->n_tensors; i++) {
        const PackedMatrix *packed = job->tensors[i]->uploaded;
        size_t n = n_used_panels(packed);
        Part part = part_of(begin, end, first, n);
        if (part.from < part.to)
            each(packed, job->tensors[i], part.from, part.to == n ? packed->n_panels : part.to);
        first += n;
    }
}

static void touch_panels(const PackedMatrix *packed, const Tensor *tensor, size_t from, size_t to) {
    (void)tensor;
    cpu_nodes_touch(packed->data + from * packed->panel_bytes, (to - from) * packed->panel_bytes);
}

static void touch_run(void *context, size_t begin, size_t end, int thread) {
    (void)thread;
    for_panels(context, begin, end, touch_panels);
}

static void pack_run(void *context, size_t begin, size_t end, int thread) {
    (void)thread;
    for_panels(context, begin, end, packed_matrix_fill);
}

/* Apart from the weights, whose pages it would place. */
static int measure_packed(CpuMatmul *matmul, Tensor *tensor, Error *error) {
    PackedMatrix **matrices = realloc(matmul->matrices, (matmul->n_matrices + 1) * sizeof *matrices);
    if (matrices != NULL)
        matmul->matrices = matrices;
    PackedMatrix *packed = matrices == NULL ? NULL : malloc(sizeof *packed);
    if (packed == NULL)
        return error_memory(error, "a packed weight matrix", sizeof *packed);
    matrices[matmul->n_matrices++] = packed;
    packed_matrix_measure(packed, tensor);
    matmul->max_columns = packed->n_columns > matmul->max_columns ? packed->n_columns : matmul->max_columns;
    tensor->uploaded = packed;
    return 0;
}

/* Packing may be taken over from a thread that is late, touching may not. */
static int fill_packed(CpuMatmul *matmul, PackJob *job, Error *error) {
    bool placed = thread_pool_n_nodes(matmul->pool) > 1;
    size_t panels = 0, bytes = 0;
    for (size_t i = 0; i < job->n_tensors; i++) {
        const PackedMatrix *packed = job->tensors[i]->uploaded;
        panels += n_used_panels(packed);
        bytes += packed->size_bytes;
    }
    size_t share = bytes / (size_t)thread_pool_size(matmul->pool);
    WeightPages pages = placed && share < HUGE_PAGE_BYTES ? WEIGHT_PAGES_ORDINARY : WEIGHT_PAGES_HUGE;
    for (size_t i = 0; i < job->n_tensors; i++) {
        PackedMatrix *packed = matmul->matrices[matmul->n_matrices - job->n_tensors + i];
        packed->data = weight_store_take(&matmul->weights, packed->size_bytes, pages, error);
        if (packed->data == NULL)
            return error->code;
    }
    if (placed)
        thread_pool_each(matmul->pool, panels, touch_run, job);
    thread_pool_run(matmul->pool, panels, 1, pack_run, job);
    return 0;
}

int cpu_matmul_pack(CpuMatmul *matmul, Tensor *const *tensors, size_t n_tensors, Error *error) {
    for (size_t i = 0; i < n_tensors; i++)
        if (measure_packed(matmul, tensors[i], error) < 0)
            return error->code;
    return fill_packed(matmul, &(PackJob){tensors, n_tensors}, error);
}

/* ---- Room for activations */

int cpu_matmul_reserve(CpuMatmul *matmul, size_t n_tokens, Error *error) {
    if (n_tokens <= matmul->n_tokens)
        return 0;
    free_room(matmul);
    size_t columns = round_up(matmul->max_columns, PACKED_BLOCK),
           tokens = round_up(n_tokens, matmul->kernels->token_tile);
    size_t tiles_bytes = round_up(columns / PACKED_BLOCK * TILE_INTS * tokens * sizeof *matmul->tiles, 64);
    size_t columns_bytes = round_up(columns * tokens * sizeof *matmul->columns, 64);
    matmul->room_bytes = round_up(matmul_room_bytes(columns), 64);
    size_t rooms_bytes = matmul->room_bytes * (size_t)thread_pool_size(matmul->pool);
    matmul->tiles = aligned_alloc(64, tiles_bytes);
    matmul->columns = aligned_alloc(64, columns_bytes);
    matmul->rooms = aligned_alloc(64, rooms_bytes);
    if (matmul->tiles == NULL || matmul->columns == NULL || matmul->rooms == NULL) {
        free_room(matmul);
        return error_memory(error, "activations of a batch", tiles_bytes + columns_bytes + rooms_bytes);
    }
    matmul->n_tokens = n_tokens;
    return 0;
}

/* ---- Products */

typedef struct MatmulJob {
    const CpuMatmul *matmul;
    const WeightProduct *products;
    size_t n_products;
    const float *x;
    size_t n_columns, n_tokens;
    size_t n_chunks, chunk; /* of tokens, a multiple of the token tile each */
} MatmulJob;

static const PackedMatrix *packed_of(const WeightProduct *product) {
    return product->w->uploaded;
}

static size_t n_pairs(const PackedMatrix *w) {
    return w->n_panels / 2;
}

static void matvec_panels(void *context, size_t begin, size_t end, int thread) {
    const MatmulJob *job = context;
    (void)thread;
    for (size_t i = 0, first = 0; i < job->n_products; i++) {
        const PackedMatrix *w = packed_of(&job->products[i]);
        Part part = part_of(begin, end, first, n_used_panels(w));
        if (part.from < part.to)
            job->matmul->kernels->matvec(w, packed_is_coded(w->type) ? (const void *)job->matmul->tiles : job->x,
                                         part.from, part.to, job->products[i].y);
        first += n_used_panels(w);
    }
}

static void matmul_item(const MatmulJob *job, const WeightProduct *product, size_t pair, size_t chunk, void *room) {
    const PackedMatrix *w = packed_of(product);
    const CpuMatmul *matmul = job->matmul;
    size_t first = chunk * job->chunk, rest = job->n_tokens - first;
    const int32_t *tiles = packed_is_coded(w->type) ? matmul->tiles : (const int32_t *)(const void *)matmul->columns;
    tiles +=
        first / matmul->kernels->token_tile * matmul_tile_words(w->type, w->n_columns, matmul->kernels->token_tile);
    matmul->kernels->matmul(w, tiles, rest < job->chunk ? rest : job->chunk, pair, pair + 1, room,
                            product->y + first * w->n_rows);
}

static void matmul_items(void *context, size_t begin, size_t end, int thread) {
    const MatmulJob *job = context;
    void *room = job->matmul->rooms + (size_t)thread * job->matmul->room_bytes;
    for (size_t i = 0, first = 0; i < job->n_products; i++) {
        size_t n = n_pairs(packed_of(&job->products[i])) * job->n_chunks;
        Part part = part_of(begin, end, first, n);
        for (size_t item = part.from; item < part.to; item++)
            matmul_item(job, &job->products[i], item / job->n_chunks, item % job->n_chunks, room);
        first += n;
    }
}

static void prepare_tiles(void *context, size_t begin, size_t end, int thread) {
    const MatmulJob *job = context;
    const CpuMatmul *matmul = job->matmul;
    size_t tile = matmul->kernels->token_tile, columns = job->n_columns;
    bool coded = false, numbers = false;
    (void)thread;
    for (size_t i = 0; i < job->n_products; i++) {
        coded = coded || packed_is_coded(packed_of(&job->products[i])->type);
        numbers = numbers || !packed_is_coded(packed_of(&job->products[i])->type);
    }
    for (size_t t = begin; t < end; t++) {
        size_t rest = job->n_tokens - t * tile, n = rest < tile ? rest : tile;
        const float *x = job->x + t * tile * columns;
        if (coded)
            matmul->kernels->to_tile(x, n, columns, job->n_tokens == 1 ? 1 : tile,
                                     matmul->tiles + t * tile * (columns / PACKED_BLOCK * TILE_INTS));
        if (numbers && job->n_tokens > 1)
            matmul->kernels->to_columns(x, n, columns, matmul->columns + t * tile * columns);
    }
}

void cpu_matmul_run(CpuMatmul *matmul, const WeightProduct *products, size_t n_products, const float *x,
                    size_t n_tokens) {
    size_t tile = matmul->kernels->token_tile, n_tiles = (n_tokens + tile - 1) / tile, panels = 0, pairs = 0;
    MatmulJob job = {matmul, products, n_products, x, products[0].w->shape[0], n_tokens, 1, n_tiles * tile};
    for (size_t i = 0; i < n_products; i++) {
        panels += n_used_panels(packed_of(&products[i]));
        pairs += n_pairs(packed_of(&products[i]));
    }
    thread_pool_share(matmul->pool, n_tiles, MATMUL_PIECES, prepare_tiles, &job);
    if (n_tokens == 1) {
        const PackedMatrix *last = packed_of(&products[n_products - 1]);
        set_next(matmul, NULL);
        thread_pool_halve(matmul->pool, panels, MATVEC_PIECES, matvec_panels, &job);
        set_next(matmul, last->data + last->size_bytes);
        return;
    }
    set_next(matmul, NULL);
    /* Few rows for many threads: tokens are shared out too, and each thread unpacks its rows. */
    size_t wanted = (size_t)thread_pool_size(matmul->pool) * 4, chunks = (wanted + pairs - 1) / pairs;
    job.chunk = (n_tiles + chunks - 1) / chunks * tile;
    job.n_chunks = (n_tiles * tile + job.chunk - 1) / job.chunk;
    thread_pool_share(matmul->pool, pairs * job.n_chunks, MATMUL_PIECES, matmul_items, &job);
}

/* The CPU backend: spreads rows, tokens and heads over threads and calls the kernels of one instruction set.
 * How work is split never changes a sum, so results do not depend on the number of threads. */
#include "cpu/backend.h"

#include "attention/attention.h"
#include "base/block_decode.h"
#include "base/checked.h"
#include "base/machine/cpu.h"
#include "base/machine/pages.h"
#include "cpu/kernel_names.h"
#include "cpu/kernels.h"
#include "cpu/products.h"
#include "kvcache/codec/weave.h"

#include <stdlib.h>

#define SMALL_WORK    16384 /* elements below which sharing costs more than it saves */
#define PLACED_TOKENS 256   /* tokens whose memory is touched at a time: a few pages of each KV head */
#define PIECES        16    /* of a thread's share of a loop: small ones let threads end at the same time */

typedef struct CpuBackend {
    Backend base;
    const Kernels *kernels;
    const AttentionKernels *attention;
    ThreadPool *pool;
    CpuMatmul matmul;
    char *attention_scratch; /* (n_threads, attention_scratch_bytes()) */
    float *partials;         /* attention_partial_bytes() */
    float *scratch;          /* (n_batch, n_embd) normalised activations, or a product that is to be added */
    size_t scratch_bytes;
    const int32_t *tokens; /* of the batch under way: the caller's */
    size_t position;       /* of the first of them */
} CpuBackend;

static CpuBackend *cpu(Backend *backend) {
    return (CpuBackend *)backend;
}

/* Mapped, not malloc'd: pages that a long context never reaches are never taken from the machine. */
static void *cpu_allocate(Backend *backend, size_t size_bytes, const char *what, Error *error) {
    void *memory = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        error_memory(error, what, size_bytes);
        return NULL;
    }
    if (thread_pool_n_nodes(cpu(backend)->pool) > 1) /* a huge page would put several KV heads near one thread */
        pages_ask(memory, size_bytes, PAGES_ORDINARY);
    return memory;
}

static void cpu_release(Backend *backend, void *memory, size_t size_bytes) {
    (void)backend;
    if (memory != NULL)
        munmap(memory, size_bytes);
}

static void cpu_close(Backend *backend) {
    if (backend == NULL)
        return;
    thread_pool_close(cpu(backend)->pool);
    cpu_matmul_close(&cpu(backend)->matmul);
    cpu_release(backend, cpu(backend)->attention_scratch, (size_t)backend->n_threads * attention_scratch_bytes());
    cpu_release(backend, cpu(backend)->partials, attention_partial_bytes());
    cpu_release(backend, cpu(backend)->scratch, cpu(backend)->scratch_bytes);
    free(backend);
}

/* Calls `task` for all of [0, n): by all threads where `n_elements` is worth it. */
static void spread(const CpuBackend *b, size_t n, size_t n_elements, ThreadTask *task, void *job) {
    if (n_elements <= SMALL_WORK)
        thread_pool_run(b->pool, n, n, task, job);
    else
        thread_pool_halve(b->pool, n, PIECES, task, job);
}

static int cpu_upload(Backend *backend, Tensor *const *tensors, size_t n_tensors, TensorUse use, Error *error) {
    return use == TENSOR_MATRIX ? cpu_weights_pack(&cpu(backend)->matmul.weights, tensors, n_tensors, error) : 0;
}

static void cpu_close_cache(Backend *backend, KvCache *cache) {
    cpu_release(backend, cache->memory, kvcache_bytes(cache));
    kvcache_close(cache);
}

static int cpu_open_cache(Backend *backend, KvCache *cache, const KvShape *shape, const KvPolicy *policy,
                          const char *what, Error *error) {
    if (kvcache_open(cache, shape, policy, backend->records, error) < 0)
        return error->code;
    cache->level = backend->level;
    kvcache_set_memory(cache, cpu_allocate(backend, kvcache_bytes(cache), what, error));
    if (cache->memory != NULL)
        return 0;
    cpu_close_cache(backend, cache);
    return error->code;
}

static int cpu_reserve(Backend *backend, const ModelConfig *config, size_t n_tokens, Error *error) {
    CpuBackend *b = cpu(backend);
    size_t scratch_bytes = n_tokens * config->n_embd * sizeof *b->scratch;
    if (scratch_bytes > b->scratch_bytes) {
        cpu_release(backend, b->scratch, b->scratch_bytes);
        b->scratch = cpu_allocate(backend, scratch_bytes, "activations", error);
        b->scratch_bytes = b->scratch != NULL ? scratch_bytes : 0;
        if (b->scratch == NULL)
            return error->code;
    }
    return cpu_matmul_reserve(&b->matmul, n_tokens, error);
}

static int cpu_write(Backend *backend, void *to, const void *host, size_t size_bytes, Error *error) {
    (void)backend;
    (void)error;
    memcpy(to, host, size_bytes);
    return 0;
}

static int cpu_read(Backend *backend, void *host, const void *from, size_t size_bytes, Error *error) {
    (void)backend;
    (void)error;
    memcpy(host, from, size_bytes);
    return 0;
}

static void cpu_embed(Backend *backend, const Tensor *embedding, float scale, size_t n_tokens, float *x) {
    const int32_t *tokens = cpu(backend)->tokens;
    TensorDecode *decode = tensor_decoder(embedding->type, backend->level);
    size_t n_embd = embedding->shape[0];
    for (size_t t = 0; t < n_tokens; t++, x += n_embd) {
        if (embedding->uploaded != NULL)
            packed_matrix_row(embedding->uploaded, (size_t)tokens[t], x);
        else
            decode(embedding, (size_t)tokens[t] * n_embd, n_embd, x);
        for (size_t i = 0; i < n_embd && scale != 1; i++)
            x[i] *= scale;
    }
}

typedef struct NormJob {
    const CpuBackend *b;
    const float *x, *gains;
    float eps;
    size_t n;
    float *y;
} NormJob;

static void norm_tokens(void *context, size_t begin, size_t end, int thread) {
    const NormJob *job = context;
    (void)thread;
    for (size_t t = begin; t < end; t++)
        job->b->kernels->rmsnorm(job->x + t * job->n, job->gains, job->eps, job->n, job->y + t * job->n);
}

/* n_rows of x to y, which may be x. */
static void normalize_rows(const CpuBackend *b, RmsNorm norm, size_t n_rows, const float *x, float *y) {
    const float *gains = (const float *)(const void *)norm.gain->data; /* F32, see model/weights.c */
    size_t n = norm.gain->shape[0];
    spread(b, n_rows, n_rows * n, norm_tokens, &(NormJob){b, x, gains, norm.eps, n, y});
}

static void cpu_normalize(Backend *backend, RmsNorm norm, size_t n_rows, float *x) {
    normalize_rows(cpu(backend), norm, n_rows, x, x);
}

static void cpu_matmul(Backend *backend, const WeightProduct *products, size_t n_products, RmsNorm norm, const float *x,
                       size_t n_tokens) {
    CpuBackend *b = cpu(backend);
    if (norm.gain != NULL) {
        normalize_rows(b, norm, n_tokens, x, b->scratch);
        x = b->scratch;
    }
    cpu_matmul_run(&b->matmul, products, n_products, x, n_tokens);
}

typedef struct RopeJob {
    const CpuBackend *b;
    float *x;
    size_t n_heads, head_dim;
    RopePairing pairing;
    const float *rotation;
} RopeJob;

static void rotate_tokens(void *context, size_t begin, size_t end, int thread) {
    const RopeJob *job = context;
    (void)thread;
    for (size_t t = begin; t < end; t++)
        job->b->kernels->rope(job->x + t * job->n_heads * job->head_dim, job->n_heads, job->head_dim, job->pairing,
                              job->rotation + t * job->head_dim);
}

static void rotate_heads(const CpuBackend *b, float *x, size_t n_tokens, size_t n_heads, size_t head_dim,
                         RopePairing pairing, const float *rotation) {
    RopeJob job = {b, x, n_heads, head_dim, pairing, rotation};
    spread(b, n_tokens, n_tokens * n_heads * head_dim, rotate_tokens, &job);
}

typedef struct HeadsJob {
    KvCache *cache;
    size_t layer, n_tokens;
    const KvRows *rows; /* for append_heads() */
} HeadsJob;

static void append_heads(void *context, size_t begin, size_t end, int thread) {
    const HeadsJob *job = context;
    (void)thread;
    for (size_t kv_head = begin; kv_head < end; kv_head++)
        kvcache_append(job->cache, job->layer, kv_head, job->n_tokens, job->rows);
}

static void commit_heads(void *context, size_t begin, size_t end, int thread) {
    const HeadsJob *job = context;
    (void)thread;
    for (size_t kv_head = begin; kv_head < end; kv_head++)
        kvcache_commit(job->cache, job->layer, kv_head, job->n_tokens);
}

static void spread_heads(const CpuBackend *b, HeadsJob *job, ThreadTask *task) {
    size_t n_kv_heads = job->cache->layout.shape.n_kv_heads;
    spread(b, n_kv_heads, job->n_tokens * n_kv_heads * job->cache->layout.shape.head_dim, task, job);
}

typedef struct PlaceJob {
    KvCache *cache;
    size_t begin, end; /* tokens */
} PlaceJob;

static void place_heads(void *context, size_t begin, size_t end, int thread) {
    const PlaceJob *job = context;
    (void)thread;
    for (size_t kv_head = begin; kv_head < end; kv_head++)
        kvcache_touch(job->cache, kv_head, job->begin, job->end);
}

/* Where some memory is nearer than other memory, a KV head's lies near the threads that will attend to it: they share
 * out heads in order, see attention_n_items(). Any thread may append tokens, so their pages are touched before that. */
static void place_batch(const CpuBackend *b, KvCache *cache, size_t n_tokens) {
    PlaceJob job = {cache, round_up(cache->n_tokens, PLACED_TOKENS),
                    round_up(cache->n_tokens + n_tokens, PLACED_TOKENS)};
    if (thread_pool_n_nodes(b->pool) > 1 && job.begin < job.end)
        thread_pool_each(b->pool, cache->layout.shape.n_kv_heads, place_heads, &job);
}

static bool cpu_begin(Backend *backend, KvCache *cache, const int32_t *tokens, size_t n_tokens, BackendStep **step) {
    (void)step; /* nothing is recorded */
    cpu(backend)->tokens = tokens;
    cpu(backend)->position = cache->n_tokens;
    place_batch(cpu(backend), cache, n_tokens);
    return false;
}

static void cpu_end(Backend *backend) {
    (void)backend;
}

static void cpu_release_step(Backend *backend, BackendStep *step) {
    (void)backend;
    (void)step;
}

static void fill_turns(const double *frequencies, size_t n_pairs, double position, float *rotation) {
    for (size_t i = 0; i < n_pairs; i++)
        rope_turn(frequencies[i], position, rotation + 2 * i);
}

static void cpu_turns(Backend *backend, const double *frequencies, size_t head_dim, size_t n_tokens, float *rotation) {
    for (size_t t = 0; t < n_tokens; t++)
        fill_turns(frequencies, head_dim / 2, (double)(cpu(backend)->position + t), rotation + t * head_dim);
}

/* Where the last token sees all, no span is shifted. */
static void cpu_turns_back(Backend *backend, const KvCache *cache, size_t layer, const double *frequencies,
                           size_t n_tokens, float *rotation) {
    size_t head_dim = cache->layout.shape.head_dim, position = cache->n_tokens;
    (void)backend;
    if (kvcache_shift(cache, layer, position + n_tokens - 1) == 0)
        return;
    for (size_t t = 0; t < n_tokens; t++)
        fill_turns(frequencies, head_dim / 2, -(double)kvcache_shift(cache, layer, position + t),
                   rotation + t * head_dim);
}

static void cpu_append(Backend *backend, KvCache *cache, size_t layer, size_t n_tokens, size_t n_heads,
                       RopePairing pairing, const float *rotation, float *q, float *k, const float *v) {
    const KvShape *shape = &cache->layout.shape;
    if (rotation != NULL) {
        rotate_heads(cpu(backend), q, n_tokens, n_heads, shape->head_dim, pairing, rotation);
        rotate_heads(cpu(backend), k, n_tokens, shape->n_kv_heads, shape->head_dim, pairing, rotation);
    }
    spread_heads(cpu(backend), &(HeadsJob){cache, layer, n_tokens, &(KvRows){k, v, q, n_heads}}, append_heads);
}

typedef struct AttentionJob {
    const CpuBackend *b;
    const AttentionBatch *batch;
} AttentionJob;

static AttentionScratch *attention_scratch(const CpuBackend *b, int thread) {
    return (AttentionScratch *)(void *)(b->attention_scratch + (size_t)thread * attention_scratch_bytes());
}

static void attend_items(void *context, size_t begin, size_t end, int thread) {
    const AttentionJob *job = context;
    attention_items(job->batch, begin, end, job->b->attention, attention_scratch(job->b, thread));
}

static void merge_heads(void *context, size_t begin, size_t end, int thread) {
    const AttentionJob *job = context;
    attention_merge(job->batch, begin, end, job->b->attention, attention_scratch(job->b, thread));
}

/* Query blocks are long enough to be claimed one by one; neighbouring tiles of a single query are claimed together,
 * because they share its view and its quantized heads. */
static void cpu_attention(Backend *backend, KvCache *cache, size_t layer, size_t n_tokens, size_t n_heads,
                          RopePairing pairing, ScoreForm scores, const float *q, const float *shift_rotation,
                          float *out) {
    const CpuBackend *b = cpu(backend);
    if (kvcache_shift(cache, layer, cache->n_tokens + n_tokens - 1) == 0)
        shift_rotation = NULL;
    AttentionBatch batch = {cache, layer, n_tokens, n_heads, pairing, q, shift_rotation, out, b->partials, scores};
    AttentionJob job = {b, &batch};
    size_t n_elements = (cache->n_tokens + n_tokens) * n_tokens * n_heads * cache->layout.shape.head_dim;
    if (n_tokens > 1 && n_elements > SMALL_WORK)
        thread_pool_run(b->pool, attention_n_items(&batch), 1, attend_items, &job);
    else
        spread(b, attention_n_items(&batch), n_elements, attend_items, &job);
    size_t n_kv_heads = cache->layout.shape.n_kv_heads, n_merged = attention_n_items(&batch) * (n_heads / n_kv_heads);
    if (n_tokens == 1)
        spread(b, n_kv_heads, n_merged * cache->layout.shape.head_dim, merge_heads, &job);
    spread_heads(b, &(HeadsJob){.cache = cache, .layer = layer, .n_tokens = n_tokens}, commit_heads);
}

/* A kernel on two arrays (n), the first of which it changes. */
typedef struct ElementsJob {
    void (*kernel)(float *x, const float *y, size_t n);
    float *x;
    const float *y;
    size_t n;
} ElementsJob;

static void element_pieces(void *context, size_t begin, size_t end, int thread) {
    const ElementsJob *job = context;
    size_t first = begin * SMALL_WORK, last = end * SMALL_WORK < job->n ? end * SMALL_WORK : job->n;
    (void)thread;
    job->kernel(job->x + first, job->y + first, last - first);
}

static void spread_elements(const CpuBackend *b, ElementsJob *job) {
    spread(b, (job->n + SMALL_WORK - 1) / SMALL_WORK, job->n, element_pieces, job);
}

static void cpu_matmul_gated(Backend *backend, const WeightProduct gate_up[2], GateActivation activation, RmsNorm norm,
                             const float *x, size_t n_tokens) {
    const CpuBackend *b = cpu(backend);
    size_t n = n_tokens * tensor_n_rows(gate_up[0].w);
    cpu_matmul(backend, gate_up, 2, norm, x, n_tokens);
    spread_elements(b, &(ElementsJob){activation == GATE_SILU ? b->kernels->swiglu : b->kernels->geglu, gate_up[0].y,
                                      gate_up[1].y, n});
}

static void add(float *x, const float *y, size_t n) {
    for (size_t i = 0; i < n; i++)
        x[i] += y[i];
}

static void cpu_matmul_add(Backend *backend, const WeightProduct *product, RmsNorm norm, const float *x,
                           size_t n_tokens) {
    CpuBackend *b = cpu(backend);
    size_t n = n_tokens * tensor_n_rows(product->w);
    cpu_matmul_run(&b->matmul, &(WeightProduct){product->w, b->scratch, product->bias}, 1, x, n_tokens);
    if (norm.gain != NULL)
        normalize_rows(b, norm, n_tokens, b->scratch, b->scratch);
    spread_elements(b, &(ElementsJob){add, product->y, b->scratch, n});
}

typedef struct CapJob {
    const CpuBackend *b;
    float *x, cap;
    size_t n;
} CapJob;

static void cap_pieces(void *context, size_t begin, size_t end, int thread) {
    const CapJob *job = context;
    size_t first = begin * SMALL_WORK;
    (void)thread;
    job->b->kernels->soft_cap(job->x + first, job->cap, at_most(end * SMALL_WORK, job->n) - first);
}

static void cpu_soft_cap(Backend *backend, float cap, size_t n, float *x) {
    const CpuBackend *b = cpu(backend);
    spread(b, divide_up(n, SMALL_WORK), n, cap_pieces, &(CapJob){b, x, cap, n});
}

static const BackendOps CPU_OPS = {
    .close = cpu_close,
    .allocate = cpu_allocate,
    .release = cpu_release,
    .upload = cpu_upload,
    .name_matmul = cpu_name_matmul,
    .name_attention = cpu_name_attention,
    .open_cache = cpu_open_cache,
    .close_cache = cpu_close_cache,
    .reserve = cpu_reserve,
    .write = cpu_write,
    .read = cpu_read,
    .begin = cpu_begin,
    .end = cpu_end,
    .release_step = cpu_release_step,
    .turns = cpu_turns,
    .turns_back = cpu_turns_back,
    .embed = cpu_embed,
    .normalize = cpu_normalize,
    .matmul = cpu_matmul,
    .append = cpu_append,
    .attention = cpu_attention,
    .matmul_gated = cpu_matmul_gated,
    .matmul_add = cpu_matmul_add,
    .soft_cap = cpu_soft_cap,
};

const KvRecordForm *cpu_backend_records(void) {
    return &KV_WOVEN_RECORDS;
}

int cpu_backend_open(Backend **out, SimdLevel level, int n_threads, Error *error) {
    static const Kernels *const KERNELS[SIMD_LEVEL_COUNT] = SIMD_ADDRESSES(model_kernels);
    CpuBackend *b = calloc(1, sizeof *b);
    if (b == NULL)
        return error_memory(error, "the CPU backend", sizeof *b);
    b->base = (Backend){.ops = &CPU_OPS,
                        .device = "cpu",
                        .level = level,
                        .records = cpu_backend_records(),
                        .n_threads = n_threads > 0 ? n_threads : cpu_physical_cores()};
    b->kernels = KERNELS[level];
    b->attention = attention_kernels(level);
    if (thread_pool_open(&b->pool, b->base.n_threads, error) < 0) {
        free(b);
        return error->code;
    }
    b->attention_scratch = cpu_allocate(&b->base, (size_t)b->base.n_threads * attention_scratch_bytes(),
                                        "the scratch memory of attention", error);
    b->partials = cpu_allocate(&b->base, attention_partial_bytes(), "the scratch memory of attention", error);
    if (b->attention_scratch == NULL || b->partials == NULL) {
        cpu_close(&b->base);
        return error->code;
    }
    cpu_matmul_open(&b->matmul, level, b->pool);
    *out = &b->base;
    return 0;
}

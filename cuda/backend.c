/* The CUDA backend: each function of the table launches kernels, with the shapes that the host knows. */
#include "cuda/backend.h"

#include "base/checked.h"
#include "base/machine/cpu.h"
#include "base/machine/thread_pool.h"
#include "cuda/attention.h"
#include "cuda/bandwidth.h"
#include "cuda/device_cache.h"
#include "cuda/elements.h"
#include "cuda/products.h"
#include "cuda/step.h"
#include "cuda/turns.h"
#include "cuda/weights.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#define MOST_PRODUCTS 8 /* of one matmul() */

typedef struct CudaBackend {
    Backend base;
    CudaDevice device;
    ThreadPool *pool; /* packs weights */
    CudaWeights weights;
    CudaProducts products;
    CudaBatches batches;
    const KvCache *cache; /* of the batch under way */
    void *workspace;      /* of attention; device */
    float *scratch;       /* (n_batch, n_embd) normalised activations, or a product that is to be added; device */
} CudaBackend;

static CudaBackend *cuda(Backend *backend) {
    return (CudaBackend *)backend;
}

static void *cuda_allocate(Backend *backend, size_t size_bytes, const char *what, Error *error) {
    return cuda_device_allocate(&cuda(backend)->device, size_bytes, what, error);
}

static void cuda_release(Backend *backend, void *memory, size_t size_bytes) {
    (void)backend;
    (void)size_bytes;
    cuda_device_release(memory);
}

static void cuda_close(Backend *backend) {
    if (backend == NULL)
        return;
    CudaBackend *b = cuda(backend);
    cudaDeviceSynchronize();
    cuda_products_close(&b->products);
    cuda_weights_close(&b->weights);
    cuda_batches_close(&b->batches);
    cuda_device_release(b->workspace);
    cuda_device_release(b->scratch);
    cuda_device_close(&b->device);
    thread_pool_close(b->pool);
    free(b);
}

static int cuda_announce(Backend *backend, Tensor *const *tensors, size_t n_tensors, TensorUse use, Error *error) {
    return cuda_weights_announce(&cuda(backend)->weights, tensors, n_tensors, use, error);
}

static int cuda_upload(Backend *backend, Tensor *const *tensors, size_t n_tensors, TensorUse use, Error *error) {
    return cuda_weights_upload(&cuda(backend)->weights, tensors, n_tensors, use, error);
}

/* Attention's kernels see all that a plan shows, and know one kind of scores. */
static const char *cuda_lacks(const ModelConfig *config) {
    if (config->lookback > 0)
        return "layers with a sliding window";
    if (config->score_cap > 0)
        return "soft-capped attention scores";
    return config->score_divisor > 0 ? "attention scores that are not divided by the square root of the head dimension"
                                     : NULL;
}

/* ---- Names */

static void put_name(const Backend *backend, const char *operation, const char *type, const char *path, char *name) {
    const CudaBackend *b = (const CudaBackend *)backend;
    snprintf(name, KERNEL_NAME_BYTES, "%s_%s_%s_sm%d", operation, type, path, b->device.architecture);
    for (char *c = name; *c != '\0'; c++)
        *c = (char)tolower((unsigned char)*c);
}

static void cuda_name_matmul(const Backend *backend, const Tensor *w, size_t n_tokens, char name[KERNEL_NAME_BYTES]) {
    const CudaBackend *b = (const CudaBackend *)backend;
    put_name(backend, "matmul", tensor_type_info(w->type)->name, cuda_product_path(&b->products, n_tokens), name);
}

/* Kernels for tensor cores know no padding. */
static bool is_padded(const KvCacheLayout *layout) {
    return layout->row_dim > layout->shape.head_dim;
}

static void cuda_name_attention(const Backend *backend, KvCodecId codec, const KvCacheLayout *layout,
                                char name[KERNEL_NAME_BYTES]) {
    bool fused = !is_padded(layout) && cuda_attention_is_fused(layout->shape.head_dim, 1);
    const char *path = fused ? "f16" : "f32"; /* of queries and attention's weights */
    put_name(backend, "attention", kv_codec_name(kv_codec(codec)), path, name);
}

/* ---- Memory */

static int cuda_open_cache_op(Backend *backend, KvCache *cache, const KvShape *shape, const KvPolicy *policy,
                              const char *what, Error *error) {
    return cuda_open_cache(&cuda(backend)->device, cache, shape, policy, what, error);
}

static void cuda_close_cache_op(Backend *backend, KvCache *cache) {
    (void)backend;
    cuda_close_cache(cache);
}

/* A backend has one model, so one workspace does for all its contexts. */
static int reserve_workspace(CudaBackend *b, const ModelConfig *config, Error *error) {
    size_t size_bytes =
        cuda_attention_workspace(config->n_heads, config->n_kv_heads, config->head_dim, b->device.n_multiprocessors);
    if (b->workspace == NULL)
        b->workspace = cuda_device_allocate(&b->device, size_bytes, "the workspace of attention", error);
    return b->workspace == NULL ? error->code : 0;
}

static int cuda_reserve(Backend *backend, const ModelConfig *config, size_t n_tokens, Error *error) {
    CudaBackend *b = cuda(backend);
    if (cuda_weights_ready(&b->weights, error) < 0 || reserve_workspace(b, config, error) < 0 ||
        cuda_products_reserve(&b->products, b->weights.matrices, b->weights.n_matrices, n_tokens, error) < 0)
        return error->code;
    if (n_tokens <= b->batches.n_max)
        return 0;
    size_t size_bytes = n_tokens * config->n_embd * sizeof *b->scratch;
    float *scratch = cuda_device_allocate(&b->device, size_bytes, "activations", error);
    if (scratch == NULL)
        return error->code;
    cuda_device_release(b->scratch);
    b->scratch = scratch;
    return cuda_batches_reserve(&b->batches, &b->device, n_tokens, error);
}

/* Pageable memory is copied before the call returns. */
static int cuda_write(Backend *backend, void *to, const void *host, size_t size_bytes, Error *error) {
    return cuda_check(cudaMemcpyAsync(to, host, size_bytes, cudaMemcpyHostToDevice, cuda(backend)->device.stream),
                      "writing to the GPU", error);
}

/* What has failed of all that was launched so far. */
static cudaError_t failure(CudaBackend *b) {
    cudaError_t last = cudaGetLastError();
    return b->batches.failure != cudaSuccess ? b->batches.failure : last;
}

/* Until all of the stream is through, but for what failed already. */
static int wait_for_results(CudaBackend *b, cudaError_t status, Error *error) {
    if (status == cudaSuccess)
        status = cudaStreamSynchronize(b->device.stream);
    return cuda_check(status, "reading results", error) < 0 ? error->code : cuda_products_check(&b->products, error);
}

static int cuda_read(Backend *backend, void *host, const void *from, size_t size_bytes, Error *error) {
    CudaBackend *b = cuda(backend);
    cudaError_t status = failure(b);
    if (status == cudaSuccess)
        status = cudaMemcpyAsync(host, from, size_bytes, cudaMemcpyDeviceToHost, b->device.stream);
    return wait_for_results(b, status, error);
}

/* ---- The forward pass */

static bool cuda_begin(Backend *backend, KvCache *cache, const int32_t *tokens, size_t n_tokens, BackendStep **step) {
    CudaBackend *b = cuda(backend);
    CudaCache *device_cache = cuda_cache_of(cache);
    b->cache = cache;
    if (cuda_batch_begin(&b->batches, tokens, n_tokens, cache->n_tokens, step))
        return true;
    cuda_cache_begin_at(device_cache, &b->batches.input->position, b->device.stream);
    if (n_tokens == 1)
        cuda_cache_plan(device_cache, cache->layout.shape.n_layers, true, b->device.stream);
    return false;
}

static void cuda_end(Backend *backend) {
    cuda_batch_end(&cuda(backend)->batches);
}

static void cuda_release_step(Backend *backend, BackendStep *step) {
    (void)backend;
    cuda_step_close(step);
}

static void cuda_turns_op(Backend *backend, const double *frequencies, size_t head_dim, size_t n_tokens,
                          float *rotation) {
    CudaBackend *b = cuda(backend);
    cuda_turns(frequencies, &b->batches.input->position, head_dim, n_tokens, rotation, b->device.stream);
}

static void cuda_turns_back_op(Backend *backend, const KvCache *cache, size_t layer, const double *frequencies,
                               size_t n_tokens, float *rotation) {
    cuda_turns_back(cuda_cache_of(cache), layer, frequencies, cache->layout.shape.head_dim, n_tokens, rotation,
                    cuda(backend)->device.stream);
}

static void cuda_embed_op(Backend *backend, const Tensor *embedding, float scale, size_t n_tokens, float *x) {
    CudaBackend *b = cuda(backend);
    cuda_embed(embedding->uploaded, b->batches.input->tokens, n_tokens, x, b->device.stream);
    if (scale != 1)
        cuda_scale(x, scale, n_tokens * embedding->shape[0], b->device.stream);
}

/* Blocks of threads have read a row before they write it: y may be x. */
static void normalize_rows(const CudaBackend *b, RmsNorm norm, size_t n_rows, const float *x, float *y) {
    cuda_rmsnorm(x, norm.gain->uploaded, norm.eps, norm.gain->shape[0], n_rows, y, b->device.stream);
}

static void cuda_normalize(Backend *backend, RmsNorm norm, size_t n_rows, float *x) {
    normalize_rows(cuda(backend), norm, n_rows, x, x);
}

static void cuda_soft_cap_op(Backend *backend, float cap, size_t n, float *x) {
    cuda_soft_cap(x, cap, n, cuda(backend)->device.stream);
}

static CudaProduct product_of(const WeightProduct *product) {
    const CudaMatrix *w = product->w->uploaded;
    return (CudaProduct){*w, product->bias != NULL ? product->bias->uploaded : NULL, product->y};
}

/* The norm that products are to make of x; where they make none, x becomes the normalised copy. */
static CudaNorm norm_of(CudaBackend *b, RmsNorm norm, const float **x, size_t n_tokens) {
    if (norm.gain == NULL)
        return (CudaNorm){0};
    if (cuda_matvec_norms(norm.gain->shape[0], n_tokens))
        return (CudaNorm){norm.gain->uploaded, norm.eps};
    normalize_rows(b, norm, n_tokens, *x, b->scratch);
    *x = b->scratch;
    return (CudaNorm){0};
}

static void cuda_matmul(Backend *backend, const WeightProduct *products, size_t n_products, RmsNorm norm,
                        const float *x, size_t n_tokens) {
    CudaBackend *b = cuda(backend);
    CudaProduct launched[MOST_PRODUCTS];
    for (size_t i = 0; i < n_products; i++)
        launched[i] = product_of(&products[i]);
    CudaNorm left = norm_of(b, norm, &x, n_tokens);
    cuda_products(&b->products, launched, n_products, left, x, n_tokens);
}

/* Few tokens in one launch, where the two matrices are alike. */
static void cuda_matmul_gated(Backend *backend, const WeightProduct gate_up[2], GateActivation activation, RmsNorm norm,
                              const float *x, size_t n_tokens) {
    CudaBackend *b = cuda(backend);
    const CudaProduct products[] = {product_of(&gate_up[0]), product_of(&gate_up[1])};
    CudaNorm left = norm_of(b, norm, &x, n_tokens);
    bool silu = activation == GATE_SILU;
    if (silu && n_tokens < CUDA_BLAS_TOKENS && cuda_matvec_gates(&products[0].w, &products[1].w)) {
        cuda_matvec_gate(products, left, x, n_tokens, b->device.stream);
        return;
    }
    cuda_products(&b->products, products, 2, left, x, n_tokens);
    (silu ? cuda_swiglu : cuda_geglu)(gate_up[0].y, gate_up[1].y, n_tokens * products[0].w.n_rows, b->device.stream);
}

/* Kernels that sum in F32 add where they write; what cuBLAS makes is in parts, and is added as a whole, and so is what
 * is normalised first. */
static void cuda_matmul_add(Backend *backend, const WeightProduct *product, RmsNorm norm, const float *x,
                            size_t n_tokens) {
    CudaBackend *b = cuda(backend);
    CudaProduct launched = product_of(product);
    if (n_tokens < CUDA_BLAS_TOKENS && norm.gain == NULL) {
        cuda_matvec_add(&launched, x, n_tokens, b->device.stream);
        return;
    }
    launched.y = b->scratch;
    cuda_products(&b->products, &launched, 1, (CudaNorm){0}, x, n_tokens);
    if (norm.gain != NULL)
        normalize_rows(b, norm, n_tokens, b->scratch, b->scratch);
    cuda_add(product->y, b->scratch, n_tokens * launched.w.n_rows, b->device.stream);
}

static CudaBatch batch_of(KvCache *cache, size_t layer, size_t n_tokens, size_t n_heads, RopePairing pairing) {
    const KvShape *shape = &cache->layout.shape;
    return (CudaBatch){.cache = cuda_cache_of(cache),
                       .layer = layer,
                       .n_tokens = n_tokens,
                       .n_heads = n_heads,
                       .n_kv_heads = shape->n_kv_heads,
                       .head_dim = shape->head_dim,
                       .row_dim = cache->layout.row_dim,
                       .group = cache->layout.policy.group,
                       .pairing = pairing,
                       .commits = n_tokens == 1 && !is_padded(&cache->layout) &&
                                  cuda_attention_is_fused(shape->head_dim, n_heads / shape->n_kv_heads)};
}

static void cuda_append(Backend *backend, KvCache *cache, size_t layer, size_t n_tokens, size_t n_heads,
                        RopePairing pairing, const float *rotation, float *q, float *k, const float *v) {
    cudaStream_t stream = cuda(backend)->device.stream;
    CudaBatch batch = batch_of(cache, layer, n_tokens, n_heads, pairing);
    if (layer == 0 && cache != cuda(backend)->cache) { /* an evaluator's */
        cuda_cache_begin(batch.cache, cache->n_tokens, stream);
        cuda_cache_plan(batch.cache, cache->layout.shape.n_layers, true, stream);
    }
    cuda_cache_append(&batch, &(CudaRows){rotation, q, k, v}, stream);
}

static void cuda_attention(Backend *backend, KvCache *cache, size_t layer, size_t n_tokens, size_t n_heads,
                           RopePairing pairing, ScoreForm scores, const float *q, const float *shift_rotation,
                           float *out) {
    CudaBackend *b = cuda(backend);
    (void)scores; /* the usual ones: cuda_lacks() */
    CudaBatch batch = batch_of(cache, layer, n_tokens, n_heads, pairing);
    CudaAttention attention = {.cache = batch.cache,
                               .layer = layer,
                               .n_tokens = n_tokens,
                               .n_heads = n_heads,
                               .n_kv_heads = batch.n_kv_heads,
                               .head_dim = batch.head_dim,
                               .pairing = pairing,
                               .q = q,
                               .shift_rotation = shift_rotation,
                               .out = out,
                               .workspace = b->workspace,
                               .n_multiprocessors = b->device.n_multiprocessors};
    if (batch.commits) {
        cuda_attend_fused(&attention, b->device.stream);
        return;
    }
    if (!is_padded(&cache->layout) && cuda_attention_has_prefill(batch.head_dim, n_heads / batch.n_kv_heads))
        cuda_attend_prefill(&attention, b->device.stream);
    else
        cuda_attend_plain(&attention, b->device.stream);
    cuda_cache_commit(&batch, b->device.stream);
}

static void cuda_find_best_op(Backend *backend, const float *logits, size_t n) {
    cuda_batch_find_best(&cuda(backend)->batches, logits, n);
}

static int cuda_read_best(Backend *backend, int32_t *token, Error *error) {
    CudaBackend *b = cuda(backend);
    if (wait_for_results(b, failure(b), error) < 0)
        return error->code;
    *token = cuda_best_token(*b->batches.host_best);
    return 0;
}

static void cuda_mark_op(Backend *backend, size_t index) {
    cuda_batch_mark(&cuda(backend)->batches, index);
}

static int cuda_elapsed_op(Backend *backend, size_t from, size_t to, double *seconds, Error *error) {
    return cuda_batch_elapsed(&cuda(backend)->batches, from, to, seconds, error);
}

static int cuda_measure_copies_op(Backend *backend, CopyBandwidth *out, Error *error) {
    return cuda_measure_copies(&cuda(backend)->device, out, error);
}

static const BackendOps CUDA_OPS = {
    .close = cuda_close,
    .allocate = cuda_allocate,
    .release = cuda_release,
    .announce = cuda_announce,
    .upload = cuda_upload,
    .lacks = cuda_lacks,
    .name_matmul = cuda_name_matmul,
    .name_attention = cuda_name_attention,
    .open_cache = cuda_open_cache_op,
    .close_cache = cuda_close_cache_op,
    .reserve = cuda_reserve,
    .write = cuda_write,
    .read = cuda_read,
    .begin = cuda_begin,
    .end = cuda_end,
    .release_step = cuda_release_step,
    .turns = cuda_turns_op,
    .turns_back = cuda_turns_back_op,
    .embed = cuda_embed_op,
    .normalize = cuda_normalize,
    .matmul = cuda_matmul,
    .append = cuda_append,
    .attention = cuda_attention,
    .matmul_gated = cuda_matmul_gated,
    .matmul_add = cuda_matmul_add,
    .soft_cap = cuda_soft_cap_op,
    .find_best = cuda_find_best_op,
    .read_best = cuda_read_best,
    .mark = cuda_mark_op,
    .elapsed = cuda_elapsed_op,
    .measure_copies = cuda_measure_copies_op,
};

const KvRecordForm *cuda_backend_records(void) {
    return &KV_FRAGMENT_RECORDS;
}

int cuda_backend_probe(bool *is_there, Error *error) {
    CudaDevice device;
    return cuda_device_probe(&device, is_there, error);
}

int cuda_backend_open(Backend **out, SimdLevel level, int n_threads, Error *error) {
    CudaBackend *b = calloc(1, sizeof *b);
    if (b == NULL)
        return error_memory(error, "the CUDA backend", sizeof *b);
    if (cuda_device_open(&b->device, error) < 0) {
        free(b);
        return error->code;
    }
    b->base = (Backend){.ops = &CUDA_OPS,
                        .device = "cuda",
                        .device_name = b->device.description,
                        .level = level,
                        .records = cuda_backend_records(),
                        .n_threads = n_threads > 0 ? n_threads : cpu_physical_cores()};
    int status = thread_pool_open(&b->pool, b->base.n_threads, error);
    cuda_weights_open(&b->weights, b->pool, b->device.stream);
    if (status == 0)
        status = cuda_products_open(&b->products, &b->device, error);
    if (status == 0)
        status = cuda_batches_open(&b->batches, b->device.stream, error);
    if (status < 0)
        cuda_close(&b->base);
    else
        *out = &b->base;
    return status;
}

/* The seam between the model and what computes it. A backend fills one table; forward.c is written against it and knows
 * no other. Activations, weights and the cache live in the backend's memory: pointers that it allocated are handed back
 * to it and never read by others.
 *
 *     Backend *backend;
 *     if (cpu_backend_open(&backend, level, n_threads, &error) < 0) …
 *     backend->ops->matmul(backend, &(WeightProduct){&weight, y, NULL}, 1, (RmsNorm){&gain, eps}, x, n_tokens);
 *     backend->ops->close(backend);
 */
#ifndef STOWKV_BACKEND_H
#define STOWKV_BACKEND_H

#include "attention/query.h"
#include "base/tensor.h"
#include "checkpoints/roles.h"

typedef struct Backend Backend;
typedef struct BackendStep BackendStep; /* a backend's own */

/* y = x w^T + bias */
typedef struct WeightProduct {
    const Tensor *w;    /* {n_columns, n_rows} TENSOR_MATRIX */
    float *y;           /* (n_tokens, n_rows) */
    const Tensor *bias; /* {n_rows} TENSOR_VECTOR, added in F32 to each whole sum; NULL: none */
} WeightProduct;

/* gain * x / sqrt(mean(x^2) + eps) (Zhang & Sennrich 2019) */
typedef struct RmsNorm {
    const Tensor *gain; /* {n_columns} TENSOR_VECTOR; NULL: x as it is */
    float eps;
} RmsNorm;

#define KERNEL_NAME_BYTES 64

/* How fast a device copies within its memory: the roof over everything that reads weights and a cache once a token. */
typedef struct CopyBandwidth {
    double bytes_per_second; /* read and written */
    size_t buffer_bytes;     /* that were copied, larger than the caches where there was memory for it */
    size_t cache_bytes;      /* of the last level */
} CopyBandwidth;

typedef struct BackendOps {
    void (*close)(Backend *backend);

    /* Zeroed memory for activations; NULL, with an error, where there is not enough. */
    void *(*allocate)(Backend *backend, size_t size_bytes, const char *what, Error *error);
    void (*release)(Backend *backend, void *memory, size_t size_bytes); /* NULL is fine */

    /* Tells of what upload() will be given, all of it before the first upload(): a device makes one piece of memory for
     * that. NULL where it is no use. */
    int (*announce)(Backend *backend, Tensor *const *tensors, size_t n_tensors, TensorUse use, Error *error);

    /* Sets each tensor's `uploaded` where the backend makes a form of its own; it never reads `data` again then.
     * embed() takes a tensor that was uploaded as a matrix too. The matrices of one Product (checkpoints/roles.h) come
     * in one call, in the order of their matmul(), so that each thread's share of them can lie near it. */
    int (*upload)(Backend *backend, Tensor *const *tensors, size_t n_tensors, TensorUse use, Error *error);

    /* What a model asks for that the backend does not have, "a sliding window"; NULL: nothing. NULL itself where it has
     * all. See backend_check(). */
    const char *(*lacks)(const ModelConfig *config);

    /* Names of the kernels that compute products of so many tokens with a matrix, and attention to keys or values of a
     * codec in a cache: "matmul_q4_1_int16_avx512vnni" quantizes activations to 16 bits, "attention_f16_f32_avx512vnni" does not. */
    void (*name_matmul)(const Backend *backend, const Tensor *w, size_t n_tokens, char name[KERNEL_NAME_BYTES]);
    void (*name_attention)(const Backend *backend, KvCodecId codec, const KvCacheLayout *layout,
                           char name[KERNEL_NAME_BYTES]);

    /* A cache in the backend's memory, empty, and its end (twice is fine). `what` is for messages: "the KV cache". */
    int (*open_cache)(Backend *backend, KvCache *cache, const KvShape *shape, const KvPolicy *policy, const char *what,
                      Error *error);
    void (*close_cache)(Backend *backend, KvCache *cache);

    /* Scratch memory for batches of up to n_tokens of this model; after all uploads, before the first batch. */
    int (*reserve)(Backend *backend, const ModelConfig *config, size_t n_tokens, Error *error);

    int (*write)(Backend *backend, void *to, const void *host, size_t size_bytes, Error *error); /* host to backend */

    /* Backend to host; waits for all work before it. Fails where a device did. */
    int (*read)(Backend *backend, void *host, const void *from, size_t size_bytes, Error *error);

    /* A batch of tokens (n_tokens), on the host, is about to go through the model, behind those in the cache. Returns
     * true where the backend has done all of its calls already: `step`, if not NULL, is where it may keep a recording
     * of the calls for one token, which are the same each time but for what begin() is told. */
    bool (*begin)(Backend *backend, KvCache *cache, const int32_t *tokens, size_t n_tokens, BackendStep **step);
    void (*end)(Backend *backend); /* all calls of the batch were made */
    void (*release_step)(Backend *backend, BackendStep *step); /* NULL is fine */

    /* RoPE at the position of each token of the batch. */
    void (*turns)(Backend *backend,
                  const double *frequencies, // (head_dim / 2) radians a position
                  size_t head_dim, size_t n_tokens,
                  float *rotation);          // (n_tokens, head_dim / 2, 2) cosine and sine

    /* RoPE by minus the tokens that each of them no longer sees in this layer. */
    void (*turns_back)(Backend *backend, const KvCache *cache, size_t layer, const double *frequencies,
                       size_t n_tokens, float *rotation);

    void (*embed)(Backend *backend,
                  const Tensor *embedding, // {n_embd, n_vocab}
                  float scale,             // that the rows are multiplied with
                  size_t n_tokens,         // of the batch
                  float *x);               // (n_tokens, n_embd)

    /* Normalises rows in place, which have as many elements as the gain. */
    void (*normalize)(Backend *backend, RmsNorm norm, size_t n_rows, float *x);

    /* Products of one x, normalised, with several matrices of n_embd columns. */
    void (*matmul)(Backend *backend, const WeightProduct *products, size_t n_products, RmsNorm norm,
                   const float *x,         // (n_tokens, n_embd)
                   size_t n_tokens);

    /* gate_up[0].y = activation(x gate^T) * (x up^T) (Shazeer 2020), of x normalised; gate_up[1].y is scratch. */
    void (*matmul_gated)(Backend *backend, const WeightProduct gate_up[2], GateActivation activation, RmsNorm norm,
                         const float *x, size_t n_tokens);

    /* One product whose result, normalised, is added to what y holds: a residual. Of at most n_embd rows. */
    void (*matmul_add)(Backend *backend, const WeightProduct *product, RmsNorm norm, const float *x, size_t n_tokens);

    /* x = cap * tanh(x / cap), of n numbers. */
    void (*soft_cap)(Backend *backend, float cap, size_t n, float *x);

    /* Rotates each head of the batch's queries and keys in place (Su et al. 2021), takes keys and values into one layer
     * of the cache, and encodes the groups that leave a tier. */
    void (*append)(Backend *backend, KvCache *cache, size_t layer, size_t n_tokens, size_t n_heads,
                   RopePairing pairing,
                   const float *rotation, // (n_tokens, head_dim / 2, 2) turns(); NULL: they are rotated already
                   float *q,              // (n_tokens, n_heads, head_dim)
                   float *k,              // (n_tokens, n_kv_heads, head_dim)
                   const float *v);       // (n_tokens, n_kv_heads, head_dim)

    /* Each token of the batch attends to what the cache's view shows it; adds to the layer's counters. Afterwards the
     * batch is part of the cache's tail in this layer. */
    void (*attention)(Backend *backend, KvCache *cache, size_t layer, size_t n_tokens, size_t n_heads,
                      RopePairing pairing, ScoreForm scores,
                      const float *q,              // (n_tokens, n_heads, head_dim) rotated
                      const float *shift_rotation, // (n_tokens, head_dim / 2, 2) turns_back(); NULL where nothing is
                                                   // ever dropped
                      float *out);                 // (n_tokens, n_heads, head_dim)


    /* The most likely token, without its logits leaving the device: find_best() looks for the largest of n of them, the
     * lowest id among equals, as a step's last call; read_best() waits for it. -1: some logit is not finite. Both NULL
     * where logits lie in the host's memory, which finds it itself. */
    void (*find_best)(Backend *backend, const float *logits, size_t n);
    int (*read_best)(Backend *backend, int32_t *token, Error *error);

    /* A device's clock, for who times the calls; both NULL where a call is through when it returns. mark() has the device
     * note, under this index (from 0 on, few), when all calls so far are through; within a recorded step it does so each
     * time that the step is done. elapsed() waits for mark `to` and tells the seconds since mark `from`. */
    void (*mark)(Backend *backend, size_t index);
    int (*elapsed)(Backend *backend, size_t from, size_t to, double *seconds, Error *error);

    /* Of a device; NULL where the host's threads read the backend's memory, whose speed they can measure. */
    int (*measure_copies)(Backend *backend, CopyBandwidth *out, Error *error);
} BackendOps;

struct Backend {
    const BackendOps *ops;
    const char *device;          /* "cpu" */
    const char *device_name;     /* "NVIDIA H100 80GB HBM3, sm_90"; NULL of the CPU */
    SimdLevel level;             /* instruction set of the host's kernels */
    const KvRecordForm *records; /* the form in which append() stores and attention() reads them */
    int n_threads;
    Error passed_over;           /* why a device that is there does not compute instead; code 0: there is none */
};

/* ERROR_UNSUPPORTED where the backend lacks what the model asks for. */
int backend_check(const Backend *backend, const ModelConfig *config, Error *error);

#endif

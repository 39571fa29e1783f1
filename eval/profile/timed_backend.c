/* See timed_backend.h. */
#include "eval/profile/timed_backend.h"

#include "base/array.h"
#include "base/machine/clock.h"

#include <math.h>
#include <stdlib.h>

/* The calls of a step, in order. Mark 0 is set before the step, 1 behind what begin() does, and one behind each call.
 */
typedef struct CallList {
    ProfileCall *items;
    size_t count;
} CallList;

/* What a recorded step does when it is done again. */
typedef struct Recording {
    BackendStep *step;
    CallList calls;
    struct Recording *next;
} Recording;

typedef struct TimedBackend {
    Backend base;
    BackendOps ops;
    Backend *inner;
    Profile *profile;
    size_t layer; /* that calls are in: append() and attention() tell, the feed-forward network ends it */

    /* Of a device. */
    bool has_marks;
    Recording *recordings; /* owned */
    CallList unrecorded;   /* of a step that is not recorded */
    CallList *calls;       /* of the step under way, or of the one whose marks are not read; NULL: none */
} TimedBackend;

/* What is forgotten here would be called with the wrong backend. */
#define N_OPS 31
_Static_assert(sizeof(BackendOps) == N_OPS * sizeof(void (*)(void)), "a new operation needs a function here");

static TimedBackend *timed(Backend *backend) {
    return (TimedBackend *)backend;
}

static const Backend *inner_of(const Backend *backend) {
    return ((const TimedBackend *)backend)->inner;
}

/* ---- A device's marks */

static void add_call(TimedBackend *t, const ProfileCall *call) {
    Error error;
    ProfileCall *items =
        array_for_one_more(t->calls->items, t->calls->count, sizeof *items, "the calls of a step", &error);
    if (items == NULL) {
        t->profile->out_of_memory = true;
        return;
    }
    t->calls->items = items;
    t->calls->items[t->calls->count++] = *call;
    t->inner->ops->mark(t->inner, t->calls->count);
}

/* The list of a step that the backend keeps a recording of, or will. */
static CallList *calls_of(TimedBackend *t, BackendStep *step) {
    Recording *r = t->recordings;
    while (r != NULL && r->step != step)
        r = r->next;
    if (r != NULL || step == NULL)
        return r != NULL ? &r->calls : &t->unrecorded;
    r = calloc(1, sizeof *r);
    if (r == NULL) {
        t->profile->out_of_memory = true;
        return &t->unrecorded;
    }
    *r = (Recording){.step = step, .next = t->recordings};
    t->recordings = r;
    return &r->calls;
}

/* Reads the marks of the step that is through. What the host has waited beyond them is launching, and reading. A device
 * that fails tells the caller. */
static void collect(TimedBackend *t) {
    const CallList *calls = t->calls;
    Error error;
    double begin = clock_seconds(), before = 0, after;
    t->calls = NULL;
    if (calls == NULL || t->profile->n_steps == 0) /* of a profile that was given up */
        return;
    const ProfileStep *step = &t->profile->steps[t->profile->n_steps - 1];
    double start = t->profile->start + step->begin;
    for (size_t i = 0; i < calls->count; i++, before = after) {
        if (t->inner->ops->elapsed(t->inner, 0, i + 1, &after, &error) < 0)
            return;
        profile_add(t->profile, &calls->items[i], start + before, after - before);
    }
    profile_add(t->profile, &(ProfileCall){.op = PROFILE_READ}, start + before,
                fmax(0, step->end - step->begin - before));
    profile_count(t->profile, &(ProfileCall){.op = PROFILE_CLOCK}, begin);
}

/* ---- Calls */

/* A call from `begin` on was made. */
static void count(TimedBackend *t, ProfileOp op, size_t layer, double begin, double bytes, double flops) {
    ProfileCall call = {op, layer, bytes, flops};
    if (t->has_marks && t->calls != NULL)
        add_call(t, &call);
    else
        profile_count(t->profile, &call, begin);
}

/* ---- Handed on */

static void *timed_allocate(Backend *backend, size_t size_bytes, const char *what, Error *error) {
    Backend *inner = timed(backend)->inner;
    return inner->ops->allocate(inner, size_bytes, what, error);
}

static void timed_release(Backend *backend, void *memory, size_t size_bytes) {
    Backend *inner = timed(backend)->inner;
    inner->ops->release(inner, memory, size_bytes);
}

static int timed_announce(Backend *backend, Tensor *const *tensors, size_t n_tensors, TensorUse use, Error *error) {
    Backend *inner = timed(backend)->inner;
    return inner->ops->announce(inner, tensors, n_tensors, use, error);
}

static int timed_upload(Backend *backend, Tensor *const *tensors, size_t n_tensors, TensorUse use, Error *error) {
    Backend *inner = timed(backend)->inner;
    return inner->ops->upload(inner, tensors, n_tensors, use, error);
}

static void timed_name_matmul(const Backend *backend, const Tensor *w, size_t n_tokens, char name[KERNEL_NAME_BYTES]) {
    const Backend *inner = inner_of(backend);
    inner->ops->name_matmul(inner, w, n_tokens, name);
}

static void timed_name_attention(const Backend *backend, KvCodecId codec, const KvCacheLayout *layout,
                                 char name[KERNEL_NAME_BYTES]) {
    const Backend *inner = inner_of(backend);
    inner->ops->name_attention(inner, codec, layout, name);
}

static int timed_open_cache(Backend *backend, KvCache *cache, const KvShape *shape, const KvPolicy *policy,
                            const char *what, Error *error) {
    Backend *inner = timed(backend)->inner;
    return inner->ops->open_cache(inner, cache, shape, policy, what, error);
}

static void timed_close_cache(Backend *backend, KvCache *cache) {
    Backend *inner = timed(backend)->inner;
    inner->ops->close_cache(inner, cache);
}

static int timed_reserve(Backend *backend, const ModelConfig *config, size_t n_tokens, Error *error) {
    Backend *inner = timed(backend)->inner;
    return inner->ops->reserve(inner, config, n_tokens, error);
}

static int timed_write(Backend *backend, void *to, const void *host, size_t size_bytes, Error *error) {
    Backend *inner = timed(backend)->inner;
    return inner->ops->write(inner, to, host, size_bytes, error);
}

static void timed_release_step(Backend *backend, BackendStep *step) {
    TimedBackend *t = timed(backend);
    for (Recording **r = &t->recordings; *r != NULL && step != NULL; r = &(*r)->next)
        if ((*r)->step == step) {
            Recording *gone = *r;
            *r = gone->next;
            free(gone->calls.items);
            free(gone);
            break;
        }
    t->inner->ops->release_step(t->inner, step);
}

static const char *timed_lacks(const ModelConfig *config) {
    (void)config; /* the other one was asked */
    return NULL;
}

static int timed_measure_copies(Backend *backend, CopyBandwidth *out, Error *error) {
    Backend *inner = timed(backend)->inner;
    return inner->ops->measure_copies(inner, out, error);
}

/* ---- Timed */

static bool timed_begin(Backend *backend, KvCache *cache, const int32_t *tokens, size_t n_tokens, BackendStep **step) {
    TimedBackend *t = timed(backend);
    if (t->calls != NULL) { /* whose result nobody wanted */
        double seconds;
        Error error;
        t->inner->ops->elapsed(t->inner, 0, t->calls->count, &seconds, &error);
        profile_step_end(t->profile);
        collect(t);
    }
    t->layer = 0;
    profile_step_begin(t->profile, cache, n_tokens);
    if (t->has_marks)
        t->inner->ops->mark(t->inner, 0);
    bool is_done = t->inner->ops->begin(t->inner, cache, tokens, n_tokens, step);
    if (!t->has_marks)
        return is_done;
    t->calls = calls_of(t, step != NULL ? *step : NULL);
    if (!is_done) {
        t->calls->count = 0;
        add_call(t, &(ProfileCall){.op = PROFILE_BEGIN});
    }
    return is_done;
}

static void timed_end(Backend *backend) {
    TimedBackend *t = timed(backend);
    t->inner->ops->end(t->inner);
    profile_step_end(t->profile);
}

/* A result was read: the step is through. */
static void count_result(TimedBackend *t, double begin, size_t size_bytes) {
    if (t->calls == NULL)
        profile_count(t->profile, &(ProfileCall){PROFILE_READ, 0, 2.0 * (double)size_bytes, 0}, begin);
    profile_step_end(t->profile);
    collect(t);
}

static int timed_read(Backend *backend, void *host, const void *from, size_t size_bytes, Error *error) {
    TimedBackend *t = timed(backend);
    double begin = clock_seconds();
    int status = t->inner->ops->read(t->inner, host, from, size_bytes, error);
    count_result(t, begin, size_bytes);
    return status;
}

static void timed_turns(Backend *backend, const double *frequencies, size_t head_dim, size_t n_tokens,
                        float *rotation) {
    TimedBackend *t = timed(backend);
    double begin = clock_seconds();
    t->inner->ops->turns(t->inner, frequencies, head_dim, n_tokens, rotation);
    count(t, PROFILE_ANGLES, 0, begin, (double)(n_tokens * head_dim * sizeof *rotation), 0);
}

static void timed_turns_back(Backend *backend, const KvCache *cache, size_t layer, const double *frequencies,
                             size_t n_tokens, float *rotation) {
    TimedBackend *t = timed(backend);
    double begin = clock_seconds(), head_dim = (double)cache->layout.shape.head_dim;
    t->inner->ops->turns_back(t->inner, cache, layer, frequencies, n_tokens, rotation);
    count(t, PROFILE_ANGLES, layer, begin, (double)n_tokens * head_dim * sizeof *rotation, 0);
}

static void timed_embed(Backend *backend, const Tensor *embedding, float scale, size_t n_tokens, float *x) {
    TimedBackend *t = timed(backend);
    double begin = clock_seconds(), n_embd = (double)embedding->shape[0];
    double row_bytes = (double)embedding->size_bytes / (double)tensor_n_rows(embedding);
    t->inner->ops->embed(t->inner, embedding, scale, n_tokens, x);
    count(t, PROFILE_EMBED, 0, begin, (double)n_tokens * (row_bytes + n_embd * sizeof *x), 0);
}

/* Weights, what goes in and what comes out. */
static void count_product(TimedBackend *t, ProfileOp op, double begin, const WeightProduct *products, size_t n_products,
                          size_t n_tokens) {
    double bytes = (double)(n_tokens * products[0].w->shape[0] * sizeof(float)), flops = 0;
    for (size_t i = 0; i < n_products; i++) {
        const Tensor *w = products[i].w;
        double n_rows = (double)tensor_n_rows(w);
        bytes += (double)w->size_bytes + (double)n_tokens * n_rows * sizeof(float);
        flops += 2 * (double)n_tokens * n_rows * (double)w->shape[0];
    }
    count(t, op, t->layer, begin, bytes, flops);
}

static void timed_matmul(Backend *backend, const WeightProduct *products, size_t n_products, RmsNorm norm,
                         const float *x, size_t n_tokens) {
    TimedBackend *t = timed(backend);
    double begin = clock_seconds();
    t->inner->ops->matmul(t->inner, products, n_products, norm, x, n_tokens);
    t->layer = n_products > 1 ? t->layer : 0; /* the logits belong to none */
    count_product(t, n_products > 1 ? PROFILE_QKV : PROFILE_LOGITS, begin, products, n_products, n_tokens);
}

static void timed_matmul_gated(Backend *backend, const WeightProduct gate_up[2], GateActivation activation,
                               RmsNorm norm, const float *x, size_t n_tokens) {
    TimedBackend *t = timed(backend);
    double begin = clock_seconds();
    t->inner->ops->matmul_gated(t->inner, gate_up, activation, norm, x, n_tokens);
    count_product(t, PROFILE_GATE_UP, begin, gate_up, 2, n_tokens);
}

/* Of queries and keys, before they enter the cache. */
static void timed_normalize(Backend *backend, RmsNorm norm, size_t n_rows, float *x) {
    TimedBackend *t = timed(backend);
    double begin = clock_seconds(), n_bytes = (double)(n_rows * norm.gain->shape[0] * sizeof *x);
    t->inner->ops->normalize(t->inner, norm, n_rows, x);
    count(t, PROFILE_APPEND, t->layer, begin, 2 * n_bytes, 0);
}

static void timed_soft_cap(Backend *backend, float cap, size_t n, float *x) {
    TimedBackend *t = timed(backend);
    double begin = clock_seconds();
    t->inner->ops->soft_cap(t->inner, cap, n, x);
    count(t, PROFILE_LOGITS, 0, begin, 2.0 * (double)(n * sizeof *x), 0);
}

/* The product behind attention, or the one that ends a layer. */
static void timed_matmul_add(Backend *backend, const WeightProduct *product, RmsNorm norm, const float *x,
                             size_t n_tokens) {
    TimedBackend *t = timed(backend);
    bool ends_layer = sv_find(product->w->name, sv("ffn_down"), 0) < product->w->name.length;
    double begin = clock_seconds();
    t->inner->ops->matmul_add(t->inner, product, norm, x, n_tokens);
    count_product(t, ends_layer ? PROFILE_FFN_DOWN : PROFILE_ATTN_OUTPUT, begin, product, 1, n_tokens);
    t->layer += ends_layer;
}

static void timed_append(Backend *backend, KvCache *cache, size_t layer, size_t n_tokens, size_t n_heads,
                         RopePairing pairing, const float *rotation, float *q, float *k, const float *v) {
    TimedBackend *t = timed(backend);
    double begin = clock_seconds(), q_elements = (double)(n_tokens * n_heads * cache->layout.shape.head_dim);
    t->inner->ops->append(t->inner, cache, layer, n_tokens, n_heads, pairing, rotation, q, k, v);
    count(t, PROFILE_APPEND, layer, begin, 2 * q_elements * sizeof *q, 0); /* what is stored: later */
}

static void timed_attention(Backend *backend, KvCache *cache, size_t layer, size_t n_tokens, size_t n_heads,
                            RopePairing pairing, ScoreForm scores, const float *q, const float *shift_rotation,
                            float *out) {
    TimedBackend *t = timed(backend);
    double begin = clock_seconds(), q_elements = (double)(n_tokens * n_heads * cache->layout.shape.head_dim);
    t->inner->ops->attention(t->inner, cache, layer, n_tokens, n_heads, pairing, scores, q, shift_rotation, out);
    count(t, PROFILE_ATTENTION, layer, begin, 2 * q_elements * sizeof *q, 0); /* what is read: later */
}

static void timed_find_best(Backend *backend, const float *logits, size_t n) {
    TimedBackend *t = timed(backend);
    double begin = clock_seconds();
    t->inner->ops->find_best(t->inner, logits, n);
    count(t, PROFILE_READ, 0, begin, (double)(n * sizeof *logits), 0);
}

static int timed_read_best(Backend *backend, int32_t *token, Error *error) {
    TimedBackend *t = timed(backend);
    double begin = clock_seconds();
    int status = t->inner->ops->read_best(t->inner, token, error);
    count_result(t, begin, sizeof *token);
    return status;
}

/* ---- Opening */

static void timed_close(Backend *backend) {
    if (backend == NULL)
        return;
    Backend *inner = timed_backend_close(backend);
    inner->ops->close(inner);
}

static const BackendOps TIMED_OPS = {
    .close = timed_close,
    .allocate = timed_allocate,
    .release = timed_release,
    .announce = timed_announce,
    .upload = timed_upload,
    .name_matmul = timed_name_matmul,
    .name_attention = timed_name_attention,
    .open_cache = timed_open_cache,
    .close_cache = timed_close_cache,
    .reserve = timed_reserve,
    .write = timed_write,
    .read = timed_read,
    .begin = timed_begin,
    .end = timed_end,
    .release_step = timed_release_step,
    .turns = timed_turns,
    .turns_back = timed_turns_back,
    .embed = timed_embed,
    .matmul = timed_matmul,
    .matmul_gated = timed_matmul_gated,
    .matmul_add = timed_matmul_add,
    .normalize = timed_normalize,
    .soft_cap = timed_soft_cap,
    .lacks = timed_lacks,
    .append = timed_append,
    .attention = timed_attention,
    .find_best = timed_find_best,
    .read_best = timed_read_best,
    .measure_copies = timed_measure_copies, /* no marks: nobody times this */
};

/* What the other one lacks, this one lacks too. */
static void leave_out(BackendOps *ops, const BackendOps *inner) {
    if (inner->announce == NULL)
        ops->announce = NULL;
    if (inner->find_best == NULL) {
        ops->find_best = NULL;
        ops->read_best = NULL;
    }
    if (inner->measure_copies == NULL)
        ops->measure_copies = NULL;
}

int timed_backend_open(Backend **out, Backend *inner, Profile *profile, Error *error) {
    TimedBackend *t = malloc(sizeof *t);
    if (t == NULL)
        return error_memory(error, "the profiler", sizeof *t);
    *t = (TimedBackend){
        .base = *inner, .ops = TIMED_OPS, .inner = inner, .profile = profile, .has_marks = inner->ops->mark != NULL};
    t->base.ops = &t->ops;
    leave_out(&t->ops, inner->ops);
    *out = &t->base;
    return 0;
}

Backend *timed_backend_close(Backend *backend) {
    if (backend == NULL)
        return NULL;
    TimedBackend *t = timed(backend);
    Backend *inner = t->inner;
    while (t->recordings != NULL) { /* of contexts that are open still */
        Recording *next = t->recordings->next;
        free(t->recordings->calls.items);
        free(t->recordings);
        t->recordings = next;
    }
    free(t->unrecorded.items);
    free(t);
    return inner;
}

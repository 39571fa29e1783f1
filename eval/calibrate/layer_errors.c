/* See layer_errors.h. */
#include "eval/calibrate/layer_errors.h"

#include "eval/side_caches.h"

#include <stdlib.h>

struct LayerErrors {
    Context *context; /* not owned */
    SideCaches side;  /* one for each policy */
    size_t first_token;
    size_t n_tokens;  /* of the window that have come */
    float *projected; /* (n_batch, n_embd) in the backend's memory */
    size_t projected_bytes;
    float *zeros, *x, *exact, *rounded; /* (n_batch, n_embd) on the host */
    double *sums;                       /* (n_policies, n_layers) */
};

/* What attention adds to the residual stream, on the host; model/forward.c computes it so. */
static int project(LayerErrors *e, size_t layer, const float *attended, size_t n_tokens, float *host) {
    const Model *model = e->context->model;
    const LayerWeights *w = &model->weights.layers[layer];
    Backend *b = model->backend;
    RmsNorm norm = {w->attn_post_norm.data != NULL ? &w->attn_post_norm : NULL, model->checkpoint.config.norm_eps};
    size_t bytes = n_tokens * model->checkpoint.config.n_embd * sizeof(float);
    if (b->ops->write(b, e->projected, e->zeros, bytes, NULL) < 0)
        return ERROR_IO;
    b->ops->matmul_add(b, &(WeightProduct){&w->attn_output, e->projected, NULL}, norm, attended, n_tokens);
    return b->ops->read(b, host, e->projected, bytes, NULL);
}

static double square_of(const float *a, const float *b, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        double difference = (double)a[i] - (double)b[i];
        sum += difference * difference;
    }
    return sum;
}

static void add_errors(LayerErrors *e, size_t n_tokens, double *sum) {
    size_t n = e->context->model->checkpoint.config.n_embd;
    for (size_t t = e->n_tokens < e->first_token ? e->first_token - e->n_tokens : 0; t < n_tokens; t++) {
        double size = square_of(e->x + t * n, e->zeros, n);
        if (size > 0)
            *sum += square_of(e->rounded + t * n, e->exact + t * n, n) / size;
    }
}

static void on_attended(void *user, size_t layer, size_t n_tokens) {
    LayerErrors *e = user;
    Context *c = e->context;
    Backend *b = c->model->backend;
    const ModelConfig *config = &c->model->checkpoint.config;
    if (b->ops->read(b, e->x, c->x, n_tokens * config->n_embd * sizeof(float), NULL) < 0 ||
        project(e, layer, c->attended, n_tokens, e->exact) < 0)
        return; /* a device that failed fails again where forward() is through */
    for (size_t i = 0; i < e->side.n; i++) {
        side_caches_attend(&e->side, i, layer, n_tokens);
        if (project(e, layer, e->side.attended, n_tokens, e->rounded) == 0)
            add_errors(e, n_tokens, &e->sums[i * config->n_layers + layer]);
    }
    if (layer + 1 == config->n_layers)
        e->n_tokens += n_tokens;
}

static int allocate(LayerErrors *e, size_t n_policies, Error *error) {
    const Context *c = e->context;
    Backend *b = c->model->backend;
    const ModelConfig *config = &c->model->checkpoint.config;
    size_t n = c->n_batch * config->n_embd;
    e->sums = calloc(n_policies * config->n_layers, sizeof *e->sums);
    e->zeros = calloc(n, sizeof(float));
    e->x = calloc(n, sizeof(float));
    e->exact = calloc(n, sizeof(float));
    e->rounded = calloc(n, sizeof(float));
    if (e->sums == NULL || e->zeros == NULL || e->x == NULL || e->exact == NULL || e->rounded == NULL)
        return error_memory(error, "errors of layers", 4 * n * sizeof(float));
    e->projected_bytes = n * sizeof(float);
    e->projected = b->ops->allocate(b, e->projected_bytes, "a second product", error);
    return e->projected != NULL ? 0 : error->code;
}

int layer_errors_open(LayerErrors **out, Context *context, const KvPolicy *policies, size_t n_policies,
                      size_t first_token, Error *error) {
    LayerErrors *e = calloc(1, sizeof *e);
    if (e == NULL)
        return error_memory(error, "errors of layers", sizeof *e);
    e->context = context;
    e->first_token = first_token;
    if (allocate(e, n_policies, error) < 0 ||
        side_caches_open(&e->side, context, policies, n_policies, on_attended, e, error) < 0) {
        layer_errors_close(e);
        return error->code;
    }
    *out = e;
    return 0;
}

void layer_errors_close(LayerErrors *e) {
    if (e == NULL)
        return;
    Backend *b = e->context->model->backend;
    side_caches_close(&e->side);
    b->ops->release(b, e->projected, e->projected_bytes);
    free(e->sums);
    free(e->zeros);
    free(e->x);
    free(e->exact);
    free(e->rounded);
    free(e);
}

void layer_errors_begin(LayerErrors *e) {
    e->n_tokens = 0;
    side_caches_clear(&e->side);
}

double layer_error(const LayerErrors *e, size_t policy, size_t layer) {
    return e->sums[policy * e->context->model->checkpoint.config.n_layers + layer];
}

/* See measure.h. */
#include "eval/calibrate/measure.h"

#include "base/checked.h"
#include "eval/calibrate/layer_errors.h"
#include "eval/perplexity/evaluation.h"
#include "kvcache/policy_check.h"

#include <stdio.h>
#include <stdlib.h>

#define REFERENCE_BITS   3 /* errors that stand out from the arithmetic's, and are still small */
#define POLICIES_AT_ONCE 8 /* of an evaluation, the full cache counted: each has a cache */

typedef struct Measurement {
    const CalibrationTask *task;
    Calibration *out;
    size_t n_layers;
    bool rotates;        /* rows can be rotated */
    KvCodecId reference; /* codec of D */
    double *divergence;  /* (KV_SIDES, n_layers) D */
    Progress progress;
    size_t n_done; /* tokens that went through the model */
} Measurement;

/* ---- Policies */

static KvPolicy policy_with(const Measurement *m, KvSide side, bool rotated, KvCodecId codec) {
    KvPolicy policy = m->task->preset;
    KvTier *tier = &policy.rules[0].policy.tiers[1];
    policy.rotation = rotated ? KV_ROTATE_ON : KV_ROTATE_OFF;
    tier->k = side == KV_KEYS ? codec : KV_F16;
    tier->v = side == KV_VALUES ? codec : KV_F16;
    return policy;
}

/* The same in one layer alone. */
static KvPolicy policy_of_layer(const Measurement *m, size_t layer, KvSide side) {
    KvPolicy policy = policy_with(m, side, m->rotates, m->reference);
    policy.rules[0].first_layer = policy.rules[0].last_layer = layer;
    policy.rules[policy.n_rules++] = kv_policy_full().rules[0];
    return policy;
}

static bool is_candidate(const Measurement *m, KvCodecId codec) {
    const ModelConfig *config = &m->task->model->checkpoint.config;
    KvPolicy policy = policy_with(m, KV_KEYS, false, codec);
    return codec != KV_F16 && codec != KV_BINARY && kv_policy_row_dim(&policy, config->head_dim) == config->head_dim &&
           kv_policy_check(&policy, config->n_layers, config->head_dim, m->task->windows.context, NULL) == 0;
}

/* The candidate whose bits are nearest to REFERENCE_BITS. */
static int choose_reference(Measurement *m, Error *error) {
    int nearest = 16;
    for (KvCodecId codec = 0; codec < KV_CODEC_COUNT; codec++) {
        int distance = abs(kv_codec_nominal_bits(kv_codec(codec)) - REFERENCE_BITS);
        if (is_candidate(m, codec) && distance < nearest) {
            m->reference = codec;
            nearest = distance;
        }
    }
    return nearest < 16 ? 0
                        : error_set(error, ERROR_UNSUPPORTED,
                                    "no codec has rows of %zu elements without padding; give policies by hand",
                                    m->task->model->checkpoint.config.head_dim);
}

/* ---- E */

static bool is_interrupted(const Measurement *m) {
    return m->task->interrupted != NULL && *m->task->interrupted;
}

static int read_window(Measurement *m, Context *context, const PplWindow *window, Error *error) {
    size_t length = window->end - window->begin;
    int32_t batch[DEFAULT_BATCH];
    for (size_t done = 0, n; done < length; done += n) {
        if (is_interrupted(m))
            return error_set(error, ERROR_INTERRUPTED, "interrupted");
        n = context_batch(context, length - done);
        memcpy(batch, m->task->tokens + window->begin + done, n * sizeof *batch);
        if (done == 0 && m->task->bos >= 0)
            batch[0] = m->task->bos;
        progress_show(&m->progress, m->n_done += n, "");
        if (forward(context, batch, n, LOGITS_NONE, error) < 0)
            return error->code;
    }
    return 0;
}

/* The codec's own: for keys and values, rotated and not. The errors stand where the harms will. */
static int measure_codec(Measurement *m, Context *context, const PplWindows *windows, KvCodecId codec, Error *error) {
    KvPolicy policies[2 * KV_SIDES];
    size_t n_rotations = m->rotates ? 2 : 1, n = 0;
    for (KvSide side = 0; side < KV_SIDES; side++)
        for (size_t rotated = 0; rotated < n_rotations; rotated++)
            policies[n++] = policy_with(m, side, rotated > 0, codec);
    LayerErrors *errors;
    const KvLayerPolicy *layer = &m->task->preset.rules[0].policy;
    if (layer_errors_open(&errors, context, policies, n, layer->sink + layer->tiers[0].capacity, error) < 0)
        return error->code;
    int status = 0;
    for (size_t i = 0; i < windows->count && status == 0; i++) {
        context_clear(context);
        layer_errors_begin(errors);
        status = read_window(m, context, &windows->items[i], error);
    }
    for (size_t i = 0; i < n && status == 0; i++) {
        double *out = calibration_add(m->out, i / n_rotations, i % n_rotations > 0, codec);
        if (out == NULL)
            status = error_memory(error, "a calibration", m->n_layers * sizeof *out);
        for (size_t l = 0; l < m->n_layers && status == 0; l++)
            out[l] = layer_error(errors, i, l);
    }
    layer_errors_close(errors);
    return status;
}

static int measure_errors(Measurement *m, Error *error) {
    const KvPolicy full = kv_policy_full();
    PplWindows windows = {0};
    Context context = {0};
    int status = ppl_windows(&m->task->windows, m->task->n_tokens, &windows, error);
    if (status == 0)
        status = context_open(&context, m->task->model, &full, m->task->windows.context, 0, error);
    m->out->chunks = windows.count;
    size_t n_codecs = 0;
    for (KvCodecId codec = 0; codec < KV_CODEC_COUNT; codec++)
        n_codecs += is_candidate(m, codec);
    m->progress = progress_begin("errors of codecs", n_codecs * windows.n_tokens, "tokens");
    for (KvCodecId codec = 0; codec < KV_CODEC_COUNT && status == 0; codec++)
        if (is_candidate(m, codec))
            status = measure_codec(m, &context, &windows, codec, error);
    progress_end(&m->progress);
    context_close(&context);
    ppl_windows_free(&windows);
    return status;
}

/* ---- D */

/* Lists the parts, side * n_layers + layer, of layers that encode anything within a window: one that looks back on no
 * more than its first tier holds does not, and its divergences stay 0. */
static int list_parts(const Measurement *m, size_t *parts, size_t *n_parts, Error *error) {
    const CalibrationTask *task = m->task;
    const KvPolicy policy = policy_with(m, KV_KEYS, m->rotates, m->reference);
    const KvShape shape = model_cache_shape(&task->model->checkpoint.config, task->windows.context, DEFAULT_BATCH);
    KvCacheLayout layout;
    if (kvcache_layout_open(&layout, &shape, &policy, task->model->backend->records, error) < 0)
        return error->code;
    *n_parts = 0;
    for (size_t part = 0; part < KV_SIDES * m->n_layers; part++) {
        size_t layer = part % m->n_layers;
        KvPlan plan =
            kvcache_layer_plan(&layout, layer, shape.n_ctx - 1); /* what the last scored token is predicted from */
        if (plan.n_tiers > 1 && plan.entered[1] > 0)
            parts[(*n_parts)++] = part;
    }
    kvcache_layout_close(&layout);
    return *n_parts > 0 ? 0
                        : error_set(error, ERROR_ARGUMENT,
                                    "in %zu tokens none leaves the sink and the window, in groups of %zu; use a longer "
                                    "--context",
                                    shape.n_ctx, policy.group);
}

static int measure_divergences(Measurement *m, const size_t *parts, size_t n, const char *what, Error *error) {
    const CalibrationTask *task = m->task;
    KvPolicy policies[POLICIES_AT_ONCE] = {kv_policy_full()};
    policies[0].group = task->preset.group;
    for (size_t i = 0; i < n; i++)
        policies[1 + i] = policy_of_layer(m, parts[i] % m->n_layers, parts[i] / m->n_layers);
    Evaluation e = {.model = task->model,
                    .tokens = task->tokens,
                    .bos = task->bos,
                    .n_ctx = task->windows.context,
                    .divergence = true,
                    .what = what,
                    .interrupted = task->interrupted};
    if (ppl_windows(&task->windows, task->n_tokens, &e.windows, error) < 0 ||
        evaluation_open(&e, policies, 1 + n, error) < 0)
        return error->code;
    int status = evaluation_run(&e, error);
    for (size_t i = 0; i < n && status == 0; i++)
        m->divergence[parts[i]] = mean_error(e.modes[1 + i].kld, e.n_scored).mean;
    evaluation_close(&e);
    return status;
}

static int measure_parts(Measurement *m, size_t *parts, Error *error) {
    size_t n_parts;
    char what[64];
    int status = list_parts(m, parts, &n_parts, error);
    for (size_t first = 0, n; first < n_parts && status == 0; first += n) {
        n = at_most(POLICIES_AT_ONCE - 1, n_parts - first);
        snprintf(what, sizeof what, "divergences %zu to %zu of %zu", first + 1, first + n, n_parts);
        status = measure_divergences(m, parts + first, n, what, error);
    }
    return status;
}

static int measure_sensitivity(Measurement *m, Error *error) {
    size_t n = KV_SIDES * m->n_layers, *parts = calloc(n, sizeof *parts);
    int status = parts == NULL ? error_memory(error, "divergences", n * sizeof *parts) : measure_parts(m, parts, error);
    free(parts);
    return status;
}

/* ---- Both */

/* A layer in which the reference makes no error at all has none to tell. */
static void make_harms(Measurement *m) {
    for (KvSide side = 0; side < KV_SIDES; side++)
        for (size_t layer = 0; layer < m->n_layers; layer++) {
            double of_reference = m->out->harms.of[side][m->rotates][m->reference][layer];
            double each = m->divergence[side * m->n_layers + layer];
            each = of_reference > 0 && each > 0 ? each / of_reference : 0;
            for (int rotated = 0; rotated < 2; rotated++)
                for (KvCodecId codec = 0; codec < KV_CODEC_COUNT; codec++)
                    if (m->out->harms.of[side][rotated][codec] != NULL)
                        m->out->harms.of[side][rotated][codec][layer] *= each;
        }
}

static int measure(Measurement *m, Error *error) {
    if (choose_reference(m, error) < 0 || measure_sensitivity(m, error) < 0 || measure_errors(m, error) < 0)
        return error->code;
    make_harms(m);
    return 0;
}

int calibration_measure(const CalibrationTask *task, Calibration *out, Error *error) {
    const ModelConfig *config = &task->model->checkpoint.config;
    const KvLayerPolicy *layer = &task->preset.rules[0].policy;
    Measurement m = {task, out, .n_layers = config->n_layers, .rotates = is_power_of_two(config->head_dim)};
    calibration_open(out, config->n_layers);
    out->context = task->windows.context;
    out->sink = layer->sink;
    out->window = layer->tiers[0].capacity;
    out->group = task->preset.group;
    out->rounding = task->preset.rounding;
    m.divergence = calloc(KV_SIDES * m.n_layers, sizeof *m.divergence);
    int status = m.divergence == NULL ? error_memory(error, "divergences", m.n_layers) : measure(&m, error);
    free(m.divergence);
    if (status < 0)
        calibration_free(out);
    return status;
}

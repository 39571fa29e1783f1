/* Decode attention alone, by codec and depth: a cache of a few layers of Llama-3-8B's shape, filled by the kernels that
 * fill any cache, and one query that attends to it in layer after layer. Layers are as many as exceed the second cache
 * three times, so that what is timed comes from memory. Bytes are those that the kernels count, compared with the plan;
 * the fused kernel's result is compared with the plain one's. */
#include "base/checked.h"
#include "base/options.h"
#include "cuda/attention.h"
#include "cuda/bandwidth.h"
#include "cuda/device_cache.h"
#include "kvcache/policy_check.h"
#include "kvcache/policy_text.h"
#include "tests/gpu/gpu_program.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_DEPTHS = 16, MOST_LAYERS = 64, BATCH = 512 };

typedef struct Settings {
    const char *depths;
    StringList codecs;
    size_t n_heads, n_kv_heads, head_dim, cache_times;
    bool copy, poison, help;
} Settings;

typedef struct Bed {
    const Settings *settings;
    CudaDevice device;
    CopyBandwidth copies;
    float *k, *v;  /* (BATCH, n_kv_heads, head_dim) device */
    float *q;      /* (n_heads, head_dim) device */
    float *out;    /* (n_heads, head_dim) device */
    float *result; /* (n_heads, head_dim) host */
    float *other;  /* the same of another kernel */
    void *workspace;
} Bed;

/* One codec at one depth. */
typedef struct Case {
    Bed *bed;
    const char *codec;
    size_t depth;
    KvPolicy policy;
    KvCache cache;
    bool fused;
} Case;

/* ---- The bed */

static float *upload_normal(Bed *bed, size_t n, uint64_t seed, Error *error) {
    float *host = malloc(n * sizeof *host), *x = cuda_device_allocate(&bed->device, n * sizeof *x, "test data", error);
    if (host != NULL && x != NULL) {
        gpu_fill_normal(host, n, seed);
        if (cuda_check(cudaMemcpyAsync(x, host, n * sizeof *x, cudaMemcpyHostToDevice, bed->device.stream), "test data",
                       error) < 0 ||
            cuda_check(cudaStreamSynchronize(bed->device.stream), "test data", error) < 0) {
            cuda_device_release(x);
            x = NULL;
        }
    }
    free(host);
    return x;
}

static bool has_fused(const Settings *s) {
    return cuda_attention_is_fused(s->head_dim, s->n_heads / s->n_kv_heads);
}

static size_t workspace_bytes(const Bed *bed) {
    const Settings *s = bed->settings;
    return cuda_attention_workspace(s->n_heads, s->n_kv_heads, s->head_dim, bed->device.n_multiprocessors);
}

static int open_bed(Bed *bed, const Settings *s, Error *error) {
    size_t n_kv = BATCH * s->n_kv_heads * s->head_dim, n_q = s->n_heads * s->head_dim;
    *bed = (Bed){.settings = s};
    if (cuda_device_open(&bed->device, error) < 0 || cuda_measure_copies(&bed->device, &bed->copies, error) < 0 ||
        (bed->k = upload_normal(bed, n_kv, 1, error)) == NULL ||
        (bed->v = upload_normal(bed, n_kv, 2, error)) == NULL || (bed->q = upload_normal(bed, n_q, 3, error)) == NULL ||
        (bed->out = upload_normal(bed, n_q, 4, error)) == NULL ||
        (bed->workspace = cuda_device_allocate(&bed->device, workspace_bytes(bed), "a workspace", error)) == NULL)
        return error->code;
    bed->result = calloc(n_q, sizeof *bed->result);
    bed->other = calloc(n_q, sizeof *bed->other);
    return bed->result != NULL && bed->other != NULL ? 0 : error_memory(error, "results", n_q * sizeof *bed->result);
}

static void close_bed(Bed *bed) {
    cuda_device_release(bed->k);
    cuda_device_release(bed->v);
    cuda_device_release(bed->q);
    cuda_device_release(bed->out);
    cuda_device_release(bed->workspace);
    cuda_device_close(&bed->device);
    free(bed->result);
    free(bed->other);
}

static void print_copies(const Bed *bed) {
    cJSON *line = cJSON_CreateObject();
    cJSON_AddStringToObject(line, "test", "copy");
    cJSON_AddStringToObject(line, "device_name", bed->device.description);
    cJSON_AddNumberToObject(line, "bytes_per_second", bed->copies.bytes_per_second);
    cJSON_AddNumberToObject(line, "buffer_bytes", (double)bed->copies.buffer_bytes);
    cJSON_AddNumberToObject(line, "cache_bytes", (double)bed->copies.cache_bytes);
    cJSON_AddNumberToObject(line, "multiprocessors", (double)bed->device.n_multiprocessors);
    gpu_print(line);
}

/* ---- A cache */

static size_t held_bytes(const KvCacheLayout *layout, size_t depth) {
    KvLedger ledger;
    size_t sum = 0;
    kv_ledger_at(layout, depth, &ledger);
    for (size_t i = 0; i < ledger.n_rows; i++)
        sum += ledger.rows[i].bytes_held;
    return sum;
}

static int choose_layers(const Case *c, const KvShape *one_layer, size_t *n_layers, Error *error) {
    KvCacheLayout layout;
    if (kvcache_layout_open(&layout, one_layer, &c->policy, &KV_FRAGMENT_RECORDS, error) < 0)
        return error->code;
    size_t wanted =
        divide_up(c->bed->settings->cache_times * c->bed->copies.cache_bytes, held_bytes(&layout, c->depth));
    *n_layers = at_most(at_least(wanted, 2), MOST_LAYERS);
    kvcache_layout_close(&layout);
    return 0;
}

static int open_cache(Case *c, Error *error) {
    const Settings *s = c->bed->settings;
    char text[128];
    size_t n_ctx = at_least(c->depth, 64); /* a sink and a window fit */
    KvShape shape = {1, s->n_kv_heads, s->head_dim, n_ctx, at_most(BATCH, c->depth), {{0}}, 0};
    snprintf(text, sizeof text, strcmp(c->codec, "f16") == 0 ? "%s:*" : "sink=16,f16:32,%s:*", c->codec);
    c->policy = kv_policy_full();
    if (kv_policy_parse(text, &c->policy, error) < 0 || kv_policy_check(&c->policy, 1, s->head_dim, n_ctx, error) < 0 ||
        choose_layers(c, &shape, &shape.n_layers, error) < 0 ||
        cuda_open_cache(&c->bed->device, &c->cache, &shape, &c->policy, "the cache", error) < 0)
        return error->code;
    return 0;
}

static CudaBatch batch_of(Case *c, size_t layer, size_t n_tokens) {
    const KvShape *shape = &c->cache.layout.shape;
    return (CudaBatch){.cache = cuda_cache_of(&c->cache),
                       .layer = layer,
                       .n_tokens = n_tokens,
                       .n_heads = shape->n_kv_heads,
                       .n_kv_heads = shape->n_kv_heads,
                       .head_dim = shape->head_dim,
                       .row_dim = c->cache.layout.row_dim,
                       .group = c->policy.group};
}

static void append(Case *c, size_t layer, size_t n_tokens) {
    cudaStream_t stream = c->bed->device.stream;
    CudaBatch batch = batch_of(c, layer, n_tokens);
    if (layer == 0)
        cuda_cache_begin(batch.cache, c->cache.n_tokens, stream);
    cuda_cache_append(&batch, &(CudaRows){.q = c->bed->q, .k = c->bed->k, .v = c->bed->v}, stream);
}

/* To depth - 1 tokens; then the last comes, is in the batch, and stays there. */
static int fill(Case *c, Error *error) {
    size_t n_layers = c->cache.layout.shape.n_layers;
    while (c->cache.n_tokens + 1 < c->depth) {
        size_t n = at_most(c->depth - 1 - c->cache.n_tokens, c->cache.layout.shape.n_batch);
        for (size_t layer = 0; layer < n_layers; layer++) {
            CudaBatch batch = batch_of(c, layer, n);
            append(c, layer, n);
            cuda_cache_commit(&batch, c->bed->device.stream);
        }
        kvcache_advance(&c->cache, n);
    }
    for (size_t layer = 0; layer < n_layers; layer++)
        append(c, layer, 1);
    cuda_cache_plan(cuda_cache_of(&c->cache), n_layers, false, c->bed->device.stream);
    cudaError_t status = cudaGetLastError();
    return cuda_check(status == cudaSuccess ? cudaStreamSynchronize(c->bed->device.stream) : status,
                      "filling the cache", error);
}

/* ---- Attention */

static void attend(Case *c, size_t layer, bool fused) {
    Bed *bed = c->bed;
    const Settings *s = bed->settings;
    CudaAttention attention = {.cache = cuda_cache_of(&c->cache),
                               .layer = layer,
                               .n_tokens = 1,
                               .n_heads = s->n_heads,
                               .n_kv_heads = s->n_kv_heads,
                               .head_dim = s->head_dim,
                               .pairing = ROPE_INTERLEAVED,
                               .q = bed->q,
                               .out = bed->out,
                               .workspace = bed->workspace,
                               .n_multiprocessors = bed->device.n_multiprocessors};
    if (fused)
        cuda_attend_fused(&attention, bed->device.stream);
    else
        cuda_attend_plain(&attention, bed->device.stream);
}

static void attend_all(void *context) {
    Case *c = context;
    for (size_t layer = 0; layer < c->cache.layout.shape.n_layers; layer++)
        attend(c, layer, c->fused);
}

/* The result of layer 0. NaN is where nobody writes. */
static int read_result(Case *c, bool fused, float *result, Error *error) {
    Bed *bed = c->bed;
    size_t size_bytes = bed->settings->n_heads * bed->settings->head_dim * sizeof *result;
    cudaError_t status = cudaMemsetAsync(bed->out, 0xff, size_bytes, bed->device.stream);
    attend(c, 0, fused);
    if (status == cudaSuccess)
        status = cudaGetLastError();
    if (status == cudaSuccess)
        status = cudaMemcpyAsync(result, bed->out, size_bytes, cudaMemcpyDeviceToHost, bed->device.stream);
    if (status == cudaSuccess)
        status = cudaStreamSynchronize(bed->device.stream);
    return cuda_check(status, "attention", error);
}

/* Root of the mean squared difference, relative to `expected`; NaN where any number is. */
static double difference(const float *x, const float *expected, size_t n) {
    double error = 0, size = 0;
    for (size_t i = 0; i < n; i++) {
        double d = (double)x[i] - (double)expected[i];
        error += d * d;
        size += (double)expected[i] * (double)expected[i];
    }
    return sqrt(error / size);
}

static int check_result(Case *c, double *rms, Error *error) {
    size_t n = c->bed->settings->n_heads * c->bed->settings->head_dim;
    if (read_result(c, c->fused, c->bed->result, error) < 0 || read_result(c, false, c->bed->other, error) < 0)
        return error->code;
    *rms = difference(c->bed->result, c->bed->other, n);
    if (*rms < 2e-3)
        return 0;
    return error_set(error, ERROR_FORMAT, "%s at %zu tokens: the fused kernel differs from the plain one by %.3g",
                     c->codec, c->depth, *rms);
}

/* ---- Figures */

static size_t counted_bytes(const KvCache *cache) {
    size_t sum = 0;
    for (size_t layer = 0; layer < cache->layout.shape.n_layers; layer++) {
        const KvCounters *counters = kvcache_counters(cache, layer);
        for (size_t store = 0; store < KV_MAX_STORES; store++)
            sum += atomic_load(&counters->bytes_read[store]);
    }
    return sum;
}

static int measure_bytes(Case *c, size_t *bytes, Error *error) {
    size_t before = counted_bytes(&c->cache), planned = held_bytes(&c->cache.layout, c->depth);
    attend_all(c);
    *bytes = counted_bytes(&c->cache) - before;
    if (*bytes == planned)
        return 0;
    return error_set(error, ERROR_FORMAT, "%s at %zu tokens: attention read %zu bytes, and the plan says %zu", c->codec,
                     c->depth, *bytes, planned);
}

static void print_figures(const Case *c, size_t bytes, const GpuTiming *timing, double rms) {
    double n_layers = (double)c->cache.layout.shape.n_layers, rate = (double)bytes / (timing->median_us * 1e-6);
    cJSON *line = cJSON_CreateObject();
    cJSON_AddStringToObject(line, "test", "attention");
    cJSON_AddStringToObject(line, "device_name", c->bed->device.description);
    cJSON_AddStringToObject(line, "kernel", c->fused ? "fused" : "plain");
    cJSON_AddStringToObject(line, "codec", c->codec);
    cJSON_AddNumberToObject(line, "depth", (double)c->depth);
    cJSON_AddNumberToObject(line, "layers", n_layers);
    cJSON_AddNumberToObject(line, "bytes_per_layer", (double)bytes / n_layers);
    cJSON_AddNumberToObject(line, "us_per_layer", timing->median_us / n_layers);
    cJSON_AddNumberToObject(line, "us_per_layer_min", timing->min_us / n_layers);
    cJSON_AddNumberToObject(line, "bytes_per_second", rate);
    cJSON_AddNumberToObject(line, "copy_bandwidth", c->bed->copies.bytes_per_second);
    cJSON_AddNumberToObject(line, "bandwidth_share", rate / c->bed->copies.bytes_per_second);
    cJSON_AddNumberToObject(line, "difference_to_plain", rms);
    cJSON_AddNumberToObject(line, "repetitions", (double)timing->n);
    gpu_print(line);
}

static int measure(Case *c, Error *error) {
    GpuTiming timing;
    size_t bytes;
    double rms = 0;
    if (fill(c, error) < 0 || measure_bytes(c, &bytes, error) < 0 || check_result(c, &rms, error) < 0 ||
        gpu_time(c->bed->device.stream, attend_all, c, &timing, error) < 0)
        return error->code;
    print_figures(c, bytes, &timing, rms);
    return 0;
}

/* Memory that holds NaNs wherever nothing was written must not change a bit. */
static int check_poisoned(Case *c, Error *error) {
    Bed *bed = c->bed;
    size_t size_bytes = bed->settings->n_heads * bed->settings->head_dim * sizeof(float);
    if (fill(c, error) < 0 || read_result(c, c->fused, bed->result, error) < 0)
        return error->code;
    kvcache_clear(&c->cache);
    if (cuda_check(cudaMemsetAsync(c->cache.memory, 0xff, kvcache_bytes(&c->cache), bed->device.stream), "poisoning",
                   error) < 0 ||
        fill(c, error) < 0 || read_result(c, c->fused, bed->other, error) < 0)
        return error->code;
    bool same = memcmp(bed->result, bed->other, size_bytes) == 0;
    cJSON *line = cJSON_CreateObject();
    cJSON_AddStringToObject(line, "test", "poisoned");
    cJSON_AddStringToObject(line, "kernel", c->fused ? "fused" : "plain");
    cJSON_AddStringToObject(line, "codec", c->codec);
    cJSON_AddNumberToObject(line, "depth", (double)c->depth);
    cJSON_AddBoolToObject(line, "same_bits", same);
    gpu_print(line);
    return same ? 0
                : error_set(error, ERROR_FORMAT, "%s at %zu tokens: what memory held before changes the result",
                            c->codec, c->depth);
}

static int run_case(Bed *bed, const char *codec, size_t depth, Error *error) {
    Case c = {.bed = bed, .codec = codec, .depth = depth, .fused = has_fused(bed->settings)};
    int status = open_cache(&c, error);
    if (status == 0)
        status = bed->settings->poison ? check_poisoned(&c, error) : measure(&c, error);
    if (c.cache.counters != NULL)
        cuda_close_cache(&c.cache);
    return status;
}

/* A case that fails does not keep others from running, unless the device is lost. */
static int run_cases(Bed *bed, Error *error) {
    size_t depths[MOST_DEPTHS], n_failed = 0, n_cases = 0;
    int n_depths = gpu_parse_numbers(bed->settings->depths, depths, MOST_DEPTHS, error);
    for (int d = 0; d < n_depths; d++)
        for (size_t i = 0; i < bed->settings->codecs.count; i++) {
            Error failure = {0};
            n_cases++;
            if (run_case(bed, bed->settings->codecs.items[i], at_least(depths[d], 2), &failure) == 0)
                continue;
            n_failed++;
            fprintf(stderr, "gpu_attention: %s\n", failure.message);
            if (failure.code == ERROR_IO || failure.code == ERROR_USAGE)
                return error_set(error, failure.code, "stopped at case %zu", n_cases);
        }
    return n_failed == 0 ? error->code : error_set(error, ERROR_FORMAT, "%zu of %zu cases failed", n_failed, n_cases);
}

int main(int argc, char **argv) {
    static Settings s = {
        .depths = "8192,32768,131072", .n_heads = 32, .n_kv_heads = 8, .head_dim = 128, .cache_times = 3};
    static const char *const CODECS[] = {"f16", "int8", "int4", "q4_0", "q8_0", "nf4", "fp8", "int8/q4_0"};
    const Option options[] = {
        {"depths", OPTION_STRING, &s.depths, "LIST", "tokens in the cache; default 8192,32768,131072", 0, 0},
        {"codec", OPTION_LIST, &s.codecs, "NAME", "int8, or int8/q4_0: one or more; default: eight of them", 0, 0},
        {"heads", OPTION_SIZE, &s.n_heads, "N", "query heads; default 32", 1, 1024},
        {"kv_heads", OPTION_SIZE, &s.n_kv_heads, "N", "KV heads; default 8", 1, 1024},
        {"head_dim", OPTION_SIZE, &s.head_dim, "N", "elements of a head; default 128", 8, 512},
        {"cache_times", OPTION_SIZE, &s.cache_times, "N", "all layers are N second caches; default 3", 0, 100},
        {"copy", OPTION_FLAG, &s.copy, NULL, "how fast the device copies, and stop", 0, 0},
        {"poison", OPTION_FLAG, &s.poison, NULL, "no times: whether memory that was not written is read", 0, 0},
        {"help", OPTION_FLAG, &s.help, NULL, "print this, and stop", 0, 0},
        {0},
    };
    Error error = {0};
    static Bed bed;
    if (options_parse(options, argc, argv, &error) < 0)
        return gpu_exit("gpu_attention", &error);
    if (s.help) {
        options_help(options, stdout);
        return 0;
    }
    for (size_t i = 0; i < sizeof CODECS / sizeof *CODECS && s.codecs.count <= i; i++)
        s.codecs.items[s.codecs.count++] = CODECS[i];
    if (s.n_heads % s.n_kv_heads != 0)
        error_set(&error, ERROR_USAGE, "--heads %zu: no multiple of --kv_heads %zu", s.n_heads, s.n_kv_heads);
    else if (open_bed(&bed, &s, &error) == 0) {
        if (s.copy)
            print_copies(&bed);
        else
            run_cases(&bed, &error);
    }
    close_bed(&bed);
    return gpu_exit("gpu_attention", &error);
}

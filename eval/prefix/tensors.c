/* Experiments on tensors alone: what codecs cost, and what they take. */
#include "base/machine/clock.h"
#include "base/random.h"
#include "eval/draws.h"
#include "eval/prefix/experiments.h"
#include "eval/prefix/tensor_errors.h"

#include <math.h>
#include <stdlib.h>

enum { TOKENS = 256, HEADS = 8, DIM = 128, ELEMENTS = TOKENS * HEADS * DIM };

static const KvCodecId CODECS[] = {KV_F16, KV_INT8, KV_Q8_0, KV_FP8, KV_INT4, KV_Q4_0, KV_NF4, KV_INT2};
enum { N_CODECS = sizeof CODECS / sizeof *CODECS };

/* ---- Distributions */

static double uniform(uint64_t *random) {
    return 2 * random_uniform(random) - 1;
}

static double laplace(uint64_t *random) {
    double u = random_uniform(random) - 0.5;
    return (u < 0 ? 1 : -1) * log(1 - 2 * fabs(u));
}

static const struct {
    const char *name;
    double (*draw)(uint64_t *random);
    double outliers; /* what every 32nd channel is multiplied with, as keys have it */
} DISTRIBUTIONS[] = {{"normal", draw_normal, 1},
                     {"uniform", uniform, 1},
                     {"laplace", laplace, 1},
                     {"student-t, 3 degrees", draw_heavy_tailed, 1},
                     {"normal, 4 channels x 20", draw_normal, 20}};

static void fill(size_t distribution, uint64_t seed, float *out) {
    for (size_t i = 0; i < ELEMENTS; i++) {
        double factor = i % DIM % 32 == 5 ? DISTRIBUTIONS[distribution].outliers : 1;
        out[i] = (float)(DISTRIBUTIONS[distribution].draw(&seed) * factor);
    }
}

static int add_codec(const Experiments *x, PrefixCache *prefixes, size_t distribution, KvCodecId id,
                     const float *values, float *restored, cJSON *rows, Error *error) {
    const PrefixTensors shape = {TOKENS, HEADS, DIM, id, id, false};
    TensorErrors errors;
    double bits;
    if (tensor_round_trip(prefixes, &shape, values, restored, &errors, &bits, error) < 0)
        return error->code;
    cJSON *row = tensor_errors_json(&errors, bits);
    cJSON_AddStringToObject(row, "distribution", DISTRIBUTIONS[distribution].name);
    cJSON_AddStringToObject(row, "codec", kv_codec_name(kv_codec(id)));
    cJSON_AddItemToArray(rows, row);
    fprintf(x->out, "%-24s %-8s %7.3f %12.3e %12.3e %10.4f %10.6f\n", DISTRIBUTIONS[distribution].name,
            kv_codec_name(kv_codec(id)), bits, errors.mse, errors.mae, errors.max, errors.cosine);
    return 0;
}

cJSON *experiment_quality(const Experiments *x, Error *error) {
    cJSON *rows = cJSON_CreateArray();
    float *values = malloc(ELEMENTS * sizeof *values), *restored = malloc(2 * ELEMENTS * sizeof *restored);
    PrefixCache *prefixes = NULL;
    const PrefixStoreOptions options = {.memory_bytes = (size_t)64 << 20, .ttl_ms = 3600000};
    int status = values == NULL || restored == NULL ? error_memory(error, "tensors", ELEMENTS * 12)
                                                    : prefix_cache_open(&prefixes, &options, error);
    fprintf(x->out, "\n%-24s %-8s %7s %12s %12s %10s %10s\n", "distribution", "codec", "bits", "MSE", "MAE", "max",
            "cosine");
    for (size_t d = 0; d < sizeof DISTRIBUTIONS / sizeof *DISTRIBUTIONS && status == 0; d++) {
        fill(d, d + 1, values);
        for (size_t c = 0; c < N_CODECS && status == 0; c++)
            status = add_codec(x, prefixes, d, CODECS[c], values, restored, rows, error);
    }
    prefix_cache_close(prefixes);
    free(values);
    free(restored);
    if (status == 0)
        return rows;
    cJSON_Delete(rows);
    return NULL;
}

/* ---- Memory: one layer is stored, all of them are alike */

enum { LAYERS = 80, MANY_HEADS = 64, MANY_TOKENS = 2048, LAYER_ELEMENTS = MANY_HEADS * MANY_TOKENS * DIM };

static size_t stored_bytes(KvCodecId id, const float *values, Error *error) {
    const PrefixTensors shape = {MANY_TOKENS, MANY_HEADS, DIM, id, id, false};
    const PrefixStoreOptions options = {.memory_bytes = (size_t)256 << 20, .ttl_ms = 3600000};
    static int32_t tokens[MANY_TOKENS];
    PrefixCacheStats stats = {0};
    PrefixCache *prefixes;
    if (prefix_cache_open(&prefixes, &options, error) < 0)
        return 0;
    if (prefix_cache_put_layer(prefixes, "memory", tokens, &shape, 0, values, values, error) == 0)
        prefix_cache_stats(prefixes, &stats);
    prefix_cache_close(prefixes);
    return stats.bytes_stored;
}

cJSON *experiment_memory(const Experiments *x, Error *error) {
    static const KvCodecId IDS[] = {KV_F16, KV_INT8, KV_NF4};
    const double f32 = 2.0 * LAYERS * LAYER_ELEMENTS * sizeof(float);
    cJSON *rows = cJSON_CreateArray();
    float *values = malloc((size_t)LAYER_ELEMENTS * sizeof *values);
    uint64_t random = 1;
    for (size_t i = 0; values != NULL && i < LAYER_ELEMENTS; i++)
        values[i] = (float)uniform(&random);
    fprintf(x->out, "\n80 layers, 64 heads of 128, 2048 tokens: one layer stored, times 80\n%-8s %14s %10s\n", "codec",
            "MB", "of F32");
    for (size_t i = 0; i < 4; i++) {
        double bytes = i == 0 ? f32 : values == NULL ? 0 : (double)stored_bytes(IDS[i - 1], values, error) * LAYERS;
        const char *name = i == 0 ? "f32" : kv_codec_name(kv_codec(IDS[i - 1]));
        if (bytes == 0) {
            free(values);
            cJSON_Delete(rows);
            return NULL;
        }
        cJSON *row = cJSON_CreateObject();
        cJSON_AddStringToObject(row, "codec", name);
        cJSON_AddNumberToObject(row, "bytes", bytes);
        cJSON_AddNumberToObject(row, "of_f32", bytes / f32);
        cJSON_AddItemToArray(rows, row);
        fprintf(x->out, "%-8s %14.1f %9.1f%%\n", name, bytes / 1e6, bytes / f32 * 100);
    }
    free(values);
    return rows;
}

/* ---- Look-ups */

static const uint8_t ENTRY[64];

static PrefixKey key_of(uint64_t id) {
    uint64_t state = id, a = random_next(&state), b = random_next(&state);
    return (PrefixKey){{a, b}};
}

static void put_entries(PrefixStore *store, size_t begin, size_t end) {
    enum { TOGETHER = 1000 };
    static PrefixItem items[TOGETHER];
    while (begin < end) {
        size_t n = 0;
        for (; n < TOGETHER && begin < end; n++)
            items[n] = (PrefixItem){key_of(begin++), ENTRY, sizeof ENTRY};
        prefix_store_put(store, items, n);
    }
}

/* Seconds of a look-up, half of them of entries that are there. */
static double time_lookups(PrefixStore *store, size_t n_entries) {
    enum { LOOKUPS = 20000 };
    uint64_t random = 1, checksum;
    double start = clock_seconds();
    for (size_t i = 0; i < LOOKUPS; i++) {
        const PrefixKey key = key_of(random_below(&random, 2 * n_entries));
        prefix_store_peek(store, &key, &checksum);
    }
    return (clock_seconds() - start) / LOOKUPS;
}

cJSON *experiment_lookups(const Experiments *x, Error *error) {
    const PrefixStoreOptions memory = {.memory_bytes = (size_t)64 << 20, .ttl_ms = 3600000};
    const PrefixStoreOptions disk = {
        .folder = x->folder, .disk_bytes = (size_t)256 << 20, .ttl_ms = 3600000, .clear = true};
    cJSON *rows = cJSON_CreateArray();
    PrefixStore *in_memory = NULL, *on_disk = NULL;
    int status = prefix_store_open(&in_memory, &memory, error);
    if (status == 0)
        status = prefix_store_open(&on_disk, &disk, error);
    fprintf(x->out, "\n%-12s %18s %18s\n", "entries", "us, in memory", "us, on disk");
    for (size_t n = 10, before = 0; status == 0 && n <= 100000; before = n, n *= 10) {
        put_entries(in_memory, before, n);
        put_entries(on_disk, before, n);
        double a = time_lookups(in_memory, n), b = time_lookups(on_disk, n);
        cJSON *row = cJSON_CreateObject();
        cJSON_AddNumberToObject(row, "entries", (double)n);
        cJSON_AddNumberToObject(row, "memory_seconds", a);
        cJSON_AddNumberToObject(row, "disk_seconds", b);
        cJSON_AddItemToArray(rows, row);
        fprintf(x->out, "%-12zu %18.3f %18.3f\n", n, a * 1e6, b * 1e6);
    }
    prefix_store_close(in_memory);
    prefix_store_close(on_disk);
    if (status == 0)
        return rows;
    cJSON_Delete(rows);
    return NULL;
}

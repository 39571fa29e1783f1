/* See bench.h. */
#include "eval/kv_quant/bench.h"

#include "base/checked.h"
#include "base/machine/memory.h"
#include "base/name_list.h"
#include "base/random.h"
#include "channel_int8/cpu.h"
#include "eval/progress.h"

#ifdef STOWKV_HAS_CUDA
#include "cuda/channel_int8.h"
#endif

#include <stdlib.h>
#include <string.h>

#define GIB 0x1p30

/* ---- Devices */

#ifdef STOWKV_HAS_CUDA
static int open_cuda(ChannelDevice **out, Error *error) {
    return cuda_channel_open(out, error);
}
#else
static int open_cuda(ChannelDevice **out, Error *error) {
    *out = NULL;
    return error_set(error, ERROR_UNSUPPORTED, "this build has no CUDA; build where there is a CUDA toolkit");
}
#endif

static int open_devices(QuantBench *bench, int n_threads, const char *name, Error *error) {
    static const char *const NAMES[] = {"auto", "cpu", "cuda", NULL};
    bool asks_cuda = strcmp(name, "cuda") == 0, asks_cpu = strcmp(name, "cpu") == 0;
    if (!asks_cuda && !asks_cpu && strcmp(name, "auto") != 0)
        return error_set(error, ERROR_USAGE, "--device %s: unknown; did you mean %s? Devices: auto, cpu, cuda", name,
                         nearest_name(name, NAMES));
    if (channel_cpu_open(&bench->devices[bench->n_devices], n_threads, error) < 0)
        return error->code;
    bench->n_devices++;
    if (asks_cpu)
        return 0;
    Error why = {0};
    if (open_cuda(&bench->devices[bench->n_devices], &why) == 0) {
        bench->n_devices++;
        return 0;
    }
    if (asks_cuda || why.code != ERROR_UNSUPPORTED)
        return error_set(error, why.code, "%s", why.message);
    snprintf(bench->no_device, sizeof bench->no_device, "%.*s", (int)sizeof bench->no_device - 1, why.message);
    return 0;
}

static bool is_chosen(const QuantBench *bench, const ChannelVariant *variant) {
    for (size_t i = 0; i < bench->names.count; i++)
        if (strcmp(bench->names.items[i], variant->name) == 0)
            return true;
    return bench->names.count == 0;
}

static int check_names(const QuantBench *bench, Error *error) {
    NameList known = {.length = 0};
    for (size_t i = 0; i < bench->n_devices; i++)
        for (size_t v = 0; v < bench->devices[i]->n_variants; v++)
            name_list_add(&known, bench->devices[i]->variants[v].name);
    for (size_t n = 0; n < bench->names.count; n++) {
        bool is_known = false;
        for (size_t i = 0; i < bench->n_devices; i++)
            for (size_t v = 0; v < bench->devices[i]->n_variants; v++)
                is_known |= strcmp(bench->names.items[n], bench->devices[i]->variants[v].name) == 0;
        if (!is_known)
            return error_set(error, ERROR_USAGE, "--variants %s: there is none here; there are %s%s%s",
                             bench->names.items[n], known.text, bench->no_device[0] != '\0' ? "; " : "",
                             bench->no_device);
    }
    return 0;
}

static size_t count_variants(const QuantBench *bench) {
    size_t n = 0;
    for (size_t i = 0; i < bench->n_devices; i++)
        n += bench->devices[i]->n_variants;
    return n;
}

int quant_bench_open(QuantBench *bench, int n_threads, const char *device, Error *error) {
    if (thread_pool_open(&bench->pool, n_threads, error) < 0 || open_devices(bench, n_threads, device, error) < 0 ||
        check_names(bench, error) < 0)
        return error->code;
    bench->rows = calloc(bench->shapes.count * count_variants(bench), sizeof *bench->rows);
    return bench->rows != NULL ? 0 : error_memory(error, "results", bench->shapes.count * sizeof *bench->rows);
}

void quant_bench_close(QuantBench *bench) {
    for (size_t i = 0; i < bench->n_devices; i++)
        bench->devices[i]->ops->close(bench->devices[i]);
    bench->n_devices = 0;
    if (bench->pool != NULL)
        thread_pool_close(bench->pool);
    bench->pool = NULL;
    free(bench->rows);
    bench->rows = NULL;
    bench->n_rows = 0;
}

/* ---- Keys */

typedef struct Filling {
    uint64_t seed;
    size_t n_channels;
    float *keys;
} Filling;

static void fill_rows(void *context, size_t begin, size_t end, int thread) {
    const Filling *f = context;
    (void)thread;
    for (size_t t = begin; t < end; t++) {
        uint64_t mixed = f->seed + t * 0x9e3779b97f4a7c15, state = random_next(&mixed);
        for (size_t d = 0; d < f->n_channels; d++)
            f->keys[t * f->n_channels + d] = (float)(random_next(&state) >> 40) * 0x1p-23f - 1;
    }
}

void quant_fill_keys(ThreadPool *pool, uint64_t seed, size_t n_tokens, size_t n_channels, float *keys) {
    thread_pool_share(pool, n_tokens, 16, fill_rows, &(Filling){seed, n_channels, keys});
}

/* ---- One variant on one shape */

static double elements_of(const QuantRow *row) {
    return (double)row->shape.n_tokens * (double)row->shape.n_channels;
}

/* Seconds that a run would take at the speed of the largest shape so far. */
static double estimate(const QuantBench *bench, const QuantRow *row) {
    double best = 0, seconds = 0;
    for (size_t i = 0; i < bench->n_rows; i++) {
        const QuantRow *r = &bench->rows[i];
        double size = elements_of(r);
        if (r->variant == row->variant && r->skipped[0] == '\0' && size > best) {
            best = size;
            seconds = r->times.total.median * 1e-3 / size * elements_of(row);
        }
    }
    return seconds;
}

static bool fits(ChannelDevice *device, QuantRow *row) {
    size_t needed, available;
    device->ops->memory(device, row->variant, row->shape.n_tokens, row->shape.n_channels, &needed, &available);
    if (needed <= available)
        return true;
    snprintf(row->skipped, sizeof row->skipped, "needs %.2f GiB more, of which the %s has %.2f", (double)needed / GIB,
             device->kind, (double)available / GIB);
    return false;
}

static bool is_too_slow(const QuantBench *bench, QuantRow *row) {
    double seconds = estimate(bench, row);
    if (seconds <= bench->time_limit)
        return false;
    snprintf(row->skipped, sizeof row->skipped, "a run would take about %.0f s; --time_limit is %.0f", seconds,
             bench->time_limit);
    return true;
}

/* What is loaded, timed and compared; unload() follows. */
static int measure_loaded(const QuantBench *bench, ChannelDevice *device, QuantCheck *check, QuantRow *row,
                          Error *error) {
    QuantTiming timing = {device, row->variant, elements_of(row), bench->repetitions, bench->interrupted};
    row->from_cache = device->from_cache;
    if (quant_time(&timing, &row->times, error) < 0)
        return error->code;
    int status = quant_check(check, device, row->variant, &row->errors, error);
    row->transfers = device->transfers;
    return status;
}

static int measure_variant(const QuantBench *bench, ChannelDevice *device, QuantCheck *check, QuantRow *row,
                           Error *error) {
    if (!fits(device, row) || is_too_slow(bench, row))
        return 0;
    if (device->ops->load(device, row->variant, &check->matrix, error) < 0)
        return error->code;
    int status = measure_loaded(bench, device, check, row, error);
    device->ops->unload(device);
    return status;
}

static void tell(const Progress *progress, const QuantRow *row) {
    char shape[QUANT_SHAPE_TEXT], line[384];
    quant_shape_text(row->shape, shape);
    if (row->skipped[0] != '\0')
        snprintf(line, sizeof line, "%s, %s: skipped, %s", shape, row->variant->name, row->skipped);
    else
        snprintf(line, sizeof line, "%s, %s: %.3f ms, %.1f GB/s", shape, row->variant->name, row->times.total.median,
                 quant_row_rate(row) / 1e9);
    progress_tell(progress, line);
}

/* ---- All */

/* A device's variants on what is in check. */
static int measure_device(QuantBench *bench, ChannelDevice *device, QuantShape shape, QuantCheck *check,
                          const Progress *progress, Error *error) {
    double copy_bandwidth = 0;
    if (device->ops->measure_copies != NULL && device->ops->measure_copies(device, &copy_bandwidth, error) < 0)
        return error->code;
    for (size_t v = 0; v < device->n_variants; v++) {
        const ChannelVariant *variant = &device->variants[v];
        if (!is_chosen(bench, variant))
            continue;
        if (quant_interrupted(bench->interrupted, error) < 0)
            return error->code;
        QuantRow *row = &bench->rows[bench->n_rows];
        *row = (QuantRow){.shape = shape, .device = device, .variant = variant};
        row->times.copy_bandwidth = copy_bandwidth;
        progress_show(progress, bench->n_rows, variant->name);
        if (measure_variant(bench, device, check, row, error) < 0)
            return error->code;
        bench->n_rows++;
        tell(progress, row);
    }
    return 0;
}

static void skip_shape(QuantBench *bench, QuantShape shape, const char *why, const Progress *progress) {
    for (size_t i = 0; i < bench->n_devices; i++)
        for (size_t v = 0; v < bench->devices[i]->n_variants; v++) {
            QuantRow *row = &bench->rows[bench->n_rows];
            *row = (QuantRow){.shape = shape, .device = bench->devices[i], .variant = &bench->devices[i]->variants[v]};
            if (!is_chosen(bench, row->variant))
                continue;
            snprintf(row->skipped, sizeof row->skipped, "%s", why);
            bench->n_rows++;
            tell(progress, row);
        }
}

static int measure_keys(QuantBench *bench, QuantShape shape, float *keys, const Progress *progress, Error *error) {
    QuantCheck check;
    ChannelMatrix matrix = {keys, shape.n_tokens, shape.n_channels};
    quant_fill_keys(bench->pool, bench->seed, shape.n_tokens, shape.n_channels, keys);
    if (quant_check_open(&check, bench->pool, &matrix, bench->seed, error) < 0)
        return error->code;
    int status = 0;
    for (size_t i = 0; i < bench->n_devices && status == 0; i++)
        status = measure_device(bench, bench->devices[i], shape, &check, progress, error);
    quant_check_close(&check);
    return status;
}

static int measure_shape(QuantBench *bench, QuantShape shape, const Progress *progress, Error *error) {
    size_t keys_bytes = shape.n_tokens * shape.n_channels * sizeof(float), available = memory_available();
    size_t needed = keys_bytes + quant_check_bytes(shape.n_tokens, shape.n_channels);
    if (needed > available) {
        char why[128];
        snprintf(why, sizeof why, "keys and reference take %.2f GiB, of which the host has %.2f", (double)needed / GIB,
                 (double)available / GIB);
        skip_shape(bench, shape, why, progress);
        return 0;
    }
    float *keys = channel_map(keys_bytes, "keys", error);
    if (keys == NULL)
        return error->code;
    int status = measure_keys(bench, shape, keys, progress, error);
    channel_unmap(keys, keys_bytes);
    return status;
}

int quant_bench_run(QuantBench *bench, Error *error) {
    Progress progress = progress_begin("kv_quant_bench", bench->shapes.count * count_variants(bench), "variants");
    int status = 0;
    for (size_t i = 0; i < bench->shapes.count && status == 0; i++)
        status = measure_shape(bench, bench->shapes.items[i], &progress, error);
    progress_end(&progress);
    return status;
}

const QuantRow *quant_bench_find(const QuantBench *bench, QuantShape shape, const ChannelVariant *variant) {
    for (size_t i = 0; i < bench->n_rows; i++) {
        const QuantRow *row = &bench->rows[i];
        if (row->variant == variant && row->shape.n_tokens == shape.n_tokens &&
            row->shape.n_channels == shape.n_channels && row->skipped[0] == '\0')
            return row;
    }
    return NULL;
}

double quant_row_bytes(const QuantRow *row) {
    return quant_bytes(row->variant, elements_of(row));
}

double quant_row_rate(const QuantRow *row) {
    return quant_row_bytes(row) / (row->times.total.median * 1e-3);
}

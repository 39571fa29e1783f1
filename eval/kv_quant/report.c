/* See report.h. */
#include "eval/kv_quant/report.h"

#include "session/run_report.h"

#include <math.h>
#include <string.h>

static double quantize_ms(const QuantRow *row) {
    return row->times.steps[CHANNEL_SCALES].median + row->times.steps[CHANNEL_CODES].median;
}

/* How many times as fast as a baseline on the same shape; NaN where that was not run. */
static double speed_up(const QuantBench *bench, const QuantRow *row, const ChannelVariant *baseline) {
    const QuantRow *other = quant_bench_find(bench, row->shape, baseline);
    return other == NULL ? (double)NAN : other->times.total.median / row->times.total.median;
}

/* The baselines of all devices that have been run, by rising index; NULL behind the last. */
static const ChannelVariant *baseline(const QuantBench *bench, size_t index) {
    for (size_t i = 0; i < bench->n_devices; i++)
        for (size_t v = 0; v < bench->devices[i]->n_variants; v++) {
            const ChannelVariant *variant = &bench->devices[i]->variants[v];
            bool was_run = false;
            for (size_t r = 0; r < bench->n_rows && !was_run; r++)
                was_run = bench->rows[r].variant == variant && bench->rows[r].skipped[0] == '\0';
            if (variant->is_baseline && was_run && index-- == 0)
                return variant;
        }
    return NULL;
}

/* ---- The table */

static void print_setup(const QuantBench *bench, FILE *stream) {
    fprintf(
        stream,
        "per-channel INT8 of K (tokens x channels), uniform in [-1, 1), seed %llu; median of %zu run%s after one to "
        "warm up\n",
        (unsigned long long)bench->seed, bench->repetitions, bench->repetitions == 1 ? "" : "s");
    for (size_t i = 0; i < bench->n_devices; i++) {
        const ChannelDevice *device = bench->devices[i];
        double low = INFINITY, high = 0;
        for (size_t r = 0; r < bench->n_rows; r++)
            if (bench->rows[r].device == device && bench->rows[r].times.copy_bandwidth > 0 &&
                !bench->rows[r].from_cache) {
                low = fmin(low, bench->rows[r].times.copy_bandwidth);
                high = fmax(high, bench->rows[r].times.copy_bandwidth);
            }
        fprintf(stream, "%s: %s", device->kind, device->description);
        if (high > 0)
            fprintf(stream, "; copies beyond its caches read and write %.1f to %.1f GB/s", low / 1e9, high / 1e9);
        fprintf(stream, "\n");
    }
    if (bench->no_device[0] != '\0')
        fprintf(stream, "cuda: not measured: %s\n", bench->no_device);
}

static void print_heading(const QuantBench *bench, FILE *stream) {
    fprintf(stream, "\n%-13s %-24s %10s %11s %13s %10s %7s %8s %8s", "shape", "variant", "scales ms", "quantize ms",
            "dequantize ms", "total ms", "GB/s", "of copy", "of plain");
    const ChannelVariant *other;
    for (size_t i = 0; (other = baseline(bench, i)) != NULL; i++)
        fprintf(stream, " %*s%s", 15 - (int)strlen(other->name), "x ", other->name);
    fprintf(stream, " %10s %9s %9s  note\n", "L2", "max abs", "|QK-QK~|");
}

static void print_note(const QuantRow *row, FILE *stream) {
    if (row->errors.n_wrong > 0)
        fprintf(stream, "  WRONG: %zu", row->errors.n_wrong);
    if (row->from_cache)
        fprintf(stream, "  from cache");
    if (!row->times.warmed_up)
        fprintf(stream, "  1 run, none to warm up");
    fprintf(stream, "\n");
}

static void print_share(double share, FILE *stream) {
    if (isnan(share))
        fprintf(stream, " %8s", "-");
    else
        fprintf(stream, " %7.1f%%", 100 * share);
}

static void print_row(const QuantBench *bench, const QuantRow *row, FILE *stream) {
    char shape[QUANT_SHAPE_TEXT];
    fprintf(stream, "%-13s %-24s", quant_shape_text(row->shape, shape), row->variant->name);
    if (row->skipped[0] != '\0') {
        fprintf(stream, " skipped: %s\n", row->skipped);
        return;
    }
    double rate = quant_row_rate(row);
    fprintf(stream, " %10.3f %11.3f %13.3f %10.3f %7.1f", row->times.steps[CHANNEL_SCALES].median, quantize_ms(row),
            row->times.steps[CHANNEL_DECODE].median, row->times.total.median, rate / 1e9);
    print_share(row->times.copy_share, stream);
    print_share(row->times.plain_share, stream);
    const ChannelVariant *other;
    for (size_t i = 0; (other = baseline(bench, i)) != NULL; i++) {
        double times = speed_up(bench, row, other);
        if (isnan(times))
            fprintf(stream, " %15s", "-");
        else
            fprintf(stream, " %15.*f", times < 100 ? 1 : 0, times);
    }
    fprintf(stream, " %10.4f %9.6f %9.6f", row->errors.l2, row->errors.max_abs, row->errors.score);
    print_note(row, stream);
}

/* What a GPU's variants need besides. */
static void print_transfers(const QuantBench *bench, FILE *stream) {
    bool first = true;
    for (size_t i = 0; i < bench->n_rows; i++) {
        const QuantRow *row = &bench->rows[i];
        const ChannelTransfers *t = &row->transfers;
        char shape[QUANT_SHAPE_TEXT];
        if (t->allocate_ms + t->upload_ms + t->download_ms == 0)
            continue;
        if (first)
            fprintf(stream, "\n%-13s %-24s %12s %12s %12s   outside of all times above\n", "shape", "variant",
                    "allocate ms", "upload", "download");
        first = false;
        fprintf(stream, "%-13s %-24s %12.3f %12.3f %12.3f\n", quant_shape_text(row->shape, shape), row->variant->name,
                t->allocate_ms, t->upload_ms, t->download_ms);
    }
}

static bool was_chosen(const QuantBench *bench, const ChannelVariant *variant) {
    for (size_t i = 0; i < bench->n_rows; i++)
        if (bench->rows[i].variant == variant)
            return true;
    return false;
}

static void print_variants(const QuantBench *bench, FILE *stream) {
    fprintf(stream, "\n");
    for (size_t i = 0; i < bench->n_devices; i++)
        for (size_t v = 0; v < bench->devices[i]->n_variants; v++) {
            const ChannelVariant *variant = &bench->devices[i]->variants[v];
            if (was_chosen(bench, variant))
                fprintf(stream, "%-24s %s; moves %g + %g + %g bytes an element\n", variant->name, variant->what,
                        variant->bytes[CHANNEL_SCALES], variant->bytes[CHANNEL_CODES], variant->bytes[CHANNEL_DECODE]);
        }
    fputs("\nquantize       scales and codes; total: that and dequantize; GB/s: bytes that all steps move over total\n"
          "of copy        GB/s, of what copies read and write: on a CPU in the same pages in between, on a GPU before "
          "each shape\n"
          "of plain       the time of loops that read and write the same as the steps and compute nothing, of total\n"
          "x NAME         how many times as fast as the baseline NAME, by total\n"
          "L2, max abs    of K - K~; |QK-QK~|: mean over the tokens, of a query Q uniform in [-1, 1)\n"
          "from cache     what a variant reads fits the caches: no measure of memory\n",
          stream);
}

void quant_bench_print(const QuantBench *bench, FILE *stream) {
    print_setup(bench, stream);
    print_heading(bench, stream);
    for (size_t i = 0; i < bench->n_rows; i++)
        print_row(bench, &bench->rows[i], stream);
    print_transfers(bench, stream);
    print_variants(bench, stream);
}

/* ---- JSON and CSV: one list of figures for both */

typedef struct Figure {
    const char *name;
    double value; /* NaN: none */
} Figure;

enum { MOST_FIGURES = 32 };

static size_t figures_of(const QuantRow *row, Figure *out) {
    const Figure figures[] = {
        {"scales_ms", row->times.steps[CHANNEL_SCALES].median},
        {"codes_ms", row->times.steps[CHANNEL_CODES].median},
        {"quantize_ms", quantize_ms(row)},
        {"dequantize_ms", row->times.steps[CHANNEL_DECODE].median},
        {"total_ms", row->times.total.median},
        {"total_ms_min", row->times.total.min},
        {"total_ms_max", row->times.total.max},
        {"runs", (double)row->times.n_timed},
        {"warmed_up", (double)row->times.warmed_up},
        {"from_cache", (double)row->from_cache},
        {"bytes", quant_row_bytes(row)},
        {"bytes_per_second", quant_row_rate(row)},
        {"copy_bandwidth", row->times.copy_bandwidth},
        {"copy_share", row->times.copy_share},
        {"plain_share", row->times.plain_share},
        {"scales_plain_share", row->times.plain_step_shares[CHANNEL_SCALES]},
        {"codes_plain_share", row->times.plain_step_shares[CHANNEL_CODES]},
        {"dequantize_plain_share", row->times.plain_step_shares[CHANNEL_DECODE]},
        {"l2", row->errors.l2},
        {"max_abs", row->errors.max_abs},
        {"score_error", row->errors.score},
        {"n_wrong", (double)row->errors.n_wrong},
        {"allocate_ms", row->transfers.allocate_ms},
        {"upload_ms", row->transfers.upload_ms},
        {"download_ms", row->transfers.download_ms},
    };
    size_t n = sizeof figures / sizeof *figures;
    for (size_t i = 0; i < n; i++)
        out[i] = figures[i];
    return n;
}

static cJSON *row_json(const QuantBench *bench, const QuantRow *row) {
    cJSON *out = cJSON_CreateObject(), *times;
    cJSON_AddStringToObject(out, "device", row->device->kind);
    cJSON_AddStringToObject(out, "variant", row->variant->name);
    cJSON_AddNumberToObject(out, "n_tokens", (double)row->shape.n_tokens);
    cJSON_AddNumberToObject(out, "n_channels", (double)row->shape.n_channels);
    if (row->skipped[0] != '\0') {
        cJSON_AddStringToObject(out, "skipped", row->skipped);
        return out;
    }
    Figure figures[MOST_FIGURES];
    size_t n = figures_of(row, figures);
    for (size_t i = 0; i < n; i++)
        if (!isnan(figures[i].value))
            cJSON_AddNumberToObject(out, figures[i].name, figures[i].value);
    times = cJSON_AddObjectToObject(out, "times_as_fast_as");
    const ChannelVariant *other;
    for (size_t i = 0; (other = baseline(bench, i)) != NULL; i++)
        if (!isnan(speed_up(bench, row, other)))
            cJSON_AddNumberToObject(times, other->name, speed_up(bench, row, other));
    return out;
}

cJSON *quant_bench_json(const QuantBench *bench) {
    cJSON *root = cJSON_CreateObject(), *devices, *results;
    seed_json(root, bench->seed);
    cJSON_AddNumberToObject(root, "repetitions", (double)bench->repetitions);
    cJSON_AddNumberToObject(root, "time_limit", bench->time_limit);
    devices = cJSON_AddArrayToObject(root, "devices");
    for (size_t i = 0; i < bench->n_devices; i++) {
        cJSON *device = cJSON_CreateObject();
        cJSON_AddStringToObject(device, "device", bench->devices[i]->kind);
        cJSON_AddStringToObject(device, "description", bench->devices[i]->description);
        cJSON_AddNumberToObject(device, "cache_bytes", (double)bench->devices[i]->cache_bytes);
        cJSON_AddItemToArray(devices, device);
    }
    if (bench->no_device[0] != '\0')
        cJSON_AddStringToObject(root, "device_note", bench->no_device);
    results = cJSON_AddArrayToObject(root, "results");
    for (size_t i = 0; i < bench->n_rows; i++)
        cJSON_AddItemToArray(results, row_json(bench, &bench->rows[i]));
    return root;
}

/* NaN, of what there is no figure for, is an empty place. */
static void put_figure(double value, FILE *stream) {
    if (isnan(value))
        fprintf(stream, ",");
    else
        fprintf(stream, ",%.9g", value);
}

/* Reasons have commas, and no quotes. */
static void csv_row(const QuantBench *bench, const QuantRow *row, FILE *stream) {
    bool has_figures = row->skipped[0] == '\0';
    Figure figures[MOST_FIGURES];
    const ChannelVariant *other;
    size_t n = figures_of(row, figures);
    fprintf(stream, "%s,%s,%zu,%zu,\"%s\"", row->device->kind, row->variant->name, row->shape.n_tokens,
            row->shape.n_channels, row->skipped);
    for (size_t i = 0; i < n; i++)
        put_figure(has_figures ? figures[i].value : (double)NAN, stream);
    for (size_t i = 0; (other = baseline(bench, i)) != NULL; i++)
        put_figure(has_figures ? speed_up(bench, row, other) : (double)NAN, stream);
    fprintf(stream, "\n");
}

void quant_bench_csv(const QuantBench *bench, FILE *stream) {
    Figure figures[MOST_FIGURES];
    const ChannelVariant *other;
    size_t n = figures_of(&(QuantRow){.variant = &(ChannelVariant){.name = ""}}, figures);
    fprintf(stream, "device,variant,n_tokens,n_channels,skipped");
    for (size_t i = 0; i < n; i++)
        fprintf(stream, ",%s", figures[i].name);
    for (size_t i = 0; (other = baseline(bench, i)) != NULL; i++)
        fprintf(stream, ",times_%s", other->name);
    fprintf(stream, "\n");
    for (size_t r = 0; r < bench->n_rows; r++)
        csv_row(bench, &bench->rows[r], stream);
}

int quant_bench_verdict(const QuantBench *bench, Error *error) {
    for (size_t i = 0; i < bench->n_rows; i++) {
        const QuantRow *row = &bench->rows[i];
        char shape[QUANT_SHAPE_TEXT];
        if (row->errors.n_wrong > 0)
            return error_set(error, ERROR_FORMAT,
                             "%s, %s: %zu numbers are not the reference's; this is a bug or failing memory, and no "
                             "figure of this run can be trusted",
                             row->variant->name, quant_shape_text(row->shape, shape), row->errors.n_wrong);
    }
    return 0;
}

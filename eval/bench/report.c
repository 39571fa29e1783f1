/* See report.h. */
#include "eval/bench/report.h"

#include "eval/statistics.h"
#include "kvcache/policy_text.h"
#include "session/json_text.h"
#include "session/run_report.h"

#include <math.h>

static const char *note_of(const BenchMode *mode, const BenchPoint *point) {
    if (!point->still_full)
        return NULL;
    return strcmp(kv_policy_mode(&mode->policy), "compressed") == 0 ? "nothing dropped yet" : "nothing encoded yet";
}

/* What memory gave to all threads, bytes a second: the median over all points and repetitions. */
static double read_bandwidth(const Bench *bench) {
    return percentile(bench->all_reads, bench->n_reads, 0.5);
}

bool bench_row(const Bench *bench, const BenchMode *mode, size_t d, BenchRow *out) {
    const BenchPoint *point = &mode->points[d];
    if (point->n == 0)
        return false;
    BenchRow row = {.depth = bench->depths.items[d],
                    .prefill_depth = bench->depths.items[d] + bench->n_generate,
                    .decode = bench_summarise(point->decode_rates, point->n),
                    .prefill = bench_summarise(point->prefill_rates, point->n),
                    .read_bandwidth = bench_summarise(point->read_rates, point->n).median,
                    .bytes_per_token = (double)bench->weights_bytes + point->kv_bytes,
                    .note = note_of(mode, point)};
    row.bytes_per_second = row.bytes_per_token * row.decode.median;
    row.bandwidth_share = row.bytes_per_second / read_bandwidth(bench);
    *out = row;
    return true;
}

bool bench_has_figures(const Bench *bench) {
    for (size_t i = 0; i < bench->n_modes; i++)
        if (bench->modes[i].points[0].n > 0)
            return true;
    return false;
}

/* The full cache among the modes, to which break-even refers; NULL where there is none. */
static const BenchMode *full_mode(const Bench *bench) {
    for (size_t i = 0; i < bench->n_modes; i++)
        if (kv_policy_is_full(&bench->modes[i].policy))
            return &bench->modes[i];
    return NULL;
}

/* bench_break_even() of a mode against the full one, over the depths that both have figures for. */
static double mode_break_even(const Bench *bench, const BenchMode *full, const BenchMode *mode) {
    double depths[SIZE_LIST_MAX], full_rates[SIZE_LIST_MAX], rates[SIZE_LIST_MAX];
    size_t n = 0;
    for (size_t d = 0; d < bench->depths.count; d++) {
        const BenchPoint *a = &full->points[d], *b = &mode->points[d];
        if (a->n == 0 || b->n == 0)
            continue;
        depths[n] = (double)bench->depths.items[d];
        full_rates[n] = bench_summarise(a->decode_rates, a->n).median;
        rates[n++] = bench_summarise(b->decode_rates, b->n).median;
    }
    return bench_break_even(depths, full_rates, rates, n);
}

/* Text */

/* How fast the host's threads read, or a device copies. */
static void print_bandwidth(const Bench *bench, FILE *stream) {
    const Bandwidth *b = &bench->bandwidth;
    double read = read_bandwidth(bench);
    if (b->by_device) {
        fprintf(stream,
                "the device copies at %.1f GB/s, bytes read and written together; median of %zu reading%s (%.1f to "
                "%.1f), each the best of several copies of %zu MiB\n",
                read / 1e9, bench->n_reads, bench->n_reads == 1 ? "" : "s", bench->all_reads[0] / 1e9,
                bench->all_reads[bench->n_reads - 1] / 1e9, b->buffer_bytes >> 20);
        return;
    }
    double one = percentile(bench->one_thread_reads, bench->n_reads, 0.5);
    fprintf(stream,
            "memory is read at %.1f GB/s by %d thread%s, %.1f by one; median of %zu reading%s (%.1f to %.1f), each the "
            "best of several passes over %zu MiB\n",
            read / 1e9, b->n_threads, b->n_threads == 1 ? "" : "s", one / 1e9, bench->n_reads,
            bench->n_reads == 1 ? "" : "s", bench->all_reads[0] / 1e9, bench->all_reads[bench->n_reads - 1] / 1e9,
            b->buffer_bytes >> 20);
    if (one > 1.1 * read)
        fprintf(stream, "note: one thread reads faster than all together, so other programs are using this machine; "
                        "repeat this when it is idle\n");
}

static void print_setup(const Bench *bench, FILE *stream) {
    const Bandwidth *b = &bench->bandwidth;
    char policy[KV_POLICY_TEXT], backend[COMPUTED_BY_TEXT];
    kv_policy_print(&bench->modes[0].policy, policy, sizeof policy);
    fprintf(stream, "%s: %.1f MB of weights for each token; computed by %s\n", bench->model_path,
            (double)bench->weights_bytes / 1e6, computed_by(bench->model->backend, backend));
    print_bandwidth(bench, stream);
    if (b->buffer_bytes < 2 * b->cache_bytes)
        fprintf(stream,
                "note: there is no memory for a buffer larger than the processor's caches of %zu MiB, so that "
                "is partly their speed\n",
                b->cache_bytes >> 20);
    fprintf(stream, "first token %.3f s after the program's start, loading and a prompt of %zu tokens included (%s)\n",
            bench->first_token_seconds, bench->n_first_prompt, policy);
    fprintf(stream,
            "from each depth on %zu tokens are generated, and %zu read behind them; median of %zu repetition%s, "
            "spread is (max - min) / median\n",
            bench->n_generate, bench->n_prompt, bench->n_repetitions, bench->n_repetitions == 1 ? "" : "s");
}

/* "2.3%", or "-" of a single repetition. */
static const char *print_spread(const BenchSummary *summary, size_t n, char text[16]) {
    snprintf(text, 16, n > 1 ? "%.1f%%" : "-", 100 * summary->spread);
    return text;
}

static void print_row(const Bench *bench, const BenchMode *mode, const BenchPoint *point, const BenchRow *row,
                      FILE *stream) {
    char policy[KV_POLICY_TEXT], repetitions[64] = "", spread[16], prefill_spread[16];
    kv_policy_print(&mode->policy, policy, sizeof policy);
    if (point->n < bench->n_repetitions)
        snprintf(repetitions, sizeof repetitions, " (%zu of %zu repetitions)", point->n, bench->n_repetitions);
    fprintf(stream, "%8zu  %-11s %12.1f %7s %8.2f %8.2f  %13.1f %7s  %9.2f %7.2f %6.1f%% %8.1f  %s%s%s%s\n", row->depth,
            kv_policy_mode(&mode->policy), row->decode.median, print_spread(&row->decode, point->n, spread),
            point->ms_min, point->ms_max, row->prefill.median, print_spread(&row->prefill, point->n, prefill_spread),
            row->bytes_per_token / 1e6, row->bytes_per_second / 1e9, 100 * row->bandwidth_share,
            row->read_bandwidth / 1e9, policy, row->note != NULL ? "  " : "", row->note != NULL ? row->note : "",
            repetitions);
}

static void print_rows(const Bench *bench, FILE *stream) {
    fprintf(stream, "\n%8s  %-11s %12s %7s %8s %8s  %13s %7s  %9s %7s %7s %8s  %s\n", "depth", "mode", "decode tok/s",
            "spread", "ms min", "ms max", "prefill tok/s", "spread", "MB/token", "GB/s", "of peak", "mem GB/s",
            "policy");
    for (size_t d = 0; d < bench->depths.count; d++)
        for (size_t i = 0; i < bench->n_modes; i++) {
            BenchRow row;
            if (bench_row(bench, &bench->modes[i], d, &row))
                print_row(bench, &bench->modes[i], &bench->modes[i].points[d], &row, stream);
        }
}

/* Why it may be chance which of the two is faster at the last depth; "" where it is not. */
static const char *doubt(const Bench *bench, const BenchMode *a, const BenchMode *b) {
    for (size_t d = bench->depths.count; d-- > 0;) {
        const BenchPoint *p = &a->points[d], *q = &b->points[d];
        if (p->n == 0 || q->n == 0)
            continue;
        if (p->n == 1 || q->n == 1)
            return "; that is one repetition, and may be chance";
        BenchSummary s = bench_summarise(p->decode_rates, p->n), t = bench_summarise(q->decode_rates, q->n);
        return s.min <= t.max && t.min <= s.max ? "; their repetitions overlap there, so it may be chance" : "";
    }
    return "";
}

typedef struct BreakEven {
    char policy[KV_POLICY_TEXT];
    double depth; /* from which on it is faster than the full cache; NAN: from none */
} BreakEven;

/* false: the policy is the full cache itself. */
static bool find_break_even(const Bench *bench, const BenchMode *full, const BenchMode *mode, BreakEven *out) {
    if (kv_policy_is_full(&mode->policy))
        return false;
    kv_policy_print(&mode->policy, out->policy, sizeof out->policy);
    out->depth = mode_break_even(bench, full, mode);
    return true;
}

static void print_break_even(const Bench *bench, FILE *stream) {
    const BenchMode *full = full_mode(bench);
    if (full == NULL) {
        fprintf(stream, "\nno break-even: the full cache is not among the policies; --compare adds it\n");
        return;
    }
    for (size_t i = 0; i < bench->n_modes; i++) {
        const BenchMode *mode = &bench->modes[i];
        BreakEven found;
        if (!find_break_even(bench, full, mode, &found))
            continue;
        fprintf(stream, "%s%s: ", i <= 1 ? "\n" : "", found.policy);
        if (isnan(found.depth))
            fprintf(stream, "not faster than the full cache at the last depth");
        else
            fprintf(stream, "generates faster than the full cache from depth %.0f to the last depth", found.depth);
        fprintf(stream, "%s\n", doubt(bench, full, mode));
    }
}

void bench_print(const Bench *bench, FILE *stream) {
    print_setup(bench, stream);
    print_rows(bench, stream);
    print_break_even(bench, stream);
}

/* JSON */

static cJSON *row_json(const Bench *bench, const BenchMode *mode, const BenchPoint *point, const BenchRow *row) {
    cJSON *out = cJSON_CreateObject();
    policy_json(out, &mode->policy);
    cJSON_AddNumberToObject(out, "depth", (double)row->depth);
    cJSON_AddNumberToObject(out, "decode_tokens_per_second", row->decode.median);
    cJSON_AddNumberToObject(out, "spread", row->decode.spread);
    cJSON_AddNumberToObject(out, "decode_ms_min", point->ms_min);
    cJSON_AddNumberToObject(out, "decode_ms_max", point->ms_max);
    cJSON_AddNumberToObject(out, "prefill_depth", (double)row->prefill_depth);
    cJSON_AddNumberToObject(out, "prefill_tokens_per_second", row->prefill.median);
    cJSON_AddNumberToObject(out, "prefill_spread", row->prefill.spread);
    cJSON_AddNumberToObject(out, "repetitions", (double)point->n);
    cJSON_AddNumberToObject(out, "bytes_per_token", row->bytes_per_token);
    cJSON_AddNumberToObject(out, "weights_bytes_per_token", (double)bench->weights_bytes);
    cJSON_AddNumberToObject(out, "kv_bytes_per_token", point->kv_bytes);
    cJSON_AddNumberToObject(out, "bytes_per_second", row->bytes_per_second);
    cJSON_AddNumberToObject(out, "bandwidth_share", row->bandwidth_share);
    cJSON_AddNumberToObject(out, "read_bandwidth", row->read_bandwidth);
    if (row->note != NULL)
        cJSON_AddStringToObject(out, "note", row->note);
    cJSON_AddItemToObject(out, "kernels", kernels_json(bench->model, &mode->context.cache));
    return out;
}

static cJSON *break_even_json(const Bench *bench) {
    const BenchMode *full = full_mode(bench);
    cJSON *out = cJSON_CreateObject();
    for (size_t i = 0; full != NULL && i < bench->n_modes; i++) {
        BreakEven found;
        if (find_break_even(bench, full, &bench->modes[i], &found))
            cJSON_AddItemToObject(out, found.policy,
                                  isnan(found.depth) ? cJSON_CreateNull() : cJSON_CreateNumber(found.depth));
    }
    return out;
}

cJSON *bench_json(const Bench *bench) {
    cJSON *root = cJSON_CreateObject(), *results = cJSON_CreateArray();
    json_add_string(root, "model", bench->model_path);
    backend_json(root, bench->model->backend);
    cJSON_AddStringToObject(root, "bandwidth_of", bench->bandwidth.by_device ? "device copies" : "host reads");
    cJSON_AddNumberToObject(root, "read_bandwidth", read_bandwidth(bench));
    cJSON_AddNumberToObject(root, "read_bandwidth_min", bench->all_reads[0]);
    cJSON_AddNumberToObject(root, "read_bandwidth_max", bench->all_reads[bench->n_reads - 1]);
    if (!bench->bandwidth.by_device)
        cJSON_AddNumberToObject(root, "read_bandwidth_one_thread",
                                percentile(bench->one_thread_reads, bench->n_reads, 0.5));
    cJSON_AddNumberToObject(root, "readings", (double)bench->n_reads);
    cJSON_AddNumberToObject(root, "read_buffer_bytes", (double)bench->bandwidth.buffer_bytes);
    cJSON_AddNumberToObject(root, "first_token_seconds", bench->first_token_seconds);
    cJSON_AddNumberToObject(root, "first_token_prompt_tokens", (double)bench->n_first_prompt);
    cJSON_AddNumberToObject(root, "prompt_tokens", (double)bench->n_prompt);
    cJSON_AddNumberToObject(root, "generate_tokens", (double)bench->n_generate);
    cJSON_AddNumberToObject(root, "repetitions", (double)bench->n_repetitions);
    for (size_t i = 0; i < bench->n_modes; i++)
        for (size_t d = 0; d < bench->depths.count; d++) {
            const BenchMode *mode = &bench->modes[i];
            BenchRow row;
            if (bench_row(bench, mode, d, &row))
                cJSON_AddItemToArray(results, row_json(bench, mode, &mode->points[d], &row));
        }
    cJSON_AddItemToObject(root, "results", results);
    cJSON_AddItemToObject(root, "break_even", break_even_json(bench));
    return root;
}

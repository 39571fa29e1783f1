/* See compare.h. */
#include "eval/bench/compare.h"

#include "base/array.h"
#include "base/text_file.h"
#include "eval/json_items.h"

#include <stdlib.h>

#define MAX_BYTES ((size_t)64 << 20)

static int read_json(const char *path, cJSON **out, Error *error) {
    TextFile file;
    int status = text_file_read(&file, path, MAX_BYTES, error);
    if (status == 0) {
        text_file_clean(&file);
        *out = cJSON_ParseWithLength(file.text.bytes, file.text.length);
        if (!cJSON_IsArray(cJSON_GetObjectItemCaseSensitive(*out, "results")))
            status = error_set(error, ERROR_FORMAT, "%s: is no result of bench --json; name such a file", path);
    }
    text_file_free(&file);
    return status;
}

static bool same_point(const cJSON *a, const cJSON *b) {
    return strcmp(json_text_of(a, "policy"), json_text_of(b, "policy")) == 0 &&
           json_number_of(a, "kv_block_size") == json_number_of(b, "kv_block_size") &&
           json_number_of(a, "depth") == json_number_of(b, "depth");
}

static const cJSON *find_point(const cJSON *file, const cJSON *point) {
    const cJSON *other;
    cJSON_ArrayForEach(other, cJSON_GetObjectItemCaseSensitive(file, "results")) {
        if (same_point(point, other))
            return other;
    }
    return NULL;
}

static BenchChange change_of(const cJSON *before, const cJSON *after, const char *rate, const char *spread) {
    bool repeated = json_number_of(before, "repetitions") > 1 && json_number_of(after, "repetitions") > 1;
    double noise = (json_number_of(before, spread) + json_number_of(after, spread)) / 2;
    return (BenchChange){json_number_of(before, rate), json_number_of(after, rate), repeated ? noise : NAN};
}

static int add_row(BenchComparison *c, const cJSON *before, const cJSON *after, Error *error) {
    BenchCompared row = {.mode = json_text_of(before, "mode"),
                         .policy = json_text_of(before, "policy"),
                         .decode = change_of(before, after, "decode_tokens_per_second", "spread"),
                         .prefill = change_of(before, after, "prefill_tokens_per_second", "prefill_spread")};
    double depth = json_number_of(before, "depth");
    if (!(depth >= 0 && depth < 1e15) || !(row.decode.before > 0) || !(row.decode.after > 0) ||
        !(row.prefill.before > 0) || !(row.prefill.after > 0))
        return error_set(error, ERROR_FORMAT,
                         "%s, %s: a result without depth or tokens a second; write it again with bench --json",
                         c->paths[0], c->paths[1]);
    row.depth = (size_t)depth;
    BenchCompared *rows = array_for_one_more(c->rows, c->count, sizeof *rows, "a comparison", error);
    if (rows == NULL)
        return ERROR_MEMORY;
    c->rows = rows;
    c->rows[c->count++] = row;
    return 0;
}

int bench_compare(const char *const paths[2], BenchComparison *out, Error *error) {
    const cJSON *point;
    *out = (BenchComparison){.paths = {paths[0], paths[1]}};
    for (int i = 0; i < 2; i++)
        if (read_json(paths[i], &out->files[i], error) < 0)
            return error->code;
    cJSON_ArrayForEach(point, cJSON_GetObjectItemCaseSensitive(out->files[0], "results")) {
        const cJSON *other = find_point(out->files[1], point);
        out->n_alone += other == NULL;
        if (other != NULL && add_row(out, point, other, error) < 0)
            return error->code;
    }
    cJSON_ArrayForEach(point, cJSON_GetObjectItemCaseSensitive(out->files[1], "results")) {
        out->n_alone += find_point(out->files[0], point) == NULL;
    }
    if (out->count == 0)
        return error_set(error, ERROR_FORMAT, "%s and %s have no policy and depth in common; run bench with the same",
                         paths[0], paths[1]);
    return 0;
}

void bench_comparison_free(BenchComparison *comparison) {
    for (int i = 0; i < 2; i++)
        cJSON_Delete(comparison->files[i]);
    free(comparison->rows);
    *comparison = (BenchComparison){0};
}

int bench_change_sign(const BenchChange *change) {
    double difference = change->after / change->before - 1;
    if (!(fabs(difference) > change->noise)) /* nor where the noise is not known */
        return 0;
    return difference > 0 ? 1 : -1;
}

/* ---- Text */

/* What both must share for the figures to say something about the program. */
static void print_differences(const BenchComparison *c, FILE *stream) {
    static const char *const NAMES[] = {"model", "device", "device_name", "simd"};
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++)
        if (strcmp(json_text_of(c->files[0], NAMES[i]), json_text_of(c->files[1], NAMES[i])) != 0)
            fprintf(stream, "note: %s differs: %s, %s\n", NAMES[i], json_text_of(c->files[0], NAMES[i]),
                    json_text_of(c->files[1], NAMES[i]));
    if (json_number_of(c->files[0], "threads") != json_number_of(c->files[1], "threads"))
        fprintf(stream, "note: threads differ: %.0f, %.0f\n", json_number_of(c->files[0], "threads"),
                json_number_of(c->files[1], "threads"));
    double read = json_number_of(c->files[1], "read_bandwidth") / json_number_of(c->files[0], "read_bandwidth");
    if (fabs(read - 1) > 0.05)
        fprintf(stream, "note: memory gave %.2f times as much in the second, whatever the program did\n", read);
}

static void print_change(const BenchChange *change, FILE *stream) {
    static const char *const WORDS[] = {"slower", "", "faster"};
    fprintf(stream, " %10.1f %10.1f %7.3f", change->before, change->after, change->after / change->before);
    if (isnan(change->noise))
        fprintf(stream, "  +-     ? %-6s", "");
    else
        fprintf(stream, "  +- %5.3f %-6s", change->noise, WORDS[1 + bench_change_sign(change)]);
}

void bench_comparison_print(const BenchComparison *c, FILE *stream) {
    size_t n_slower = 0;
    fprintf(stream, "A: %s\nB: %s\n", c->paths[0], c->paths[1]);
    print_differences(c, stream);
    fprintf(stream, "\n%8s  %-11s %10s %10s %7s %15s  %10s %10s %7s %15s  %s\n", "depth", "mode", "decode A", "B",
            "B / A", "", "prefill A", "B", "B / A", "", "policy");
    for (size_t i = 0; i < c->count; i++) {
        const BenchCompared *row = &c->rows[i];
        n_slower += (size_t)(bench_change_sign(&row->decode) < 0) + (size_t)(bench_change_sign(&row->prefill) < 0);
        fprintf(stream, "%8zu  %-11s", row->depth, row->mode);
        print_change(&row->decode, stream);
        fputc(' ', stream);
        print_change(&row->prefill, stream);
        fprintf(stream, "  %s\n", row->policy);
    }
    fprintf(stream, "\nslower beyond the spread of their repetitions: %zu of %zu speeds\n", n_slower, 2 * c->count);
    if (c->n_alone > 0)
        fprintf(stream, "note: %zu points are in one of the files only\n", c->n_alone);
}

/* ---- JSON */

static void add_change(cJSON *row, const char *name, const BenchChange *change) {
    static const char *const WORDS[] = {"slower", "same", "faster"};
    cJSON *out = cJSON_AddObjectToObject(row, name);
    cJSON_AddNumberToObject(out, "a", change->before);
    cJSON_AddNumberToObject(out, "b", change->after);
    cJSON_AddNumberToObject(out, "ratio", change->after / change->before);
    cJSON_AddItemToObject(out, "noise", isnan(change->noise) ? cJSON_CreateNull() : cJSON_CreateNumber(change->noise));
    cJSON_AddStringToObject(out, "verdict", isnan(change->noise) ? "not known" : WORDS[1 + bench_change_sign(change)]);
}

cJSON *bench_comparison_json(const BenchComparison *c) {
    cJSON *root = cJSON_CreateObject();
    cJSON_AddStringToObject(root, "a", c->paths[0]);
    cJSON_AddStringToObject(root, "b", c->paths[1]);
    cJSON_AddNumberToObject(root, "points_alone", (double)c->n_alone);
    cJSON *rows = cJSON_AddArrayToObject(root, "results");
    for (size_t i = 0; i < c->count; i++) {
        cJSON *row = cJSON_CreateObject();
        cJSON_AddStringToObject(row, "mode", c->rows[i].mode);
        cJSON_AddStringToObject(row, "policy", c->rows[i].policy);
        cJSON_AddNumberToObject(row, "depth", (double)c->rows[i].depth);
        add_change(row, "decode", &c->rows[i].decode);
        add_change(row, "prefill", &c->rows[i].prefill);
        cJSON_AddItemToArray(rows, row);
    }
    return root;
}

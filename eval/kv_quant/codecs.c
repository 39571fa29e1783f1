/* See codecs.h. */
#include "eval/kv_quant/codecs.h"

#include "base/checked.h"
#include "base/machine/clock.h"
#include "base/options.h"
#include "eval/draws.h"
#include "eval/kv_quant/timing.h"
#include "eval/statistics.h"
#include "session/run_report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_REPETITIONS 100
#define KV_BLOCK        64 /* where a codec leaves it open */

static const char *const SIDES[KV_SIDES] = {[KV_KEYS] = "keys", [KV_VALUES] = "values"};

/* ---- The choice */

static bool is_chosen(const CodecStudy *study, KvCodecId id) {
    for (size_t i = 0; i < study->n_codecs; i++)
        if (study->codecs[i] == id)
            return true;
    return false;
}

int codec_study_choose(CodecStudy *study, const char *names, Error *error) {
    if (strcmp(names, "all") == 0) {
        for (KvCodecId id = 0; id < KV_CODEC_COUNT; id++)
            study->codecs[study->n_codecs++] = id;
        return 0;
    }
    for (const char *at = names;; at++) {
        size_t length = strcspn(at, ",");
        char name[32];
        if (length == 0)
            return error_set(error, ERROR_USAGE, "--codec: a name is missing; give some with commas between, or all");
        snprintf(name, sizeof name, "%.*s", (int)at_most(length, sizeof name - 1), at);
        const KvCodec *codec = kv_codec_named(sv(name));
        if (codec == NULL)
            return error_set(error, ERROR_USAGE,
                             "--codec %s: unknown; did you mean %s? \"all\" takes all of --list_codecs", name,
                             nearest_name(name, kv_codec_names()));
        if (is_chosen(study, kv_codec_id(codec)))
            return error_set(error, ERROR_USAGE, "--codec: %s is named twice; name each codec once", name);
        study->codecs[study->n_codecs++] = kv_codec_id(codec);
        at += length;
        if (*at == '\0')
            return 0;
    }
}

/* ---- One codec on one sample */

/* Of a row: records of all groups, and what they decode to. */
typedef struct Coding {
    const KvCodec *codec;
    KvGroup group;
    KvSide side;
    SimdLevel level;
    const CodecSample *sample;
    size_t n, record_bytes; /* numbers of a group, bytes of its record */
    uint8_t *records;       /* (n_groups, record_bytes) */
    float *decoded;         /* (n_groups, n) */
    float *scratch;         /* (n) */
} Coding;

static double encode_all(const Coding *c) {
    double begin = clock_seconds();
    for (size_t g = 0; g < c->sample->n_groups; g++)
        kv_codec_encode(c->codec, c->level, c->side, &c->group, c->sample->values + g * c->n, c->scratch,
                        c->records + g * c->record_bytes);
    return clock_seconds() - begin;
}

static double decode_all(const Coding *c) {
    KvDecode *decode = kv_codec_decoder(c->codec, c->level);
    double begin = clock_seconds();
    for (size_t g = 0; g < c->sample->n_groups; g++)
        decode(c->side, &c->group, c->records + g * c->record_bytes, 0, SAMPLE_TOKENS, c->decoded + g * c->n);
    return clock_seconds() - begin;
}

/* Bytes a second of the median of several runs, behind one to warm up. */
static double rate_of(const Coding *c, double (*run)(const Coding *), size_t repetitions) {
    double seconds[MAX_REPETITIONS];
    size_t n = at_most(repetitions, MAX_REPETITIONS);
    run(c);
    for (size_t i = 0; i < n; i++)
        seconds[i] = run(c);
    sort_ascending(seconds, n);
    double bytes = (double)c->sample->n_groups * (double)(c->n * sizeof(float) + c->record_bytes);
    return bytes / percentile(seconds, n, 0.5);
}

/* Products of each key with a query of its group's. */
static double score_error(const Coding *c, uint64_t seed) {
    double sum = 0, size = 0, query[1024];
    size_t head_dim = c->sample->head_dim;
    if (c->side != KV_KEYS || head_dim > sizeof query / sizeof *query)
        return NAN;
    for (size_t g = 0; g < c->sample->n_groups; g++) {
        for (size_t d = 0; d < head_dim; d++)
            query[d] = draw_normal(&seed);
        for (size_t t = 0; t < SAMPLE_TOKENS; t++) {
            double exact = 0, error = 0;
            for (size_t d = 0; d < head_dim; d++) {
                size_t at = g * c->n + t * head_dim + d;
                exact += query[d] * (double)c->sample->values[at];
                error += query[d] * ((double)c->decoded[at] - (double)c->sample->values[at]);
            }
            sum += fabs(error);
            size += fabs(exact);
        }
    }
    return size > 0 ? sum / size : 0;
}

static void compare(const Coding *c, uint64_t seed, CodecRow *row) {
    double squares = 0, size = 0;
    if (c->group.rotated)
        kv_rotate(c->decoded, c->sample->n_groups * SAMPLE_TOKENS, c->sample->head_dim);
    for (size_t i = 0; i < c->sample->n_groups * c->n; i++) {
        double x = (double)c->sample->values[i], error = fabs((double)c->decoded[i] - x);
        squares += error * error;
        size += x * x;
        row->max_abs = fmax(row->max_abs, error);
    }
    row->relative = size > 0 ? sqrt(squares / size) : 0;
    row->score = score_error(c, seed);
}

static int allocate(Coding *c, Error *error) {
    size_t groups = c->sample->n_groups;
    c->records = malloc(groups * c->record_bytes);
    c->decoded = malloc(groups * c->n * sizeof *c->decoded);
    c->scratch = malloc(c->n * sizeof *c->scratch);
    if (c->records == NULL || c->decoded == NULL || c->scratch == NULL)
        return error_memory(error, "records", groups * (c->record_bytes + c->n * sizeof(float)));
    return 0;
}

static int measure(const CodecStudy *study, CodecRow *row, Error *error) {
    const KvCodec *codec = kv_codec(row->codec);
    Coding c = {.codec = codec, .side = row->side, .level = study->level, .sample = row->sample};
    c.group = (KvGroup){SAMPLE_TOKENS, row->sample->head_dim, KV_BLOCK, row->rotated};
    Error why = {0};
    if (kv_codec_check(codec, &c.group, &why) < 0) {
        size_t cause = strcspn(why.message, ";"); /* the cure is for models */
        snprintf(row->skipped, sizeof row->skipped, "%.*s", (int)at_most(cause, sizeof row->skipped - 1), why.message);
        return 0;
    }
    c.n = SAMPLE_TOKENS * row->sample->head_dim;
    c.record_bytes = kv_codec_bytes(codec, row->side, &c.group);
    row->bytes_per_element = (double)c.record_bytes / (double)c.n;
    int status = allocate(&c, error);
    if (status == 0) {
        row->encode_rate = rate_of(&c, encode_all, study->repetitions);
        row->decode_rate = rate_of(&c, decode_all, study->repetitions);
        compare(&c, study->seed, row);
    }
    free(c.records);
    free(c.decoded);
    free(c.scratch);
    return status;
}

/* ---- All */

static int by_bytes(const void *a, const void *b) {
    const CodecRow *x = a, *y = b;
    if (x->bytes_per_element != y->bytes_per_element)
        return x->bytes_per_element < y->bytes_per_element ? -1 : 1;
    return x->codec != y->codec ? (x->codec < y->codec ? -1 : 1) : (int)x->rotated - (int)y->rotated;
}

static int study_codec(CodecStudy *study, const CodecSample *sample, KvSide side, KvCodecId codec, bool rotated,
                       Error *error) {
    CodecRow *row = &study->rows[study->n_rows];
    *row = (CodecRow){.sample = sample, .side = side, .codec = codec, .rotated = rotated};
    if (quant_interrupted(study->interrupted, error) < 0 || measure(study, row, error) < 0)
        return error->code;
    study->n_rows++;
    return 0;
}

/* In order, also where it ends before all are done. */
static int study_side(CodecStudy *study, const CodecSample *sample, KvSide side, Error *error) {
    size_t first = study->n_rows;
    int status = 0;
    for (size_t i = 0; i < 2 * study->n_codecs && status == 0; i++)
        status = study_codec(study, sample, side, study->codecs[i / 2], i % 2 != 0, error);
    qsort(study->rows + first, study->n_rows - first, sizeof *study->rows, by_bytes);
    if (status == 0)
        fprintf(stderr, "%s, as %s: %zu codec%s, as they are and rotated\n", sample->name, SIDES[side], study->n_codecs,
                study->n_codecs == 1 ? "" : "s");
    return status;
}

int codec_study_run(CodecStudy *study, Error *error) {
    study->rows = calloc(study->samples.count * KV_SIDES * study->n_codecs * 2, sizeof *study->rows);
    if (study->rows == NULL)
        return error_memory(error, "results", study->n_codecs * sizeof *study->rows);
    for (size_t i = 0; i < study->samples.count; i++)
        for (KvSide side = 0; side < KV_SIDES; side++)
            if (study->samples.items[i].has_side[side] && study_side(study, &study->samples.items[i], side, error) < 0)
                return error->code;
    return 0;
}

void codec_study_free(CodecStudy *study) {
    samples_free(&study->samples);
    free(study->rows);
    study->rows = NULL;
    study->n_rows = 0;
}

/* ---- Reports */

/* What was made up is encoded as both sides; what was captured says itself which it is. */
static void print_heading(const CodecRow *row, FILE *stream) {
    bool as_both = row->sample->has_side[KV_KEYS] && row->sample->has_side[KV_VALUES];
    fprintf(stream, "\n%s%s%s: %zu groups of head dimension %zu\n", row->sample->name, as_both ? ", as " : "",
            as_both ? SIDES[row->side] : "", row->sample->n_groups, row->sample->head_dim);
    fprintf(stream, "%-14s %10s %10s %10s %10s %10s %12s %12s\n", "codec", "bytes/elem", "bits/elem", "rel. error",
            "max error", "QK error", "encode GB/s", "decode GB/s");
}

void codec_study_print(const CodecStudy *study, FILE *stream) {
    fprintf(stream, "codecs of the cache, groups of %d tokens; median of %zu run%s after one to warm up\n",
            SAMPLE_TOKENS, study->repetitions, study->repetitions == 1 ? "" : "s");
    for (size_t i = 0; i < study->n_rows; i++) {
        const CodecRow *row = &study->rows[i];
        if (i == 0 || row->sample != row[-1].sample || row->side != row[-1].side)
            print_heading(row, stream);
        char name[48];
        snprintf(name, sizeof name, "%s%s", kv_codec_name(kv_codec(row->codec)), row->rotated ? " rotated" : "");
        if (row->skipped[0] != '\0') {
            fprintf(stream, "%-14s skipped: %s\n", name, row->skipped);
            continue;
        }
        fprintf(stream, "%-14s %10.4f %10.3f %10.6f %10.4f ", name, row->bytes_per_element, 8 * row->bytes_per_element,
                row->relative, row->max_abs);
        if (isnan(row->score))
            fprintf(stream, "%10s", "-");
        else
            fprintf(stream, "%10.6f", row->score);
        fprintf(stream, " %12.2f %12.2f\n", row->encode_rate / 1e9, row->decode_rate / 1e9);
    }
    fputs("\nbytes/elem     of a record, scales counted\n"
          "rel. error     ||x~ - x|| / ||x||; max error: the largest |x~ - x|\n"
          "QK error       mean |q k - q k~| over mean |q k|, of normal queries q\n"
          "GB/s           F32 and records that one thread reads and writes, mostly in caches\n",
          stream);
}

static const struct {
    const char *name;
    size_t offset;
} FIGURES[] = {{"bytes_per_element", offsetof(CodecRow, bytes_per_element)},
               {"relative_error", offsetof(CodecRow, relative)},
               {"max_abs", offsetof(CodecRow, max_abs)},
               {"score_error", offsetof(CodecRow, score)},
               {"encode_bytes_per_second", offsetof(CodecRow, encode_rate)},
               {"decode_bytes_per_second", offsetof(CodecRow, decode_rate)}};

enum { N_FIGURES = sizeof FIGURES / sizeof *FIGURES };

static double figure(const CodecRow *row, size_t i) {
    double value;
    memcpy(&value, (const char *)row + FIGURES[i].offset, sizeof value);
    return value;
}

cJSON *codec_study_json(const CodecStudy *study) {
    cJSON *root = cJSON_CreateObject(), *codecs;
    seed_json(root, study->seed);
    cJSON_AddNumberToObject(root, "repetitions", (double)study->repetitions);
    codecs = cJSON_AddArrayToObject(root, "codecs");
    for (size_t r = 0; r < study->n_rows; r++) {
        const CodecRow *row = &study->rows[r];
        cJSON *out = cJSON_CreateObject();
        cJSON_AddStringToObject(out, "data", row->sample->name);
        cJSON_AddStringToObject(out, "side", SIDES[row->side]);
        cJSON_AddStringToObject(out, "codec", kv_codec_name(kv_codec(row->codec)));
        cJSON_AddBoolToObject(out, "rotated", row->rotated);
        cJSON_AddNumberToObject(out, "head_dim", (double)row->sample->head_dim);
        if (row->skipped[0] != '\0')
            cJSON_AddStringToObject(out, "skipped", row->skipped);
        for (size_t i = 0; i < N_FIGURES && row->skipped[0] == '\0'; i++)
            if (!isnan(figure(row, i)))
                cJSON_AddNumberToObject(out, FIGURES[i].name, figure(row, i));
        cJSON_AddItemToArray(codecs, out);
    }
    return root;
}

void codec_study_csv(const CodecStudy *study, FILE *stream) {
    fprintf(stream, "data,side,codec,rotated,head_dim,skipped");
    for (size_t i = 0; i < N_FIGURES; i++)
        fprintf(stream, ",%s", FIGURES[i].name);
    fprintf(stream, "\n");
    for (size_t r = 0; r < study->n_rows; r++) {
        const CodecRow *row = &study->rows[r];
        fprintf(stream, "%s,%s,%s,%d,%zu,\"%s\"", row->sample->name, SIDES[row->side],
                kv_codec_name(kv_codec(row->codec)), row->rotated, row->sample->head_dim, row->skipped);
        for (size_t i = 0; i < N_FIGURES; i++) {
            if (row->skipped[0] != '\0' || isnan(figure(row, i)))
                fprintf(stream, ",");
            else
                fprintf(stream, ",%.9g", figure(row, i));
        }
        fprintf(stream, "\n");
    }
}

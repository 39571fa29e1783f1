/* See reference.h. */
#include "attention/reference.h"

#include "base/checked.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_GROUP_TOKENS 64

/* As ScoreForm says. */
static double score_of(ScoreForm form, const double *q, const double *key, size_t head_dim) {
    double sum = 0, cap = (double)form.cap;
    for (size_t d = 0; d < head_dim; d++)
        sum += q[d] * key[d];
    sum /= sqrt(form.divisor > 0 ? (double)form.divisor : (double)head_dim);
    return cap > 0 ? cap * tanh(sum / cap) : sum;
}

void attention_plain(ScoreForm form, size_t n_tokens, size_t head_dim, const double *q, const double *keys,
                     const double *values, double *out, double *magnitude) {
    double max = -INFINITY, sum = 0;
    for (size_t t = 0; t < n_tokens; t++)
        max = fmax(max, score_of(form, q, keys + t * head_dim, head_dim));
    for (size_t d = 0; d < head_dim; d++)
        out[d] = magnitude[d] = 0;
    for (size_t t = 0; t < n_tokens; t++) {
        double weight = exp(score_of(form, q, keys + t * head_dim, head_dim) - max);
        sum += weight;
        for (size_t d = 0; d < head_dim; d++) {
            out[d] += weight * values[t * head_dim + d];
            magnitude[d] += weight * fabs(values[t * head_dim + d]);
        }
    }
    for (size_t d = 0; d < head_dim; d++) {
        out[d] /= sum;
        magnitude[d] /= sum;
    }
}

/* The orthonormal Walsh-Hadamard transform, its own inverse: what rotated codecs applied before they encoded. */
static void unrotate(double *row, size_t n) {
    for (size_t half = 1; half < n; half *= 2)
        for (size_t i = 0; i < n; i++)
            if ((i & half) == 0) {
                double a = row[i], b = row[i + half];
                row[i] = a + b;
                row[i + half] = a - b;
            }
    for (size_t i = 0; i < n; i++)
        row[i] /= sqrt((double)n);
}

/* Undoes shift_rotation, which turns back: the angles' signs change. */
static void turn_forward(double *key, const AttentionShape *shape, const float *shift_rotation) {
    bool interleaved = shape->pairing == ROPE_INTERLEAVED;
    for (size_t i = 0; i < shape->head_dim / 2; i++) {
        double *a = key + (interleaved ? 2 * i : i), *b = a + (interleaved ? 1 : shape->head_dim / 2);
        double cosine = (double)shift_rotation[2 * i], sine = -(double)shift_rotation[2 * i + 1];
        double first = *a * cosine - *b * sine, second = *a * sine + *b * cosine;
        *a = first;
        *b = second;
    }
}

/* One side of a span, group after group, decoded and unrotated, without padding: (n_tokens, head_dim). */
static void decode_side(const KvSpan *span, KvSide side, const KvRecordForm *form, size_t head_dim, double *rows) {
    uint8_t record[MAX_GROUP_TOKENS * ATTENTION_MAX_DIM * sizeof(uint16_t)]; /* no codec is larger than f16 */
    float decoded[MAX_GROUP_TOKENS * ATTENTION_MAX_DIM];
    double row[ATTENTION_MAX_DIM];
    const KvEncoding *encoding = &span->side[side];
    const KvGroup *group = &encoding->group;
    size_t row_dim = group->head_dim;
    for (size_t first = 0; first < span->n_tokens; first += group->n_tokens) {
        const uint8_t *from = span->records[side] + first / group->n_tokens * encoding->record_bytes;
        size_t n = at_most(span->n_tokens - first, group->n_tokens); /* FP16 spans may end anywhere */
        if (encoding->codec != KV_F16) {                             /* which every form leaves as it is */
            form->load(encoding->codec, side, group, from, record);
            from = record;
        }
        kv_codec_decoder(kv_codec(encoding->codec), SIMD_SCALAR)(side, group, from, 0, n, decoded);
        for (size_t t = 0; t < n; t++) {
            for (size_t d = 0; d < row_dim; d++)
                row[d] = (double)decoded[t * row_dim + d];
            if (group->rotated)
                unrotate(row, row_dim);
            memcpy(rows + (first + t) * head_dim, row, head_dim * sizeof *row);
        }
    }
}

/* What the query sees, span after span. */
static void decode_spans(const AttentionShape *shape, const AttentionQuery *query, const KvRecordForm *form,
                         double *keys, double *values) {
    for (size_t s = 0; s < query->n_spans; s++) {
        const KvSpan *span = &query->spans[s];
        decode_side(span, KV_KEYS, form, shape->head_dim, keys);
        decode_side(span, KV_VALUES, form, shape->head_dim, values);
        for (size_t t = 0; t < span->n_tokens && span->shifted; t++)
            turn_forward(keys + t * shape->head_dim, shape, query->shift_rotation);
        keys += span->n_tokens * shape->head_dim;
        values += span->n_tokens * shape->head_dim;
    }
}

int attention_reference(const AttentionShape *shape, const AttentionQuery *query, const KvRecordForm *form, double *out,
                        double *magnitude, Error *error) {
    size_t n_tokens = 0, dim = shape->head_dim;
    for (size_t s = 0; s < query->n_spans; s++)
        n_tokens += query->spans[s].n_tokens;
    double *keys = malloc((2 * n_tokens + 1) * dim * sizeof *keys); /* values, and one query head, are behind them */
    if (keys == NULL)
        return error_memory(error, "reference attention", (2 * n_tokens + 1) * dim * sizeof *keys);
    double *values = keys + n_tokens * dim, *q = values + n_tokens * dim;
    decode_spans(shape, query, form, keys, values);
    for (size_t h = 0; h < shape->q_per_kv; h++) {
        for (size_t d = 0; d < dim; d++)
            q[d] = (double)query->q[h * dim + d];
        attention_plain(shape->scores, n_tokens - query->n_hidden, dim, q, keys + query->n_hidden * dim,
                        values + query->n_hidden * dim, out + h * dim, magnitude + h * dim);
    }
    free(keys);
    return 0;
}

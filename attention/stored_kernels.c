/* Kernels of each codec, compiled once for each instruction set; see stored_kernels.h. A codec that has no form of its
 * own is decoded a few tokens at a time, and so is a head whose dimension is no multiple of the lanes. */
#include "attention/stored_kernels.h"

#include "attention/row_kernels.h"

#define DECODE_TOKENS 16

/* Scales and minima of a group's channels in F32. */
typedef struct Channels {
    float scales[ATTENTION_MAX_DIM], minima[ATTENTION_MAX_DIM];
} Channels;

INLINE bool by_channel(RowForm form) {
    return form == ROW_I8_CHANNEL || form == ROW_I4_CHANNEL;
}

INLINE void load_channels(const uint8_t *from, size_t head_dim, float *to) {
    const uint16_t *halves = (const uint16_t *)(const void *)from;
    for (size_t d = 0; d < head_dim; d += VEC_LANES)
        vec_store(to + d, vec_load_half(halves + d));
}

/* Tokens from `first` on, as far as they lie in one group. */
INLINE StoredRows locate(RowForm form, const KvLayout *layout, const KvSpan *span, KvSide side, size_t first,
                         Channels *channels) {
    const uint8_t *record = record_of(span, side, first);
    size_t token = first % span->group_k.n_tokens, scale = token * layout->blocks_per_row;
    StoredRows rows = {.rows = record + layout->codes + token * layout->row_bytes,
                       .row_bytes = layout->row_bytes,
                       .blocks_per_row = layout->blocks_per_row,
                       .block_shift = layout->block > 32};
    if (by_channel(form)) {
        size_t head_dim = span->group_k.head_dim;
        load_channels(record, head_dim, channels->scales);
        if (form == ROW_I4_CHANNEL)
            load_channels(record + layout->minima, head_dim, channels->minima);
        rows.channel_scales = channels->scales;
        rows.channel_minima = channels->minima;
    } else if (form == ROW_NF4) {
        rows.scales = record + KV_NF4_SCALES + scale;
        rows.scale_minimum = load_half(record);
        rows.scale_step = load_half(record + 2);
    } else {
        rows.scales = record + scale * 2;
        rows.minima = rows.scales + layout->minima;
    }
    return rows;
}

INLINE bool fits_lanes(RowForm form, const KvSpan *span) {
    return form == ROW_HALF || (form != ROW_FLOAT && span->group_k.head_dim % VEC_LANES == 0);
}

/* ROW_FLOAT: whatever the codec, decoded. */
INLINE void score_stored(RowForm form, KvCodecId codec, const KvSpan *span, size_t first, size_t n_tokens,
                         const float *q, size_t n_rows, float *scores, size_t stride) {
    size_t head_dim = span->group_k.head_dim;
    KvLayout layout = kv_layout(&KV_FORMATS[codec], KV_KEYS, &span->group_k);
    Channels channels;
    float decoded[DECODE_TOKENS * ATTENTION_MAX_DIM];
    for (size_t done = 0, n; done < n_tokens; done += n) {
        n = rest_of_group(span, first + done, n_tokens - done);
        StoredRows rows;
        if (form == ROW_FLOAT) {
            n = n < DECODE_TOKENS ? n : DECODE_TOKENS;
            decode_stored(span, KV_KEYS, first + done, n, decoded);
            rows = decoded_rows(decoded, head_dim);
        } else {
            rows = locate(form, &layout, span, KV_KEYS, first + done, &channels);
        }
        for (size_t r = 0; r < n_rows; r += ROW_BLOCK)
            WITH_ROWS(row_block(n_rows - r), score_rows, form, q + r * head_dim, &rows, n, head_dim,
                      scores + r * stride + done, stride);
    }
}

INLINE void add_stored(RowForm form, KvCodecId codec, const KvSpan *span, size_t first, size_t n_tokens,
                       const float *weights, size_t stride, size_t n_rows, float *out, size_t out_stride) {
    size_t head_dim = span->group_k.head_dim;
    KvLayout layout = kv_layout(&KV_FORMATS[codec], KV_VALUES, &span->group_v);
    float decoded[DECODE_TOKENS * ATTENTION_MAX_DIM];
    for (size_t done = 0, n; done < n_tokens; done += n) {
        n = rest_of_group(span, first + done, n_tokens - done);
        StoredRows rows;
        if (form == ROW_FLOAT) {
            n = n < DECODE_TOKENS ? n : DECODE_TOKENS;
            decode_stored(span, KV_VALUES, first + done, n, decoded);
            rows = decoded_rows(decoded, head_dim);
        } else {
            rows = locate(form, &layout, span, KV_VALUES, first + done, NULL);
        }
        for (size_t r = 0; r < n_rows; r += ROW_BLOCK)
            WITH_ROWS(row_block(n_rows - r), add_rows, form, weights + r * stride + done, stride, &rows, n, head_dim,
                      out + r * out_stride, out_stride);
    }
}

static void score_decoded(const KvSpan *span, size_t first, size_t n_tokens, const float *q, size_t n_rows,
                          float *scores, size_t stride) {
    score_stored(ROW_FLOAT, KV_F16, span, first, n_tokens, q, n_rows, scores, stride);
}

static void add_decoded(const KvSpan *span, size_t first, size_t n_tokens, const float *weights, size_t stride,
                        size_t n_rows, float *out, size_t out_stride) {
    add_stored(ROW_FLOAT, KV_F16, span, first, n_tokens, weights, stride, n_rows, out, out_stride);
}

/* The kernels of a codec with forms of its own for K and V. */
#define DEFINE_KERNELS(codec, form_k, form_v)                                                                          \
    static void score_##codec(const KvSpan *span, size_t first, size_t n_tokens, const float *q, size_t n_rows,        \
                              float *scores, size_t stride) {                                                          \
        if (fits_lanes(form_k, span))                                                                                  \
            score_stored(form_k, codec, span, first, n_tokens, q, n_rows, scores, stride);                             \
        else                                                                                                           \
            score_decoded(span, first, n_tokens, q, n_rows, scores, stride);                                           \
    }                                                                                                                  \
    static void add_##codec(const KvSpan *span, size_t first, size_t n_tokens, const float *weights, size_t stride,    \
                            size_t n_rows, float *out, size_t out_stride) {                                            \
        if (fits_lanes(form_v, span))                                                                                  \
            add_stored(form_v, codec, span, first, n_tokens, weights, stride, n_rows, out, out_stride);                \
        else                                                                                                           \
            add_decoded(span, first, n_tokens, weights, stride, n_rows, out, out_stride);                              \
    }

DEFINE_KERNELS(KV_F16, ROW_HALF, ROW_HALF)
DEFINE_KERNELS(KV_INT8, ROW_I8_CHANNEL, ROW_I8_TOKEN)
DEFINE_KERNELS(KV_Q8_0, ROW_Q8_0, ROW_Q8_0)
DEFINE_KERNELS(KV_INT4, ROW_I4_CHANNEL, ROW_I4_BLOCK)
DEFINE_KERNELS(KV_Q4_1, ROW_Q4_1, ROW_Q4_1)
DEFINE_KERNELS(KV_Q4_0, ROW_Q4_0, ROW_Q4_0)
DEFINE_KERNELS(KV_NF4, ROW_NF4, ROW_NF4)

const StoredKernels SIMD_NAME(stored_kernels)[KV_CODEC_COUNT] = {
    [KV_F16] = {score_KV_F16, add_KV_F16},      [KV_INT8] = {score_KV_INT8, add_KV_INT8},
    [KV_INT8G] = {score_decoded, add_decoded},  [KV_Q8_0] = {score_KV_Q8_0, add_KV_Q8_0},
    [KV_FP8] = {score_decoded, add_decoded},    [KV_Q5_1] = {score_decoded, add_decoded},
    [KV_Q5_0] = {score_decoded, add_decoded},   [KV_INT4] = {score_KV_INT4, add_KV_INT4},
    [KV_Q4_1] = {score_KV_Q4_1, add_KV_Q4_1},   [KV_Q4_0] = {score_KV_Q4_0, add_KV_Q4_0},
    [KV_NF4] = {score_KV_NF4, add_KV_NF4},      [KV_INT2] = {score_decoded, add_decoded},
    [KV_BINARY] = {score_decoded, add_decoded},
};

/* Kernels of each codec, compiled once for each instruction set; see stored_kernels.h. A codec that has no form of its
 * own is decoded a few tokens at a time, and so is a head whose dimension is no multiple of the lanes. */
#include "attention/stored_kernels.h"

#include "attention/row_kernels.h"

#define DECODE_TOKENS 16

/* Scales and minima in F32, of channels or of a group's tokens with their blocks; whole vectors are written. */
#define MAX_SCALES (64 * ATTENTION_MAX_DIM / 32)
typedef struct Scales {
    float scales[MAX_SCALES + VEC_LANES], minima[MAX_SCALES + VEC_LANES];
    uint16_t halves[MAX_SCALES + VEC_LANES];
} Scales;

static void widen(const uint16_t *halves, size_t n, float *out) {
    for (size_t i = 0; i < n; i += VEC_LANES)
        vec_store(out + i, vec_load_half(halves + i));
}

static void widen_bytes(const uint8_t *from, size_t n, float *out) {
    widen((const uint16_t *)(const void *)from, n, out);
}

/* FP16 numbers that stand `step` bytes apart. */
INLINE void gather(const uint8_t *from, size_t step, size_t n, uint16_t *halves, float *out) {
    for (size_t i = 0; i < n; i++)
        memcpy(halves + i, from + i * step, sizeof *halves);
    widen(halves, n, out);
}

static void nf4_scales(const uint8_t *record, const uint8_t *codes, size_t n, float *out) {
    uint16_t constants[2];
    memcpy(constants, record, sizeof constants);
    Vec minimum = vec_set1(half_to_float(constants[0])), step = vec_set1(half_to_float(constants[1]));
    for (size_t i = 0; i < n; i += VEC_LANES)
        vec_store(out + i, vec_add(minimum, vec_mul(step, vec_load_u8(codes + i))));
    for (size_t i = 0; i < n; i++)
        if (codes[i] == KV_NF4_SCALE_NAN)
            out[i] = NAN;
}

/* Bytes of a block of 32 of GGML's formats; 0: another form. */
INLINE size_t ggml_bytes(RowForm form) {
    return form == ROW_Q8_0 ? 34 : form == ROW_Q4_0 ? 18 : form == ROW_Q4_1 ? 20 : 0;
}

/* n tokens from `first` on, which lie in one group. */
INLINE StoredRows locate(RowForm form, const KvLayout *layout, const KvSpan *span, KvSide side, size_t first, size_t n,
                         Scales *room) {
    const uint8_t *record = record_of(span, side, first);
    size_t head_dim = span->group_k.head_dim, token = first % span->group_k.n_tokens, ggml = ggml_bytes(form);
    size_t blocks = ggml > 0 ? head_dim / 32 : layout->blocks_per_row;
    const uint8_t *rows = record + layout->codes + token * layout->row_bytes;
    const uint8_t *halves = record + token * blocks * sizeof(uint16_t);
    if (ggml > 0) {
        gather(rows, ggml, n * blocks, room->halves, room->scales);
        if (form == ROW_Q4_1)
            gather(rows + sizeof(uint16_t), ggml, n * blocks, room->halves, room->minima);
    } else if (form == ROW_I8_CHANNEL || form == ROW_I4_CHANNEL) {
        widen_bytes(record, head_dim, room->scales);
        if (form == ROW_I4_CHANNEL)
            widen_bytes(record + layout->minima, head_dim, room->minima);
    } else if (form == ROW_NF4) {
        nf4_scales(record, record + KV_NF4_SCALES + token * blocks, n * blocks, room->scales);
    } else if (form == ROW_I8_TOKEN || form == ROW_I4_BLOCK) {
        widen_bytes(halves, n * blocks, room->scales);
        if (form == ROW_I4_BLOCK)
            widen_bytes(halves + layout->minima, n * blocks, room->minima);
    }
    return (StoredRows){rows, layout->row_bytes, room->scales, room->minima, blocks, layout->block > 32};
}

INLINE bool fits_lanes(RowForm form, const KvSpan *span) {
    return form == ROW_HALF || (form != ROW_FLOAT && span->group_k.head_dim % VEC_LANES == 0);
}

/* Where tokens from `first` on are located or decoded: at most n of one group, as many as are returned. ROW_FLOAT:
 * whatever the codec, decoded. */
typedef struct Room {
    Scales scales;
    float decoded[DECODE_TOKENS * ATTENTION_MAX_DIM];
} Room;

INLINE size_t take_rows(RowForm form, const KvLayout *layout, const KvSpan *span, KvSide side, size_t first, size_t n,
                        Room *room, StoredRows *rows) {
    n = rest_of_group(span, first, n);
    if (form != ROW_FLOAT) {
        *rows = locate(form, layout, span, side, first, n, &room->scales);
        return n;
    }
    n = n < DECODE_TOKENS ? n : DECODE_TOKENS;
    decode_stored(span, side, first, n, room->decoded);
    *rows = decoded_rows(room->decoded, span->group_k.head_dim);
    return n;
}

INLINE void score_stored(RowForm form, KvCodecId codec, const KvSpan *span, size_t first, size_t n_tokens,
                         const float *q, size_t n_rows, float *scores, size_t stride) {
    size_t head_dim = span->group_k.head_dim;
    KvLayout layout = kv_layout(&KV_FORMATS[codec], KV_KEYS, &span->group_k);
    Room room;
    for (size_t done = 0, n; done < n_tokens; done += n) {
        StoredRows rows;
        n = take_rows(form, &layout, span, KV_KEYS, first + done, n_tokens - done, &room, &rows);
        for (size_t r = 0; r < n_rows; r += ROW_BLOCK)
            WITH_ROWS(row_block(n_rows - r), score_rows, form, q + r * head_dim, &rows, n, head_dim,
                      scores + r * stride + done, stride);
    }
}

INLINE void add_stored(RowForm form, KvCodecId codec, const KvSpan *span, size_t first, size_t n_tokens,
                       const float *weights, size_t stride, size_t n_rows, float *out, size_t out_stride) {
    size_t head_dim = span->group_k.head_dim;
    KvLayout layout = kv_layout(&KV_FORMATS[codec], KV_VALUES, &span->group_v);
    Room room;
    for (size_t done = 0, n; done < n_tokens; done += n) {
        StoredRows rows;
        n = take_rows(form, &layout, span, KV_VALUES, first + done, n_tokens - done, &room, &rows);
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

#define FROM_CODES(codec)                                                                                              \
    { true, score_##codec, add_##codec }
#define DECODED                                                                                                        \
    { false, score_decoded, add_decoded }

const StoredKernels SIMD_NAME(stored_kernels)[KV_CODEC_COUNT] = {
    [KV_F16] = FROM_CODES(KV_F16),
    [KV_INT8] = FROM_CODES(KV_INT8),
    [KV_INT8G] = DECODED,
    [KV_Q8_0] = FROM_CODES(KV_Q8_0),
    [KV_FP8] = DECODED,
    [KV_Q5_1] = DECODED,
    [KV_Q5_0] = DECODED,
    [KV_INT4] = FROM_CODES(KV_INT4),
    [KV_Q4_1] = FROM_CODES(KV_Q4_1),
    [KV_Q4_0] = FROM_CODES(KV_Q4_0),
    [KV_NF4] = FROM_CODES(KV_NF4),
    [KV_INT2] = DECODED,
    [KV_BINARY] = DECODED,
};

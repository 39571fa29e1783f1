/* Rows as they are stored, compiled once for each instruction set; see stored_kernels.h. */
#include "attention/stored_kernels.h"

#include "attention/row_kernels.h"

#define DECODE_TOKENS 16

#define MAX_SCALES (64 * ATTENTION_MAX_DIM / KV_NF4_BLOCK) /* of a group; whole vectors are written */

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

static void fp8_scales(const uint16_t *halves, size_t n, float *out) {
    for (size_t i = 0; i < n; i += VEC_LANES)
        vec_store(out + i, vec_mul(vec_set1(256.0f), n - i < VEC_LANES ? vec_load_half_partial(halves + i, n - i)
                                                                       : vec_load_half(halves + i)));
}

/* n tokens from `first` on, which lie in one group. */
INLINE StoredRows locate(RowForm form, const KvLayout *layout, const KvSpan *span, KvSide side, size_t first, size_t n,
                         float *scales) {
    const uint8_t *record = record_of(span, side, first);
    size_t token = first % span->side[side].group.n_tokens, n_blocks = layout->blocks_per_row;
    if (form == ROW_NF4)
        nf4_scales(record, record + KV_NF4_SCALES + token * n_blocks, n * n_blocks, scales);
    if (form == ROW_FP8)
        fp8_scales((const uint16_t *)(const void *)record + token, n, scales);
    return (StoredRows){record + layout->codes + token * layout->row_bytes, layout->row_bytes, scales};
}

/* Where tokens from `first` on are located or decoded: at most n of one group, as many as are returned. ROW_FLOAT:
 * whatever the codec, decoded. */
typedef struct Room {
    float scales[MAX_SCALES + VEC_LANES];
    float decoded[DECODE_TOKENS * ATTENTION_MAX_DIM];
} Room;

INLINE size_t take_rows(RowForm form, const KvLayout *layout, const KvSpan *span, KvSide side, size_t first, size_t n,
                        Room *room, StoredRows *rows) {
    n = rest_of_group(span, first, n);
    if (form != ROW_FLOAT) {
        *rows = locate(form, layout, span, side, first, n, room->scales);
        return n;
    }
    n = n < DECODE_TOKENS ? n : DECODE_TOKENS;
    decode_stored(span, side, first, n, room->decoded);
    *rows = decoded_rows(room->decoded, span->side[side].group.head_dim);
    return n;
}

INLINE void score_form(RowForm form, KvCodecId codec, const KvSpan *span, size_t first, size_t n_tokens, const float *q,
                       size_t n_rows, float *scores, size_t stride) {
    size_t head_dim = span->side[KV_KEYS].group.head_dim;
    KvLayout layout = kv_layout(&KV_FORMATS[codec], KV_KEYS, &span->side[KV_KEYS].group);
    Room room;
    for (size_t done = 0, n; done < n_tokens; done += n) {
        StoredRows rows;
        n = take_rows(form, &layout, span, KV_KEYS, first + done, n_tokens - done, &room, &rows);
        for (size_t r = 0; r < n_rows; r += ROW_BLOCK)
            WITH_ROWS(row_block(n_rows - r), score_rows, form, q + r * head_dim, &rows, n, head_dim,
                      scores + r * stride + done, stride);
    }
}

INLINE void add_form(RowForm form, KvCodecId codec, const KvSpan *span, size_t first, size_t n_tokens,
                     const float *weights, size_t stride, size_t n_rows, float *out, size_t out_stride) {
    size_t head_dim = span->side[KV_VALUES].group.head_dim;
    KvLayout layout = kv_layout(&KV_FORMATS[codec], KV_VALUES, &span->side[KV_VALUES].group);
    Room room;
    for (size_t done = 0, n; done < n_tokens; done += n) {
        StoredRows rows;
        n = take_rows(form, &layout, span, KV_VALUES, first + done, n_tokens - done, &room, &rows);
        for (size_t r = 0; r < n_rows; r += ROW_BLOCK)
            WITH_ROWS(row_block(n_rows - r), add_rows, form, weights + r * stride + done, stride, &rows, n, head_dim,
                      out + r * out_stride, out_stride);
    }
}

void SIMD_NAME(score_stored)(const KvSpan *span, size_t first, size_t n_tokens, const float *q, size_t n_rows,
                             float *scores, size_t stride) {
    KvCodecId codec = kv_codec_id(span->side[KV_KEYS].codec);
    if (codec == KV_F16)
        score_form(ROW_HALF, KV_F16, span, first, n_tokens, q, n_rows, scores, stride);
    else if (codec == KV_NF4)
        score_form(ROW_NF4, KV_NF4, span, first, n_tokens, q, n_rows, scores, stride);
    else if (codec == KV_FP8 && span->side[KV_KEYS].group.head_dim % ROW_STEP == 0)
        score_form(ROW_FP8, KV_FP8, span, first, n_tokens, q, n_rows, scores, stride);
    else
        score_form(ROW_FLOAT, codec, span, first, n_tokens, q, n_rows, scores, stride);
}

void SIMD_NAME(add_stored)(const KvSpan *span, size_t first, size_t n_tokens, const float *weights, size_t stride,
                           size_t n_rows, float *out, size_t out_stride) {
    KvCodecId codec = kv_codec_id(span->side[KV_VALUES].codec);
    if (codec == KV_F16)
        add_form(ROW_HALF, KV_F16, span, first, n_tokens, weights, stride, n_rows, out, out_stride);
    else if (codec == KV_NF4)
        add_form(ROW_NF4, KV_NF4, span, first, n_tokens, weights, stride, n_rows, out, out_stride);
    else if (codec == KV_FP8 && span->side[KV_VALUES].group.head_dim % ROW_STEP == 0)
        add_form(ROW_FP8, KV_FP8, span, first, n_tokens, weights, stride, n_rows, out, out_stride);
    else
        add_form(ROW_FLOAT, codec, span, first, n_tokens, weights, stride, n_rows, out, out_stride);
}

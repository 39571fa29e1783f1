/* Tokens as they are stored, compiled once for each instruction set; see stored_kernels.h. */
#include "attention/stored_kernels.h"

#include "attention/attend.h"
#include "attention/float_kernels.h"

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

/* Reads one side of a span. STORED_FLOAT: whatever the codec, decoded. */
typedef struct Reader {
    const KvSpan *span;
    KvSide side;
    KvRecordLayout layout;
    _Alignas(64) float scales[MAX_SCALES + VEC_LANES];
    _Alignas(64) float decoded[DECODE_TOKENS * ATTENTION_MAX_DIM];
} Reader;

/* Its arrays are left as they are: read_tokens() fills what it returns. */
INLINE void open_reader(Reader *reader, KvCodecId codec, const KvSpan *span, KvSide side) {
    reader->span = span;
    reader->side = side;
    reader->layout = kv_record_layout(&KV_FORMATS[codec], side, &span->side[side].group);
}

/* n tokens from `first` on, which lie in one group. */
INLINE StoredTokens locate(StoredForm form, Reader *reader, size_t first, size_t n) {
    const uint8_t *record = record_of(reader->span, reader->side, first);
    size_t token = first % reader->span->side[reader->side].group.n_tokens;
    size_t token_bytes = reader->layout.token_bytes, n_blocks = reader->layout.blocks_per_row;
    if (form == STORED_NF4)
        nf4_scales(record, record + KV_NF4_SCALES + token * n_blocks, n * n_blocks, reader->scales);
    if (form == STORED_FP8)
        fp8_scales((const uint16_t *)(const void *)record + token, n, reader->scales);
    return (StoredTokens){record + reader->layout.codes + token * token_bytes, token_bytes, reader->scales};
}

/* Locates or decodes tokens from `first` on: at most n, of one group, as many as are returned. */
INLINE size_t read_tokens(StoredForm form, Reader *reader, size_t first, size_t n, StoredTokens *tokens) {
    n = rest_of_group(reader->span, first, n);
    if (form != STORED_FLOAT) {
        *tokens = locate(form, reader, first, n);
        return n;
    }
    n = at_most(n, DECODE_TOKENS);
    decode_stored(reader->span, reader->side, first, n, reader->decoded);
    *tokens = decoded_tokens(reader->decoded, reader->span->side[reader->side].group.head_dim);
    return n;
}

INLINE void score_form(StoredForm form, KvCodecId codec, const TilePiece *piece, const float *q, size_t n_heads,
                       float (*scores)[SCORE_STRIDE]) {
    const KvGroup *group = &piece->span->side[KV_KEYS].group;
    Reader reader;
    open_reader(&reader, codec, piece->span, KV_KEYS);
    for (size_t done = 0, n; done < piece->n; done += n) {
        StoredTokens keys;
        n = read_tokens(form, &reader, piece->first + done, piece->n - done, &keys);
        for (size_t h = 0; h < n_heads; h += HEAD_BLOCK) {
            ScoreJob job = {.q = q + h * group->head_dim,
                            .keys = keys,
                            .n_tokens = n,
                            .head_dim = group->head_dim,
                            .scores = scores[h] + piece->at + done,
                            .stride = SCORE_STRIDE};
            WITH_HEADS(head_block(n_heads - h), score_keys, form, &job);
        }
    }
}

INLINE void add_form(StoredForm form, KvCodecId codec, const TilePiece *piece, float (*weights)[SCORE_STRIDE],
                     size_t n_heads, float *out, size_t stride) {
    const KvGroup *group = &piece->span->side[KV_VALUES].group;
    Reader reader;
    open_reader(&reader, codec, piece->span, KV_VALUES);
    for (size_t done = 0, n; done < piece->n; done += n) {
        StoredTokens values;
        n = read_tokens(form, &reader, piece->first + done, piece->n - done, &values);
        for (size_t h = 0; h < n_heads; h += HEAD_BLOCK) {
            AddJob job = {.weights = weights[h] + piece->at + done,
                          .weight_stride = SCORE_STRIDE,
                          .values = values,
                          .n_tokens = n,
                          .head_dim = group->head_dim,
                          .out = out + h * stride,
                          .out_stride = stride};
            WITH_HEADS(head_block(n_heads - h), add_values, form, &job);
        }
    }
}

static StoredForm form_of(KvCodecId codec, size_t head_dim) {
    switch (KV_FORMATS[codec].kind) {
    case KV_CODE_HALF:
        return STORED_HALF;
    case KV_CODE_NF4:
        return STORED_NF4;
    case KV_CODE_E4M3:
        return head_dim % STORED_STEP == 0 ? STORED_FP8 : STORED_FLOAT;
    case KV_CODE_SIGNED: /* decoded, where head_dim keeps them from being woven; else score_codes.c and add_codes.c */
    case KV_CODE_OFFSET:
    case KV_CODE_UNSIGNED:
    case KV_CODE_SIGN:
        break;
    }
    return STORED_FLOAT;
}

AttentionPath SIMD_NAME(path_of)(KvCodecId codec, size_t head_dim) {
    if (kv_is_woven(codec, head_dim))
        return ATTENTION_INTEGER;
    return form_of(codec, head_dim) == STORED_FLOAT ? ATTENTION_DECODED : ATTENTION_FLOAT;
}

void SIMD_NAME(score_stored)(const TilePiece *piece, const float *q, size_t n_heads, float (*scores)[SCORE_STRIDE]) {
    const KvEncoding *encoding = &piece->span->side[KV_KEYS];
    switch (form_of(encoding->codec, encoding->group.head_dim)) {
    case STORED_HALF:
        score_form(STORED_HALF, KV_F16, piece, q, n_heads, scores);
        break;
    case STORED_NF4:
        score_form(STORED_NF4, KV_NF4, piece, q, n_heads, scores);
        break;
    case STORED_FP8:
        score_form(STORED_FP8, KV_FP8, piece, q, n_heads, scores);
        break;
    case STORED_FLOAT:
        score_form(STORED_FLOAT, encoding->codec, piece, q, n_heads, scores);
        break;
    }
}

void SIMD_NAME(add_stored)(const TilePiece *piece, float (*weights)[SCORE_STRIDE], size_t n_heads, float *out,
                           size_t stride) {
    const KvEncoding *encoding = &piece->span->side[KV_VALUES];
    switch (form_of(encoding->codec, encoding->group.head_dim)) {
    case STORED_HALF:
        add_form(STORED_HALF, KV_F16, piece, weights, n_heads, out, stride);
        break;
    case STORED_NF4:
        add_form(STORED_NF4, KV_NF4, piece, weights, n_heads, out, stride);
        break;
    case STORED_FP8:
        add_form(STORED_FP8, KV_FP8, piece, weights, n_heads, out, stride);
        break;
    case STORED_FLOAT:
        add_form(STORED_FLOAT, encoding->codec, piece, weights, n_heads, out, stride);
        break;
    }
}

/* Packing, at load, and looking rows up; see packed_matrix.h. */
#include "model/packed_matrix.h"

#include "base/block_codes.h"
#include "base/checked.h"
#include "base/half.h"

#include <assert.h>

/* A row's block: 32 codes with the scales of their run, or of their two runs. */
typedef struct Run {
    const uint8_t *plane; /* the codes in the file where they already are the row's plane; else NULL */
    uint8_t codes[LANE_CODES];
    uint16_t scale, minimum; /* FP16; of a K format those of its 256 elements */
    float scale_f32;         /* PACKED_FLOAT */
    int8_t factors[2];       /* of the scale: K formats, one for each run of 16 or 32 */
    uint8_t min_factors[2];
} Run;

/* GGML's nibbles are a plane: byte j holds codes j and j + 16, which are those of steps j / 4 and j / 4 + 4. */
static void run_q4_0(const BlockQ4_0 *block, Run *run) {
    run->plane = block->codes;
    run->scale = block->d;
}

static void run_q4_1(const BlockQ4_1 *block, Run *run) {
    run->plane = block->codes;
    run->scale = block->d;
    run->minimum = block->m;
}

static void run_q5_0(const BlockQ5_0 *block, Run *run) {
    unpack_nibbles(block->codes, run->codes);
    add_fifth_bits(block->high, run->codes);
    run->scale = block->d;
}

static void run_q5_1(const BlockQ5_1 *block, Run *run) {
    unpack_nibbles(block->codes, run->codes);
    add_fifth_bits(block->high, run->codes);
    run->scale = block->d;
    run->minimum = block->m;
}

/* Signed bytes become codes with a bias of 128. */
static void unsigned_codes(const int8_t *from, uint8_t *codes) {
    for (size_t j = 0; j < PACKED_BLOCK; j++)
        codes[j] = (uint8_t)((uint8_t)from[j] ^ 0x80);
}

static void run_q8_0(const BlockQ8_0 *block, Run *run) {
    unsigned_codes(block->codes, run->codes);
    run->scale = block->d;
}

static void run_q2_k(const BlockQ2_K *block, int eighth, Run *run) {
    run->scale = block->d;
    run->minimum = block->d_min;
    for (int i = 0; i < 2; i++) {
        int part = eighth * 2 + i;
        unpack_two_bits(block->codes, part, run->codes + i * 16);
        run->factors[i] = (int8_t)(block->scales[part] & 15);
        run->min_factors[i] = block->scales[part] >> 4;
    }
}

static void run_q3_k(const BlockQ3_K *block, int eighth, Run *run) {
    run->scale = block->d;
    for (int i = 0; i < 2; i++) {
        codes_q3_k(block, eighth * 2 + i, run->codes + i * 16);
        run->factors[i] = (int8_t)scale_q3_k(block, eighth * 2 + i);
    }
}

static void factors_k(const uint8_t scales[12], int eighth, Run *run) {
    int scale, minimum;
    scale_and_minimum(scales, eighth, &scale, &minimum);
    run->factors[0] = (int8_t)scale;
    run->min_factors[0] = (uint8_t)minimum;
}

static void run_q4_k(const BlockQ4_K *block, int eighth, Run *run) {
    codes_k(block->codes, NULL, eighth, run->codes);
    factors_k(block->scales, eighth, run);
    run->scale = block->d;
    run->minimum = block->d_min;
}

static void run_q5_k(const BlockQ5_K *block, int eighth, Run *run) {
    codes_k(block->codes, block->high, eighth, run->codes);
    factors_k(block->scales, eighth, run);
    run->scale = block->d;
    run->minimum = block->d_min;
}

static void run_q6_k(const BlockQ6_K *block, int eighth, Run *run) {
    run->scale = block->d;
    for (int i = 0; i < 2; i++) {
        codes_q6_k(block, eighth * 2 + i, run->codes + i * 16);
        run->factors[i] = block->scales[eighth * 2 + i];
    }
}

static void run_i8_grouped(const Tensor *tensor, size_t first, Run *run) {
    unsigned_codes((const int8_t *)tensor->data + first, run->codes);
    run->scale_f32 = tensor->scales[first / tensor->group];
}

/* Elements [first, first + 32) of the tensor. */
static void read_run(const Tensor *tensor, size_t first, Run *run) {
    const TensorTypeInfo *info = tensor_type_info(tensor->type);
    const void *block = tensor->data + first / info->block_elements * info->block_bytes;
    int eighth = (int)(first % 256 / PACKED_BLOCK);
    switch (tensor->type) {
    case TYPE_Q4_0:
        run_q4_0(block, run);
        break;
    case TYPE_Q4_1:
        run_q4_1(block, run);
        break;
    case TYPE_Q5_0:
        run_q5_0(block, run);
        break;
    case TYPE_Q5_1:
        run_q5_1(block, run);
        break;
    case TYPE_Q8_0:
        run_q8_0(block, run);
        break;
    case TYPE_Q2_K:
        run_q2_k(block, eighth, run);
        break;
    case TYPE_Q3_K:
        run_q3_k(block, eighth, run);
        break;
    case TYPE_Q4_K:
        run_q4_k(block, eighth, run);
        break;
    case TYPE_Q5_K:
        run_q5_k(block, eighth, run);
        break;
    case TYPE_Q6_K:
        run_q6_k(block, eighth, run);
        break;
    case TYPE_I8_GROUPED:
        run_i8_grouped(tensor, first, run);
        break;
    case TYPE_F32:
    case TYPE_F16:
    case TYPE_BF16:
    case TENSOR_TYPE_COUNT:
        assert(!"a type without codes");
    }
}

static void put_codes(const PackedFormat *format, const Run *run, size_t row, uint8_t *pack) {
    if (run->plane == NULL)
        planes_put(format->bits, run->codes, row, pack);
    else
        for (size_t piece = 0; piece < format->bits; piece++)
            memcpy(pack + piece * PIECE_BYTES + row * 4, run->plane + piece * 4, 4);
}

static void put_k_scales(const PackedFormat *format, const Run *run, size_t block, size_t row, uint8_t *scales) {
    size_t runs = PACKED_BLOCK / format->run, kinds = packed_has_minima(format) ? 2 : 1;
    uint8_t *factors = scales + packed_k_factors(format) + block * runs * kinds * PANEL_ROWS + row;
    memcpy(scales + row * sizeof run->scale, &run->scale, sizeof run->scale);
    if (kinds == 2)
        memcpy(scales + (PANEL_ROWS + row) * sizeof run->minimum, &run->minimum, sizeof run->minimum);
    for (size_t i = 0; i < runs; i++) {
        factors[i * kinds * PANEL_ROWS] = (uint8_t)run->factors[i];
        if (kinds == 2)
            factors[(i * kinds + 1) * PANEL_ROWS] = run->min_factors[i];
    }
}

/* Scales and minima of a row's block, number `block` of its stripe. */
static void put_scales(const PackedFormat *format, const Run *run, size_t block, size_t row, uint8_t *scales) {
    size_t half = sizeof run->scale;
    switch (format->scales) {
    case PACKED_HALF:
        memcpy(scales + (block * PANEL_ROWS + row) * half, &run->scale, half);
        break;
    case PACKED_HALF_MIN:
        memcpy(scales + row * half, &run->scale, half);
        memcpy(scales + (PANEL_ROWS + row) * half, &run->minimum, half);
        break;
    case PACKED_FLOAT:
        memcpy(scales + row * sizeof run->scale_f32, &run->scale_f32, sizeof run->scale_f32);
        break;
    case PACKED_K:
    case PACKED_K_MIN:
        put_k_scales(format, run, block, row, scales);
        break;
    }
}

static void fill_codes(const PackedMatrix *packed, const Tensor *tensor, size_t panel, uint8_t *out) {
    const PackedFormat *format = &PACKED_FORMATS[packed->type];
    size_t stripe_blocks = packed_stripe_blocks(format);
    for (size_t r = 0; r < PANEL_ROWS && panel * PANEL_ROWS + r < packed->n_rows; r++)
        for (size_t b = 0; b < packed->n_columns / PACKED_BLOCK; b++) {
            uint8_t *scales = out + b / stripe_blocks * packed_stripe_bytes(format);
            uint8_t *codes = scales + packed_scales_bytes(format) + b % stripe_blocks * packed_block_bytes(format);
            Run run;
            run.plane = NULL;
            read_run(tensor, (panel * PANEL_ROWS + r) * packed->n_columns + b * PACKED_BLOCK, &run);
            put_codes(format, &run, r, codes);
            put_scales(format, &run, b % stripe_blocks, r, scales);
        }
}

/* For types without codes: elements of `size` bytes. */
static void fill_floats(const PackedMatrix *packed, const uint8_t *rows, size_t size, size_t panel, uint8_t *out) {
    for (size_t r = 0; r < PANEL_ROWS && panel * PANEL_ROWS + r < packed->n_rows; r++) {
        const uint8_t *row = rows + (panel * PANEL_ROWS + r) * packed->n_columns * size;
        for (size_t c = 0; c < packed->n_columns; c++)
            memcpy(out + (c * PANEL_ROWS + r) * size, row + c * size, size);
    }
}

static void fill_decoded(const PackedMatrix *packed, const Tensor *tensor, size_t panel, float *out) {
    for (size_t r = 0; r < PANEL_ROWS && panel * PANEL_ROWS + r < packed->n_rows; r++)
        for (size_t c = 0; c < packed->n_columns; c++) {
            size_t i = (panel * PANEL_ROWS + r) * packed->n_columns + c;
            out[c * PANEL_ROWS + r] = (float)(int8_t)tensor->data[i] * tensor->scales[i / tensor->group];
        }
}

void packed_panels_fill(const PackedMatrix *packed, const Tensor *tensor, size_t panel_begin, size_t panel_end,
                        uint8_t *panels) {
    for (size_t panel = panel_begin; panel < panel_end; panel++, panels += packed->panel_bytes) {
        if (packed_is_coded(packed->type))
            fill_codes(packed, tensor, panel, panels);
        else if (packed->type != tensor->type)
            fill_decoded(packed, tensor, panel, (float *)(void *)panels);
        else
            fill_floats(packed, tensor->data, tensor_type_info(packed->type)->block_bytes, panel, panels);
    }
}

/* ---- Looking rows up */

static float half_at(const uint8_t *halves, size_t index) {
    uint16_t half;
    memcpy(&half, halves + index * sizeof half, sizeof half);
    return half_to_float(half);
}

/* Scale and minimum of a run, number `run` of the stripe. */
static void scales_at(const PackedFormat *format, const uint8_t *scales, size_t run, size_t row, float *scale,
                      float *minimum) {
    size_t kinds = packed_has_minima(format) ? 2 : 1;
    const uint8_t *factors = scales + packed_k_factors(format) + run * kinds * PANEL_ROWS + row;
    *minimum = 0.0f;
    switch (format->scales) {
    case PACKED_HALF:
        *scale = half_at(scales, run * PANEL_ROWS + row);
        break;
    case PACKED_HALF_MIN:
        *scale = half_at(scales, row);
        *minimum = half_at(scales, PANEL_ROWS + row);
        break;
    case PACKED_FLOAT:
        memcpy(scale, scales + row * sizeof *scale, sizeof *scale);
        break;
    case PACKED_K:
    case PACKED_K_MIN:
        *scale = half_at(scales, row) * (float)(int8_t)factors[0];
        if (kinds == 2)
            *minimum = -(half_at(scales, PANEL_ROWS + row) * (float)factors[PANEL_ROWS]);
        break;
    }
}

static void coded_row(const PackedMatrix *packed, const PackedFormat *format, const uint8_t *panel, size_t row,
                      float *out) {
    size_t stripe_blocks = packed_stripe_blocks(format), n_runs = PACKED_BLOCK / format->run;
    for (size_t b = 0; b < packed->n_columns / PACKED_BLOCK; b++, out += PACKED_BLOCK) {
        const uint8_t *scales = panel + b / stripe_blocks * packed_stripe_bytes(format);
        uint8_t codes[LANE_CODES];
        float scale = 0, minimum = 0;
        planes_get(format->bits, scales + packed_scales_bytes(format) + b % stripe_blocks * packed_block_bytes(format),
                   row, codes);
        for (size_t c = 0; c < PACKED_BLOCK; c++) {
            if (c % format->run == 0)
                scales_at(format, scales, b % stripe_blocks * n_runs + c / format->run, row, &scale, &minimum);
            float value = scale * (float)((int)codes[c] - format->bias);
            out[c] = packed_has_minima(format) ? value + minimum : value;
        }
    }
}

static float float_at(TensorType type, const uint8_t *floats, size_t index) {
    float value;
    uint16_t half;
    if (type == TYPE_F32) {
        memcpy(&value, floats + index * sizeof value, sizeof value);
        return value;
    }
    memcpy(&half, floats + index * sizeof half, sizeof half);
    return type == TYPE_F16 ? half_to_float(half) : bf16_to_float(half);
}

void packed_matrix_row(const PackedMatrix *packed, size_t row, float *out) {
    const PackedFormat *format = &PACKED_FORMATS[packed->type];
    const uint8_t *panel = packed->data + row / PANEL_ROWS * packed->panel_bytes;
    row %= PANEL_ROWS;
    if (packed_is_coded(packed->type))
        coded_row(packed, format, panel, row, out);
    else
        for (size_t c = 0; c < packed->n_columns; c++)
            out[c] = float_at(packed->type, panel, c * PANEL_ROWS + row);
}

/* ---- Sizes */

void packed_matrix_measure(PackedMatrix *out, const Tensor *tensor) {
    bool odd_groups =
        tensor->type == TYPE_I8_GROUPED && (tensor->group % PACKED_BLOCK != 0 || tensor->shape[0] % PACKED_BLOCK != 0);
    *out = (PackedMatrix){
        .type = odd_groups ? TYPE_F32 : tensor->type, .n_columns = tensor->shape[0], .n_rows = tensor_n_rows(tensor)};
    const PackedFormat *format = &PACKED_FORMATS[out->type];
    size_t stripe_columns = packed_stripe_blocks(format) * PACKED_BLOCK;
    if (packed_is_coded(out->type))
        out->panel_bytes = divide_up(out->n_columns, stripe_columns) * packed_stripe_bytes(format);
    else
        out->panel_bytes = round_up(out->n_columns * PANEL_ROWS * tensor_type_info(out->type)->block_bytes, 64);
    out->n_panels = round_up(out->n_rows, 2 * PANEL_ROWS) / PANEL_ROWS;
    out->size_bytes = out->n_panels * out->panel_bytes;
}

/* Random numbers, the same in each run, and encoded weights of any type made of them. */
#ifndef STOWKV_RANDOM_WEIGHTS_H
#define STOWKV_RANDOM_WEIGHTS_H

#include "base/block_decode.h"
#include "base/half.h"

#include <stdlib.h>

enum { RANDOM_GROUP = 64 }; /* of TYPE_I8_GROUPED */

static uint64_t random_state = 1;

static inline uint32_t random_bits(void) {
    random_state = random_state * 6364136223846793005 + 1442695040888963407;
    return (uint32_t)(random_state >> 32);
}

static inline float random_float(void) {
    return (float)(int32_t)random_bits() / 0x1p31f;
}

static inline void put_half(uint8_t *to, float value) {
    uint16_t half = half_from_float(value);
    memcpy(to, &half, sizeof half);
}

/* Random codes; scales and minima that are finite, of both signs, and differ from block to block. */
static inline void fill_weights(Tensor *w, uint8_t *data, float *scales) {
    static const size_t HALVES[TENSOR_TYPE_COUNT][3] = {
        /* offsets of the FP16 scales and minima in a block; a 0 behind the first ends a list */
        [TYPE_Q4_1] = {0, 2}, [TYPE_Q5_1] = {0, 2}, [TYPE_Q2_K] = {80, 82}, [TYPE_Q3_K] = {108},
        [TYPE_Q4_K] = {0, 2}, [TYPE_Q5_K] = {0, 2}, [TYPE_Q6_K] = {208}};
    const TensorTypeInfo *info = tensor_type_info(w->type);
    for (size_t i = 0; i < w->size_bytes; i++)
        data[i] = (uint8_t)random_bits();
    for (size_t i = 0; i < w->shape[0] * w->shape[1] / RANDOM_GROUP; i++)
        scales[i] = random_float();
    for (size_t at = 0; at < w->size_bytes; at += info->block_bytes) {
        float value = random_float();
        if (w->type == TYPE_F32)
            memcpy(data + at, &value, sizeof value);
        else if (w->type == TYPE_BF16)
            memcpy(data + at, (const uint8_t *)&value + 2, 2);
        else if (w->type != TYPE_I8_GROUPED)
            for (size_t i = 0; i == 0 || HALVES[w->type][i] > 0; i++)
                put_half(data + at + HALVES[w->type][i], random_float());
    }
}

/* A matrix in buffers of exactly its size, and its decoded weights. */
typedef struct RandomWeights {
    Tensor tensor;
    uint8_t *data;
    float *scales, *decoded; /* decoded: (n_rows, n_columns) */
} RandomWeights;

static inline RandomWeights random_weights(TensorType type, size_t n_columns, size_t n_rows) {
    const TensorTypeInfo *info = tensor_type_info(type);
    size_t n = n_columns * n_rows;
    RandomWeights w = {.tensor = {.name = sv("weights"),
                                  .type = type,
                                  .n_dims = 2,
                                  .shape = {n_columns, n_rows, 1, 1},
                                  .group = RANDOM_GROUP}};
    w.tensor.size_bytes = n / info->block_elements * info->block_bytes;
    w.data = malloc(w.tensor.size_bytes);
    w.scales = malloc((n / RANDOM_GROUP + 1) * sizeof *w.scales);
    w.decoded = malloc(n * sizeof *w.decoded);
    fill_weights(&w.tensor, w.data, w.scales);
    w.tensor.data = w.data;
    w.tensor.scales = w.scales;
    tensor_decoder(type, SIMD_SCALAR)(&w.tensor, 0, n, w.decoded);
    return w;
}

static inline void free_weights(RandomWeights *w) {
    free(w->data);
    free(w->scales);
    free(w->decoded);
}

#endif

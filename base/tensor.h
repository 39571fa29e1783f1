/* Tensors as checkpoints hold them: a view of encoded numbers in a mapped file, and the table of encodings. */
#ifndef STOWKV_TENSOR_H
#define STOWKV_TENSOR_H

#include "base/name_list.h"
#include "base/string_view.h"

#include <stdint.h>

typedef enum TensorType {
    TYPE_F32,
    TYPE_F16,
    TYPE_BF16,
    TYPE_Q4_0,
    TYPE_Q4_1,
    TYPE_Q5_0,
    TYPE_Q5_1,
    TYPE_Q8_0,
    TYPE_Q2_K,
    TYPE_Q3_K,
    TYPE_Q4_K,
    TYPE_Q5_K,
    TYPE_Q6_K,
    TYPE_I8_GROUPED, /* llama2.c version 2: all codes, then an F32 scale for each `group` codes */
    TENSOR_TYPE_COUNT
} TensorType;

typedef struct TensorTypeInfo {
    const char *name;
    int ggml_type;         /* the number in a GGUF file; -1: not a GGML type */
    size_t block_elements; /* numbers that are encoded together */
    size_t block_bytes;
} TensorTypeInfo;

const TensorTypeInfo *tensor_type_info(TensorType type);

/* The type with this GGML number, or TENSOR_TYPE_COUNT where it is not supported. */
TensorType tensor_type_from_ggml(uint32_t ggml_type);

/* "F32, F16, …": the types of a GGUF file, for messages. */
NameList tensor_type_names(void);

#define TENSOR_MAX_DIMS 4

typedef struct Tensor {
    StringView name;
    TensorType type;
    size_t n_dims;
    size_t shape[TENSOR_MAX_DIMS]; /* fastest first, as GGUF has it: a matrix is {columns, rows}; unused ones are 1 */
    const uint8_t *data;           /* not owned */
    size_t size_bytes;             /* of the encoded numbers, scales included */
    const float *scales;           /* TYPE_I8_GROUPED only: (n_elements / group) */
    size_t group;                  /* TYPE_I8_GROUPED only: codes that share a scale */
    const void *uploaded; /* a backend's own form of the tensor, which it owns; NULL: the backend reads `data` */
} Tensor;

static inline size_t tensor_n_rows(const Tensor *tensor) {
    return tensor->shape[1] * tensor->shape[2] * tensor->shape[3];
}

#endif

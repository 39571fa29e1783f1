/* Tensors as checkpoints hold them: a view of encoded numbers in a mapped file, and the table of encodings. */
#ifndef STOWKV_TENSOR_H
#define STOWKV_TENSOR_H

#include "base/name_list.h"
#include "base/string_view.h"

#include <stdint.h>

/* clang-format off */
#define TENSOR_TYPES(DO)                                                                                               \
    /* id          name    number in GGUF (-1: none), elements and bytes of a block */                                 \
    DO(F32,        "F32",    0,    1,    4)                                                                            \
    DO(F16,        "F16",    1,    1,    2)                                                                            \
    DO(BF16,       "BF16",  30,    1,    2)                                                                            \
    DO(Q4_0,       "Q4_0",   2,   32,   18)                                                                            \
    DO(Q4_1,       "Q4_1",   3,   32,   20)                                                                            \
    DO(Q5_0,       "Q5_0",   6,   32,   22)                                                                            \
    DO(Q5_1,       "Q5_1",   7,   32,   24)                                                                            \
    DO(Q8_0,       "Q8_0",   8,   32,   34)                                                                            \
    DO(Q2_K,       "Q2_K",  10,  256,   84)                                                                            \
    DO(Q3_K,       "Q3_K",  11,  256,  110)                                                                            \
    DO(Q4_K,       "Q4_K",  12,  256,  144)                                                                            \
    DO(Q5_K,       "Q5_K",  13,  256,  176)                                                                            \
    DO(Q6_K,       "Q6_K",  14,  256,  210)                                                                            \
    DO(I8_GROUPED, "INT8",  -1,    1,    1) /* llama2.c version 2: all codes, then an F32 scale for each `group` codes */
/* clang-format on */

#define TENSOR_TYPE_ID(id, ...) TYPE_##id,
typedef enum TensorType { TENSOR_TYPES(TENSOR_TYPE_ID) TENSOR_TYPE_COUNT } TensorType;
#undef TENSOR_TYPE_ID

typedef struct TensorTypeInfo {
    const char *name;
    int ggml_type;         /* the number in a GGUF file; -1: not a GGML type */
    size_t block_elements; /* elements that are encoded together */
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

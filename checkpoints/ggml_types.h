/* The names of GGML's tensor types by their numbers in GGUF files, also of those that this program does not read: a
 * refusal says which type it is. Types that are read are rows of TENSOR_TYPES (base/tensor.h). */
#ifndef STOWKV_GGML_TYPES_H
#define STOWKV_GGML_TYPES_H

#include <stdint.h>

typedef struct GgmlType {
    uint32_t number;
    const char *name;
    const char *cure; /* what to use instead; NULL: any type that is read */
} GgmlType;

/* NULL for a number that no known version of GGML uses. */
const GgmlType *ggml_type_find(uint32_t number);

#endif

/* The table of tensor encodings; see tensor.h. Block layouts are those of GGML (ggml-common.h). */
#include "base/tensor.h"

#define TENSOR_TYPE_INFO(id, name, ggml_type, block_elements, block_bytes)                                             \
    [TYPE_##id] = {name, ggml_type, block_elements, block_bytes},
static const TensorTypeInfo TYPES[TENSOR_TYPE_COUNT] = {TENSOR_TYPES(TENSOR_TYPE_INFO)};

const TensorTypeInfo *tensor_type_info(TensorType type) {
    return &TYPES[type];
}

TensorType tensor_type_from_ggml(uint32_t ggml_type) {
    TensorType type = 0;
    while (type < TENSOR_TYPE_COUNT && (TYPES[type].ggml_type < 0 || (uint32_t)TYPES[type].ggml_type != ggml_type))
        type++;
    return type;
}

NameList tensor_type_names(void) {
    NameList names = {0};
    for (TensorType type = 0; type < TENSOR_TYPE_COUNT; type++)
        if (TYPES[type].ggml_type >= 0)
            name_list_add(&names, TYPES[type].name);
    return names;
}

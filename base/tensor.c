/* The table of tensor encodings; see tensor.h. Block layouts are those of GGML (ggml-common.h). */
#include "base/tensor.h"

static const TensorTypeInfo TYPES[TENSOR_TYPE_COUNT] = {
    [TYPE_F32] = {"F32", 0, 1, 4},        [TYPE_F16] = {"F16", 1, 1, 2},          [TYPE_BF16] = {"BF16", 30, 1, 2},
    [TYPE_Q4_0] = {"Q4_0", 2, 32, 18},    [TYPE_Q4_1] = {"Q4_1", 3, 32, 20},      [TYPE_Q5_0] = {"Q5_0", 6, 32, 22},
    [TYPE_Q5_1] = {"Q5_1", 7, 32, 24},    [TYPE_Q8_0] = {"Q8_0", 8, 32, 34},      [TYPE_Q2_K] = {"Q2_K", 10, 256, 84},
    [TYPE_Q3_K] = {"Q3_K", 11, 256, 110}, [TYPE_Q4_K] = {"Q4_K", 12, 256, 144},   [TYPE_Q5_K] = {"Q5_K", 13, 256, 176},
    [TYPE_Q6_K] = {"Q6_K", 14, 256, 210}, [TYPE_I8_GROUPED] = {"INT8", -1, 1, 1},
};

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

/* The table of names; see ggml_types.h. Numbers are those of ggml.h, among them types that later versions removed, and
 * from 97 on those of ik_llama.cpp. */
#include "checkpoints/ggml_types.h"

#include <stddef.h>

#define REPACKED "llama.cpp has removed it; use a file in Q4_0"
#define RETIRED  "GGML removed it in 2023; convert the original checkpoint again"
#define TERNARY  "it is BitNet's, whose models have another architecture; use another checkpoint"
#define FORK     "only ik_llama.cpp reads it; use a file that llama.cpp quantized"

static const GgmlType TYPES[] = {
    {4, "Q4_2", RETIRED},       {5, "Q4_3", RETIRED},
    {9, "Q8_1", NULL},          {15, "Q8_K", NULL},
    {16, "IQ2_XXS", NULL},      {17, "IQ2_XS", NULL},
    {18, "IQ3_XXS", NULL},      {19, "IQ1_S", NULL},
    {20, "IQ4_NL", NULL},       {21, "IQ3_S", NULL},
    {22, "IQ2_S", NULL},        {23, "IQ4_XS", NULL},
    {24, "I8", NULL},           {25, "I16", NULL},
    {26, "I32", NULL},          {27, "I64", NULL},
    {28, "F64", NULL},          {29, "IQ1_M", NULL},
    {31, "Q4_0_4_4", REPACKED}, {32, "Q4_0_4_8", REPACKED},
    {33, "Q4_0_8_8", REPACKED}, {34, "TQ1_0", NULL},
    {35, "TQ2_0", NULL},        {36, "IQ4_NL_4_4 or BitNet's I2_S", TERNARY},
    {37, "IQ4_NL_4_8", NULL},   {38, "IQ4_NL_8_8 or BitNet's TL1", TERNARY},
    {39, "MXFP4", NULL},        {40, "NVFP4", NULL},
    {41, "Q1_0", NULL},         {97, "Q8_0_X4", FORK},
    {98, "Q8_1_X4", FORK},      {99, "Q8_2_X4", FORK},
    {133, "Q6_0", FORK},        {134, "IQ1_BN", FORK},
    {135, "IQ2_BN", FORK},      {136, "Q8_K64", FORK},
    {137, "IQ2_K", FORK},       {138, "IQ3_K", FORK},
    {139, "IQ4_K", FORK},       {140, "IQ5_K", FORK},
    {141, "IQ6_K", FORK},       {144, "IQ4_KS", FORK},
    {145, "IQ2_KS", FORK},      {146, "IQ4_KSS", FORK},
    {147, "Q8_K16", FORK},      {148, "Q8_K32", FORK},
    {149, "Q8_KR8", FORK},      {150, "Q8_K128", FORK},
    {151, "Q8_KV", FORK},       {152, "IQ5_KS", FORK},
    {153, "IQ2_KT", FORK},      {154, "IQ3_KT", FORK},
    {155, "IQ4_KT", FORK},      {156, "IQ3_KS", FORK},
    {157, "IQ2_KL", FORK},      {158, "IQ1_KT", FORK},
    {202, "Q4_0_R8", FORK},     {206, "Q5_0_R4", FORK},
    {208, "Q8_0_R8", FORK},     {210, "Q2_K_R4", FORK},
    {211, "Q3_K_R4", FORK},     {212, "Q4_K_R4", FORK},
    {213, "Q5_K_R4", FORK},     {214, "Q6_K_R4", FORK},
    {216, "IQ2_XXS_R4", FORK},  {217, "IQ2_XS_R4", FORK},
    {218, "IQ3_XXS_R4", FORK},  {219, "IQ1_S_R4", FORK},
    {220, "IQ4_NL_R4", FORK},   {221, "IQ3_S_R4", FORK},
    {222, "IQ2_S_R4", FORK},    {223, "IQ4_XS_R8", FORK},
    {229, "IQ1_M_R4", FORK},    {230, "BF16_R16", FORK},
    {233, "Q6_0_R4", FORK},     {335, "IQ2_BN_R4", FORK},
    {337, "IQ2_K_R4", FORK},    {338, "IQ3_K_R4", FORK},
    {339, "IQ4_K_R4", FORK},    {340, "IQ5_K_R4", FORK},
    {344, "IQ4_KS_R4", FORK},   {352, "IQ5_KS_R4", FORK},
    {398, "Q8_KV_R8", FORK},    {399, "Q8_K_R8", FORK},
};

const GgmlType *ggml_type_find(uint32_t number) {
    for (size_t i = 0; i < sizeof TYPES / sizeof *TYPES; i++)
        if (TYPES[i].number == number)
            return &TYPES[i];
    return NULL;
}

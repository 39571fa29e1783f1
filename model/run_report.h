/* What a run tells of itself: the JSON object and the summary lines. */
#ifndef STOWKV_RUN_REPORT_H
#define STOWKV_RUN_REPORT_H

#include "model/generation.h"

#include <stdio.h>

/* Names of the kernels that computed the run, "matmul_q4_1_avx512" …: for messages and the report. */
#define KERNEL_NAME_BYTES 40
typedef struct KernelNames {
    char names[TENSOR_TYPE_COUNT + 4][KERNEL_NAME_BYTES];
    size_t count;
} KernelNames;

void kernel_names(const Model *model, KernelNames *out);

/* Writes the run as one JSON object (the names are a contract: README, "JSON"). `seed` is the one that was used. */
int run_report_write(const Generation *run, const char *model_path, uint64_t seed, FILE *stream, Error *error);

/* Speeds with their depth, and the bytes of weights and cache: a few lines for people. */
void run_report_print(const Generation *run, FILE *stream);

#endif

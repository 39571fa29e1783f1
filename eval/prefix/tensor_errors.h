/* How far a tensor is off that went through a codec of the prefix cache. */
#ifndef STOWKV_TENSOR_ERRORS_H
#define STOWKV_TENSOR_ERRORS_H

#include "kvcache/prefix_cache.h"

#include <cjson/cJSON.h>

typedef struct TensorErrors {
    double mse, mae, max, cosine;
} TensorErrors;

TensorErrors tensor_errors(const float *original, const float *restored, size_t n);

/* Stores the tensor as keys and as values, gets it back and compares: of keys the errors; `restored` has room for both.
 * bits: of both, an element. */
int tensor_round_trip(PrefixCache *prefixes, const PrefixTensors *shape, const float *original, float *restored,
                      TensorErrors *errors, double *bits, Error *error);

cJSON *tensor_errors_json(const TensorErrors *errors, double bits);

#endif

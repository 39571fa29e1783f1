/* See tensor_errors.h. */
#include "eval/prefix/tensor_errors.h"

#include <math.h>
#include <stdlib.h>

TensorErrors tensor_errors(const float *original, const float *restored, size_t n) {
    TensorErrors e = {0};
    double product = 0, a2 = 0, b2 = 0;
    for (size_t i = 0; i < n; i++) {
        double a = (double)original[i], b = (double)restored[i], error = fabs(a - b);
        e.mse += error * error / (double)n;
        e.mae += error / (double)n;
        e.max = fmax(e.max, error);
        product += a * b;
        a2 += a * a;
        b2 += b * b;
    }
    e.cosine = a2 > 0 && b2 > 0 ? product / sqrt(a2 * b2) : 1;
    return e;
}

int tensor_round_trip(PrefixCache *prefixes, const PrefixTensors *shape, const float *original, float *restored,
                      TensorErrors *errors, double *bits, Error *error) {
    size_t n = shape->n_tokens * shape->n_kv_heads * shape->head_dim;
    int32_t *tokens = calloc(shape->n_tokens, sizeof *tokens);
    PrefixCacheStats before, after;
    if (tokens == NULL)
        return error_memory(error, "tokens", shape->n_tokens * sizeof *tokens);
    prefix_cache_stats(prefixes, &before);
    int status = prefix_cache_put_layer(prefixes, "round trip", tokens, shape, 0, original, original, error);
    prefix_cache_stats(prefixes, &after);
    if (status == 0 && !prefix_cache_get_layer(prefixes, "round trip", tokens, shape, 0, restored, restored + n))
        status = error_set(error, ERROR_MEMORY, "a tensor that was just stored is gone; free some memory");
    free(tokens);
    if (status < 0)
        return status;
    *errors = tensor_errors(original, restored, n);
    *bits = 8 * (double)(after.bytes_stored - before.bytes_stored) / (2 * (double)n);
    return 0;
}

cJSON *tensor_errors_json(const TensorErrors *errors, double bits) {
    cJSON *row = cJSON_CreateObject();
    cJSON_AddNumberToObject(row, "bits", bits);
    cJSON_AddNumberToObject(row, "mse", errors->mse);
    cJSON_AddNumberToObject(row, "mae", errors->mae);
    cJSON_AddNumberToObject(row, "max", errors->max);
    cJSON_AddNumberToObject(row, "cosine", errors->cosine);
    return row;
}

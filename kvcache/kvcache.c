/* The FP16 cache; see kvcache.h. */
#include "kvcache/kvcache.h"

#include "model/base/checked.h"
#include "model/base/half.h"

#include <math.h>

#define HALF_MAX 65504.0f

int kvcache_bytes(const KvShape *shape, size_t *out, Error *error) {
    size_t rows, elements;
    if (!checked_mul(shape->n_layers * shape->n_kv_heads, shape->n_ctx, &rows) ||
        !checked_mul(rows, shape->head_dim, &elements) || !checked_mul(elements, 2 * sizeof(uint16_t), out))
        return error_set(error, ERROR_ARGUMENT, "a cache of %zu tokens does not fit into memory; use a smaller --n_ctx",
                         shape->n_ctx);
    return 0;
}

void kvcache_init(KvCache *cache, const KvShape *shape, void *memory) {
    size_t elements = shape->n_layers * shape->n_kv_heads * shape->n_ctx * shape->head_dim;
    *cache = (KvCache){.shape = *shape, .keys = memory, .values = (uint16_t *)memory + elements};
}

static size_t row_offset(const KvShape *shape, size_t layer, size_t kv_head, size_t position) {
    return ((layer * shape->n_kv_heads + kv_head) * shape->n_ctx + position) * shape->head_dim;
}

static void encode_f16(const float *values, size_t n, uint16_t *out) {
    for (size_t i = 0; i < n; i++) {
        float value = values[i];
        if (isfinite(value))
            value = fminf(fmaxf(value, -HALF_MAX), HALF_MAX);
        out[i] = half_from_float(value);
    }
}

void kvcache_append(KvCache *cache, size_t layer, size_t position, size_t n_tokens, const float *keys,
                    const float *values) {
    const KvShape *shape = &cache->shape;
    for (size_t t = 0; t < n_tokens; t++)
        for (size_t kv_head = 0; kv_head < shape->n_kv_heads; kv_head++) {
            size_t to = row_offset(shape, layer, kv_head, position + t);
            size_t from = (t * shape->n_kv_heads + kv_head) * shape->head_dim;
            encode_f16(keys + from, shape->head_dim, cache->keys + to);
            encode_f16(values + from, shape->head_dim, cache->values + to);
        }
}

size_t kvcache_view(const KvCache *cache, size_t layer, size_t kv_head, size_t position, KvSpan spans[KV_MAX_SPANS]) {
    size_t start = row_offset(&cache->shape, layer, kv_head, 0);
    spans[0] = (KvSpan){cache->keys + start, cache->values + start, position + 1};
    return 1;
}

size_t kvcache_span_bytes(const KvCache *cache, const KvSpan *span) {
    return span->n_tokens * cache->shape.head_dim * 2 * sizeof(uint16_t);
}

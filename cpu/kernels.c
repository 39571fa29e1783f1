/* Norms and activations, compiled once for each instruction set; see kernels.h. */
#include "cpu/kernels.h"

#include "base/simd/vectors.h"

#include <math.h>

static void rmsnorm(const float *x, const float *gain, float eps, size_t n, float *y) {
    size_t whole = n / VEC_LANES * VEC_LANES;
    Vec squares = vec_zero();
    for (size_t i = 0; i < whole; i += VEC_LANES)
        squares = vec_fma(vec_load(x + i), vec_load(x + i), squares);
    Vec last = vec_load_partial(x + whole, n - whole);
    float sum = vec_sum(vec_fma(last, last, squares));
    float scale = 1.0f / sqrtf(sum / (float)n + eps);
    for (size_t i = 0; i < n; i++)
        y[i] = gain[i] * (x[i] * scale);
}

/* A constant pairing lets the compiler vectorize. */
static void rope(float *x, size_t n_heads, size_t head_dim, RopePairing pairing, const float *rotation) {
    for (size_t h = 0; h < n_heads; h++) {
        if (pairing == ROPE_INTERLEAVED)
            rope_rotate(x + h * head_dim, head_dim, ROPE_INTERLEAVED, rotation);
        else
            rope_rotate(x + h * head_dim, head_dim, ROPE_HALVES, rotation);
    }
}

INLINE Vec silu_times(Vec z, Vec up) {
    Vec e = vec_exp(vec_min(vec_set1(88.0f), vec_mul(z, vec_set1(-1.0f))));
    return vec_mul(vec_div(z, vec_add(vec_set1(1.0f), e)), up);
}

/* tanh(x) = 1 - 2 / (1 + e^(2 x)) */
INLINE Vec tanh_of(Vec x) {
    Vec one = vec_set1(1.0f), e = vec_exp(vec_min(vec_set1(88.0f), vec_add(x, x)));
    return vec_sub(one, vec_div(vec_set1(2.0f), vec_add(one, e)));
}

INLINE Vec gelu_times(Vec z, Vec up) {
    Vec cubic = vec_mul(vec_mul(vec_set1(0.044715f), z), vec_mul(z, z));
    Vec inner = vec_mul(vec_set1(0.7978845608f), vec_add(z, cubic));
    return vec_mul(vec_mul(vec_mul(vec_set1(0.5f), z), vec_add(vec_set1(1.0f), tanh_of(inner))), up);
}

INLINE void gated(Vec (*times)(Vec z, Vec up), float *gate, const float *up, size_t n) {
    size_t whole = n / VEC_LANES * VEC_LANES, rest = n - whole;
    for (size_t i = 0; i < whole; i += VEC_LANES)
        vec_store(gate + i, times(vec_load(gate + i), vec_load(up + i)));
    if (rest > 0)
        vec_store_partial(gate + whole, times(vec_load_partial(gate + whole, rest), vec_load_partial(up + whole, rest)),
                          rest);
}

static void swiglu(float *gate, const float *up, size_t n) {
    gated(silu_times, gate, up, n);
}

static void geglu(float *gate, const float *up, size_t n) {
    gated(gelu_times, gate, up, n);
}

static void soft_cap(float *x, float cap, size_t n) {
    for (size_t i = 0; i < n; i += VEC_LANES) {
        size_t rest = n - i < VEC_LANES ? n - i : VEC_LANES;
        Vec y = tanh_of(vec_mul(vec_load_partial(x + i, rest), vec_set1(1 / cap)));
        vec_store_partial(x + i, vec_mul(vec_set1(cap), y), rest);
    }
}

const Kernels SIMD_NAME(model_kernels) = {rmsnorm, rope, swiglu, geglu, soft_cap};

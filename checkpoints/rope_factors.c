/* See rope_factors.h. The formula is that of transformers' modeling_rope_utils.py. */
#include "checkpoints/rope_factors.h"

#include <math.h>

#define PI 3.14159265358979323846

static bool is_scaling(const Llama3Scaling *s) {
    return isfinite(s->factor) && s->factor >= 1 && s->low > 0 && isfinite(s->high) && s->high > s->low &&
           s->original_context > 0;
}

/* Wavelengths of many turns within the original context stay, those of less than a few are stretched. */
static double divisor(const Llama3Scaling *s, double frequency) {
    double turns = (double)s->original_context * frequency / (2 * PI);
    if (turns > s->high)
        return 1;
    if (turns < s->low)
        return s->factor;
    double smooth = (turns - s->low) / (s->high - s->low);
    return 1 / ((1 - smooth) / s->factor + smooth);
}

float *rope_factors_new(Checkpoint *checkpoint, const char *name, size_t n, Error *error) {
    float *factors = checkpoint_allocate(checkpoint, n, sizeof *factors, "RoPE's factors", error);
    Tensor *tensor = factors == NULL ? NULL : checkpoint_add_tensors(checkpoint, 1, error);
    if (tensor == NULL)
        return NULL;
    *tensor = (Tensor){.name = sv(name),
                       .type = TYPE_F32,
                       .n_dims = 1,
                       .shape = {n, 1, 1, 1},
                       .data = (const uint8_t *)factors,
                       .size_bytes = n * sizeof *factors};
    return factors;
}

int rope_factors_add(Checkpoint *checkpoint, const char *path, Error *error) {
    const ModelConfig *config = &checkpoint->config;
    const Llama3Scaling *scaling = &config->rope_llama3;
    size_t n = config->head_dim / 2;
    if (scaling->factor == 0)
        return 0;
    if (!is_scaling(scaling))
        return error_set(error, ERROR_FORMAT,
                         "%s: RoPE scaling by %g, from %g to %g turns in %zu tokens, is none; the configuration is "
                         "damaged",
                         path, scaling->factor, scaling->low, scaling->high, scaling->original_context);
    float *factors = rope_factors_new(checkpoint, "rope_freqs.weight", n, error);
    if (factors == NULL)
        return error->code;
    for (size_t i = 0; i < n; i++)
        factors[i] = (float)divisor(scaling, pow(config->rope_theta, -2.0 * (double)i / (double)config->head_dim));
    return 0;
}

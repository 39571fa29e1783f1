/* See kernel_names.h. The path is what decides about roundings: int16, activations (or queries and weights) quantized
 * to 16 bits that meet codes; f32; decoded, in F32 from a decoded copy of a few tokens. */
#include "cpu/kernel_names.h"

#include "attention/attention.h"
#include "model/packed_matrix.h"

#include <ctype.h>
#include <stdio.h>

static void put_name(const Backend *backend, const char *operation, const char *type, const char *path, char *name) {
    snprintf(name, KERNEL_NAME_BYTES, "%s_%s_%s_%s", operation, type, path, simd_level_suffix(backend->level));
    for (char *c = name; *c != '\0'; c++)
        *c = (char)tolower((unsigned char)*c);
}

void cpu_name_matmul(const Backend *backend, const Tensor *w, size_t n_tokens, char name[KERNEL_NAME_BYTES]) {
    (void)n_tokens; /* the same bits for any number */
    const PackedMatrix *packed = w->uploaded;
    put_name(backend, "matmul", tensor_type_info(w->type)->name, packed_is_coded(packed->type) ? "int16" : "f32", name);
}

void cpu_name_attention(const Backend *backend, KvCodecId codec, const KvCacheLayout *layout,
                        char name[KERNEL_NAME_BYTES]) {
    static const char *const PATHS[] = {
        [ATTENTION_INTEGER] = "int16", [ATTENTION_FLOAT] = "f32", [ATTENTION_DECODED] = "decoded"};
    put_name(backend, "attention", kv_codec_name(kv_codec(codec)),
             PATHS[attention_path(attention_kernels(backend->level), codec, layout->row_dim)], name);
}

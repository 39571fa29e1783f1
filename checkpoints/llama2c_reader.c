/* The llama2.c reader (karpathy/llama2.c, export.py): version 0 (F32, no magic), 1 (F32) and 2 (INT8 in groups). These
 * files carry no names: each tensor's place follows from the header, so the file's size must fit it exactly. */
#include "base/checked.h"
#include "checkpoints/reader.h"

#include <stdio.h>

#define MAGIC        0x616b3432 /* "ak42" */
#define HEADER_BYTES 256        /* of versions 1 and 2 */
#define HEADER_INTS  7
#define NAME_BYTES   48

static bool has_magic(const MappedFile *file) {
    uint32_t magic = 0;
    if (file->size >= sizeof magic)
        memcpy(&magic, file->data, sizeof magic);
    return magic == MAGIC;
}

/* Version 0 begins with its dimensions, so its name has to tell. */
static bool llama2c_recognises(const MappedFile *file, const char *path) {
    size_t length = strlen(path);
    return has_magic(file) || (length >= 4 && strcmp(path + length - 4, ".bin") == 0);
}

/* Where the next tensor starts, and what all tensors have in common. */
typedef struct Layout {
    Checkpoint *checkpoint;
    size_t position; /* in the file */
    size_t group;    /* numbers a scale, or 0: F32 */
    Tensor *next;    /* the description to fill */
    char *next_name; /* (NAME_BYTES) room for its name */
    bool fits;       /* every tensor so far lies inside the file */
} Layout;

/* Adds the tensor named layout->next_name, of shape {columns, rows}. Norms are F32 in every version. */
static void place_next(Layout *layout, size_t columns, size_t rows, bool norm) {
    const MappedFile *file = &layout->checkpoint->files[0];
    size_t n_elements, bytes;
    bool int8 = layout->group > 0 && !norm;
    if (!layout->fits || !checked_mul(columns, rows, &n_elements) || !checked_mul(n_elements, sizeof(float), &bytes)) {
        layout->fits = false;
        return;
    }
    if (int8)
        bytes = n_elements + n_elements / layout->group * sizeof(float);
    layout->fits = range_within(layout->position, bytes, file->size);
    if (!layout->fits)
        return;
    const uint8_t *data = file->data + layout->position;
    *layout->next = (Tensor){.name = sv(layout->next_name),
                             .type = int8 ? TYPE_I8_GROUPED : TYPE_F32,
                             .n_dims = rows > 1 ? 2 : 1,
                             .shape = {columns, rows, 1, 1},
                             .data = data,
                             .size_bytes = bytes,
                             .scales = int8 ? (const float *)(const void *)(data + n_elements) : NULL,
                             .group = layout->group};
    layout->next++;
    layout->next_name += NAME_BYTES;
    layout->position += bytes;
}

static void place(Layout *layout, const char *role, size_t columns, size_t rows, bool norm) {
    snprintf(layout->next_name, NAME_BYTES, "%s.weight", role);
    place_next(layout, columns, rows, norm);
}

static void place_layers(Layout *layout, const char *role, size_t columns, size_t rows, bool norm) {
    for (size_t layer = 0; layer < layout->checkpoint->config.n_layers && layout->fits; layer++) {
        snprintf(layout->next_name, NAME_BYTES, "blk.%zu.%s.weight", layer, role);
        place_next(layout, columns, rows, norm);
    }
}

static void place_matrices(Layout *layout) {
    const ModelConfig *config = &layout->checkpoint->config;
    size_t q_dim = config->n_heads * config->head_dim, kv_dim = config->n_kv_heads * config->head_dim;
    place_layers(layout, "attn_q", config->n_embd, q_dim, false);
    place_layers(layout, "attn_k", config->n_embd, kv_dim, false);
    place_layers(layout, "attn_v", config->n_embd, kv_dim, false);
    place_layers(layout, "attn_output", q_dim, config->n_embd, false);
}

static void place_feed_forward(Layout *layout) {
    const ModelConfig *config = &layout->checkpoint->config;
    place_layers(layout, "ffn_gate", config->n_embd, config->n_ffn, false);
    place_layers(layout, "ffn_down", config->n_ffn, config->n_embd, false);
    place_layers(layout, "ffn_up", config->n_embd, config->n_ffn, false);
}

static void place_version_0(Layout *layout, bool tied) {
    const ModelConfig *config = &layout->checkpoint->config;
    place(layout, "token_embd", config->n_embd, config->n_vocab, false);
    place_layers(layout, "attn_norm", config->n_embd, 1, true);
    place_matrices(layout);
    place_layers(layout, "ffn_norm", config->n_embd, 1, true);
    place_feed_forward(layout);
    place(layout, "output_norm", config->n_embd, 1, true);
    layout->position += config->n_ctx_train * config->head_dim * sizeof(float); /* RoPE tables that nothing reads */
    if (!tied)
        place(layout, "output", config->n_embd, config->n_vocab, false);
}

static void place_versions_1_and_2(Layout *layout, bool tied) {
    const ModelConfig *config = &layout->checkpoint->config;
    place_layers(layout, "attn_norm", config->n_embd, 1, true);
    place_layers(layout, "ffn_norm", config->n_embd, 1, true);
    place(layout, "output_norm", config->n_embd, 1, true);
    place(layout, "token_embd", config->n_embd, config->n_vocab, false);
    place_matrices(layout);
    place_feed_forward(layout);
    if (!tied)
        place(layout, "output", config->n_embd, config->n_vocab, false);
}

/* Fills the configuration from the 7 numbers at `ints`: dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size,
 * seq_len. In version 0 a negative vocab_size says that the output matrix is not the embedding. */
static int read_config(ModelConfig *config, const uint8_t *ints, bool *tied, const char *path, Error *error) {
    int32_t header[HEADER_INTS];
    memcpy(header, ints, sizeof header);
    if (header[5] < 0 && header[5] > INT32_MIN) {
        *tied = false;
        header[5] = -header[5];
    }
    for (int i = 0; i < HEADER_INTS; i++)
        if (header[i] <= 0)
            return error_set(error, ERROR_FORMAT,
                             "%s: header number %d is %d, expected above 0; is it a llama2.c file?", path, i + 1,
                             header[i]);
    const ModelFamily *family = model_family_find(sv("llama"), path, error);
    *config = (ModelConfig){.family = family->name,
                            .n_embd = (size_t)header[0],
                            .n_ffn = (size_t)header[1],
                            .n_layers = (size_t)header[2],
                            .n_heads = (size_t)header[3],
                            .n_kv_heads = (size_t)header[4],
                            .head_dim = (size_t)(header[0] / header[3]),
                            .n_vocab = (size_t)header[5],
                            .n_ctx_train = (size_t)header[6],
                            .norm_eps = 1e-5f,
                            .rope_pairing = family->rope_pairing,
                            .rope_theta = 10000,
                            .rope_scale = 1};
    if (header[0] % header[3] != 0)
        return error_set(error, ERROR_FORMAT,
                         "%s: embedding length %d does not divide into %d heads; is it a llama2.c "
                         "file?",
                         path, header[0], header[3]);
    return model_config_check(config, path, error);
}

static int check_group(const ModelConfig *config, size_t group, const char *path, Error *error) {
    bool power_of_two = group >= 8 && group <= 256 && (group & (group - 1)) == 0;
    if (!power_of_two || config->n_embd % group != 0 || config->n_ffn % group != 0)
        return error_set(error, ERROR_UNSUPPORTED,
                         "%s: INT8 groups of %zu are not supported for rows of %zu and %zu; "
                         "export with a group size that is a power of two from 8 to 256 and divides both",
                         path, group, config->n_embd, config->n_ffn);
    return 0;
}

static int llama2c_read(Checkpoint *checkpoint, const char *path, Error *error) {
    const MappedFile *file = &checkpoint->files[0];
    size_t needed = has_magic(file) ? HEADER_BYTES : HEADER_INTS * sizeof(int32_t);
    if (file->size < needed)
        return error_set(error, ERROR_FORMAT, "%s: truncated: %zu bytes, the header alone takes %zu; fetch it again",
                         path, file->size, needed);
    int32_t version = 0, group = 0;
    bool tied = true;
    ModelConfig *config = &checkpoint->config;
    if (has_magic(file)) {
        memcpy(&version, file->data + 4, sizeof version);
        if (version != 1 && version != 2)
            return error_set(error, ERROR_UNSUPPORTED,
                             "%s: llama2.c version %d is not supported; export version 0, 1 "
                             "or 2",
                             path, version);
        const uint8_t *flags = file->data + 8 + HEADER_INTS * sizeof(int32_t);
        if (read_config(config, file->data + 8, &tied, path, error) < 0)
            return error->code;
        tied = flags[0] != 0;
        memcpy(&group, flags + 1, sizeof group);
        if (version == 2 && check_group(config, (size_t)group, path, error) < 0)
            return error->code;
    } else if (read_config(config, file->data, &tied, path, error) < 0) {
        return error->code;
    }
    size_t n_tensors = 9 * config->n_layers + (tied ? 2 : 3);
    Layout layout = {.checkpoint = checkpoint,
                     .position = needed,
                     .group = version == 2 ? (size_t)group : 0,
                     .next = checkpoint_add_tensors(checkpoint, n_tensors, error),
                     .next_name = checkpoint_allocate(checkpoint, n_tensors, NAME_BYTES, "tensor names", error),
                     .fits = true};
    if (layout.next == NULL || layout.next_name == NULL)
        return error->code;
    if (version == 0)
        place_version_0(&layout, tied);
    else
        place_versions_1_and_2(&layout, tied);
    if (!layout.fits || layout.position > file->size)
        return error_set(error, ERROR_FORMAT,
                         "%s: truncated, or not a llama2.c file: %zu bytes are less than its header "
                         "asks for; fetch or export it again",
                         path, file->size);
    if (layout.position < file->size)
        return error_set(error, ERROR_FORMAT, "%s: %zu bytes longer than its header says; is it a llama2.c file?", path,
                         file->size - layout.position);
    return 0;
}

const CheckpointReader LLAMA2C_READER = {"llama2.c", llama2c_recognises, llama2c_read};

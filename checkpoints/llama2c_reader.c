/* The llama2.c reader (karpathy/llama2.c, export.py): version 0 (F32, no magic), 1 (F32) and 2 (INT8 in groups). These
 * files carry no names: each tensor's place follows from the header, so the file's size must fit it exactly. */
#include "checkpoints/llama2c_reader.h"

#include "base/checked.h"
#include "checkpoints/roles.h"

#include <assert.h>

#define MAGIC        0x616b3432 /* "ak42" */
#define HEADER_BYTES 256        /* of versions 1 and 2 */
#define HEADER_INTS  7

static bool has_magic(const MappedFile *file) {
    uint32_t magic = 0;
    if (file->size >= sizeof magic)
        memcpy(&magic, file->data, sizeof magic);
    return magic == MAGIC;
}

/* Version 0 has no magic: it is recognised by the file's name. */
static bool llama2c_recognises(const MappedFile *file, const char *path) {
    size_t length = strlen(path);
    return has_magic(file) || (length >= 4 && strcmp(path + length - 4, ".bin") == 0);
}

/* Where the next tensor starts, and what all tensors have in common. */
typedef struct Layout {
    Checkpoint *checkpoint;
    size_t position; /* in the file */
    size_t group;    /* elements that share a scale; 0: F32 */
    Tensor *next;    /* the description to fill */
    char *next_name; /* (ROLE_NAME_BYTES) where its name goes */
    bool fits;       /* every tensor so far lies inside the file */
} Layout;

/* Describes the next tensor, a role's; vectors are F32 in every version. */
static void place(Layout *layout, const TensorRole *role, size_t layer) {
    const MappedFile *file = &layout->checkpoint->files[0];
    const ModelConfig *config = &layout->checkpoint->config;
    size_t columns = role_length(role->columns, config), rows = role_length(role->rows, config), n_elements, bytes;
    bool int8 = layout->group > 0 && role->use != TENSOR_VECTOR;
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
    *layout->next = (Tensor){.name = sv(role_name(role, layer, layout->next_name)),
                             .type = int8 ? TYPE_I8_GROUPED : TYPE_F32,
                             .n_dims = rows > 1 ? 2 : 1,
                             .shape = {columns, rows, 1, 1},
                             .data = data,
                             .size_bytes = bytes,
                             .scales = int8 ? (const float *)(const void *)(data + n_elements) : NULL,
                             .group = layout->group};
    layout->next++;
    layout->next_name += ROLE_NAME_BYTES;
    layout->position += bytes;
}

/* The order of tensors, each for all layers. Behind them comes the output matrix, unless it is the embedding. */
enum { ORDERED_ROLES = 11 };
static const char *const VERSION_0[ORDERED_ROLES] = {TOKEN_EMBD_NAME,   "attn_norm.weight",  "attn_q.weight",
                                                     "attn_k.weight",   "attn_v.weight",     "attn_output.weight",
                                                     "ffn_norm.weight", "ffn_gate.weight",   "ffn_down.weight",
                                                     "ffn_up.weight",   "output_norm.weight"};
static const char *const VERSIONS_1_AND_2[ORDERED_ROLES] = {
    "attn_norm.weight", "ffn_norm.weight",    "output_norm.weight", TOKEN_EMBD_NAME,   "attn_q.weight", "attn_k.weight",
    "attn_v.weight",    "attn_output.weight", "ffn_gate.weight",    "ffn_down.weight", "ffn_up.weight"};

static size_t count_tensors(const ModelConfig *config, bool tied) {
    size_t n = tied ? 0 : 1;
    for (size_t i = 0; i < ORDERED_ROLES; i++)
        n += role_copies(tensor_role(sv(VERSION_0[i])), config);
    return n;
}

static void place_all_layers(Layout *layout, const char *name) {
    const TensorRole *role = tensor_role(sv(name));
    assert(role != NULL);
    for (size_t layer = 0; layer < role_copies(role, &layout->checkpoint->config) && layout->fits; layer++)
        place(layout, role, layer);
}

static void place_tensors(Layout *layout, int32_t version, bool tied) {
    const ModelConfig *config = &layout->checkpoint->config;
    const char *const *order = version == 0 ? VERSION_0 : VERSIONS_1_AND_2;
    for (size_t i = 0; i < ORDERED_ROLES; i++)
        place_all_layers(layout, order[i]);
    if (version == 0) /* RoPE tables that nothing reads */
        layout->position += config->n_ctx_train * config->head_dim * sizeof(float);
    if (!tied)
        place_all_layers(layout, "output.weight");
}

/* Fills the configuration from the 7 integers at `ints`: dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size,
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
    *config = (ModelConfig){.family = model_family_find(sv("llama"), path, error),
                            .n_embd = (size_t)header[0],
                            .n_ffn = (size_t)header[1],
                            .n_layers = (size_t)header[2],
                            .n_heads = (size_t)header[3],
                            .n_kv_heads = (size_t)header[4],
                            .head_dim = (size_t)(header[0] / header[3]),
                            .n_vocab = (size_t)header[5],
                            .n_ctx_train = (size_t)header[6],
                            .norm_eps = 1e-5f,
                            .rope_pairing = ROPE_INTERLEAVED,
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
    bool fits = group >= 8 && group <= 256 && is_power_of_two(group);
    if (!fits || config->n_embd % group != 0 || config->n_ffn % group != 0)
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
    size_t n_tensors = count_tensors(config, tied);
    Layout layout = {.checkpoint = checkpoint,
                     .position = needed,
                     .group = version == 2 ? (size_t)group : 0,
                     .next = checkpoint_add_tensors(checkpoint, n_tensors, error),
                     .next_name = checkpoint_allocate(checkpoint, n_tensors, ROLE_NAME_BYTES, "tensor names", error),
                     .fits = true};
    if (layout.next == NULL || layout.next_name == NULL)
        return error->code;
    place_tensors(&layout, version, tied);
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

const CheckpointReader LLAMA2C_READER = {"llama2.c .bin", llama2c_recognises, llama2c_read};

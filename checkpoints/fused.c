/* See fused.h. */
#include "checkpoints/fused.h"

#include "checkpoints/roles.h"

#include <stdio.h>

#define MOST_PARTS 3

/* A tensor of a layer, and the roles of its parts in the order of their rows. */
typedef struct FusedRole {
    const char *name;
    const char *parts[MOST_PARTS];
} FusedRole;

static const FusedRole FUSED[] = {
    {"attn_qkv.weight", {"attn_q.weight", "attn_k.weight", "attn_v.weight"}},
    {"ffn_up.weight", {"ffn_gate.weight", "ffn_up.weight", NULL}},
};

static size_t n_parts(const FusedRole *fused) {
    size_t n = 0;
    while (n < MOST_PARTS && fused->parts[n] != NULL)
        n++;
    return n;
}

static size_t rows_of(const FusedRole *fused, size_t part, const ModelConfig *config) {
    return role_length(tensor_role(sv(fused->parts[part]))->rows, config);
}

/* The tensor, where it is there and the parts are not: ffn_up is the name of a part, too. */
static const Tensor *find_fused(const Checkpoint *checkpoint, const FusedRole *fused, size_t layer) {
    char name[ROLE_NAME_BYTES];
    snprintf(name, sizeof name, "blk.%zu.%s", layer, fused->name);
    const Tensor *tensor = checkpoint_tensor(checkpoint, name);
    snprintf(name, sizeof name, "blk.%zu.%s", layer, fused->parts[0]);
    return checkpoint_tensor(checkpoint, name) == NULL ? tensor : NULL;
}

/* The rows of a part, behind those of the parts before it. */
static Tensor view_of(const Tensor *whole, size_t first_row, size_t n_rows) {
    size_t row_bytes = whole->size_bytes / tensor_n_rows(whole);
    Tensor view = *whole;
    view.shape[1] = n_rows;
    view.data = whole->data + first_row * row_bytes;
    view.size_bytes = n_rows * row_bytes;
    return view;
}

static int check_rows(const Tensor *whole, const FusedRole *fused, const ModelConfig *config, const char *path,
                      Error *error) {
    size_t n_rows = 0;
    for (size_t i = 0; i < n_parts(fused); i++)
        n_rows += rows_of(fused, i, config);
    if (tensor_n_rows(whole) == n_rows && whole->shape[1] == n_rows && whole->scales == NULL)
        return 0;
    return error_set(error, ERROR_FORMAT,
                     "%s: %.*s: expected %zu rows, those of %zu matrices in one, file has %zu; its metadata belongs to "
                     "another model",
                     path, SV_ARGS(whole->name), n_rows, n_parts(fused), tensor_n_rows(whole));
}

static int split(Checkpoint *checkpoint, const FusedRole *fused, size_t layer, const char *path, Error *error) {
    const Tensor *found = find_fused(checkpoint, fused, layer);
    size_t n = n_parts(fused), first_row = 0;
    if (found == NULL)
        return 0;
    Tensor whole = *found;
    size_t at = (size_t)(found - checkpoint->tensors);
    if (check_rows(&whole, fused, &checkpoint->config, path, error) < 0)
        return error->code;
    char *names = checkpoint_allocate(checkpoint, n, ROLE_NAME_BYTES, "tensor names", error);
    Tensor *added = names == NULL ? NULL : checkpoint_add_tensors(checkpoint, n - 1, error);
    if (added == NULL)
        return error->code;
    for (size_t i = 0; i < n; i++) {
        Tensor *part = i == 0 ? &checkpoint->tensors[at] : &added[i - 1];
        size_t n_rows = rows_of(fused, i, &checkpoint->config);
        *part = view_of(&whole, first_row, n_rows);
        snprintf(names + i * ROLE_NAME_BYTES, ROLE_NAME_BYTES, "blk.%zu.%s", layer, fused->parts[i]);
        part->name = sv(names + i * ROLE_NAME_BYTES);
        first_row += n_rows;
    }
    return 0;
}

int checkpoint_split_fused(Checkpoint *checkpoint, const char *path, Error *error) {
    for (size_t i = 0; checkpoint->config.family->fused && i < sizeof FUSED / sizeof *FUSED; i++)
        for (size_t layer = 0; layer < checkpoint->config.n_layers; layer++)
            if (split(checkpoint, &FUSED[i], layer, path, error) < 0)
                return error->code;
    return 0;
}

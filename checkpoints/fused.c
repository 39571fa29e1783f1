/* See fused.h. */
#include "checkpoints/fused.h"

#include "checkpoints/roles.h"

#include <stdio.h>

/* A tensor of a layer, and the roles of its parts in the order of their rows. */
static const struct FusedRole {
    const char *name;
    const char *parts[FUSED_PARTS];
} FUSED[] = {
    {"attn_qkv.weight", {"attn_q.weight", "attn_k.weight", "attn_v.weight"}},
    {"ffn_up.weight", {"ffn_gate.weight", "ffn_up.weight", NULL}},
};

static size_t rows_of(const ModelConfig *config, const char *role) {
    return role_length(tensor_role(sv(role))->rows, config);
}

int checkpoint_split_rows(Checkpoint *checkpoint, size_t i, const char *const roles[FUSED_PARTS], size_t layer,
                          const char *path, Error *error) {
    const Tensor whole = checkpoint->tensors[i];
    size_t n_parts = 0, n_rows = 0, done = 0, first_added = checkpoint->n_tensors;
    while (n_parts < FUSED_PARTS && roles[n_parts] != NULL)
        n_rows += rows_of(&checkpoint->config, roles[n_parts++]);
    if (whole.n_dims != 2 || whole.shape[1] != n_rows || whole.scales != NULL)
        return error_set(error, ERROR_FORMAT,
                         "%s: %.*s: has %zu rows, expected %zu of its parts together; its configuration belongs to "
                         "another model",
                         path, SV_ARGS(whole.name), whole.shape[1], n_rows);
    size_t row_bytes = whole.size_bytes / n_rows;
    char *names = checkpoint_allocate(checkpoint, n_parts, ROLE_NAME_BYTES, "tensor names", error);
    if (names == NULL || checkpoint_add_tensors(checkpoint, n_parts - 1, error) == NULL)
        return error->code;
    for (size_t part = 0; part < n_parts; part++, names += ROLE_NAME_BYTES) {
        Tensor *tensor = &checkpoint->tensors[part == 0 ? i : first_added + part - 1];
        *tensor = whole;
        tensor->name = sv(role_name(tensor_role(sv(roles[part])), layer, names));
        tensor->shape[1] = rows_of(&checkpoint->config, roles[part]);
        tensor->data = whole.data + done * row_bytes;
        tensor->size_bytes = tensor->shape[1] * row_bytes;
        done += tensor->shape[1];
    }
    return 0;
}

/* The tensor's index plus 1, where it is there and its first part is not: ffn_up is the name of a part, too. Else 0. */
static size_t find_fused(const Checkpoint *checkpoint, const struct FusedRole *fused, size_t layer) {
    char name[ROLE_NAME_BYTES];
    snprintf(name, sizeof name, "blk.%zu.%s", layer, fused->name);
    const Tensor *tensor = checkpoint_tensor(checkpoint, name);
    snprintf(name, sizeof name, "blk.%zu.%s", layer, fused->parts[0]);
    return tensor == NULL || checkpoint_tensor(checkpoint, name) != NULL ? 0
                                                                         : (size_t)(tensor - checkpoint->tensors) + 1;
}

/* All are found before any is split, while tensors are in order: parts are added behind them. */
int checkpoint_split_fused(Checkpoint *checkpoint, const char *path, Error *error) {
    enum { N_ROLES = sizeof FUSED / sizeof *FUSED };
    const size_t n_layers = checkpoint->config.n_layers;
    if (!checkpoint->config.family->fused)
        return 0;
    size_t *found = checkpoint_allocate(checkpoint, N_ROLES * n_layers, sizeof *found, "fused tensors", error);
    if (found == NULL || checkpoint_sort_tensors(checkpoint, path, error) < 0)
        return error->code;
    for (size_t i = 0; i < N_ROLES * n_layers; i++)
        found[i] = find_fused(checkpoint, &FUSED[i / n_layers], i % n_layers);
    for (size_t i = 0; i < N_ROLES * n_layers; i++)
        if (found[i] > 0 &&
            checkpoint_split_rows(checkpoint, found[i] - 1, FUSED[i / n_layers].parts, i % n_layers, path, error) < 0)
            return error->code;
    return 0;
}

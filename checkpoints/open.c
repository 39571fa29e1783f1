/* Chooses the reader, then checks what holds for every container; see open.h. */
#include "checkpoints/open.h"

#include "base/block_decode.h"
#include "base/foreign_file.h"
#include "base/name_list.h"
#include "base/simd/detect.h"
#include "checkpoints/folder_reader.h"
#include "checkpoints/fused.h"
#include "checkpoints/gguf_reader.h"
#include "checkpoints/llama2c_reader.h"
#include "checkpoints/roles.h"

#include <stdlib.h>

static const CheckpointReader *const READERS[] = {&GGUF_READER, &SAFETENSORS_READER, &PTH_READER, &LLAMA2C_READER};

static int by_address(const void *a, const void *b) {
    const uint8_t *x = (*(const Tensor *const *)a)->data, *y = (*(const Tensor *const *)b)->data;
    return (x > y) - (x < y);
}

/* An error where two tensors share bytes. */
static int check_tensors_apart(const Checkpoint *checkpoint, const char *path, Error *error) {
    size_t n = checkpoint->n_tensors;
    const Tensor **sorted = malloc((n > 0 ? n : 1) * sizeof *sorted);
    if (sorted == NULL)
        return error_memory(error, "the list of tensors", (unsigned long long)n * sizeof *sorted);
    for (size_t i = 0; i < n; i++)
        sorted[i] = &checkpoint->tensors[i];
    int status = 0;
    qsort(sorted, n, sizeof *sorted, by_address);
    for (size_t i = 1; i < n && status == 0; i++)
        if (sorted[i]->data < sorted[i - 1]->data + sorted[i - 1]->size_bytes)
            status = error_set(error, ERROR_FORMAT, "%s: tensors %.*s and %.*s overlap; the file is damaged", path,
                               SV_ARGS(sorted[i - 1]->name), SV_ARGS(sorted[i]->name));
    free(sorted);
    return status;
}

/* Gains of norms, biases and RoPE's factors are read as F32; some tools write them in 16 bits. */
static int widen_vectors(Checkpoint *checkpoint, Error *error) {
    for (size_t i = 0; i < checkpoint->n_tensors; i++) {
        Tensor *tensor = &checkpoint->tensors[i];
        const TensorRole *role = tensor_role_of(tensor->name);
        if (role == NULL || !role_is_vector(role) || (tensor->type != TYPE_F16 && tensor->type != TYPE_BF16))
            continue;
        size_t n = tensor->shape[0] * tensor_n_rows(tensor);
        float *wide = checkpoint_allocate(checkpoint, n, sizeof *wide, "a vector of weights", error);
        if (wide == NULL)
            return error->code;
        tensor_decoder(tensor->type, cpu_best_simd_level())(tensor, 0, n, wide);
        tensor->type = TYPE_F32;
        tensor->data = (const uint8_t *)wide;
        tensor->size_bytes = n * sizeof *wide;
    }
    return 0;
}

/* NULL where there is none. Without a path a file is recognised by its first bytes alone. */
static const CheckpointReader *find_reader(const MappedFile *file, const char *path) {
    for (size_t i = 0; i < sizeof READERS / sizeof *READERS; i++)
        if (READERS[i]->recognises(file, path))
            return READERS[i];
    return NULL;
}

static int refuse_unknown(const char *path, Error *error) {
    NameList supported = {0};
    for (size_t i = 0; i < sizeof READERS / sizeof *READERS; i++)
        name_list_add(&supported, READERS[i]->name);
    return error_set(error, ERROR_UNSUPPORTED, "%s: wrong magic, none of %s; convert the checkpoint to %s", path,
                     supported.text, READERS[0]->name);
}

static int read_file(Checkpoint *checkpoint, const char *path, Error *error) {
    const MappedFile *file = checkpoint_map(checkpoint, path, error);
    if (file == NULL)
        return error->code;
    const CheckpointReader *reader = find_reader(file, "");
    int status = reader == NULL ? foreign_file_refuse(mapped_file_bytes(file), path, CHECKPOINT_FORMATS, error) : 0;
    if (reader == NULL)
        reader = find_reader(file, path);
    if (status == 0)
        status = reader == NULL ? refuse_unknown(path, error) : reader->read(checkpoint, path, error);
    return status;
}

static int read_container(Checkpoint *checkpoint, const char *path, Error *error) {
    int status = folder_recognises(path) ? folder_read(checkpoint, path, error) : read_file(checkpoint, path, error);
    if (status == ERROR_FORMAT || status == ERROR_UNSUPPORTED)
        foreign_name_hint(path, error);
    return status;
}

static int read_checkpoint(Checkpoint *checkpoint, const char *path, Error *error) {
    if (read_container(checkpoint, path, error) < 0)
        return error->code;
    model_config_complete(&checkpoint->config);
    if (model_config_check(&checkpoint->config, path, error) < 0)
        return error->code;
    if (checkpoint_split_fused(checkpoint, path, error) < 0)
        return error->code;
    for (size_t i = 0; i < checkpoint->n_tensors; i++)
        checkpoint->weights_bytes += checkpoint->tensors[i].size_bytes;
    if (checkpoint_sort_tensors(checkpoint, path, error) < 0 || check_tensors_apart(checkpoint, path, error) < 0)
        return error->code;
    return widen_vectors(checkpoint, error);
}

static int open_checkpoint(Checkpoint *checkpoint, const char *path, bool outline, Error *error) {
    *checkpoint = (Checkpoint){.is_outline = outline};
    int status = read_checkpoint(checkpoint, path, error);
    if (status < 0)
        checkpoint_close(checkpoint);
    return status;
}

int checkpoint_open(Checkpoint *checkpoint, const char *path, Error *error) {
    return open_checkpoint(checkpoint, path, false, error);
}

int checkpoint_open_outline(Checkpoint *checkpoint, const char *path, Error *error) {
    return open_checkpoint(checkpoint, path, true, error);
}

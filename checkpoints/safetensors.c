/* See safetensors.h. */
#include "checkpoints/safetensors.h"

#include "base/checked.h"
#include "base/json_document.h"

#include <stdlib.h>

#define HEADER_AT    8                     /* behind its length */
#define HEADER_BYTES ((uint64_t)100 << 20) /* at most; the format's own limit is 100 MB */

typedef struct Safetensors {
    const char *path;
    const uint8_t *data; /* (data_bytes) what offsets count from */
    size_t data_bytes, data_at;
} Safetensors;

bool safetensors_recognises(const MappedFile *file) {
    uint64_t length;
    if (file->size < HEADER_AT + 2)
        return false;
    memcpy(&length, file->data, sizeof length);
    return length <= 1ull << 40 && file->data[HEADER_AT] == '{';
}

static int damaged(const Safetensors *st, const cJSON *item, const char *what, Error *error) {
    return error_set(error, ERROR_FORMAT, "%s: %.128s: %s; the file is damaged", st->path, item->string, what);
}

static int read_type(const Safetensors *st, const cJSON *item, Tensor *tensor, Error *error) {
    static const TensorType TYPES[] = {TYPE_F32, TYPE_F16, TYPE_BF16};
    const cJSON *dtype = cJSON_GetObjectItemCaseSensitive(item, "dtype");
    if (!cJSON_IsString(dtype))
        return damaged(st, item, "no dtype", error);
    for (size_t i = 0; i < sizeof TYPES / sizeof *TYPES; i++)
        if (strcmp(tensor_type_info(TYPES[i])->name, dtype->valuestring) == 0) {
            tensor->type = TYPES[i];
            return 0;
        }
    return error_set(error, ERROR_UNSUPPORTED,
                     "%s: %.128s: tensor type %.32s is not supported; use a checkpoint in F32, F16 or BF16", st->path,
                     item->string, dtype->valuestring);
}

/* The format names the slowest dimension first. */
static int read_shape(const Safetensors *st, const cJSON *item, Tensor *tensor, size_t *n_elements, Error *error) {
    const cJSON *shape = cJSON_GetObjectItemCaseSensitive(item, "shape"), *length;
    size_t n_dims = cJSON_IsArray(shape) ? (size_t)cJSON_GetArraySize(shape) : 0, i = n_dims;
    if (!cJSON_IsArray(shape) || n_dims > TENSOR_MAX_DIMS)
        return damaged(st, item, "no shape of at most 4 dimensions", error);
    for (size_t dim = 0; dim < TENSOR_MAX_DIMS; dim++)
        tensor->shape[dim] = 1;
    tensor->n_dims = at_least(n_dims, 1);
    *n_elements = 1;
    cJSON_ArrayForEach(length, shape) {
        size_t *dim = &tensor->shape[--i];
        if (!json_whole_number(length, dim) || *dim == 0 || !checked_mul(*n_elements, *dim, n_elements))
            return damaged(st, item, "impossible shape", error);
    }
    return 0;
}

static int read_offsets(const Safetensors *st, const cJSON *item, size_t offsets[2], Error *error) {
    const cJSON *pair = cJSON_GetObjectItemCaseSensitive(item, "data_offsets");
    if (!cJSON_IsArray(pair) || cJSON_GetArraySize(pair) != 2 || !json_whole_number(pair->child, &offsets[0]) ||
        !json_whole_number(pair->child->next, &offsets[1]) || offsets[0] > offsets[1])
        return damaged(st, item, "no data_offsets from a byte to a later one", error);
    if (offsets[1] > st->data_bytes)
        return error_set(error, ERROR_FORMAT,
                         "%s: %.128s: ends at byte %zu of %zu bytes of data: truncated; fetch the file again", st->path,
                         item->string, offsets[1], st->data_bytes);
    return 0;
}

static int read_tensor(const Safetensors *st, Checkpoint *checkpoint, const cJSON *item, Tensor *tensor, Error *error) {
    size_t n_elements = 0, offsets[2];
    if (!cJSON_IsObject(item) || cJSON_GetArraySize(item) != 3)
        return damaged(st, item, "is not described by dtype, shape and data_offsets", error);
    if (read_type(st, item, tensor, error) < 0 || read_shape(st, item, tensor, &n_elements, error) < 0 ||
        read_offsets(st, item, offsets, error) < 0)
        return error->code;
    size_t element_bytes = tensor_type_info(tensor->type)->block_bytes;
    if (!checked_mul(n_elements, element_bytes, &tensor->size_bytes) || tensor->size_bytes != offsets[1] - offsets[0])
        return damaged(st, item, "shape and data_offsets disagree about its size", error);
    if ((st->data_at + offsets[0]) % element_bytes != 0)
        return error_set(error, ERROR_FORMAT,
                         "%s: %.128s: lies at byte %zu, which is no multiple of the %zu of a number; write the file "
                         "again with a later release of safetensors",
                         st->path, item->string, st->data_at + offsets[0], element_bytes);
    tensor->data = st->data + offsets[0];
    size_t length = strlen(item->string);
    char *name = checkpoint_allocate(checkpoint, length + 1, 1, "a tensor's name", error);
    if (name == NULL)
        return error->code;
    tensor->name = (StringView){memcpy(name, item->string, length), length};
    return 0;
}

static int by_address(const void *a, const void *b) {
    const Tensor *x = a, *y = b;
    return x->data != y->data ? (x->data > y->data) - (x->data < y->data)
                              : (x->size_bytes > y->size_bytes) - (x->size_bytes < y->size_bytes);
}

/* Each tensor must begin where the one before it ends. */
static int check_no_gaps(const Safetensors *st, Tensor *tensors, size_t n, Error *error) {
    const uint8_t *at = st->data;
    qsort(tensors, n, sizeof *tensors, by_address);
    for (size_t i = 0; i < n; i++) {
        if (tensors[i].data != at)
            return error_set(error, ERROR_FORMAT, "%s: %.*s: %s the tensor before it; the file is damaged", st->path,
                             SV_ARGS(tensors[i].name), tensors[i].data < at ? "overlaps" : "begins behind a gap after");
        at += tensors[i].size_bytes;
    }
    if (at != st->data + st->data_bytes)
        return error_set(error, ERROR_FORMAT, "%s: %zu bytes behind the last tensor; the file is damaged", st->path,
                         (size_t)(st->data + st->data_bytes - at));
    return 0;
}

static bool is_metadata(const cJSON *item) {
    return strcmp(item->string, "__metadata__") == 0;
}

static int add_tensors(const Safetensors *st, Checkpoint *checkpoint, const cJSON *header, Error *error) {
    size_t n = 0, first = checkpoint->n_tensors;
    if (!cJSON_IsObject(header))
        return error_set(error, ERROR_FORMAT, "%s: the header is no object; the file is damaged", st->path);
    for (const cJSON *item = header->child; item != NULL; item = item->next)
        n += !is_metadata(item);
    if (n == 0)
        return error_set(error, ERROR_FORMAT, "%s: has no tensors; name the file that has the weights", st->path);
    Tensor *tensor = checkpoint_add_tensors(checkpoint, n, error);
    if (tensor == NULL)
        return error->code;
    for (const cJSON *item = header->child; item != NULL; item = item->next)
        if (!is_metadata(item) && read_tensor(st, checkpoint, item, tensor++, error) < 0)
            return error->code;
    return check_no_gaps(st, checkpoint->tensors + first, n, error);
}

int safetensors_add(Checkpoint *checkpoint, const MappedFile *file, const char *path, Error *error) {
    uint64_t length;
    memcpy(&length, file->data, sizeof length); /* the caller has recognised it */
    if (length > HEADER_BYTES || length > file->size - HEADER_AT)
        return error_set(error, ERROR_FORMAT,
                         "%s: a header of %llu bytes in a file of %zu: truncated or damaged; fetch the file again",
                         path, (unsigned long long)length, file->size);
    size_t data_at = HEADER_AT + (size_t)length;
    const Safetensors st = {path, file->data + data_at, file->size - data_at, data_at};
    StringView text = {(const char *)file->data + HEADER_AT, (size_t)length};
    cJSON *header = json_document_parse(text, path, error);
    if (header == NULL)
        return error->code;
    int status = add_tensors(&st, checkpoint, header, error);
    cJSON_Delete(header);
    return status;
}

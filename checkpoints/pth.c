/* See pth.h. */
#include "checkpoints/pth.h"

#include "base/checked.h"
#include "base/foreign_file.h"
#include "checkpoints/pickle.h"
#include "checkpoints/zip_archive.h"

#include <stdio.h>

#define PICKLE_BYTES ((size_t)64 << 20) /* at most; that of a model of 405 billion weights has 200 kB */
#define NAME_BYTES   1200               /* of an entry's name, the folder in front of it included */

typedef struct Pth {
    Checkpoint *checkpoint;
    const MappedFile *file;
    const char *path;
    ZipArchive archive;
    StringView folder; /* of its entries: what stands before "/data.pkl" */
} Pth;

bool pth_recognises(const MappedFile *file) {
    StringView bytes = mapped_file_bytes(file);
    return sv_starts_with(bytes, sv("PK\x03\x04")) || sv_starts_with(bytes, sv("PK\x05\x06"));
}

static StringView bytes_of(const Pth *pth, const ZipEntry *entry) {
    return (StringView){(const char *)pth->file->data + entry->offset, entry->size};
}

/* The entry "FOLDER/NAME…KEY"; NULL where there is none. */
static const ZipEntry *find(const Pth *pth, const char *name, StringView key) {
    char full[NAME_BYTES];
    if (key.length > 64)
        return NULL;
    snprintf(full, sizeof full, "%.*s/%s%.*s", (int)pth->folder.length, pth->folder.bytes, name, (int)key.length,
             key.bytes);
    return zip_archive_find(&pth->archive, full);
}

static const ZipEntry *find_pickle(Pth *pth, Error *error) {
    static const char NAME[] = "/data.pkl";
    for (size_t i = 0; i < pth->archive.count; i++) {
        const ZipEntry *entry = &pth->archive.entries[i];
        size_t length = strlen(entry->name), n = sizeof NAME - 1;
        if (length > n && strcmp(entry->name + length - n, NAME) == 0 && entry->size <= PICKLE_BYTES) {
            pth->folder = (StringView){entry->name, length - n};
            return entry;
        }
    }
    error_set(error, ERROR_UNSUPPORTED,
              "%s: is a ZIP archive without data.pkl, not " CHECKPOINT_FORMATS "; unpack it first", pth->path);
    return NULL;
}

static int check_byte_order(const Pth *pth, Error *error) {
    const ZipEntry *entry = find(pth, "byteorder", sv(""));
    if (entry == NULL || sv_is(bytes_of(pth, entry), "little"))
        return 0;
    StringView order = bytes_of(pth, entry);
    return error_set(error, ERROR_UNSUPPORTED,
                     "%s: numbers in byte order '%.*s' are not supported; save it again on a little-endian machine",
                     pth->path, (int)at_most(order.length, 16), order.bytes);
}

/* Numbers must lie one behind the other; how far a dimension of one element reaches does not matter. */
static bool is_contiguous(const PickledTensor *from) {
    size_t stride = 1;
    for (size_t i = from->n_dims; i-- > 0;) {
        if (from->shape[i] != 1 && from->strides[i] != stride)
            return false;
        stride *= from->shape[i];
    }
    return true;
}

static int damaged(const Pth *pth, const PickledTensor *from, const char *what, Error *error) {
    return error_set(error, ERROR_FORMAT, "%s: %.*s: %s; the file is damaged", pth->path, SV_ARGS(from->name), what);
}

static int read_shape(const Pth *pth, const PickledTensor *from, Tensor *tensor, size_t *n_elements, Error *error) {
    *n_elements = 1;
    tensor->n_dims = at_least(from->n_dims, 1);
    for (size_t i = 0; i < TENSOR_MAX_DIMS; i++) {
        tensor->shape[i] = i < from->n_dims ? from->shape[from->n_dims - 1 - i] : 1;
        if (tensor->shape[i] == 0 || !checked_mul(*n_elements, tensor->shape[i], n_elements))
            return damaged(pth, from, "impossible shape", error);
    }
    if (is_contiguous(from))
        return 0;
    return error_set(error, ERROR_UNSUPPORTED,
                     "%s: %.*s: is stored transposed or with gaps, which is not supported; save its contiguous() "
                     "instead",
                     pth->path, SV_ARGS(from->name));
}

/* The bytes of the tensor's storage, which must be as many as its numbers take. */
static int find_storage(const Pth *pth, const PickledTensor *from, size_t element_bytes, StringView *out,
                        Error *error) {
    const ZipEntry *entry = find(pth, "data/", from->storage);
    size_t size_bytes;
    if (entry == NULL)
        return error_set(error, ERROR_FORMAT, "%s: %.*s: there is no entry data/%.*s; the file is damaged", pth->path,
                         SV_ARGS(from->name), SV_ARGS(from->storage));
    *out = bytes_of(pth, entry);
    if (!checked_mul(from->storage_elements, element_bytes, &size_bytes) || size_bytes != entry->size)
        return damaged(pth, from, "its storage has another size than the pickle says", error);
    if (entry->offset % element_bytes != 0)
        return damaged(pth, from, "its numbers are not aligned", error);
    return 0;
}

static int read_tensor(const Pth *pth, const PickledTensor *from, Tensor *tensor, Error *error) {
    size_t n_elements = 0, end;
    StringView storage = {0};
    if (from->type == TENSOR_TYPE_COUNT)
        return error_set(error, ERROR_UNSUPPORTED,
                         "%s: %.*s: tensor type %s is not supported; use a checkpoint in F32, F16 or BF16", pth->path,
                         SV_ARGS(from->name), from->type_name);
    size_t element_bytes = tensor_type_info(from->type)->block_bytes;
    if (read_shape(pth, from, tensor, &n_elements, error) < 0 ||
        find_storage(pth, from, element_bytes, &storage, error) < 0)
        return error->code;
    if (!checked_add(from->offset, n_elements, &end) || end > from->storage_elements)
        return damaged(pth, from, "reaches beyond its storage", error);
    tensor->name = from->name;
    tensor->type = from->type;
    tensor->data = (const uint8_t *)storage.bytes + from->offset * element_bytes;
    tensor->size_bytes = n_elements * element_bytes;
    return 0;
}

static int add_tensors(const Pth *pth, const ZipEntry *pickle, Error *error) {
    PickledTensors from;
    if (pickle_read(&from, bytes_of(pth, pickle), pth->path, error) < 0)
        return error->code;
    Tensor *tensors = checkpoint_add_tensors(pth->checkpoint, from.count, error);
    int status = tensors == NULL ? error->code : 0;
    for (size_t i = 0; i < from.count && status == 0; i++)
        status = read_tensor(pth, &from.items[i], &tensors[i], error);
    pickle_free(&from);
    return status;
}

int pth_add(Checkpoint *checkpoint, const MappedFile *file, const char *path, Error *error) {
    Pth pth = {checkpoint, file, path, {0}, {0}};
    if (zip_archive_open(&pth.archive, path, mapped_file_bytes(file), error) < 0)
        return error->code;
    const ZipEntry *pickle = find_pickle(&pth, error);
    int status = pickle == NULL ? error->code : check_byte_order(&pth, error);
    if (status == 0)
        status = add_tensors(&pth, pickle, error);
    zip_archive_close(&pth.archive);
    return status;
}

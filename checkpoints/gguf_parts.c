/* See gguf_parts.h. split.no counts from 0, names count from 1. */
#include "checkpoints/gguf_parts.h"

#include "base/foreign_file.h"

#include <stdio.h>
#include <unistd.h>

int gguf_add_tensors(const Gguf *gguf, Checkpoint *checkpoint, Error *error) {
    if (gguf->n_tensors == 0)
        return 0;
    Tensor *tensors = checkpoint_add_tensors(checkpoint, gguf->n_tensors, error);
    if (tensors == NULL)
        return error->code;
    memcpy(tensors, gguf->tensors, gguf->n_tensors * sizeof *tensors);
    return 0;
}

#define PART_SUFFIX_BYTES 64

/* "-00002-of-00003.gguf". */
static void part_suffix(size_t index, size_t n_parts, char suffix[PART_SUFFIX_BYTES]) {
    snprintf(suffix, PART_SUFFIX_BYTES, "-%05zu-of-%05zu.gguf", index + 1, n_parts);
}

static bool ends_with(const char *path, const char *suffix) {
    size_t length = strlen(path), suffix_length = strlen(suffix);
    return length >= suffix_length && strcmp(path + length - suffix_length, suffix) == 0;
}

/* A part but the first one holds no configuration. */
int gguf_refuse_later_part(const Gguf *gguf, const char *path, Error *error) {
    size_t n_parts = 1, number = 0;
    if (gguf_get_size(gguf, "split.count", false, 99999, &n_parts, error) < 0 ||
        gguf_get_size(gguf, "split.no", false, 99999, &number, error) < 0)
        return error->code;
    if (n_parts <= 1 || number == 0)
        return 0;
    char suffix[PART_SUFFIX_BYTES], first[PART_SUFFIX_BYTES];
    const char *slash = strrchr(path, '/'), *name = slash != NULL ? slash + 1 : path;
    part_suffix(number, n_parts, suffix);
    part_suffix(0, n_parts, first);
    size_t stem = ends_with(name, suffix) ? strlen(name) - strlen(suffix) : 0;
    return error_set(error, ERROR_ARGUMENT, "%s: is part %zu of %zu of a model; name the first part, %.*s%s", path,
                     number + 1, n_parts, stem > 0 ? (int)stem : 1, stem > 0 ? name : "*", first);
}

static int check_part(const Gguf *gguf, size_t index, size_t n_parts, Error *error) {
    size_t number = SIZE_MAX, count = 0;
    if (gguf_get_size(gguf, "split.no", true, 99999, &number, error) < 0 ||
        gguf_get_size(gguf, "split.count", true, 99999, &count, error) < 0)
        return error->code;
    if (number != index || count != n_parts)
        return error_set(error, ERROR_FORMAT,
                         "%s: is part %zu of %zu, expected part %zu of %zu; fetch the parts of one split again",
                         gguf->path, number + 1, count, index + 1, n_parts);
    return 0;
}

static const MappedFile *map_part(Checkpoint *checkpoint, const char *path, size_t index, size_t n_parts,
                                  Error *error) {
    if (access(path, F_OK) != 0) {
        error_set(error, ERROR_IO, "%s: part %zu of %zu of the model is missing; fetch it into the same folder", path,
                  index + 1, n_parts);
        return NULL;
    }
    const MappedFile *file = checkpoint_map(checkpoint, path, error);
    if (file == NULL || gguf_has_magic(file))
        return file;
    if (foreign_file_refuse(mapped_file_bytes(file), path, CHECKPOINT_FORMATS, error) == 0)
        error_set(error, ERROR_FORMAT, "%s: wrong magic, not GGUF; fetch the part again", path);
    return NULL;
}

/* Adds the tensors of part `index`, whose name differs from the first part's in its number alone. */
static int read_part(Checkpoint *checkpoint, const char *first_path, size_t index, size_t n_parts, Error *error) {
    size_t length = strlen(first_path);
    char *path = checkpoint_allocate(checkpoint, length + 1, 1, "a file name", error), suffix[PART_SUFFIX_BYTES];
    if (path == NULL)
        return error->code;
    part_suffix(index, n_parts, suffix);
    memcpy(path, first_path, length + 1);
    memcpy(path + length - strlen(suffix), suffix, strlen(suffix));
    const MappedFile *file = map_part(checkpoint, path, index, n_parts, error);
    Gguf gguf;
    if (file == NULL || gguf_open(&gguf, file, path, error) < 0)
        return error->code;
    int status = check_part(&gguf, index, n_parts, error);
    if (status == 0)
        status = gguf_add_tensors(&gguf, checkpoint, error);
    gguf_close(&gguf);
    return status;
}

int gguf_add_other_parts(const Gguf *first, Checkpoint *checkpoint, const char *path, Error *error) {
    size_t n_parts = 1, n_tensors = 0;
    if (gguf_get_size(first, "split.count", false, 99999, &n_parts, error) < 0 ||
        gguf_get_size(first, "split.tensors.count", false, SIZE_MAX / 2, &n_tensors, error) < 0)
        return error->code;
    if (n_parts <= 1)
        return 0;
    char suffix[PART_SUFFIX_BYTES];
    part_suffix(0, n_parts, suffix);
    if (!ends_with(path, suffix))
        return error_set(error, ERROR_ARGUMENT,
                         "%s: split.count is %zu, so the first part's name must end in %s; "
                         "rename the parts",
                         path, n_parts, suffix);
    for (size_t index = 1; index < n_parts; index++)
        if (read_part(checkpoint, path, index, n_parts, error) < 0)
            return error->code;
    if (n_tensors > 0 && n_tensors != checkpoint->n_tensors)
        return error_set(error, ERROR_FORMAT,
                         "%s: the parts hold %zu tensors, split.tensors.count says %zu; fetch "
                         "them again",
                         path, checkpoint->n_tensors, n_tensors);
    return 0;
}

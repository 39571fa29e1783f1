/* GGUF parsing; see gguf.h. Every length from the file is compared with the bytes that are left before it is used. */
#include "checkpoints/gguf.h"

#include "base/checked.h"
#include "checkpoints/ggml_types.h"

#include <stdlib.h>

/* A reading position; `failed` stays set, so that a sequence of reads needs one check at its end. */
typedef struct Cursor {
    const uint8_t *data;
    size_t size, position;
    bool failed;
} Cursor;

static const uint8_t *take(Cursor *cursor, size_t n) {
    if (cursor->failed || n > cursor->size - cursor->position) {
        cursor->failed = true;
        return NULL;
    }
    cursor->position += n;
    return cursor->data + cursor->position - n;
}

static uint32_t take_u32(Cursor *cursor) {
    uint32_t value = 0;
    const uint8_t *bytes = take(cursor, sizeof value);
    if (bytes != NULL)
        memcpy(&value, bytes, sizeof value);
    return value;
}

/* Counts and lengths are 64 bits wide in the file; what does not fit size_t cannot be in memory either. */
static size_t take_size(Cursor *cursor) {
    uint64_t value = 0;
    const uint8_t *bytes = take(cursor, sizeof value);
    if (bytes != NULL)
        memcpy(&value, bytes, sizeof value);
    if (value > SIZE_MAX / 2)
        cursor->failed = true;
    return cursor->failed ? 0 : (size_t)value;
}

static StringView take_string(Cursor *cursor) {
    size_t length = take_size(cursor);
    const uint8_t *bytes = take(cursor, length);
    return bytes == NULL ? (StringView){"", 0} : (StringView){(const char *)bytes, length};
}

static int truncated(const Gguf *gguf, const char *where, Error *error) {
    return error_set(error, ERROR_FORMAT, "%s: truncated or damaged in %s; fetch the file again", gguf->path, where);
}

/* Arrays may hold arrays. Nothing that is asked for does, so these are only passed over, to a depth that no writer
 * reaches. */
enum { MAX_NESTING = 8 };

static int skip_values(const Gguf *gguf, Cursor *cursor, StringView key, GgufType type, size_t count, int depth,
                       Error *error);

static int skip_array(const Gguf *gguf, Cursor *cursor, StringView key, int depth, Error *error) {
    uint32_t type = take_u32(cursor);
    size_t count = take_size(cursor);
    return cursor->failed ? 0 : skip_values(gguf, cursor, key, type, count, depth + 1, error);
}

/* Moves behind `count` values of a type, which may be any number that a file holds. */
static int skip_values(const Gguf *gguf, Cursor *cursor, StringView key, GgufType type, size_t count, int depth,
                       Error *error) {
    size_t bytes;
    if ((unsigned)type >= GGUF_TYPE_COUNT || depth > MAX_NESTING)
        return error_set(error, ERROR_FORMAT, "%s: metadata %.*s: %s %u; the file is damaged", gguf->path, SV_ARGS(key),
                         depth > MAX_NESTING ? "arrays in arrays to a depth of more than"
                         : depth > 0         ? "array of unknown type"
                                             : "unknown type",
                         depth > MAX_NESTING ? MAX_NESTING : (unsigned)type);
    if (type != GGUF_STRING && type != GGUF_ARRAY) {
        if (checked_mul(count, gguf_scalar_bytes(type), &bytes))
            take(cursor, bytes);
        else
            cursor->failed = true;
        return 0;
    }
    for (size_t i = 0; i < count && !cursor->failed; i++)
        if (type == GGUF_STRING)
            take_string(cursor);
        else if (skip_array(gguf, cursor, key, depth, error) < 0)
            return error->code;
    return 0;
}

static int parse_value(Gguf *gguf, Cursor *cursor, GgufValue *value, Error *error) {
    value->key = take_string(cursor);
    value->type = (GgufType)take_u32(cursor);
    value->count = 1;
    bool is_array = value->type == GGUF_ARRAY;
    if (is_array) {
        value->element_type = (GgufType)take_u32(cursor);
        value->count = take_size(cursor);
    }
    value->bytes = cursor->data + cursor->position;
    GgufType type = is_array ? value->element_type : value->type;
    if (!cursor->failed && skip_values(gguf, cursor, value->key, type, value->count, is_array, error) < 0)
        return error->code;
    return cursor->failed ? truncated(gguf, "the metadata", error) : 0;
}

static int key_order(const void *a, const void *b) {
    StringView x = (*(const GgufValue *const *)a)->key, y = (*(const GgufValue *const *)b)->key;
    if (x.length != y.length)
        return x.length < y.length ? -1 : 1;
    return memcmp(x.bytes, y.bytes, x.length);
}

static int check_keys_distinct(const Gguf *gguf, Error *error) {
    const GgufValue **sorted = malloc((gguf->n_values + 1) * sizeof *sorted);
    if (sorted == NULL)
        return error_memory(error, "the metadata", gguf->n_values * sizeof *sorted);
    for (size_t i = 0; i < gguf->n_values; i++)
        sorted[i] = &gguf->values[i];
    qsort(sorted, gguf->n_values, sizeof *sorted, key_order);
    int status = 0;
    for (size_t i = 1; i < gguf->n_values && status == 0; i++)
        if (sv_equal(sorted[i - 1]->key, sorted[i]->key))
            status = error_set(error, ERROR_FORMAT, "%s: duplicate metadata key %.*s; the file is damaged", gguf->path,
                               SV_ARGS(sorted[i]->key));
    free(sorted);
    return status;
}

static int truncated_tensor(const Gguf *gguf, const Tensor *tensor, Error *error) {
    return error_set(error, ERROR_FORMAT,
                     "%s: truncated or damaged in the description of tensor %.*s; fetch the file "
                     "again",
                     gguf->path, SV_ARGS(tensor->name));
}

static int refuse_type(const Gguf *gguf, const Tensor *tensor, uint32_t number, Error *error) {
    const GgmlType *type = ggml_type_find(number);
    return error_set(error, ERROR_UNSUPPORTED, "%s: %.*s: tensor type %s%s%u%s is not supported; %s %s", gguf->path,
                     SV_ARGS(tensor->name), type != NULL ? type->name : "", type != NULL ? " (" : "", number,
                     type != NULL ? ")" : "", type != NULL && type->cure != NULL ? type->cure : "use a file with",
                     type != NULL && type->cure != NULL ? "" : tensor_type_names().text);
}

/* Reads a tensor's description; its data offset, relative to the data section, is left in *offset. */
static int parse_tensor(const Gguf *gguf, Cursor *cursor, Tensor *tensor, size_t *offset, Error *error) {
    tensor->name = take_string(cursor);
    uint32_t n_dims = take_u32(cursor);
    if (cursor->failed)
        return truncated(gguf, "the tensor descriptions", error);
    if (n_dims == 0 || n_dims > TENSOR_MAX_DIMS)
        return error_set(error, ERROR_FORMAT, "%s: %.*s: %u dimensions, expected 1 to %d; the file is damaged",
                         gguf->path, SV_ARGS(tensor->name), n_dims, TENSOR_MAX_DIMS);
    size_t n_elements = 1;
    bool fits = true;
    tensor->n_dims = n_dims;
    for (size_t i = 0; i < TENSOR_MAX_DIMS; i++) {
        tensor->shape[i] = i < n_dims ? take_size(cursor) : 1;
        fits = fits && tensor->shape[i] > 0 && checked_mul(n_elements, tensor->shape[i], &n_elements);
    }
    uint32_t ggml_type = take_u32(cursor);
    *offset = take_size(cursor);
    if (cursor->failed)
        return truncated_tensor(gguf, tensor, error);
    if (!fits)
        return error_set(error, ERROR_FORMAT,
                         "%s: %.*s: impossible dimensions [%zu, %zu, %zu, %zu]; the file is damaged", gguf->path,
                         SV_ARGS(tensor->name), tensor->shape[0], tensor->shape[1], tensor->shape[2], tensor->shape[3]);
    tensor->type = tensor_type_from_ggml(ggml_type);
    if (tensor->type == TENSOR_TYPE_COUNT)
        return refuse_type(gguf, tensor, ggml_type, error);
    const TensorTypeInfo *info = tensor_type_info(tensor->type);
    if (tensor->shape[0] % info->block_elements != 0)
        return error_set(error, ERROR_FORMAT,
                         "%s: %.*s: rows of %zu do not divide into %s blocks of %zu; the file is "
                         "damaged",
                         gguf->path, SV_ARGS(tensor->name), tensor->shape[0], info->name, info->block_elements);
    if (!checked_mul(n_elements / info->block_elements, info->block_bytes, &tensor->size_bytes))
        return truncated_tensor(gguf, tensor, error);
    return 0;
}

/* Turns the offsets, (n_tensors), into pointers. */
static int place_tensors(Gguf *gguf, const size_t *offsets, size_t data_start, size_t alignment, Error *error) {
    for (size_t i = 0; i < gguf->n_tensors; i++) {
        Tensor *tensor = &gguf->tensors[i];
        size_t start;
        if (offsets[i] % alignment != 0)
            return error_set(error, ERROR_FORMAT,
                             "%s: %.*s: offset %zu is not a multiple of the alignment %zu; the "
                             "file is damaged",
                             gguf->path, SV_ARGS(tensor->name), offsets[i], alignment);
        if (!checked_add(data_start, offsets[i], &start) || !range_within(start, tensor->size_bytes, gguf->file->size))
            return error_set(error, ERROR_FORMAT,
                             "%s: %.*s: needs %zu bytes at offset %zu, beyond the end of the file "
                             "(%zu bytes): truncated; fetch it again",
                             gguf->path, SV_ARGS(tensor->name), tensor->size_bytes, offsets[i], gguf->file->size);
        tensor->data = gguf->file->data + start;
    }
    return 0;
}

static int parse_tensors(Gguf *gguf, Cursor *cursor, Error *error) {
    size_t *offsets = calloc(gguf->n_tensors + 1, sizeof *offsets);
    gguf->tensors = calloc(gguf->n_tensors + 1, sizeof *gguf->tensors);
    if (offsets == NULL || gguf->tensors == NULL) {
        free(offsets);
        return error_memory(error, "the list of tensors", gguf->n_tensors * sizeof *gguf->tensors);
    }
    int status = 0;
    for (size_t i = 0; i < gguf->n_tensors && status == 0; i++)
        status = parse_tensor(gguf, cursor, &gguf->tensors[i], &offsets[i], error);
    size_t alignment = 32, data_start = 0;
    if (status == 0)
        status = gguf_get_size(gguf, "general.alignment", false, 1 << 20, &alignment, error);
    if (status == 0 && (alignment == 0 || alignment % 8 != 0))
        status = error_set(error, ERROR_FORMAT,
                           "%s: general.alignment is %zu, expected a multiple of 8; the file is damaged", gguf->path,
                           alignment);
    if (status == 0)
        data_start = round_up(cursor->position, alignment); /* a position in a file, and at most 2^20 */
    if (status == 0)
        status = place_tensors(gguf, offsets, data_start, alignment, error);
    free(offsets);
    return status;
}

static int check_version(const Gguf *gguf, uint32_t version, Error *error) {
    if (version == 2 || version == 3)
        return 0;
    if (version != 0 && (version & 0xffff) == 0)
        return error_set(error, ERROR_UNSUPPORTED, "%s: big-endian GGUF is not supported; convert it for this machine",
                         gguf->path);
    return error_set(error, ERROR_UNSUPPORTED, "%s: GGUF version %u is not supported; convert it to version 2 or 3",
                     gguf->path, version);
}

static int parse(Gguf *gguf, Error *error) {
    Cursor cursor = {gguf->file->data, gguf->file->size, 0, false};
    take(&cursor, 4); /* the magic, which the caller has recognised */
    uint32_t version = take_u32(&cursor);
    if (cursor.failed)
        return truncated(gguf, "the header", error);
    if (check_version(gguf, version, error) < 0)
        return error->code;
    size_t n_tensors = take_size(&cursor), n_values = take_size(&cursor);
    size_t left = cursor.size - cursor.position;
    /* The smallest tensor description takes 32 bytes, the smallest metadata entry 13: bounds before allocating. */
    if (cursor.failed || n_tensors > left / 32 || n_values > left / 13)
        return truncated(gguf, "the header (more tensors or metadata entries than the file can hold)", error);
    gguf->n_tensors = n_tensors;
    gguf->values = calloc(n_values + 1, sizeof *gguf->values);
    if (gguf->values == NULL)
        return error_memory(error, "the metadata", n_values * sizeof *gguf->values);
    for (; gguf->n_values < n_values; gguf->n_values++)
        if (parse_value(gguf, &cursor, &gguf->values[gguf->n_values], error) < 0)
            return error->code;
    if (check_keys_distinct(gguf, error) < 0)
        return error->code;
    return parse_tensors(gguf, &cursor, error);
}

bool gguf_has_magic(const MappedFile *file) {
    return file->size >= 4 && memcmp(file->data, "GGUF", 4) == 0;
}

int gguf_open(Gguf *gguf, const MappedFile *file, const char *path, Error *error) {
    *gguf = (Gguf){.path = path, .file = file};
    int status = parse(gguf, error);
    if (status < 0)
        gguf_close(gguf);
    return status;
}

void gguf_close(Gguf *gguf) {
    free(gguf->values);
    free(gguf->tensors);
    *gguf = (Gguf){0};
}

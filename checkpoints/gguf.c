/* GGUF parsing; see gguf.h. Every length from the file is compared with the bytes that are left before it is used. */
#include "checkpoints/gguf.h"

#include "base/checked.h"
#include "base/half.h"

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

static size_t scalar_bytes(GgufType type) {
    static const uint8_t BYTES[GGUF_TYPE_COUNT] = {
        [GGUF_UINT8] = 1,   [GGUF_INT8] = 1, [GGUF_UINT16] = 2, [GGUF_INT16] = 2, [GGUF_UINT32] = 4,  [GGUF_INT32] = 4,
        [GGUF_FLOAT32] = 4, [GGUF_BOOL] = 1, [GGUF_UINT64] = 8, [GGUF_INT64] = 8, [GGUF_FLOAT64] = 8,
    };
    return BYTES[type];
}

static int truncated(const Gguf *gguf, const char *where, Error *error) {
    return error_set(error, ERROR_FORMAT, "%s: truncated or damaged in %s; fetch the file again", gguf->path, where);
}

static int parse_value(Gguf *gguf, Cursor *cursor, GgufValue *value, Error *error) {
    value->key = take_string(cursor);
    uint32_t type = take_u32(cursor);
    value->count = 1;
    if (!cursor->failed && type == GGUF_ARRAY) {
        uint32_t element_type = take_u32(cursor);
        value->count = take_size(cursor);
        if (!cursor->failed && (element_type >= GGUF_TYPE_COUNT || element_type == GGUF_ARRAY))
            return error_set(error, ERROR_FORMAT, "%s: metadata %.*s: array of unknown type %u; the file is damaged",
                             gguf->path, SV_ARGS(value->key), element_type);
        value->element_type = element_type;
    }
    if (!cursor->failed && type >= GGUF_TYPE_COUNT)
        return error_set(error, ERROR_FORMAT, "%s: metadata %.*s: unknown type %u; the file is damaged", gguf->path,
                         SV_ARGS(value->key), type);
    value->type = type;
    value->bytes = cursor->data + cursor->position;
    GgufType element = type == GGUF_ARRAY ? value->element_type : value->type;
    size_t bytes;
    if (element == GGUF_STRING) {
        for (size_t i = 0; i < value->count && !cursor->failed; i++)
            take_string(cursor);
    } else if (checked_mul(value->count, scalar_bytes(element), &bytes)) {
        take(cursor, bytes);
    } else {
        cursor->failed = true;
    }
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
        return error_set(error, ERROR_UNSUPPORTED, "%s: %.*s: tensor type %u is not supported; use a file with %s",
                         gguf->path, SV_ARGS(tensor->name), ggml_type, tensor_type_names().text);
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
    if (status == 0 && (alignment < 8 || !is_power_of_two(alignment)))
        status = error_set(error, ERROR_FORMAT,
                           "%s: general.alignment is %zu, expected a power of two from 8 on; the "
                           "file is damaged",
                           gguf->path, alignment);
    if (status == 0 && !checked_align(cursor->position, alignment, &data_start))
        status = truncated(gguf, "the tensor descriptions", error);
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

/* NULL where there is none. */
static const GgufValue *find_value(const Gguf *gguf, const char *key) {
    for (size_t i = 0; i < gguf->n_values; i++)
        if (sv_is(gguf->values[i].key, key))
            return &gguf->values[i];
    return NULL;
}

/* The value of `key` in *out, NULL where it is missing and may be. */
static int find(const Gguf *gguf, const char *key, bool required, const GgufValue **out, Error *error) {
    *out = find_value(gguf, key);
    if (*out == NULL && required)
        return error_set(error, ERROR_FORMAT, "%s: missing metadata %s; convert the checkpoint again", gguf->path, key);
    return 0;
}

static int wrong_type(const Gguf *gguf, const char *key, const char *expected, Error *error) {
    return error_set(error, ERROR_FORMAT, "%s: metadata %s is not %s; convert the checkpoint again", gguf->path, key,
                     expected);
}

/* Reads any integer type; false for other types. Negative values come out huge and fail the caller's limit. */
static bool read_integer(const GgufValue *value, uint64_t *out) {
    *out = 0;
    memcpy(out, value->bytes, scalar_bytes(value->type)); /* nothing for a string or an array */
    switch (value->type) {
    case GGUF_INT8:
        *out = (uint64_t)(int8_t)*out;
        return true;
    case GGUF_INT16:
        *out = (uint64_t)(int16_t)*out;
        return true;
    case GGUF_INT32:
        *out = (uint64_t)(int32_t)*out;
        return true;
    case GGUF_UINT8:
    case GGUF_UINT16:
    case GGUF_UINT32:
    case GGUF_UINT64:
    case GGUF_INT64:
        return true;
    default:
        return false;
    }
}

int gguf_get_size(const Gguf *gguf, const char *key, bool required, size_t max, size_t *out, Error *error) {
    const GgufValue *value;
    uint64_t integer;
    if (find(gguf, key, required, &value, error) < 0)
        return error->code;
    if (value == NULL)
        return 0;
    if (!read_integer(value, &integer))
        return wrong_type(gguf, key, "an integer", error);
    if (integer > max)
        return error_set(error, ERROR_FORMAT, "%s: metadata %s is %lld, expected 0 to %zu; the file is damaged",
                         gguf->path, key, (long long)integer, max);
    *out = (size_t)integer;
    return 0;
}

int gguf_get_double(const Gguf *gguf, const char *key, bool required, double *out, Error *error) {
    const GgufValue *value;
    uint64_t integer;
    if (find(gguf, key, required, &value, error) < 0)
        return error->code;
    if (value == NULL)
        return 0;
    if (value->type == GGUF_FLOAT32) {
        float single;
        memcpy(&single, value->bytes, sizeof single);
        *out = (double)single;
    } else if (value->type == GGUF_FLOAT64) {
        memcpy(out, value->bytes, sizeof *out);
    } else if (read_integer(value, &integer)) {
        *out = (double)(int64_t)integer;
    } else {
        return wrong_type(gguf, key, "a number", error);
    }
    return 0;
}

int gguf_get_bool(const Gguf *gguf, const char *key, int *out, Error *error) {
    const GgufValue *value = find_value(gguf, key);
    if (value == NULL)
        return 0;
    if (value->type != GGUF_BOOL)
        return wrong_type(gguf, key, "true or false", error);
    *out = value->bytes[0] != 0;
    return 0;
}

int gguf_get_string(const Gguf *gguf, const char *key, bool required, StringView *out, Error *error) {
    const GgufValue *value;
    if (find(gguf, key, required, &value, error) < 0)
        return error->code;
    if (value == NULL)
        return 0;
    if (value->type != GGUF_STRING)
        return wrong_type(gguf, key, "a string", error);
    gguf_strings(value, out);
    return 0;
}

int gguf_get_array(const Gguf *gguf, const char *key, GgufType type, const GgufValue **out, Error *error) {
    *out = find_value(gguf, key);
    if (*out != NULL && ((*out)->type != GGUF_ARRAY || (*out)->element_type != type))
        return wrong_type(gguf, key, "an array of the expected type", error);
    return 0;
}

/* The i-th element of an array as a value of its own; of another value, itself. */
static GgufValue element(const GgufValue *value, size_t i) {
    if (value->type != GGUF_ARRAY)
        return *value;
    return (GgufValue){
        .type = value->element_type, .count = 1, .bytes = value->bytes + i * scalar_bytes(value->element_type)};
}

int gguf_get_integers(const Gguf *gguf, const char *key, const GgufValue **out, Error *error) {
    uint64_t first;
    *out = find_value(gguf, key);
    if (*out == NULL || (*out)->count == 0)
        return 0;
    GgufValue one = element(*out, 0);
    return read_integer(&one, &first) ? 0 : wrong_type(gguf, key, "an integer or an array of integers", error);
}

int64_t gguf_integer(const GgufValue *value, size_t i) {
    uint64_t integer;
    GgufValue one = element(value, i);
    read_integer(&one, &integer);
    return (int64_t)integer;
}

void gguf_strings(const GgufValue *value, StringView *out) {
    Cursor cursor = {value->bytes, SIZE_MAX / 2, 0, false}; /* parse_value has checked the range */
    for (size_t i = 0; i < value->count; i++)
        out[i] = take_string(&cursor);
}

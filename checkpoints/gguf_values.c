/* Metadata by key, in whatever type a file has it; see gguf.h. The parser, gguf.c, has checked that all of it lies in
 * the file. */
#include "checkpoints/gguf.h"

size_t gguf_scalar_bytes(GgufType type) {
    static const uint8_t BYTES[GGUF_TYPE_COUNT] = {
        [GGUF_UINT8] = 1,   [GGUF_INT8] = 1, [GGUF_UINT16] = 2, [GGUF_INT16] = 2, [GGUF_UINT32] = 4,  [GGUF_INT32] = 4,
        [GGUF_FLOAT32] = 4, [GGUF_BOOL] = 1, [GGUF_UINT64] = 8, [GGUF_INT64] = 8, [GGUF_FLOAT64] = 8,
    };
    return BYTES[type];
}

const GgufValue *gguf_find(const Gguf *gguf, const char *key) {
    for (size_t i = 0; i < gguf->n_values; i++)
        if (sv_is(gguf->values[i].key, key))
            return &gguf->values[i];
    return NULL;
}

/* The value of `key` in *out, NULL where it is missing and may be. */
static int find(const Gguf *gguf, const char *key, bool required, const GgufValue **out, Error *error) {
    *out = gguf_find(gguf, key);
    if (*out == NULL && required)
        return error_set(error, ERROR_FORMAT, "%s: missing metadata %s; convert the checkpoint again", gguf->path, key);
    return 0;
}

static int wrong_type(const Gguf *gguf, const char *key, const char *expected, Error *error) {
    return error_set(error, ERROR_FORMAT, "%s: metadata %s is not %s; convert the checkpoint again", gguf->path, key,
                     expected);
}

/* A number or a truth value: exact as an integer, unless it is a float with a fraction or beyond 64 bits. */
typedef struct Number {
    bool is_integer, negative;
    uint64_t integer; /* in two's complement where negative */
    double real;
} Number;

static void set_signed(Number *number, int64_t value) {
    *number = (Number){true, value < 0, (uint64_t)value, (double)value};
}

static void set_real(Number *number, double value) {
    bool is_integer = value >= 0 && value < 0x1p63 && (double)(uint64_t)value == value;
    *number = (Number){is_integer, value < 0, is_integer ? (uint64_t)value : 0, value};
}

/* Reads a value of one of the types that are numbers; false for others. */
static bool read_number(GgufType type, const uint8_t *bytes, Number *out) {
    uint64_t bits = 0;
    float single;
    double real;
    memcpy(&bits, bytes, gguf_scalar_bytes(type)); /* nothing for a string or an array */
    switch (type) {
    case GGUF_INT8:
        set_signed(out, (int8_t)bits);
        return true;
    case GGUF_INT16:
        set_signed(out, (int16_t)bits);
        return true;
    case GGUF_INT32:
        set_signed(out, (int32_t)bits);
        return true;
    case GGUF_INT64:
        set_signed(out, (int64_t)bits);
        return true;
    case GGUF_BOOL:
        bits = bits != 0;
        *out = (Number){true, false, bits, (double)bits};
        return true;
    case GGUF_UINT8:
    case GGUF_UINT16:
    case GGUF_UINT32:
    case GGUF_UINT64:
        *out = (Number){true, false, bits, (double)bits};
        return true;
    case GGUF_FLOAT32:
        memcpy(&single, bytes, sizeof single);
        set_real(out, (double)single);
        return true;
    case GGUF_FLOAT64:
        memcpy(&real, bytes, sizeof real);
        set_real(out, real);
        return true;
    default:
        return false;
    }
}

/* The type of a value, or of an array's elements. */
static GgufType type_of(const GgufValue *value) {
    return value->type == GGUF_ARRAY ? value->element_type : value->type;
}

static bool is_integer(GgufType type) {
    return gguf_scalar_bytes(type) > 0 && type != GGUF_BOOL && type != GGUF_FLOAT32 && type != GGUF_FLOAT64;
}

static const uint8_t *bytes_of(const GgufValue *value, size_t i) {
    return value->bytes + i * gguf_scalar_bytes(type_of(value));
}

bool gguf_number(const GgufValue *value, size_t i, double *out) {
    Number number = {0};
    if (!read_number(type_of(value), bytes_of(value, i), &number))
        return false;
    *out = number.real;
    return true;
}

/* Reads a number, or an array of equal ones: some tools write one for each layer. Where the key is missing *found is
 * false. */
static int get_number(const Gguf *gguf, const char *key, bool required, const char *expected, bool *found, Number *out,
                      Error *error) {
    const GgufValue *value;
    *found = false;
    if (find(gguf, key, required, &value, error) < 0)
        return error->code;
    if (value == NULL)
        return 0;
    if (value->count == 0 || !read_number(type_of(value), value->bytes, out))
        return wrong_type(gguf, key, expected, error);
    for (size_t i = 1; i < value->count; i++)
        if (memcmp(bytes_of(value, i), value->bytes, gguf_scalar_bytes(type_of(value))) != 0)
            return error_set(
                error, ERROR_UNSUPPORTED,
                "%s: metadata %s is an array of unequal numbers, which is not supported: layers differ; use "
                "a checkpoint whose layers are alike",
                gguf->path, key);
    *found = true;
    return 0;
}

int gguf_get_size(const Gguf *gguf, const char *key, bool required, size_t max, size_t *out, Error *error) {
    Number number = {0};
    bool found;
    if (get_number(gguf, key, required, "an integer", &found, &number, error) < 0)
        return error->code;
    if (!found)
        return 0;
    if (!number.is_integer && !number.negative)
        return wrong_type(gguf, key, "an integer", error);
    if (number.negative || number.integer > max)
        return error_set(error, ERROR_FORMAT, "%s: metadata %s is %.17g, expected 0 to %zu; the file is damaged",
                         gguf->path, key, number.real, max);
    *out = (size_t)number.integer;
    return 0;
}

int gguf_get_double(const Gguf *gguf, const char *key, bool required, double *out, Error *error) {
    Number number = {0};
    bool found;
    if (get_number(gguf, key, required, "a number", &found, &number, error) < 0)
        return error->code;
    if (found)
        *out = number.real;
    return 0;
}

int gguf_get_bool(const Gguf *gguf, const char *key, int *out, Error *error) {
    Number number = {0};
    bool found;
    if (get_number(gguf, key, false, "true or false", &found, &number, error) < 0)
        return error->code;
    if (found && !(number.is_integer && number.integer <= 1))
        return wrong_type(gguf, key, "true or false", error);
    if (found)
        *out = number.integer != 0;
    return 0;
}

bool gguf_is_placeholder(const GgufValue *value) {
    static const uint8_t ONES[8] = {255, 255, 255, 255, 255, 255, 255, 255};
    return is_integer(value->type) && memcmp(value->bytes, ONES, gguf_scalar_bytes(value->type)) == 0;
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

int gguf_get_strings(const Gguf *gguf, const char *key, const GgufValue **out, Error *error) {
    *out = gguf_find(gguf, key);
    if (*out != NULL && ((*out)->type != GGUF_ARRAY || (*out)->element_type != GGUF_STRING))
        return wrong_type(gguf, key, "an array of strings", error);
    return 0;
}

int gguf_get_numbers(const Gguf *gguf, const char *key, const GgufValue **out, Error *error) {
    Number number = {0};
    *out = gguf_find(gguf, key);
    if (*out != NULL && ((*out)->type != GGUF_ARRAY ||
                         ((*out)->count > 0 && !read_number((*out)->element_type, (*out)->bytes, &number))))
        return wrong_type(gguf, key, "an array of numbers", error);
    return 0;
}

int gguf_get_integers(const Gguf *gguf, const char *key, const GgufValue **out, Error *error) {
    *out = gguf_find(gguf, key);
    if (*out == NULL || (*out)->count == 0 || is_integer(type_of(*out)))
        return 0;
    return wrong_type(gguf, key, "an integer or an array of integers", error);
}

int64_t gguf_integer(const GgufValue *value, size_t i) {
    Number number = {0};
    read_number(type_of(value), bytes_of(value, i), &number);
    return (int64_t)number.integer;
}

void gguf_strings(const GgufValue *value, StringView *out) {
    const uint8_t *at = value->bytes; /* each a length in 64 bits and so many bytes; the parser has checked them */
    for (size_t i = 0; i < value->count; i++) {
        uint64_t length;
        memcpy(&length, at, sizeof length);
        out[i] = (StringView){(const char *)at + sizeof length, (size_t)length};
        at += sizeof length + length;
    }
}

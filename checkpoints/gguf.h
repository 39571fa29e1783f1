/* The GGUF container, versions 2 and 3 (ggml/docs/gguf.md): metadata and tensor views of one file. It knows the format,
 * not what a model needs; gguf_reader.c does. */
#ifndef STOWKV_GGUF_H
#define STOWKV_GGUF_H

#include "base/mapped_file.h"
#include "base/tensor.h"

/* The numbers are those of the file format. */
typedef enum GgufType {
    GGUF_UINT8,
    GGUF_INT8,
    GGUF_UINT16,
    GGUF_INT16,
    GGUF_UINT32,
    GGUF_INT32,
    GGUF_FLOAT32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_UINT64,
    GGUF_INT64,
    GGUF_FLOAT64,
    GGUF_TYPE_COUNT
} GgufType;

typedef struct GgufValue {
    StringView key;
    GgufType type;
    GgufType element_type; /* of an array */
    size_t count;          /* elements of an array, else 1 */
    const uint8_t *bytes;  /* the encoded value, or the array's first element */
} GgufValue;

typedef struct Gguf {
    const char *path;       /* for messages; not owned */
    const MappedFile *file; /* not owned */
    GgufValue *values;      /* (n_values), owned */
    size_t n_values;
    Tensor *tensors; /* (n_tensors), owned; each inside the file */
    size_t n_tensors;
} Gguf;

bool gguf_has_magic(const MappedFile *file);

/* Parses and checks a whole file, but not the tensors' data. `file` and `path` must outlive `gguf`. */
int gguf_open(Gguf *gguf, const MappedFile *file, const char *path, Error *error);
void gguf_close(Gguf *gguf);

/* Bytes of a number of this type; 0 for strings and arrays. */
size_t gguf_scalar_bytes(GgufType type);

/* NULL where there is no such key. */
const GgufValue *gguf_find(const Gguf *gguf, const char *key);

/* Values by key, converted from whatever number type the file uses; an array of equal numbers, one a layer, is that
 * number. Where the key is missing they leave *out as it is and succeed, unless `required`. A value of another kind, an
 * array of unequal numbers, or an integer outside [0, max], is an error. */
int gguf_get_size(const Gguf *gguf, const char *key, bool required, size_t max, size_t *out, Error *error);
int gguf_get_double(const Gguf *gguf, const char *key, bool required, double *out, Error *error);
int gguf_get_bool(const Gguf *gguf, const char *key, int *out, Error *error); /* 0 or 1 */
int gguf_get_string(const Gguf *gguf, const char *key, bool required, StringView *out, Error *error);

/* An array of strings, or of numbers of whatever type; NULL in *out where the key is missing. */
int gguf_get_strings(const Gguf *gguf, const char *key, const GgufValue **out, Error *error);
int gguf_get_numbers(const Gguf *gguf, const char *key, const GgufValue **out, Error *error);

/* A number or truth value, or the i-th of an array of them, i < value->count; false for values of other types. */
bool gguf_number(const GgufValue *value, size_t i, double *out);

/* Whether it is an integer of ones alone: what tools write that have no value, -1 or 4294967295. */
bool gguf_is_placeholder(const GgufValue *value);

/* An integer of any width, or an array of such; NULL in *out where the key is missing. gguf_integer() gives the i-th,
 * where i < (*out)->count; what does not fit comes out negative. */
int gguf_get_integers(const Gguf *gguf, const char *key, const GgufValue **out, Error *error);
int64_t gguf_integer(const GgufValue *value, size_t i);

/* Fills the views of a string array, (value->count). */
void gguf_strings(const GgufValue *value, StringView *out);

#endif

/* The pickle in a PyTorch checkpoint: a program for a small machine, which can call any function of Python's. Here it
 * can call nothing: of its instructions those that a dictionary of tensors needs are read, and of its names those of
 * tensors, their storages and the dictionary. All else is refused by name.
 *
 *     PickledTensors tensors;
 *     if (pickle_read(&tensors, pickle, path, &error) < 0) …
 *     pickle_free(&tensors);
 */
#ifndef STOWKV_PICKLE_H
#define STOWKV_PICKLE_H

#include "base/error.h"
#include "base/tensor.h"

/* A tensor as the pickle describes it; nothing of it has been checked but that sizes are not negative. */
typedef struct PickledTensor {
    StringView name, storage; /* views of the pickle: the key in the dictionary; the name of the storage's file */
    TensorType type;          /* TENSOR_TYPE_COUNT: one that is not read, */
    const char *type_name;    /* which this tells */
    size_t storage_elements, offset;
    size_t n_dims, shape[TENSOR_MAX_DIMS], strides[TENSOR_MAX_DIMS]; /* in elements, slowest first */
} PickledTensor;

typedef struct PickledTensors {
    PickledTensor *items; /* (count), owned */
    size_t count;
} PickledTensors;

/* The tensors of the dictionary that the pickle is. ERROR_UNSUPPORTED for any other instruction, name or value;
 * ERROR_FORMAT where it is damaged. */
int pickle_read(PickledTensors *out, StringView pickle, const char *path, Error *error);
void pickle_free(PickledTensors *tensors);

#endif

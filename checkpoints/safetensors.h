/* safetensors files, as the format's own description has them (github.com/huggingface/safetensors): the length of the
 * header in 8 bytes, the header in JSON, then the tensors' bytes without a gap. */
#ifndef STOWKV_SAFETENSORS_H
#define STOWKV_SAFETENSORS_H

#include "checkpoints/checkpoint.h"

bool safetensors_recognises(const MappedFile *file);

/* Adds the file's tensors under their own names. `file` must stay mapped. ERROR_FORMAT where the header or what it says
 * is not as the format demands, or data are not aligned to their type; ERROR_UNSUPPORTED for other types than F32, F16
 * and BF16. */
int safetensors_add(Checkpoint *checkpoint, const MappedFile *file, const char *path, Error *error);

#endif

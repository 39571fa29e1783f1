/* PyTorch checkpoints, model.pth or pytorch_model.bin, as torch.save() writes them from version 1.6 on: a zip archive
 * of stored entries, data.pkl, which describes the tensors (pickle.h), and a file for each storage. */
#ifndef STOWKV_PTH_H
#define STOWKV_PTH_H

#include "checkpoints/checkpoint.h"

/* Whether it is a zip archive. */
bool pth_recognises(const MappedFile *file);

/* Adds the file's tensors under their own names; nothing is run or unpacked. `file` must stay mapped. ERROR_FORMAT
 * where it is damaged; ERROR_UNSUPPORTED for what is no dictionary of tensors, for other types than F32, F16 and BF16,
 * and for numbers that are big-endian, transposed or have gaps. */
int pth_add(Checkpoint *checkpoint, const MappedFile *file, const char *path, Error *error);

#endif

/* Per-channel INT8 (channel_int8/code.h) on a GPU, as channel_int8/device.h has it measured. */
#ifndef STOWKV_CUDA_CHANNEL_INT8_H
#define STOWKV_CUDA_CHANNEL_INT8_H

#include "channel_int8/device.h"

/* Opens the first GPU. Steps are timed by events around all of their launches, so that transfers and allocation are no
 * part of them, and go round several copies of everything where one would fit the L2 cache. What is not written is
 * seen: before the first run scales and decoded numbers are NaN, codes -128. ERROR_UNSUPPORTED where there is no GPU
 * that can be used; ERROR_MEMORY. */
int cuda_channel_open(ChannelDevice **out, Error *error);

#endif

/* Matrices of which per-channel INT8 (channel_int8/code.h) could get something wrong, and a comparison of a device's
 * variants with the reference in double. */
#ifndef STOWKV_CHANNEL_CASES_H
#define STOWKV_CHANNEL_CASES_H

#include "channel_int8/device.h"

/* Fails the test where scales, codes or decoded numbers of any variant are not the reference's, bit for bit, on
 * matrices of many shapes. Channels take turns: uniform numbers, ties, numbers next to ties, zeros, subnormals, the
 * largest floats, NaN and infinities. */
void check_channel_variants(ChannelDevice *device);

#endif

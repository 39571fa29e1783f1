/* What a model's backend could do at best: the device's copies, or what the host's threads read. */
#ifndef STOWKV_ROOFS_H
#define STOWKV_ROOFS_H

#include "eval/bench/bandwidth.h"
#include "model/backend.h"

int backend_bandwidth(Backend *backend, Bandwidth *out, Error *error);

#endif

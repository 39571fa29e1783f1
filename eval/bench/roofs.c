/* See roofs.h. */
#include "eval/bench/roofs.h"

int backend_bandwidth(Backend *backend, Bandwidth *out, Error *error) {
    CopyBandwidth copies;
    if (backend->ops->measure_copies == NULL)
        return bandwidth_measure(backend->n_threads, backend->level, out, error);
    if (backend->ops->measure_copies(backend, &copies, error) < 0)
        return error->code;
    *out = (Bandwidth){.all_threads = copies.bytes_per_second,
                       .by_device = true,
                       .buffer_bytes = copies.buffer_bytes,
                       .cache_bytes = copies.cache_bytes};
    return 0;
}

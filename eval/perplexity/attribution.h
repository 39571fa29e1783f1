/* Where a policy's error comes from: for each layer and KV head the relative error of the keys, of the values, and of
 * attention's output. A second, full cache is given the same keys and values, and the same queries attend to both, so
 * that each figure is the policy's own doing in that layer and not what earlier layers have passed on.
 *
 *     Attribution *attribution;
 *     if (attribution_open(&attribution, &context, &error) < 0) …    // from here on it watches the context
 *     attribution_begin(attribution, first_scored);                  // for each window, with context_clear()
 *     … forward(&context, …) …
 *     if (attribution_end(attribution, &error) < 0) …                // when a window is through
 *     HeadError e = attribution_error(attribution, layer, kv_head);
 *     attribution_close(attribution); */
#ifndef STOWKV_ATTRIBUTION_H
#define STOWKV_ATTRIBUTION_H

#include "model/model.h"

typedef struct Attribution Attribution;

/* ||x~ - x|| / ||x|| (Frobenius) over all that was compared; 0 where nothing was. */
typedef struct HeadError {
    double keys, values; /* of the tokens that are encoded when a window ends */
    double output;       /* of the query heads of this KV head, at scored positions */
} HeadError;

int attribution_open(Attribution **out, Context *context, Error *error);
void attribution_close(Attribution *attribution); /* NULL is fine; before the context */

/* Outputs are compared from position `first_scored` of the window on. */
void attribution_begin(Attribution *attribution, size_t first_scored);
int attribution_end(Attribution *attribution, Error *error);

HeadError attribution_error(const Attribution *attribution, size_t layer, size_t kv_head);

#endif

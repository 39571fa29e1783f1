/* What codecs do to each layer's share of the residual stream, all of them on the same keys, values and queries: those
 * of a full cache. Beside it each policy has a cache of its own, which attention reads too; the two outputs, each
 * behind the output projection (and its norm), are compared.
 *
 *     LayerErrors *errors;
 *     if (layer_errors_open(&errors, &context, policies, n_policies, first_token, &error) < 0) …
 *     layer_errors_begin(errors);                    // for each window, with context_clear(); it watches the context
 *     … forward(&context, …) …
 *     double e = layer_error(errors, policy, layer);
 *     layer_errors_close(errors);
 */
#ifndef STOWKV_LAYER_ERRORS_H
#define STOWKV_LAYER_ERRORS_H

#include "model/model.h"

typedef struct LayerErrors LayerErrors;

/* Of tokens from position `first_token` of a window on. */
int layer_errors_open(LayerErrors **out, Context *context, const KvPolicy *policies, size_t n_policies,
                      size_t first_token, Error *error);
void layer_errors_close(LayerErrors *errors); /* NULL is fine; before the context */
void layer_errors_begin(LayerErrors *errors); /* a window */

/* The sum over tokens of |y~ - y|^2 / |x|^2: y is what the layer's attention adds to the residual stream x. */
double layer_error(const LayerErrors *errors, size_t policy, size_t layer);

#endif

/* --kv_budget: from the command line and a checkpoint to a policy, before anything large is loaded.
 *
 *     if (budget_options_resolve(&options, 0, &error) < 0) …      // nothing to do without --kv_budget
 *     if (policy_from_options(&options.kv, &policy, &error) < 0) …
 */
#ifndef STOWKV_BUDGET_OPTIONS_H
#define STOWKV_BUDGET_OPTIONS_H

#include "session/session.h"

/* Sets options->kv.found for a context of n_ctx tokens (0: session_n_ctx()), and tells it on stderr. Errors: those of
 * the checkpoint, of its calibration, and a budget that is too small. */
int budget_options_resolve(SessionOptions *options, size_t n_ctx, Error *error);

#endif

/* Speed by depth for a profile's policies: a short benchmark of the same model, from which depth each of them is faster
 * than the full cache. */
#ifndef STOWKV_SWEEP_H
#define STOWKV_SWEEP_H

#include "eval/bench/run.h"

#include <cjson/cJSON.h>

/* At a depth; each at most half the context. */
#define SWEEP_PROMPT_TOKENS   64
#define SWEEP_GENERATE_TOKENS 32

/* The tokens that a policy may be filled with: as many as it would generate in this time, so that a slow machine or a
 * large model gets shallow depths and not an hour's wait. */
#define SWEEP_FILL_SECONDS 60

/* 0, and fourfold steps from 512 on, as deep as the context and the time allow; the last one is as deep as that. */
void sweep_depths(size_t n_ctx, double decode_rate, SizeList *out);

/* bench_json() of the sweep in *out, the caller's; of the points that are through where it was interrupted
 * (ERROR_INTERRUPTED), or NULL. */
int sweep_run(Model *model, const char *model_path, const KvPolicy *policies, size_t n_policies, size_t n_ctx,
              const SizeList *depths, const volatile sig_atomic_t *interrupted, cJSON **out, Error *error);

#endif

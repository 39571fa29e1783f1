/* See sweep.h. */
#include "eval/profile/sweep.h"

#include "base/checked.h"
#include "eval/bench/report.h"

#define FIRST_STEP 512
#define FACTOR     4

void sweep_depths(size_t n_ctx, double decode_rate, SizeList *out) {
    size_t measured = SWEEP_PROMPT_TOKENS + SWEEP_GENERATE_TOKENS, room = n_ctx > measured ? n_ctx - measured : 0;
    size_t deepest = at_most((size_t)(decode_rate * SWEEP_FILL_SECONDS), room);
    *out = (SizeList){.items = {0}, .count = 1};
    for (size_t depth = FIRST_STEP; depth < deepest && out->count < SIZE_LIST_MAX - 1; depth *= FACTOR)
        out->items[out->count++] = depth;
    size_t last = out->items[out->count - 1];
    if (deepest > last + last / 2 && deepest >= last + measured)
        out->items[out->count++] = deepest;
}

int sweep_run(Model *model, const char *model_path, const KvPolicy *policies, size_t n_policies, size_t n_ctx,
              const SizeList *depths, const volatile sig_atomic_t *interrupted, cJSON **out, Error *error) {
    Bench bench = {.model = model,
                   .model_path = model_path,
                   .depths = *depths,
                   .n_prompt = at_most(SWEEP_PROMPT_TOKENS, n_ctx / 2),
                   .n_generate = at_most(SWEEP_GENERATE_TOKENS, n_ctx / 2),
                   .n_repetitions = 1,
                   .interrupted = interrupted};
    int status = bench_open(&bench, policies, n_policies, n_ctx, error);
    if (status == 0) {
        status = bench_run(&bench, error);
        if (bench_has_figures(&bench))
            *out = bench_json(&bench);
    }
    bench_close(&bench);
    return status;
}

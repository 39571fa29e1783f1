/* See budget_options.h. */
#include "session/budget_options.h"

#include "checkpoints/open.h"
#include "kvcache/policy_text.h"
#include "session/calibration.h"
#include "session/devices.h"

#include <stdio.h>

/* What the harms were not measured with: they are then those of a cache much like it. */
static void note_differences(const Calibration *c, const KvPolicy *preset) {
    if (c->group != preset->group || (c->rounding == KV_ROUND_NEAREST) != (preset->rounding == KV_ROUND_NEAREST))
        fprintf(
            stderr,
            "note: the calibration is that of --kv_block_size %zu and --kv_rounding %s; another one would fit better\n",
            c->group, kv_rounding_names()[c->rounding]);
}

static void tell(const SessionOptions *options, const KvShape *shape, const KvBudgetPolicy *found) {
    char text[KV_POLICY_TEXT], bits[32] = "";
    kv_policy_print(&found->policy, text, sizeof text);
    if (found->bits > 0)
        snprintf(bits, sizeof bits, "%.4g bits, ", found->bits);
    fprintf(stderr, "--kv_budget %s: %s%zu bytes for %zu tokens, %.2g nats expected: --kv_policy '%s'\n",
            options->kv.budget, bits, found->bytes, shape->n_ctx, found->harm, text);
}

static int find(SessionOptions *options, const KvBudget *budget, const Checkpoint *checkpoint, size_t n_ctx,
                Error *error) {
    Calibration calibration;
    KvPolicy preset;
    KvBudgetPolicy found;
    KvShape shape = model_cache_shape(&checkpoint->config, n_ctx, DEFAULT_BATCH);
    const KvRecordForm *form = device_records(options->device, error);
    if (form == NULL || (n_ctx == 0 && session_n_ctx(options, &checkpoint->config, &shape.n_ctx, error) < 0) ||
        policy_from_options(&options->kv, &preset, error) < 0 ||
        calibration_find(&calibration, options->kv.calibration, checkpoint, options->checkpoint_path, error) < 0)
        return error->code;
    note_differences(&calibration, &preset);
    int status = kv_budget_policy(budget, &preset, &shape, form, &calibration.harms, &found, error);
    calibration_free(&calibration);
    if (status < 0)
        return status;
    options->kv.found = found.policy;
    tell(options, &shape, &found);
    return 0;
}

int budget_options_resolve(SessionOptions *options, size_t n_ctx, Error *error) {
    KvBudget budget;
    Checkpoint checkpoint;
    if (options->kv.budget == NULL)
        return 0;
    if (options->checkpoint_path == NULL)
        return error_set(error, ERROR_USAGE,
                         "--kv_budget needs --checkpoint_path: what codecs do depends on the model");
    if (kv_budget_parse(options->kv.budget, &budget, error) < 0 ||
        checkpoint_open_outline(&checkpoint, options->checkpoint_path, error) < 0)
        return error->code;
    options->kv.found.n_rules = 0;
    int status = find(options, &budget, &checkpoint, n_ctx, error);
    checkpoint_close(&checkpoint);
    return status;
}

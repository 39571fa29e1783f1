/* Byte ledgers without a run; see memory_plan.h. */
#include "session/memory_plan.h"

#include "checkpoints/open.h"
#include "kvcache/policy_check.h"
#include "kvcache/policy_text.h"
#include "session/budget_options.h"
#include "session/devices.h"
#include "session/run_report.h"

#include <errno.h>
#include <stdlib.h>

typedef struct ShapeField {
    const char *name;
    size_t *value;
    size_t max;
} ShapeField;

static int shape_error(const char *text, const char *at, Error *error) {
    return error_set(error, ERROR_USAGE,
                     "--shape %s: character %zu: expected layers=N, kv_heads=N, head_dim=N and "
                     "n_ctx=N, separated by commas, each once",
                     text, (size_t)(at - text) + 1);
}

static int parse_shape(const char *text, KvShape *shape, Error *error) {
    const ShapeField fields[] = {{"layers", &shape->n_layers, 1 << 16},
                                 {"kv_heads", &shape->n_kv_heads, 1 << 16},
                                 {"head_dim", &shape->head_dim, 1 << 16},
                                 {"n_ctx", &shape->n_ctx, (size_t)1 << 40}};
    const size_t n_fields = sizeof fields / sizeof *fields;
    const char *at = text;
    for (size_t n = 0; n < n_fields; n++) {
        size_t i = 0, length = strcspn(at, "=");
        while (i < n_fields && (strlen(fields[i].name) != length || strncmp(at, fields[i].name, length) != 0))
            i++;
        if (i == n_fields || *fields[i].value != 0)
            return shape_error(text, at, error);
        at += length + (at[length] == '=');
        char *end;
        errno = 0;
        unsigned long long value = strtoull(at, &end, 10);
        if (*at < '0' || *at > '9' || errno != 0 || value == 0 || value > fields[i].max)
            return shape_error(text, at, error);
        *fields[i].value = (size_t)value;
        if (*end != (n + 1 < n_fields ? ',' : '\0'))
            return shape_error(text, end, error);
        at = end + 1;
    }
    return 0;
}

static int shape_from_checkpoint(const SessionOptions *options, KvShape *shape, size_t *weights_bytes, Error *error) {
    Checkpoint checkpoint;
    if (checkpoint_open_outline(&checkpoint, options->checkpoint_path, error) < 0)
        return error->code;
    const ModelConfig *config = &checkpoint.config;
    *shape = model_cache_shape(config, config->n_ctx_train, 0);
    *weights_bytes = checkpoint.weights_bytes;
    int status = session_n_ctx(options, config, &shape->n_ctx, error);
    checkpoint_close(&checkpoint);
    return status;
}

static int write_json(const KvCacheLayout *layout, const KvLedger *ledger, size_t weights_bytes, FILE *stream,
                      Error *error) {
    cJSON *root = cJSON_CreateObject();
    policy_json(root, &layout->policy);
    cJSON_AddNumberToObject(root, "n_ctx", (double)layout->shape.n_ctx);
    cJSON_AddItemToObject(root, "tiers", ledger_json(ledger));
    ledger_bytes_json(root, ledger);
    cJSON_AddNumberToObject(root, "weights_bytes", (double)weights_bytes);
    return json_write(root, stream, error);
}

static void write_table(const KvCacheLayout *layout, const KvLedger *ledger, size_t weights_bytes, FILE *stream) {
    char policy[KV_POLICY_TEXT];
    kv_policy_print(&layout->policy, policy, sizeof policy);
    fprintf(stream, "policy %s, %zu tokens: %zu layers, %zu KV heads of %zu\n", policy, layout->shape.n_ctx,
            layout->shape.n_layers, layout->shape.n_kv_heads, layout->shape.head_dim);
    ledger_print(ledger, stream);
    fprintf(stream, "%-16s %62zu  while a batch is read\n", "working", ledger->working_bytes);
    if (weights_bytes > 0)
        fprintf(stream, "%-16s %62zu\n", "weights", weights_bytes);
}

int memory_plan(SessionOptions *options, const char *shape_text, bool json, FILE *stream, Error *error) {
    KvShape shape = {0};
    KvPolicy policy;
    KvCacheLayout layout;
    KvLedger ledger;
    size_t weights_bytes = 0;
    int status = shape_text != NULL ? parse_shape(shape_text, &shape, error)
                                    : shape_from_checkpoint(options, &shape, &weights_bytes, error);
    if (status < 0)
        return status;
    shape.n_batch = DEFAULT_BATCH;
    const KvRecordForm *form = device_records(options->device, error);
    if (form == NULL || budget_options_resolve(options, shape.n_ctx, error) < 0 ||
        policy_from_options(&options->kv, &policy, error) < 0 ||
        kv_policy_check(&policy, shape.n_layers, shape.head_dim, shape.n_ctx, error) < 0 ||
        kvcache_layout_open(&layout, &shape, &policy, form, error) < 0)
        return error->code;
    kv_ledger_at(&layout, shape.n_ctx, &ledger); /* what is held once the context is full */
    if (json)
        status = write_json(&layout, &ledger, weights_bytes, stream, error);
    else
        write_table(&layout, &ledger, weights_bytes, stream);
    kvcache_layout_close(&layout);
    return status;
}

/* A budget of bytes or bits for the cache, and the policy that makes the most of it: codecs by layer for keys and
 * values, such that the harm that they were measured to do is least.
 *
 *     KvBudget budget;
 *     KvBudgetPolicy found;
 *     if (kv_budget_parse("400MB", &budget, &error) < 0) …
 *     if (kv_budget_policy(&budget, &preset, &shape, form, &harms, &found, &error) < 0) …
 *
 * Where the harms come from is eval/calibrate's; allocation.h chooses. */
#ifndef STOWKV_BUDGET_H
#define STOWKV_BUDGET_H

#include "kvcache/layout.h"

typedef enum KvBudgetUnit {
    KV_BUDGET_BYTES, /* of all that the ledger counts */
    KV_BUDGET_SHARE, /* the same, of an FP16 cache's bytes */
    KV_BUDGET_BITS   /* of an element of a token that has left the window, scales counted; the mean over layers */
} KvBudgetUnit;

typedef struct KvBudget {
    const char *text; /* as given, for messages */
    KvBudgetUnit unit;
    double amount; /* bytes, a share from 0 to 1, or bits */
} KvBudget;

/* "400MB", "380MiB", "30%" or "4.3b". ERROR_USAGE for other units, and for what is not more than nothing and at most a
 * full cache. */
int kv_budget_parse(const char *text, KvBudget *out, Error *error);

/* What a codec does in a layer that holds its keys, or its values, in it and all else in FP16: nats of divergence from
 * the full cache. */
typedef struct KvHarms {
    size_t n_layers;
    double *of[KV_SIDES][2][KV_CODEC_COUNT]; /* side, rotated, codec: (n_layers), not negative; NULL: not measured */
} KvHarms;

typedef struct KvBudgetPolicy {
    KvPolicy policy;
    double harm;  /* the sum of its harms */
    double bits;  /* KV_BUDGET_BITS, as they are */
    size_t bytes; /* in the ledger */
} KvBudgetPolicy;

/* Of `preset`, a quantized one, the sink, window, group, rotation and rounding hold; rotation auto leaves that open
 * too. A codec is considered where both sides' harms are known, and where it needs no padding. A model of more layers
 * than a policy may have rules has neighbours share codecs. ERROR_ARGUMENT where the smallest policy is larger: the
 * message names it. */
int kv_budget_policy(const KvBudget *budget, const KvPolicy *preset, const KvShape *shape, const KvRecordForm *form,
                     const KvHarms *harms, KvBudgetPolicy *out, Error *error);

#endif

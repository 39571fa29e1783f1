/* The command line's flags for the cache, and the policy that they ask for.
 *
 *     static PolicyOptions options = POLICY_DEFAULTS;
 *     const Option table[] = {POLICY_OPTIONS(options), {0}};
 *     KvPolicy policy;
 *     if (policy_from_options(&options, &policy, &error) < 0) …              // the one policy that they choose
 *     if (policies_from_options(&options, compare, &policies, &error) < 0) … // or all of them
 */
#ifndef STOWKV_POLICY_OPTIONS_H
#define STOWKV_POLICY_OPTIONS_H

#include "base/options.h"
#include "kvcache/policy.h"

#define OPTION_UNSET SIZE_MAX

typedef struct PolicyOptions {
    bool compress, quantize;
    size_t sink, window; /* OPTION_UNSET: the default */
    const char *codec, *rotate, *rounding;
    const char *budget, *calibration; /* a text of kv_budget_parse(); the file of harms, or NULL */
    StringList policies;
    size_t block; /* 32 or 64 */

    KvPolicy found; /* the budget's, once a model is known (session/budget_options.h); until then it has no rules */
} PolicyOptions;

#define KV_DEFAULT_SINK   16
#define KV_DEFAULT_WINDOW 32

/* clang-format off */
#define POLICY_DEFAULTS {.sink = OPTION_UNSET, .window = OPTION_UNSET, .rotate = "auto", .rounding = "auto", .block = 64}

#define POLICY_OPTIONS(o)                                                                                              \
    {"Cache (full FP16 unless one of the first four is given)", OPTION_HEADING, NULL, NULL, NULL, 0, 0},              \
    {"compress_kv", OPTION_FLAG, &(o).compress, NULL, "drop what is neither sink nor window", 0, 0},                   \
    {"quantize_kv", OPTION_FLAG, &(o).quantize, NULL, "keep it in fewer bits", 0, 0},                                  \
    {"kv_policy", OPTION_LIST, &(o).policies, "TEXT",                                                                  \
     "any tiers: sink=16,f16:32,int8:1024,q4_0:*; several are compared", 0, 0},                                        \
    {"kv_budget", OPTION_STRING, &(o).budget, "SIZE",                                                                  \
     "the best policy that takes no more: 400MB, 30% of full, or 4.3b, bits of an old element", 0, 0},                 \
    {"sink_size", OPTION_SIZE, &(o).sink, "N", "first tokens that stay FP16; default 16", 0, 1 << 28},                 \
    {"window_size", OPTION_SIZE, &(o).window, "N", "last tokens that stay FP16; default 32", 0, 1 << 28},              \
    {"kv_codec", OPTION_STRING, &(o).codec, "CODEC", "for --quantize_kv: int8, or k=int8,v=q4_0; default int8", 0, 0}, \
    {"kv_block_size", OPTION_SIZE, &(o).block, "N", "tokens a group, elements a block: 32 or 64; default 64", 32, 64}, \
    {"kv_rotate", OPTION_STRING, &(o).rotate, "WHEN",                                                                  \
     "Hadamard rotation: auto (where it can be), on, off, k or v (that side alone); default auto", 0, 0},             \
    {"kv_rounding", OPTION_STRING, &(o).rounding, "HOW",                                                               \
     "nearest; aware: keys with the queries, values for their sums; auto: aware where it can be; default auto", 0, 0}, \
    {"kv_calibration", OPTION_INPUT, &(o).calibration, "FILE",                                                         \
     "for --kv_budget: what build/calibrate wrote; default: beside the checkpoint, or of a known model", 0, 0}
/* clang-format on */

/* Whether a flag chooses a policy; without one it is the full cache. */
static inline bool policy_options_choose(const PolicyOptions *options) {
    return options->compress || options->quantize || options->budget != NULL || options->policies.count > 0;
}

/* For programs that run one policy. ERROR_USAGE for flags that contradict each other or would do nothing. A budget's
 * policy is options->found; until there is one, quantized mode stands for it, so that flags can be checked. */
int policy_from_options(const PolicyOptions *options, KvPolicy *policy, Error *error);

typedef struct PolicyList {
    KvPolicy *items;
    size_t count;
} PolicyList;

/* For programs that can compare policies: with `compare` full, compressed and quantized mode, in this order, with
 * the sink, window and codec that the flags ask for; then each --kv_policy, then the one of --kv_budget. Without any of
 * these, the one that the flags choose. The list is freed with policy_list_free(), also after an error. */
int policies_from_options(const PolicyOptions *options, bool compare, PolicyList *out, Error *error);
void policy_list_free(PolicyList *list);

/* Puts full mode, which the others are compared with, in front, unless it is there. Once for each list: it has memory
 * for one policy more. */
void policy_list_put_full_first(PolicyList *list);

/* ERROR_USAGE where two policies are equal: their figures would stand under one name. */
int policy_list_check_twins(const PolicyList *list, Error *error);

#endif

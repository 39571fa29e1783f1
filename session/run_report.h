/* Reports of a run: the JSON object, the summary lines, and the table that compares runs. */
#ifndef STOWKV_RUN_REPORT_H
#define STOWKV_RUN_REPORT_H

#include "base/output_file.h"
#include "kvcache/ledger.h"
#include "session/generation.h"

#include <cjson/cJSON.h>
#include <stdio.h>

/* The run as a JSON object (the names are a contract: docs/json.md); NULL out of memory. */
cJSON *run_report_json(const Generation *run, const char *model_path);

/* What computes: "cpu, avx512vnni, 2 threads", "cuda, NVIDIA H100 80GB HBM3, sm_90". */
#define COMPUTED_BY_TEXT 384
const char *computed_by(const Backend *backend, char text[COMPUTED_BY_TEXT]);

/* Adds "device" and, where that is no CPU, "device_name"; "device_note" where a device that is there does not compute;
 * "threads" and "simd" of the host. */
void backend_json(cJSON *root, const Backend *backend);

/* Adds "mode", "policy" and "kv_block_size". */
void policy_json(cJSON *root, const KvPolicy *policy);

/* Adds "seed", all 64 bits of it. */
void seed_json(cJSON *root, uint64_t seed);

/* What repeats a run, where chance had a part in it. */
void seed_print(const SamplerOptions *options, FILE *stream);

/* Adds the seed and what else decides how tokens are chosen, under the names of the flags. */
void sampler_json(cJSON *root, const SamplerOptions *options);

/* Names of the kernels that compute products and attention (BackendOps), as "kernels" of a run. */
cJSON *kernels_json(const Model *model, const KvCache *cache);

/* The ledger's rows, as "tiers" of a run and of a memory plan. */
cJSON *ledger_json(const KvLedger *ledger);

/* Adds "kv_bytes", "moments_bytes" and "kv_bytes_full". */
void ledger_bytes_json(cJSON *root, const KvLedger *ledger);

int json_write(cJSON *root, FILE *stream, Error *error); /* frees root; an error where it is NULL */

/* Writes root as the whole of a result file, and commits it; frees root too. */
int json_commit(cJSON *root, OutputFile *file, Error *error);

/* Speeds with their depth, the ledger, and what computed it: a few lines for people. */
void run_report_print(const Generation *run, FILE *stream);
void ledger_print(const KvLedger *ledger, FILE *stream);

/* One line of a comparison. */
typedef struct RunSummary {
    char mode[16];
    char policy[128]; /* cut where it is longer */
    double prefill_rate, decode_rate;
    size_t depth, kv_bytes, kv_bytes_held, kv_bytes_full;
} RunSummary;

RunSummary run_summarise(const Generation *run);
void run_summaries_print(const RunSummary *runs, size_t n, FILE *stream);

#endif

/* See record.h. */
#include "eval/rouge/record.h"

#include "session/jsonl.h"
#include "session/run_report.h"

cJSON *rouge_record_json(const RougeRecord *record, const cJSON *reference) {
    cJSON *object = cJSON_CreateObject();
    cJSON_AddNumberToObject(object, "line", (double)record->line);
    cJSON_AddStringToObject(object, "mode", record->mode);
    cJSON_AddStringToObject(object, "policy", record->policy);
    cJSON_AddStringToObject(object, "text", record->text);
    cJSON_AddItemToObject(object, "reference", cJSON_Duplicate(reference, true));
    cJSON_AddStringToObject(object, "end", record->end);
    cJSON_AddNumberToObject(object, "n_prompt", (double)record->n_prompt);
    cJSON_AddNumberToObject(object, "n_generated", (double)record->n_generated);
    cJSON_AddNumberToObject(object, "n_decoded", (double)record->n_decoded);
    cJSON_AddNumberToObject(object, "prefill_seconds", record->prefill_seconds);
    cJSON_AddNumberToObject(object, "decode_seconds", record->decode_seconds);
    cJSON_AddNumberToObject(object, "n_dropped", (double)record->n_dropped);
    cJSON_AddStringToObject(object, "prompt_xxh3", record->prompt_hash);
    cJSON_AddItemToObject(object, "tiers", ledger_json(&record->ledger));
    return object;
}

static bool read_text(const cJSON *object, const char *name, const char **out) {
    *out = cJSON_GetStringValue(jsonl_field(object, name));
    return *out != NULL;
}

static bool read_number(const cJSON *object, const char *name, double *out) {
    const cJSON *item = jsonl_field(object, name);
    *out = cJSON_IsNumber(item) ? item->valuedouble : -1;
    return *out >= 0 && *out <= 0x1p53;
}

static bool read_size(const cJSON *object, const char *name, size_t *out) {
    double number;
    if (!read_number(object, name, &number))
        return false;
    *out = (size_t)number;
    return true;
}

static bool read_codec(const cJSON *object, const char *name, KvCodecId *out) {
    const char *text;
    const KvCodec *codec = read_text(object, name, &text) ? kv_codec_named(sv(text)) : NULL;
    if (codec == NULL)
        return false;
    *out = kv_codec_id(codec);
    return true;
}

static bool read_tier(const cJSON *object, KvLedgerRow *row) {
    return cJSON_IsObject(object) && read_codec(object, "codec_k", &row->k) && read_codec(object, "codec_v", &row->v) &&
           read_size(object, "tokens", &row->tokens) && read_size(object, "bytes_held", &row->bytes_held) &&
           read_size(object, "bytes_read", &row->bytes_read) &&
           read_size(object, "tokens_encoded", &row->tokens_encoded);
}

static bool read_tiers(const cJSON *tiers, KvLedger *ledger) {
    const size_t most = sizeof ledger->rows / sizeof *ledger->rows;
    if (!cJSON_IsArray(tiers))
        return false;
    for (const cJSON *tier = tiers->child; tier != NULL; tier = tier->next)
        if (ledger->n_rows == most || !read_tier(tier, &ledger->rows[ledger->n_rows++]))
            return false;
    return true;
}

const char *rouge_record_read(RougeRecord *record, const cJSON *object) {
    *record = (RougeRecord){0};
    const struct {
        const char *name, **out;
    } texts[] = {{"mode", &record->mode},
                 {"policy", &record->policy},
                 {"text", &record->text},
                 {"end", &record->end},
                 {"prompt_xxh3", &record->prompt_hash}};
    const struct {
        const char *name;
        size_t *out;
    } sizes[] = {{"line", &record->line},
                 {"n_prompt", &record->n_prompt},
                 {"n_generated", &record->n_generated},
                 {"n_decoded", &record->n_decoded},
                 {"n_dropped", &record->n_dropped}};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (!read_text(object, texts[i].name, texts[i].out))
            return texts[i].name;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (!read_size(object, sizes[i].name, sizes[i].out))
            return sizes[i].name;
    if (!read_number(object, "prefill_seconds", &record->prefill_seconds))
        return "prefill_seconds";
    if (!read_number(object, "decode_seconds", &record->decode_seconds))
        return "decode_seconds";
    return read_tiers(jsonl_field(object, "tiers"), &record->ledger) ? NULL : "tiers";
}

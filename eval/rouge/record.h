/* What is known of one text that one policy has written: figures, ledger and the text itself. In the file of results it
 * is a JSON object; everywhere else it is this. */
#ifndef STOWKV_ROUGE_RECORD_H
#define STOWKV_ROUGE_RECORD_H

#include "kvcache/ledger.h"

#include <cjson/cJSON.h>

#define ROUGE_HASH_TEXT 17 /* 64 bits do not fit JSON's numbers: 16 hexadecimal digits */

/* Strings are not owned. */
typedef struct RougeRecord {
    size_t line; /* of the sample */
    const char *mode, *policy, *text;
    const char *end; /* generation_end_name() */
    const char *prompt_hash;
    size_t n_prompt, n_generated; /* tokens */
    size_t n_decoded;             /* tokens whose generation was timed */
    size_t n_dropped;             /* tokens, of the layer that has dropped most */
    double prefill_seconds, decode_seconds;
    KvLedger ledger; /* after rouge_record_read(): of its rows codecs, tokens, bytes_held and counters alone */
} RougeRecord;

/* `reference`: the item of the sample; NULL out of memory. */
cJSON *rouge_record_json(const RougeRecord *record, const cJSON *reference);

/* Strings point into `object`. NULL, or the name of the field that is missing, of another kind or out of range. */
const char *rouge_record_read(RougeRecord *record, const cJSON *object);

#endif

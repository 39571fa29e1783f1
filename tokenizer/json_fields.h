/* Items of JSON objects, or what stands for their absence. */
#ifndef STOWKV_JSON_FIELDS_H
#define STOWKV_JSON_FIELDS_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <string.h>

/* NULL where there is none, where it is null, and where `object` is no object. */
static inline const cJSON *json_field(const cJSON *object, const char *name) {
    const cJSON *item = cJSON_IsObject(object) ? cJSON_GetObjectItemCaseSensitive(object, name) : NULL;
    return cJSON_IsNull(item) ? NULL : item;
}

/* Valid as long as the tree; `missing` where it is no string. */
static inline const char *json_text_field(const cJSON *object, const char *name, const char *missing) {
    const cJSON *item = json_field(object, name);
    return cJSON_IsString(item) ? item->valuestring : missing;
}

static inline bool json_text_is(const cJSON *object, const char *name, const char *text) {
    return strcmp(json_text_field(object, name, ""), text) == 0;
}

/* `missing` where it is neither true nor false. */
static inline bool json_truth_field(const cJSON *object, const char *name, bool missing) {
    const cJSON *item = json_field(object, name);
    return cJSON_IsBool(item) ? cJSON_IsTrue(item) : missing;
}

#endif

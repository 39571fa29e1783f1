/* Reading reports that this project wrote: an item of a JSON object, or what stands for its absence. */
#ifndef STOWKV_JSON_ITEMS_H
#define STOWKV_JSON_ITEMS_H

#include <cjson/cJSON.h>
#include <math.h>

/* "" where there is no such string. */
static inline const char *json_text_of(const cJSON *object, const char *name) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
    return cJSON_IsString(item) ? item->valuestring : "";
}

/* NAN where there is no such number. */
static inline double json_number_of(const cJSON *object, const char *name) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
    return cJSON_IsNumber(item) ? item->valuedouble : NAN;
}

#endif

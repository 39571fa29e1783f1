/* See config_keys.h. */
#include "checkpoints/config_keys.h"

#include <stdint.h>
#include <stdio.h>

static bool matches(const char *name, const char *pattern) {
    size_t length = strlen(pattern);
    return length > 0 && pattern[length - 1] == '*' ? strncmp(name, pattern, length - 1) == 0
                                                    : strcmp(name, pattern) == 0;
}

static const ConfigKey *find_key(const KeyTable *tables, size_t n_tables, const char *name) {
    for (size_t i = 0; i < n_tables; i++)
        for (size_t j = 0; j < tables[i].count; j++)
            if (matches(name, tables[i].keys[j].name))
                return &tables[i].keys[j];
    return NULL;
}

/* ---- Values */

static bool is_off(const cJSON *item) {
    return cJSON_IsNull(item) || cJSON_IsFalse(item) || (cJSON_IsNumber(item) && item->valuedouble == 0) ||
           (cJSON_IsString(item) && item->valuestring[0] == '\0') ||
           ((cJSON_IsArray(item) || cJSON_IsObject(item)) && item->child == NULL);
}

static bool is_text(const cJSON *item, const char *const texts[4]) {
    for (size_t i = 0; cJSON_IsString(item) && i < 4 && texts[i] != NULL; i++)
        if (strcmp(item->valuestring, texts[i]) == 0)
            return true;
    return cJSON_IsNull(item);
}

static bool changes_nothing(const cJSON *item, const ConfigKey *key) {
    switch (key->kind) {
    case KEY_NUMBER:
        return cJSON_IsNull(item) ||
               (cJSON_IsNumber(item) && (item->valuedouble == key->neutral[0] || item->valuedouble == key->neutral[1]));
    case KEY_TEXT:
        return is_text(item, key->texts);
    case KEY_OFF:
        return is_off(item);
    default:
        return true;
    }
}

/* " is 8" or " is 'text'", as far as it is one value that can be shown. */
static const char *shown(const cJSON *item, char text[64]) {
    text[0] = '\0';
    if (cJSON_IsString(item))
        snprintf(text, 64, " is '%.40s'", item->valuestring);
    else if (cJSON_IsNumber(item))
        snprintf(text, 64, " is %.9g", item->valuedouble);
    else if (cJSON_IsBool(item))
        snprintf(text, 64, " is %s", cJSON_IsTrue(item) ? "true" : "false");
    return text;
}

int config_refuse(const ConfigReading *reading, const cJSON *item, const char *about, Error *error) {
    char text[64];
    return error_set(error, ERROR_UNSUPPORTED, "%s: %.128s%s: %s is not supported; use a checkpoint without it",
                     reading->path, item->string, shown(item, text), about);
}

int config_wrong_type(const ConfigReading *reading, const cJSON *item, const char *expected, Error *error) {
    char text[64];
    return error_set(error, ERROR_FORMAT, "%s: %.128s%s, expected %s; fetch the file again", reading->path,
                     item->string, shown(item, text)[0] == '\0' ? " is something else" : text, expected);
}

/* A value in its field; null leaves it as it is. */
static int read_field(const ConfigReading *reading, const cJSON *item, const ConfigKey *key, Error *error) {
    uintptr_t field = (uintptr_t)reading->config + key->field;
    if (cJSON_IsNull(item))
        return 0;
    if (key->kind == KEY_SIZE)
        return json_whole_number(item, (size_t *)field) ? 0 : config_wrong_type(reading, item, "a whole number", error);
    if (!cJSON_IsNumber(item))
        return config_wrong_type(reading, item, "a number", error);
    if (key->kind == KEY_REAL)
        *(double *)field = item->valuedouble;
    else
        *(float *)field = (float)item->valuedouble;
    return 0;
}

/* ---- Objects */

const cJSON *config_find(const cJSON *object, const char *name) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
    return cJSON_IsNull(item) ? NULL : item;
}

bool config_is_null(const cJSON *object, const char *name) {
    return cJSON_IsNull(cJSON_GetObjectItemCaseSensitive(object, name));
}

static int check_required(const ConfigReading *reading, const cJSON *object, const KeyTable *table, Error *error) {
    for (size_t i = 0; i < table->count; i++)
        if (table->keys[i].required && config_find(object, table->keys[i].name) == NULL)
            return error_set(error, ERROR_FORMAT, "%s: missing %s; fetch the file again", reading->path,
                             table->keys[i].name);
    return 0;
}

/* All keys of an object, each by the first table that has it. */
int config_read_keys(const ConfigReading *reading, const cJSON *object, const KeyTable *tables, size_t n_tables,
                     Error *error) {
    for (size_t i = 0; i < n_tables; i++)
        if (check_required(reading, object, &tables[i], error) < 0)
            return error->code;
    for (const cJSON *item = object->child; item != NULL; item = item->next) {
        const ConfigKey *key = find_key(tables, n_tables, item->string);
        if (key == NULL)
            return error_set(
                error, ERROR_UNSUPPORTED,
                "%s: %.128s is not known here, and may change what the model computes; use a checkpoint without it",
                reading->path, item->string);
        if (key->kind <= KEY_REAL_F32 && read_field(reading, item, key, error) < 0)
            return error->code;
        if (!changes_nothing(item, key))
            return config_refuse(reading, item, key->about, error);
    }
    return 0;
}

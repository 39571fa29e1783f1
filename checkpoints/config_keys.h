/* Configurations in JSON by tables of their keys, whoever's they are: each key is read into a field, read elsewhere, or
 * means nothing here, or is refused unless its value changes nothing. A key that is in no table is refused by name.
 *
 *     static const ConfigKey KEYS[] = {FIELD("hidden_size", KEY_SIZE, true, n_embd), OFF("mlp_bias", "biases")};
 *     const KeyTable tables[] = {TABLE(KEYS)};
 *     if (config_read_keys(&(ConfigReading){path, &config}, root, tables, 1, &error) < 0) …
 */
#ifndef STOWKV_CONFIG_KEYS_H
#define STOWKV_CONFIG_KEYS_H

#include "base/json_document.h"
#include "checkpoints/config.h"

typedef enum KeyKind {
    KEY_SIZE,     /* a whole number for the size_t at `field` */
    KEY_REAL,     /* a number for the double at `field` */
    KEY_REAL_F32, /* a number for the float at `field` */
    KEY_READ,     /* read by a function of its own */
    KEY_NUMBER,   /* null or one of `neutral` */
    KEY_TEXT,     /* null or one of `texts` */
    KEY_OFF,      /* null, false, 0, or empty */
    KEY_HARMLESS, /* for the reason in `about` */
} KeyKind;

typedef struct ConfigKey {
    const char *name; /* '*' at its end stands for any text */
    KeyKind kind;
    bool required;
    size_t field; /* offset in ModelConfig */
    double neutral[2];
    const char *texts[4];
    const char *about; /* why it is harmless; or what it would ask for, as "… is not supported" */
} ConfigKey;

#define FIELD(name, kind, required, member)                                                                            \
    { name, kind, required, offsetof(ModelConfig, member), {0, 0}, {0}, NULL }
#define READ(name)                                                                                                     \
    { name, KEY_READ, false, 0, {0, 0}, {0}, NULL }
#define NUMBER(name, a, b, about)                                                                                      \
    { name, KEY_NUMBER, false, 0, {a, b}, {0}, about }
#define TEXT(name, about, ...)                                                                                         \
    { name, KEY_TEXT, false, 0, {0, 0}, {__VA_ARGS__}, about }
#define OFF(name, about)                                                                                               \
    { name, KEY_OFF, false, 0, {0, 0}, {0}, about }
#define HARMLESS(name, about)                                                                                          \
    { name, KEY_HARMLESS, false, 0, {0, 0}, {0}, about }

typedef struct KeyTable {
    const ConfigKey *keys;
    size_t count;
} KeyTable;

#define TABLE(rows)                                                                                                    \
    { rows, sizeof(rows) / sizeof *(rows) }
#define NO_TABLE                                                                                                       \
    { NULL, 0 }

/* What is being read. */
typedef struct ConfigReading {
    const char *path;
    ModelConfig *config;
} ConfigReading;

/* All keys of an object, each by the first table that has it; required ones must be there. ERROR_FORMAT: missing, or of
 * another type; ERROR_UNSUPPORTED: asks for what is not here. */
int config_read_keys(const ConfigReading *reading, const cJSON *object, const KeyTable *tables, size_t n_tables,
                     Error *error);

/* The object's item of this name; NULL where it is not there, or null. */
const cJSON *config_find(const cJSON *object, const char *name);

/* Whether the key is there, and null. */
bool config_is_null(const cJSON *object, const char *name);

/* Errors about an item of the document: "… is not supported", "expected …". */
int config_refuse(const ConfigReading *reading, const cJSON *item, const char *about, Error *error);
int config_wrong_type(const ConfigReading *reading, const cJSON *item, const char *expected, Error *error);

#endif

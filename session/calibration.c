/* See calibration.h. */
#include "session/calibration.h"

#include "base/block_decode.h"
#include "base/checked.h"
#include "base/file_identity.h"
#include "base/json_document.h"
#include "kvcache/policy_text.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <xxhash.h>

#define FORMAT     "stowkv calibration"
#define VERSION    1
#define MAX_PATH   4096
#define HOW_TO     "build/calibrate --checkpoint_path PATH --text_file FILE"
#define MAX_NATS   1e6 /* of a harm: more is no divergence */
#define MAX_LAYERS LAYER_SET_MAX

static const char *const SIDE_NAMES[KV_SIDES] = {[KV_KEYS] = "k", [KV_VALUES] = "v"};

/* ---- Which model */

static bool is_norm(const Tensor *tensor) {
    static const char END[] = "_norm.weight";
    size_t length = strlen(END);
    return tensor->n_dims == 1 && tensor->data != NULL && tensor_type_info(tensor->type)->block_elements == 1 &&
           tensor->name.length > length && memcmp(tensor->name.bytes + tensor->name.length - length, END, length) == 0;
}

/* Of its values in F32, whatever holds them. */
static uint64_t norm_hash(const Tensor *tensor) {
    float values[256];
    uint64_t hash = XXH3_64bits(tensor->name.bytes, tensor->name.length);
    for (size_t first = 0, n; first < tensor->shape[0]; first += n) {
        n = at_most(tensor->shape[0] - first, sizeof values / sizeof *values);
        tensor_decoder(tensor->type, SIMD_SCALAR)(tensor, first, n, values);
        hash = XXH3_64bits_withSeed(values, n * sizeof *values, hash);
    }
    return hash;
}

uint64_t calibration_fingerprint(const Checkpoint *checkpoint) {
    const ModelConfig *config = &checkpoint->config;
    const uint64_t shape[] = {config->n_layers, config->n_heads, config->n_kv_heads,
                              config->head_dim, config->n_embd,  config->n_vocab};
    uint64_t sum = XXH3_64bits(shape, sizeof shape); /* containers have tensors in different orders */
    for (size_t i = 0; i < checkpoint->n_tensors; i++)
        if (is_norm(&checkpoint->tensors[i]))
            sum += norm_hash(&checkpoint->tensors[i]);
    return sum;
}

/* ---- In memory */

void calibration_open(Calibration *c, size_t n_layers) {
    *c = (Calibration){.harms = {.n_layers = n_layers}};
}

double *calibration_add(Calibration *c, KvSide side, bool rotated, KvCodecId codec) {
    return c->harms.of[side][rotated][codec] = calloc(c->harms.n_layers, sizeof(double));
}

void calibration_free(Calibration *c) {
    for (KvSide side = 0; side < KV_SIDES; side++)
        for (int rotated = 0; rotated < 2; rotated++)
            for (KvCodecId codec = 0; codec < KV_CODEC_COUNT; codec++)
                free(c->harms.of[side][rotated][codec]);
    *c = (Calibration){0};
}

/* ---- Writing */

static cJSON *harm_json(const Calibration *c, KvSide side, bool rotated, KvCodecId codec) {
    cJSON *item = cJSON_CreateObject();
    cJSON_AddStringToObject(item, "side", SIDE_NAMES[side]);
    cJSON_AddStringToObject(item, "codec", kv_codec_name(kv_codec(codec)));
    cJSON_AddBoolToObject(item, "rotated", rotated);
    cJSON *nats = cJSON_AddArrayToObject(item, "nats");
    for (size_t i = 0; i < c->harms.n_layers; i++) {
        char text[32]; /* four digits are more than the text is worth, and keep the file small */
        snprintf(text, sizeof text, "%.4g", c->harms.of[side][rotated][codec][i]);
        cJSON_AddItemToArray(nats, cJSON_CreateRaw(text));
    }
    return item;
}

cJSON *calibration_json(const Calibration *c) {
    char fingerprint[17];
    snprintf(fingerprint, sizeof fingerprint, "%016llx", (unsigned long long)c->fingerprint);
    cJSON *root = cJSON_CreateObject();
    cJSON_AddStringToObject(root, "format", FORMAT);
    cJSON_AddNumberToObject(root, "version", VERSION);
    cJSON_AddStringToObject(root, "model", c->model);
    cJSON_AddStringToObject(root, "fingerprint", fingerprint);
    cJSON_AddStringToObject(root, "text", c->text);
    cJSON_AddNumberToObject(root, "context", (double)c->context);
    cJSON_AddNumberToObject(root, "chunks", (double)c->chunks);
    cJSON_AddNumberToObject(root, "sink", (double)c->sink);
    cJSON_AddNumberToObject(root, "window", (double)c->window);
    cJSON_AddNumberToObject(root, "kv_block_size", (double)c->group);
    cJSON_AddStringToObject(root, "kv_rounding", kv_rounding_names()[c->rounding]);
    cJSON_AddNumberToObject(root, "n_layers", (double)c->harms.n_layers);
    cJSON *harms = cJSON_AddArrayToObject(root, "harms");
    for (KvSide side = 0; side < KV_SIDES; side++)
        for (int rotated = 0; rotated < 2; rotated++)
            for (KvCodecId codec = 0; codec < KV_CODEC_COUNT; codec++)
                if (c->harms.of[side][rotated][codec] != NULL)
                    cJSON_AddItemToArray(harms, harm_json(c, side, rotated, codec));
    return root;
}

/* ---- Reading */

static int damaged(const char *path, const char *what, Error *error) {
    return error_set(error, ERROR_FORMAT, "%s: %s; the file is damaged, make it again with " HOW_TO, path, what);
}

static const char *string_of(const cJSON *object, const char *name) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
    return cJSON_IsString(item) ? item->valuestring : "";
}

static bool whole_of(const cJSON *object, const char *name, size_t *out) {
    return json_whole_number(cJSON_GetObjectItemCaseSensitive(object, name), out);
}

/* The index among names that end with NULL; -1: none of them. */
static int index_of(const char *name, const char *const *names) {
    for (int i = 0; names[i] != NULL; i++)
        if (strcmp(name, names[i]) == 0)
            return i;
    return -1;
}

static int check_header(const cJSON *root, const char *path, Error *error) {
    size_t version;
    if (strcmp(string_of(root, "format"), FORMAT) != 0 || !whole_of(root, "version", &version))
        return error_set(error, ERROR_FORMAT, "%s: is no calibration; make one with " HOW_TO, path);
    if (version != VERSION)
        return error_set(
            error, ERROR_FORMAT,
            "%s: a calibration of version %zu, and this program reads version %d; make it again with " HOW_TO, path,
            version, VERSION);
    return 0;
}

static bool read_fingerprint(const char *text, uint64_t *out) {
    if (strlen(text) != 16 || strspn(text, "0123456789abcdef") != 16)
        return false;
    *out = strtoull(text, NULL, 16);
    return true;
}

static int read_settings(Calibration *c, const cJSON *root, const char *path, Error *error) {
    size_t n_layers;
    int rounding = index_of(string_of(root, "kv_rounding"), kv_rounding_names());
    if (!whole_of(root, "n_layers", &n_layers) || n_layers == 0 || n_layers > MAX_LAYERS)
        return damaged(path, "no number of layers", error);
    calibration_open(c, n_layers);
    if (!read_fingerprint(string_of(root, "fingerprint"), &c->fingerprint))
        return damaged(path, "the fingerprint is not 16 hex digits", error);
    if (!whole_of(root, "context", &c->context) || !whole_of(root, "chunks", &c->chunks) ||
        !whole_of(root, "sink", &c->sink) || !whole_of(root, "window", &c->window) ||
        !whole_of(root, "kv_block_size", &c->group) || rounding < 0)
        return damaged(path, "context, chunks, sink, window, kv_block_size or kv_rounding is missing", error);
    c->rounding = (KvRounding)rounding;
    snprintf(c->model, sizeof c->model, "%s", string_of(root, "model"));
    snprintf(c->text, sizeof c->text, "%s", string_of(root, "text"));
    return 0;
}

static int read_harm(Calibration *c, const cJSON *item, const char *path, Error *error) {
    const cJSON *rotated = cJSON_GetObjectItemCaseSensitive(item, "rotated");
    const cJSON *nats = cJSON_GetObjectItemCaseSensitive(item, "nats");
    const char *side = string_of(item, "side");
    const KvCodec *codec = kv_codec_named(sv(string_of(item, "codec")));
    bool is_key = strcmp(side, SIDE_NAMES[KV_KEYS]) == 0;
    if ((!is_key && strcmp(side, SIDE_NAMES[KV_VALUES]) != 0) || codec == NULL || !cJSON_IsBool(rotated))
        return damaged(path, "a harm of no side, or of no codec that this program has", error);
    KvSide of = is_key ? KV_KEYS : KV_VALUES;
    if (c->harms.of[of][cJSON_IsTrue(rotated)][kv_codec_id(codec)] != NULL)
        return damaged(path, "two harms of one side and codec", error);
    if (!cJSON_IsArray(nats) || (size_t)cJSON_GetArraySize(nats) != c->harms.n_layers)
        return damaged(path, "a harm has not a number for each layer", error);
    double *out = calibration_add(c, of, cJSON_IsTrue(rotated), kv_codec_id(codec));
    if (out == NULL)
        return error_memory(error, "a calibration", c->harms.n_layers * sizeof *out);
    for (const cJSON *number = nats->child; number != NULL; number = number->next, out++) {
        *out = cJSON_IsNumber(number) ? number->valuedouble : -1;
        if (!(*out >= 0 && *out <= MAX_NATS))
            return damaged(path, "a harm is no divergence in nats", error);
    }
    return 0;
}

static int read_root(Calibration *c, const cJSON *root, const char *path, Error *error) {
    if (check_header(root, path, error) < 0 || read_settings(c, root, path, error) < 0)
        return error->code;
    const cJSON *harms = cJSON_GetObjectItemCaseSensitive(root, "harms");
    if (!cJSON_IsArray(harms) || harms->child == NULL)
        return damaged(path, "it has no harms", error);
    for (const cJSON *item = harms->child; item != NULL; item = item->next)
        if (read_harm(c, item, path, error) < 0)
            return error->code;
    return 0;
}

int calibration_read(Calibration *c, const char *path, Error *error) {
    *c = (Calibration){0};
    cJSON *root = json_document_load(path, error);
    if (root == NULL)
        return error->code;
    int status = read_root(c, root, path, error);
    cJSON_Delete(root);
    if (status < 0)
        calibration_free(c);
    return status;
}

/* ---- Finding */

bool calibration_path(const char *checkpoint_path, char *out, size_t size) {
    int n = snprintf(out, size, "%s%s.calibration.json", checkpoint_path, path_is_folder(checkpoint_path) ? "/kv" : "");
    return n > 0 && (size_t)n < size;
}

static bool is_beside_checkpoint(const char *checkpoint_path, char *out, size_t size) {
    return calibration_path(checkpoint_path, out, size) && access(out, F_OK) == 0;
}

/* Of those that come with the program: in the folder that it was built in, or where it was installed. */
static bool path_of_known(uint64_t fingerprint, char *out, size_t size) {
    static const char *const FOLDERS[] = {STOWKV_SOURCE_DIR "/checkpoints/calibrations",
                                          STOWKV_DATA_DIR "/calibrations"};
    for (size_t i = 0; i < sizeof FOLDERS / sizeof *FOLDERS; i++) {
        int n = snprintf(out, size, "%s/%016llx.json", FOLDERS[i], (unsigned long long)fingerprint);
        if (n > 0 && (size_t)n < size && access(out, F_OK) == 0)
            return true;
    }
    return false;
}

static int check_model(const Calibration *c, uint64_t fingerprint, const char *path, const char *checkpoint_path,
                       Error *error) {
    if (c->fingerprint == fingerprint)
        return 0;
    return error_set(error, ERROR_ARGUMENT, "%s: the calibration of another model, %.64s; make one of %s with " HOW_TO,
                     path, c->model[0] != '\0' ? c->model : "without a name", checkpoint_path);
}

int calibration_find(Calibration *c, const char *path, const Checkpoint *checkpoint, const char *checkpoint_path,
                     Error *error) {
    char found[MAX_PATH];
    uint64_t fingerprint = calibration_fingerprint(checkpoint);
    *c = (Calibration){0};
    if (path == NULL &&
        (is_beside_checkpoint(checkpoint_path, found, sizeof found) || path_of_known(fingerprint, found, sizeof found)))
        path = found;
    if (path == NULL)
        return error_set(
            error, ERROR_ARGUMENT,
            "--kv_budget needs to know the harm of each codec in %s, and there is no calibration of it; make "
            "one with " HOW_TO,
            checkpoint_path);
    if (calibration_read(c, path, error) < 0)
        return error->code;
    int status = check_model(c, fingerprint, path, checkpoint_path, error);
    if (status == 0 && c->harms.n_layers != checkpoint->config.n_layers)
        status = damaged(path, "the model has another number of layers", error);
    if (status < 0)
        calibration_free(c);
    return status;
}

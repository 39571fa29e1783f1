/* See hf_layers.h. */
#include "checkpoints/hf_layers.h"

/* One value for each layer: those of which `is_one` holds are put into the set. */
static int read_list(const ConfigReading *reading, const cJSON *list, bool (*is_one)(const cJSON *item), LayerSet *set,
                     Error *error) {
    size_t layer = 0;
    if (!cJSON_IsArray(list) || (size_t)cJSON_GetArraySize(list) != reading->config->n_layers)
        return config_wrong_type(reading, list, "a value for each layer", error);
    for (const cJSON *item = list->child; item != NULL; item = item->next, layer++)
        if (is_one(item))
            layer_set_add(set, layer);
    return 0;
}

static bool is_sliding(const cJSON *item) {
    return !cJSON_IsString(item) || strcmp(item->valuestring, "full_attention") != 0;
}

static bool is_zero(const cJSON *item) {
    return !cJSON_IsNumber(item) || item->valuedouble == 0;
}

/* The period of a pattern by layers, of the file or else the family's. */
static int read_period(const ConfigReading *reading, const cJSON *item, size_t *period, Error *error) {
    if (item == NULL || (json_whole_number(item, period) && *period > 0))
        return 0;
    return config_wrong_type(reading, item, "a whole number above 0", error);
}

static int read_periodic(const ConfigReading *reading, const cJSON *root, Error *error) {
    const cJSON *pattern = config_find(root, "sliding_window_pattern");
    size_t period = reading->config->family->window_period;
    if (pattern == NULL)
        pattern = config_find(root, "_sliding_window_pattern");
    if (read_period(reading, pattern, &period, error) < 0)
        return error->code;
    layer_set_add_periodic(&reading->config->local, reading->config->n_layers, period, false);
    return 0;
}

static int read_upper(const ConfigReading *reading, const cJSON *root, size_t first, Error *error) {
    const cJSON *item = config_find(root, "max_window_layers");
    if (item != NULL && !json_whole_number(item, &first))
        return config_wrong_type(reading, item, "a whole number", error);
    for (size_t layer = first; layer < reading->config->n_layers && layer < LAYER_SET_MAX; layer++)
        layer_set_add(&reading->config->local, layer);
    return 0;
}

static int read_local(const ConfigReading *reading, const cJSON *root, const HfWindow *otherwise, Error *error) {
    const cJSON *types = config_find(root, "layer_types");
    if (types != NULL)
        return read_list(reading, types, is_sliding, &reading->config->local, error);
    if (otherwise->layers == HF_WINDOW_UPPER)
        return read_upper(reading, root, otherwise->max_window_layers, error);
    if (otherwise->layers == HF_WINDOW_PERIODIC)
        return read_periodic(reading, root, error);
    reading->config->local = reading->config->no_rope;
    return 0;
}

/* A window as long as the context is none. */
static int read_window(const ConfigReading *reading, const cJSON *root, const HfWindow *otherwise, Error *error) {
    const cJSON *item = config_find(root, "sliding_window"), *use = config_find(root, "use_sliding_window");
    size_t window = config_is_null(root, "sliding_window") ? 0 : otherwise->tokens;
    if (use == NULL ? otherwise->off : cJSON_IsFalse(use))
        return 0;
    if (item != NULL && !json_whole_number(item, &window))
        return config_wrong_type(reading, item, "a whole number", error);
    if (window == 0 || window >= reading->config->n_ctx_train)
        return 0;
    if (read_local(reading, root, otherwise, error) < 0)
        return error->code;
    reading->config->lookback = layer_set_is_empty(&reading->config->local) ? 0 : window;
    return 0;
}

/* Layers without RoPE: a 0 for each of them, or the last of each so many. */
static int read_no_rope(const ConfigReading *reading, const cJSON *root, Error *error) {
    ModelConfig *config = reading->config;
    const cJSON *list = config_find(root, "no_rope_layers");
    size_t period = config->family->no_rope_period;
    if (period == 0)
        return 0;
    if (list != NULL && !(cJSON_IsArray(list) && list->child == NULL))
        return read_list(reading, list, is_zero, &config->no_rope, error);
    if (read_period(reading, config_find(root, "no_rope_layer_interval"), &period, error) < 0)
        return error->code;
    layer_set_add_periodic(&config->no_rope, config->n_layers, period, true);
    return 0;
}

int hf_layers_read(const ConfigReading *reading, const cJSON *root, const HfWindow *otherwise, Error *error) {
    return read_no_rope(reading, root, error) < 0 ? error->code : read_window(reading, root, otherwise, error);
}

/* See hf_longrope.h. The arithmetic is that of transformers' modeling_rope_utils.py. */
#include "checkpoints/hf_longrope.h"

#include "checkpoints/config_keys.h"
#include "checkpoints/roles.h"
#include "checkpoints/rope_factors.h"

#include <math.h>

bool is_longrope(const cJSON *rope) {
    const cJSON *type = config_find(rope, "rope_type");
    if (type == NULL)
        type = config_find(rope, "type");
    return cJSON_IsString(type) && (strcmp(type->valuestring, "longrope") == 0 || strcmp(type->valuestring, "su") == 0);
}

static const cJSON *find_longrope(const cJSON *root) {
    const cJSON *parameters = config_find(root, "rope_parameters");
    const cJSON *places[] = {config_find(root, "rope_scaling"), parameters, config_find(parameters, "full_attention")};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        if (is_longrope(places[i]))
            return places[i];
    return NULL;
}

/* The context that the model had before it was made longer: said beside the scaling or in it, else the factor is. */
static int read_original(const ConfigReading *reading, const cJSON *root, const cJSON *rope, double *factor,
                         Error *error) {
    static const char NAME[] = "original_max_position_embeddings";
    ModelConfig *config = reading->config;
    LongRope *out = &config->rope_long;
    const cJSON *item = config_find(root, NAME), *stated = config_find(rope, "factor");
    if (item == NULL)
        item = config_find(rope, NAME);
    if (item == NULL && !cJSON_IsNumber(stated))
        return error_set(error, ERROR_FORMAT, "%s: %s has neither factor nor %s; fetch the file again", reading->path,
                         rope->string, NAME);
    out->original_context = config->n_ctx_train;
    if (item != NULL && (!json_whole_number(item, &out->original_context) || out->original_context < 2))
        return config_wrong_type(reading, item, "a whole number above 1", error);
    *factor = item == NULL ? stated->valuedouble : (double)config->n_ctx_train / (double)out->original_context;
    return 0;
}

static int read_stretch(const ConfigReading *reading, const cJSON *rope, double factor, Error *error) {
    const cJSON *stated = config_find(rope, "attention_factor");
    LongRope *out = &reading->config->rope_long;
    if (stated != NULL && !(cJSON_IsNumber(stated) && stated->valuedouble > 0))
        return config_wrong_type(reading, stated, "a number above 0", error);
    out->stretch = stated != NULL ? stated->valuedouble
                   : factor > 1   ? sqrt(1 + log(factor) / log((double)out->original_context))
                                  : 1;
    return 0;
}

static int add_factors(const ConfigReading *reading, Checkpoint *checkpoint, const cJSON *rope, const char *key,
                       const char *name, Error *error) {
    const cJSON *list = config_find(rope, key), *item;
    size_t n = (size_t)cJSON_GetArraySize(list), i = 0;
    if (!cJSON_IsArray(list) || n == 0 || n != checkpoint->config.head_dim / 2)
        return error_set(error, ERROR_FORMAT, "%s: %s is no list of %zu numbers, half a head; fetch the file again",
                         reading->path, key, checkpoint->config.head_dim / 2);
    float *factors = rope_factors_new(checkpoint, name, n, error);
    if (factors == NULL)
        return error->code;
    cJSON_ArrayForEach(item, list) {
        if (!cJSON_IsNumber(item))
            return config_wrong_type(reading, list, "numbers", error);
        factors[i++] = (float)item->valuedouble;
    }
    return 0;
}

int hf_longrope_read(const cJSON *root, const char *path, Checkpoint *checkpoint, Error *error) {
    const ConfigReading reading = {path, &checkpoint->config};
    const cJSON *rope = find_longrope(root);
    double factor = 0;
    if (rope == NULL)
        return 0;
    if (read_original(&reading, root, rope, &factor, error) < 0 || read_stretch(&reading, rope, factor, error) < 0 ||
        add_factors(&reading, checkpoint, rope, "long_factor", ROPE_LONG_NAME, error) < 0)
        return error->code;
    return add_factors(&reading, checkpoint, rope, "short_factor", ROPE_SHORT_NAME, error);
}

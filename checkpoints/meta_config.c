/* See meta_config.h. Keys are those of Meta's ModelArgs and of Mistral's. */
#include "checkpoints/meta_config.h"

#include "base/name_list.h"
#include "checkpoints/config_keys.h"

#include <ctype.h>
#include <limits.h>
#include <stdlib.h>

#define EMBEDDING_NAME "tok_embeddings.weight"

/* clang-format off */
static const ConfigKey KEYS[] = {
    FIELD("dim", KEY_SIZE, true, n_embd),
    FIELD("n_layers", KEY_SIZE, true, n_layers),
    FIELD("n_heads", KEY_SIZE, true, n_heads),
    FIELD("n_kv_heads", KEY_SIZE, false, n_kv_heads), /* otherwise n_heads */
    FIELD("head_dim", KEY_SIZE, false, head_dim),     /* otherwise dim / n_heads */
    FIELD("hidden_dim", KEY_SIZE, false, n_ffn),      /* otherwise by the two that follow */
    READ("multiple_of"), READ("ffn_dim_multiplier"),
    FIELD("norm_eps", KEY_REAL_F32, true, norm_eps),
    FIELD("rope_theta", KEY_REAL, false, rope_theta), /* otherwise 10000 */
    READ("use_scaled_rope"), READ("sliding_window"),
    HARMLESS("vocab_size", "the embedding says it"),
    HARMLESS("max_batch_size", "it is about memory"),
    HARMLESS("max_seq_len", "it is about memory"),
    OFF("moe", "a mixture of experts"),
    OFF("quantization_args", "weights that another program has quantized"),
    OFF("lora_args", "an adapter"),
};
/* clang-format on */

/* Widths of Meta's feed-forward networks: 2/3 of 4 dim, times a factor, up to a multiple. */
static int read_ffn(const ConfigReading *reading, const cJSON *root, Error *error) {
    const cJSON *factor = cJSON_GetObjectItemCaseSensitive(root, "ffn_dim_multiplier");
    size_t multiple = 0, width = reading->config->n_embd <= 1 << 20 ? 8 * reading->config->n_embd / 3 : 0;
    if (!json_whole_number(cJSON_GetObjectItemCaseSensitive(root, "multiple_of"), &multiple) || multiple == 0 ||
        multiple > 1 << 20)
        return error_set(error, ERROR_FORMAT, "%s: has neither hidden_dim nor multiple_of; fetch the file again",
                         reading->path);
    if (cJSON_IsNumber(factor) && factor->valuedouble > 0 && factor->valuedouble < 100)
        width = (size_t)(factor->valuedouble * (double)width);
    reading->config->n_ffn = (width + multiple - 1) / multiple * multiple;
    return 0;
}

/* The contexts of Meta's models and of Code Llama; the file has none. */
static size_t guess_context(const ModelConfig *config) {
    if (config->rope_llama3.factor > 0)
        return 131072;
    if (config->rope_theta == 1e6)
        return 16384;
    if (config->rope_theta == 5e5)
        return 8192;
    return config->norm_eps > 2e-6f ? 4096 : 2048;
}

/* Llama 3.1 and later; the small models of 3.2 stretch four times as far, as transformers' converter has it. */
static int read_scaling(const ConfigReading *reading, const cJSON *root, Error *error) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(root, "use_scaled_rope");
    if (item != NULL && !cJSON_IsBool(item))
        return config_wrong_type(reading, item, "true or false", error);
    if (cJSON_IsTrue(item))
        reading->config->rope_llama3 = (Llama3Scaling){reading->config->n_embd < 4096 ? 32 : 8, 1, 4, 8192};
    return 0;
}

static int read_vocabulary_size(Checkpoint *checkpoint, const char *path, Error *error) {
    const Tensor *embedding = checkpoint_tensor(checkpoint, EMBEDDING_NAME);
    if (embedding == NULL)
        return error_set(error, ERROR_FORMAT,
                         "%s: describes weights with a tensor " EMBEDDING_NAME
                         ", and there is none; fetch the config.json of these weights",
                         path);
    checkpoint->config.n_vocab = embedding->shape[1];
    return 0;
}

int meta_config_read(const cJSON *root, const char *path, Checkpoint *checkpoint, Error *error) {
    ModelConfig *config = &checkpoint->config;
    const ConfigReading reading = {path, config};
    const KeyTable table = TABLE(KEYS);
    if (!cJSON_IsObject(root))
        return error_set(error, ERROR_FORMAT, "%s: is no object; fetch the file again", path);
    *config =
        (ModelConfig){.family = model_family_find(sv("llama"), path, error), .rope_theta = 10000, .rope_scale = 1};
    if (config->family == NULL || config_read_keys(&reading, root, &table, 1, error) < 0 ||
        read_scaling(&reading, root, error) < 0)
        return error->code;
    const cJSON *window = cJSON_GetObjectItemCaseSensitive(root, "sliding_window");
    if (window != NULL && !cJSON_IsNull(window))
        return config_refuse(&reading, window, "a sliding window", error);
    if (config_find(root, "n_kv_heads") == NULL)
        config->n_kv_heads = config->n_heads;
    if (config_find(root, "head_dim") == NULL && config->n_heads > 0)
        config->head_dim = config->n_embd / config->n_heads;
    if (config_find(root, "hidden_dim") == NULL && read_ffn(&reading, root, error) < 0)
        return error->code;
    config->n_ctx_train = guess_context(config);
    if (read_vocabulary_size(checkpoint, path, error) < 0)
        return error->code;
    return checkpoint_note(checkpoint, error,
                           "%s: does not say how long a context is; taken to be %zu tokens, as in Meta's models with "
                           "such values; if the model has a shorter one, say so with --n_ctx",
                           path, config->n_ctx_train);
}

/* ---- Known models, by names without signs and in lower case. The longest that fits counts. */

static const struct {
    const char *name;
    size_t n_layers, n_embd, n_heads, n_kv_heads, n_ffn, n_ctx;
    double rope_theta;
    double stretch; /* Llama 3.1's factor; 0: none */
} KNOWN[] = {
    {"llama27b", 32, 4096, 32, 32, 11008, 4096, 1e4, 0},
    {"llama213b", 40, 5120, 40, 40, 13824, 4096, 1e4, 0},
    {"llama270b", 80, 8192, 64, 8, 28672, 4096, 1e4, 0},
    {"llama38b", 32, 4096, 32, 8, 14336, 8192, 5e5, 0},
    {"llama370b", 80, 8192, 64, 8, 28672, 8192, 5e5, 0},
    {"llama318b", 32, 4096, 32, 8, 14336, 131072, 5e5, 8},
    {"llama3170b", 80, 8192, 64, 8, 28672, 131072, 5e5, 8},
    {"llama321b", 16, 2048, 32, 8, 8192, 131072, 5e5, 32},
    {"llama323b", 28, 3072, 24, 8, 8192, 131072, 5e5, 32},
    {"codellama7b", 32, 4096, 32, 32, 11008, 16384, 1e6, 0},
    {"codellama34b", 48, 8192, 64, 8, 22016, 16384, 1e6, 0},
    {"mistral7bv02", 32, 4096, 32, 8, 14336, 32768, 1e6, 0},
    {"mistral7binstructv02", 32, 4096, 32, 8, 14336, 32768, 1e6, 0},
    {"stories15m", 6, 288, 6, 6, 768, 256, 1e4, 0},
    {"stories42m", 8, 512, 8, 8, 1376, 1024, 1e4, 0},
    {"stories110m", 12, 768, 12, 12, 2048, 1024, 1e4, 0},
};

enum { N_KNOWN = sizeof KNOWN / sizeof *KNOWN };

/* Letters and digits of the folder's name, in lower case; empty where there is no such folder. */
static void plain_name(const char *folder, char out[PATH_MAX]) {
    char path[PATH_MAX];
    size_t n = 0;
    const char *name = realpath(folder[0] == '\0' ? "." : folder, path) == NULL ? "" : strrchr(path, '/') + 1;
    for (; *name != '\0'; name++)
        if (isalnum((unsigned char)*name))
            out[n++] = (char)tolower((unsigned char)*name);
    out[n] = '\0';
}

static size_t find_known(const char *folder) {
    char name[PATH_MAX];
    size_t best = N_KNOWN, longest = 0;
    plain_name(folder, name);
    for (size_t i = 0; i < N_KNOWN; i++)
        if (strlen(KNOWN[i].name) > longest && strstr(name, KNOWN[i].name) != NULL) {
            best = i;
            longest = strlen(KNOWN[i].name);
        }
    return best;
}

int meta_config_known(const char *path, const char *folder, Checkpoint *checkpoint, Error *error) {
    NameList names = {0};
    size_t best = find_known(folder);
    for (size_t i = 0; i < N_KNOWN; i++)
        name_list_add(&names, KNOWN[i].name);
    if (best == N_KNOWN)
        return error_set(error, ERROR_IO,
                         "%s: neither config.json nor params.json is beside the weights, and their folder has the name "
                         "of no known model (%s); put the model's config.json there",
                         path, names.text);
    checkpoint->config = (ModelConfig){.family = model_family_find(sv("llama"), path, error),
                                       .n_layers = KNOWN[best].n_layers,
                                       .n_embd = KNOWN[best].n_embd,
                                       .n_ffn = KNOWN[best].n_ffn,
                                       .n_heads = KNOWN[best].n_heads,
                                       .n_kv_heads = KNOWN[best].n_kv_heads,
                                       .head_dim = KNOWN[best].n_embd / KNOWN[best].n_heads,
                                       .n_ctx_train = KNOWN[best].n_ctx,
                                       .norm_eps = 1e-5f,
                                       .rope_theta = KNOWN[best].rope_theta,
                                       .rope_scale = 1};
    if (KNOWN[best].stretch > 0)
        checkpoint->config.rope_llama3 = (Llama3Scaling){KNOWN[best].stretch, 1, 4, 8192};
    if (checkpoint->config.family == NULL || read_vocabulary_size(checkpoint, path, error) < 0)
        return error->code;
    return checkpoint_note(
        checkpoint, error,
        "%s: neither config.json nor params.json is beside the weights; taken for %s by the name of their folder; "
        "if it is another model, put its config.json there",
        path, KNOWN[best].name);
}

/* See inspect.h. */
#include "session/inspect.h"

#include "checkpoints/open.h"
#include "checkpoints/roles.h"
#include "session/json_text.h"
#include "session/run_report.h"

/* What there is to tell. */
typedef struct Findings {
    const char *path;
    const Checkpoint *checkpoint;
    const Tokenizer *tokenizer; /* NULL: none that can be used */
    size_t n_ends;              /* tokens that end a text */
    size_t n_local_layers;
    size_t n_of_type[TENSOR_TYPE_COUNT]; /* tensors */
    const Error *error;                  /* what is wrong; its code is 0 where nothing is */
} Findings;

static Findings find_all(const Session *session, const char *path, const Error *error) {
    const Checkpoint *checkpoint = &session->model.checkpoint;
    Findings found = {.path = path, .checkpoint = checkpoint, .tokenizer = session->tokenizer, .error = error};
    for (size_t i = 0; found.tokenizer != NULL && i < tokenizer_n_tokens(found.tokenizer); i++)
        found.n_ends += tokenizer_is_end(found.tokenizer, (int32_t)i);
    for (size_t i = 0; checkpoint->config.lookback > 0 && i < checkpoint->config.n_layers; i++)
        found.n_local_layers += layer_set_has(&checkpoint->config.local, i);
    for (size_t i = 0; i < checkpoint->n_tensors; i++)
        found.n_of_type[checkpoint->tensors[i].type]++;
    return found;
}

static const char *tokenizer_kind(const Tokenizer *tokenizer) {
    return tokenizer_is_byte_level(tokenizer) ? "byte-level BPE" : "SentencePiece";
}

/* ---- For people */

static void print_rope(const Checkpoint *checkpoint, FILE *stream) {
    const ModelConfig *config = &checkpoint->config;
    fprintf(stream, "RoPE          base %g", config->rope_theta);
    if (config->rope_scale != 1)
        fprintf(stream, ", positions divided by %g", config->rope_scale);
    if (config->rope_llama3.factor > 0)
        fprintf(stream, ", Llama 3.1's scaling by %g of %zu tokens", config->rope_llama3.factor,
                config->rope_llama3.original_context);
    if (checkpoint_tensor(checkpoint, ROPE_LONG_NAME) != NULL)
        fprintf(stream, ", other frequencies in caches of more than %zu tokens", config->rope_long.original_context);
    fprintf(stream, "; pairs %s\n", config->rope_pairing == ROPE_HALVES ? "half a head apart" : "side by side");
}

static void print_config(const Findings *found, FILE *stream) {
    const ModelConfig *config = &found->checkpoint->config;
    fprintf(stream, "family        %s (%s)\n", config->family->name, config->family->members);
    fprintf(stream, "layers        %zu of width %zu, feed-forward %zu\n", config->n_layers, config->n_embd,
            config->n_ffn);
    fprintf(stream, "attention     %zu query heads, %zu KV heads of %zu\n", config->n_heads, config->n_kv_heads,
            config->head_dim);
    if (config->lookback > 0)
        fprintf(stream, "window        %zu tokens in %zu layers\n", config->lookback, found->n_local_layers);
    print_rope(found->checkpoint, stream);
    fprintf(stream, "context       %zu tokens\n", config->n_ctx_train);
    fprintf(stream, "vocabulary    %zu tokens\n", config->n_vocab);
}

static void print_tokenizer(const Findings *found, FILE *stream) {
    const Tokenizer *tokenizer = found->tokenizer;
    if (tokenizer == NULL) {
        fprintf(stream, "tokenizer     none that can be used\n");
        return;
    }
    fprintf(stream, "tokenizer     %s, %zu tokens, %s, %zu of them end a text\n", tokenizer_kind(tokenizer),
            tokenizer_n_tokens(tokenizer), tokenizer_adds_bos(tokenizer) ? "BOS first" : "no BOS", found->n_ends);
    fprintf(stream, "chat template %s\n", found->checkpoint->vocabulary.chat_template.length > 0 ? "yes" : "none");
}

static void print_weights(const Findings *found, FILE *stream) {
    fprintf(stream, "weights       %zu bytes in %zu tensors:", found->checkpoint->weights_bytes,
            found->checkpoint->n_tensors);
    for (TensorType type = 0; type < TENSOR_TYPE_COUNT; type++)
        if (found->n_of_type[type] > 0)
            fprintf(stream, " %zu %s", found->n_of_type[type], tensor_type_info(type)->name);
    fprintf(stream, "\n");
}

static void print_all(const Findings *found, FILE *stream) {
    print_config(found, stream);
    print_tokenizer(found, stream);
    print_weights(found, stream);
    for (size_t i = 0; i < found->checkpoint->n_notes; i++)
        fprintf(stream, "warning       %s\n", found->checkpoint->notes[i]);
}

/* ---- For programs */

static void add_size(cJSON *object, const char *name, size_t value) {
    cJSON_AddNumberToObject(object, name, (double)value);
}

static void add_config(cJSON *root, const Findings *found) {
    const ModelConfig *config = &found->checkpoint->config;
    json_add_string(root, "family", config->family->name);
    add_size(root, "n_layers", config->n_layers);
    add_size(root, "n_embd", config->n_embd);
    add_size(root, "n_ffn", config->n_ffn);
    add_size(root, "n_heads", config->n_heads);
    add_size(root, "n_kv_heads", config->n_kv_heads);
    add_size(root, "head_dim", config->head_dim);
    add_size(root, "lookback", config->lookback);
    add_size(root, "local_layers", found->n_local_layers);
    cJSON_AddNumberToObject(root, "rope_theta", config->rope_theta);
    cJSON_AddNumberToObject(root, "rope_scale", config->rope_scale);
    cJSON_AddNumberToObject(root, "rope_llama3_factor", config->rope_llama3.factor);
    add_size(root, "rope_llama3_original_context", config->rope_llama3.original_context);
    add_size(root, "rope_long_original_context",
             checkpoint_tensor(found->checkpoint, ROPE_LONG_NAME) != NULL ? config->rope_long.original_context : 0);
    json_add_string(root, "rope_pairs", config->rope_pairing == ROPE_HALVES ? "halves" : "interleaved");
    add_size(root, "n_ctx_train", config->n_ctx_train);
    add_size(root, "n_vocab", config->n_vocab);
}

static void add_tokenizer(cJSON *root, const Findings *found) {
    const Tokenizer *tokenizer = found->tokenizer;
    if (tokenizer == NULL) {
        cJSON_AddNullToObject(root, "tokenizer");
        return;
    }
    cJSON *object = cJSON_AddObjectToObject(root, "tokenizer");
    json_add_string(object, "kind", tokenizer_kind(tokenizer));
    add_size(object, "n_tokens", tokenizer_n_tokens(tokenizer));
    cJSON_AddBoolToObject(object, "adds_bos", tokenizer_adds_bos(tokenizer));
    add_size(object, "n_ends", found->n_ends);
    cJSON_AddBoolToObject(object, "chat_template", found->checkpoint->vocabulary.chat_template.length > 0);
}

static void add_weights(cJSON *root, const Findings *found) {
    add_size(root, "weights_bytes", found->checkpoint->weights_bytes);
    add_size(root, "n_tensors", found->checkpoint->n_tensors);
    cJSON *types = cJSON_AddObjectToObject(root, "types");
    for (TensorType type = 0; type < TENSOR_TYPE_COUNT; type++)
        if (found->n_of_type[type] > 0)
            add_size(types, tensor_type_info(type)->name, found->n_of_type[type]);
}

static cJSON *findings_json(const Findings *found) {
    cJSON *root = cJSON_CreateObject();
    json_add_string(root, "model", found->path);
    add_config(root, found);
    add_tokenizer(root, found);
    add_weights(root, found);
    cJSON *warnings = cJSON_AddArrayToObject(root, "warnings");
    for (size_t i = 0; i < found->checkpoint->n_notes; i++)
        json_add_string(warnings, "", found->checkpoint->notes[i]); /* an array prints no names */
    if (found->error->code < 0)
        json_add_string(root, "error", found->error->message);
    else
        cJSON_AddNullToObject(root, "error");
    return root;
}

/* The first thing that is wrong; both are looked at. */
static void look(Session *session, const SessionOptions *options, Error *error) {
    Error weights_error = {0}, tokenizer_error = {0};
    session_open_tokenizer(session, options, &tokenizer_error);
    weights_bind(&session->model.weights, &session->model.checkpoint, options->checkpoint_path, &weights_error);
    error_keep_first(error, &weights_error);
    error_keep_first(error, &tokenizer_error);
}

/* Where stdout is the report's, it has no text. What cannot be written counts before what is wrong with the model. */
static int inspect_opened(Session *session, const SessionOptions *options, OutputFile *json, Error *error) {
    Error wrong = {0};
    look(session, options, &wrong);
    Findings found = find_all(session, options->checkpoint_path, &wrong);
    if (json->stream != stdout)
        print_all(&found, stdout);
    if (json->stream != NULL && json_commit(findings_json(&found), json, error) < 0)
        return error->code;
    return error_keep_first(error, &wrong);
}

int inspect(const SessionOptions *options, const char *json_path, Error *error) {
    Session session = {0};
    OutputFile json = {0};
    if (json_path != NULL && output_file_open(&json, json_path, error) < 0)
        return error->code;
    int status = checkpoint_open_outline(&session.model.checkpoint, options->checkpoint_path, error);
    if (status == 0)
        status = inspect_opened(&session, options, &json, error);
    session_close(&session);
    output_file_discard(&json);
    return status;
}

/* See inspect.h. */
#include "session/inspect.h"

#include "checkpoints/open.h"

static void print_rope(const ModelConfig *config, FILE *stream) {
    fprintf(stream, "RoPE          base %g", config->rope_theta);
    if (config->rope_scale != 1)
        fprintf(stream, ", positions divided by %g", config->rope_scale);
    if (config->rope_llama3.factor > 0)
        fprintf(stream, ", Llama 3.1's scaling by %g of %zu tokens", config->rope_llama3.factor,
                config->rope_llama3.original_context);
    fprintf(stream, "; pairs %s\n", config->rope_pairing == ROPE_HALVES ? "half a head apart" : "side by side");
}

static size_t layers_in(const LayerSet *set, size_t n_layers) {
    size_t n = 0;
    for (size_t i = 0; i < n_layers; i++)
        n += layer_set_has(set, i);
    return n;
}

static void print_config(const ModelConfig *config, FILE *stream) {
    fprintf(stream, "family        %s (%s)\n", config->family->name, config->family->members);
    fprintf(stream, "layers        %zu of width %zu, feed-forward %zu\n", config->n_layers, config->n_embd,
            config->n_ffn);
    fprintf(stream, "attention     %zu query heads, %zu KV heads of %zu\n", config->n_heads, config->n_kv_heads,
            config->head_dim);
    if (config->lookback > 0)
        fprintf(stream, "window        %zu tokens in %zu layers\n", config->lookback,
                layers_in(&config->local, config->n_layers));
    print_rope(config, stream);
    fprintf(stream, "context       %zu tokens\n", config->n_ctx_train);
    fprintf(stream, "vocabulary    %zu tokens\n", config->n_vocab);
}

static void print_types(const Checkpoint *checkpoint, FILE *stream) {
    fprintf(stream, "weights       %zu bytes in %zu tensors:", checkpoint->weights_bytes, checkpoint->n_tensors);
    for (TensorType type = 0; type < TENSOR_TYPE_COUNT; type++) {
        size_t n = 0;
        for (size_t i = 0; i < checkpoint->n_tensors; i++)
            n += checkpoint->tensors[i].type == type;
        if (n > 0)
            fprintf(stream, " %zu %s", n, tensor_type_info(type)->name);
    }
    fprintf(stream, "\n");
}

static void print_tokenizer(const Tokenizer *tokenizer, const Vocabulary *vocabulary, FILE *stream) {
    size_t n_ends = 0;
    for (size_t i = 0; i < tokenizer_n_tokens(tokenizer); i++)
        n_ends += tokenizer_is_end(tokenizer, (int32_t)i);
    fprintf(stream, "tokenizer     %s, %zu tokens, %s, %zu of them end a text\n",
            tokenizer_is_byte_level(tokenizer) ? "byte-level BPE" : "SentencePiece", tokenizer_n_tokens(tokenizer),
            tokenizer_adds_bos(tokenizer) ? "BOS first" : "no BOS", n_ends);
    fprintf(stream, "chat template %s\n", vocabulary->chat_template.length > 0 ? "yes" : "none");
}

/* The first thing that is wrong; both are looked at, and what is right is printed. */
static int inspect_opened(Session *session, const SessionOptions *options, FILE *stream, Error *error) {
    Checkpoint *checkpoint = &session->model.checkpoint;
    Error tokenizer_error = {0}, weights_error = {0};
    print_config(&checkpoint->config, stream);
    if (session_open_tokenizer(session, options, &tokenizer_error) < 0)
        fprintf(stream, "tokenizer     none that can be used\n");
    else
        print_tokenizer(session->tokenizer, &checkpoint->vocabulary, stream);
    print_types(checkpoint, stream);
    for (size_t i = 0; i < checkpoint->n_notes; i++)
        fprintf(stream, "warning       %s\n", checkpoint->notes[i]);
    weights_bind(&session->model.weights, checkpoint, options->checkpoint_path, &weights_error);
    error_keep_first(error, &weights_error);
    return error_keep_first(error, &tokenizer_error);
}

int inspect(const SessionOptions *options, FILE *stream, Error *error) {
    Session session = {0};
    if (checkpoint_open(&session.model.checkpoint, options->checkpoint_path, error) < 0)
        return error->code;
    int status = inspect_opened(&session, options, stream, error);
    session_close(&session);
    return status;
}

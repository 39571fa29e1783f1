/* A checkpoint's logits for given tokens, as files of numbers: for comparisons with other programs, which run by hand.
 *
 *     write_logits CHECKPOINT TOKENS LOGITS    TOKENS: int32, up to 128; LOGITS: F32, (tokens, vocabulary)
 */
#include "base/simd/detect.h"
#include "cpu/backend.h"
#include "model/model.h"

#include <stdio.h>

#define MAX_TOKENS 128

static int write_logits(Context *context, const int32_t *tokens, size_t n_tokens, FILE *output, Error *error) {
    size_t n_vocab = context->model->checkpoint.config.n_vocab;
    for (size_t done = 0; done < n_tokens;) {
        size_t n = context_batch(context, n_tokens - done);
        if (forward(context, tokens + done, n, LOGITS_ALL, error) < 0)
            return error->code;
        if (fwrite(context->logits, sizeof *context->logits, n * n_vocab, output) != n * n_vocab)
            return error_set(error, ERROR_IO, "the logits cannot be written");
        done += n;
    }
    return 0;
}

static int run(const char *checkpoint, const int32_t *tokens, size_t n_tokens, FILE *output, Error *error) {
    const KvPolicy policy = kv_policy_full();
    Backend *backend;
    Model model;
    Context context;
    if (cpu_backend_open(&backend, cpu_best_simd_level(), 1, error) < 0 ||
        model_open(&model, checkpoint, backend, error) < 0)
        return error->code;
    if (context_open(&context, &model, &policy, MAX_TOKENS, 0, error) == 0) {
        write_logits(&context, tokens, n_tokens, output, error);
        context_close(&context);
    }
    model_close(&model);
    return error->code;
}

int main(int argc, char **argv) {
    int32_t tokens[MAX_TOKENS];
    Error error = {0};
    FILE *input = argc == 4 ? fopen(argv[2], "rb") : NULL, *output = argc == 4 ? fopen(argv[3], "wb") : NULL;
    if (input == NULL || output == NULL) {
        fprintf(stderr, "usage: write_logits CHECKPOINT TOKENS LOGITS\n");
        return 2;
    }
    size_t n_tokens = fread(tokens, sizeof *tokens, MAX_TOKENS, input);
    fclose(input);
    run(argv[1], tokens, n_tokens, output, &error);
    if (fclose(output) != 0 && error.code == 0)
        error_set(&error, ERROR_IO, "the logits cannot be written");
    if (error.code < 0)
        fprintf(stderr, "write_logits: %s\n", error.message);
    return error.code < 0;
}

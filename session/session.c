/* Opening what a command line names; see session.h. */
#include "session/session.h"

#include "base/file_identity.h"
#include "base/simd/detect.h"
#include "checkpoints/open.h"
#include "session/devices.h"
#include "tokenizer/vocabulary_file.h"

#include <stdio.h>

static int open_backend(Backend **out, const SessionOptions *options, const ModelConfig *config, Error *error) {
    SimdLevel level;
    if (cpu_parse_simd_level(options->simd, &level, error) < 0 ||
        device_open(options->device, config, out, level, (int)options->threads, error) < 0)
        return error->code;
    if ((*out)->passed_over.code < 0) /* now, not behind a run that takes its time for it */
        fprintf(stderr, "note: --device auto takes the %s: %s\n", (*out)->device, (*out)->passed_over.message);
    return 0;
}

/* A tokenizer of its own may bring a chat template, for a checkpoint that has none. */
static int open_tokenizer_file(Session *session, const char *path, Error *error) {
    Checkpoint *checkpoint = &session->model.checkpoint;
    if (tokenizer_open_file(&session->tokenizer, path, checkpoint->config.n_vocab, error) < 0)
        return error->code;
    if (checkpoint->vocabulary.chat_template.length == 0)
        checkpoint->vocabulary.chat_template = tokenizer_file(session->tokenizer)->vocabulary.chat_template;
    return 0;
}

/* llama2.c calls a tokenizer "tokenizer.model", or "tok512.model" by its vocabulary's size. */
int session_open_tokenizer(Session *session, const SessionOptions *options, Error *error) {
    const Checkpoint *checkpoint = &session->model.checkpoint;
    char beside[4096], sized[32];
    const char *const names[] = {"tokenizer.model", sized, "tokenizer.json"};
    snprintf(sized, sizeof sized, "tok%zu.model", checkpoint->config.n_vocab);
    if (options->tokenizer_path != NULL)
        return open_tokenizer_file(session, options->tokenizer_path, error);
    if (checkpoint->vocabulary.kind != VOCABULARY_NONE)
        return tokenizer_open_vocabulary(&session->tokenizer, &checkpoint->vocabulary, error);
    if (checkpoint->tokenizer_error.code < 0) {
        *error = checkpoint->tokenizer_error;
        return error->code;
    }
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (path_beside(options->checkpoint_path, names[i], beside, sizeof beside))
            return open_tokenizer_file(session, beside, error);
    return error_set(error, ERROR_ARGUMENT,
                     "%s carries no tokenizer, and none of tokenizer.model, %s and tokenizer.json is beside it; "
                     "name one with --tokenizer_path",
                     options->checkpoint_path, sized);
}

int session_n_ctx(const SessionOptions *options, const ModelConfig *config, size_t *out, Error *error) {
    if (options->n_ctx > config->n_ctx_train)
        return error_set(error, ERROR_ARGUMENT, "--n_ctx %zu: the model was trained for %zu tokens; use at most that",
                         options->n_ctx, config->n_ctx_train);
    *out = options->n_ctx > 0 ? options->n_ctx : config->n_ctx_train;
    return 0;
}

static int check_options(const Session *session, const SessionOptions *options, Error *error) {
    const ModelConfig *config = &session->model.checkpoint.config;
    if (tokenizer_n_tokens(session->tokenizer) != config->n_vocab)
        return error_set(error, ERROR_ARGUMENT,
                         "the tokenizer has a vocabulary of %zu tokens, the model of %zu; use "
                         "the model's own with --tokenizer_path",
                         tokenizer_n_tokens(session->tokenizer), config->n_vocab);
    size_t n_ctx = 0;
    return session_n_ctx(options, config, &n_ctx, error);
}

static void print_notes(const Session *session) {
    const Checkpoint *checkpoint = &session->model.checkpoint;
    const VocabularyFile *file = tokenizer_file(session->tokenizer);
    for (size_t i = 0; i < checkpoint->n_notes; i++)
        fprintf(stderr, "warning: %s\n", checkpoint->notes[i]);
    for (size_t i = 0; file != NULL && i < file->n_notes; i++)
        fprintf(stderr, "warning: %s\n", file->notes[i]);
}

int session_open(Session *session, const SessionOptions *options, Error *error) {
    *session = (Session){0};
    if (options->checkpoint_path == NULL)
        return error_set(error, ERROR_USAGE, "--checkpoint_path is required; checkpoints/fetch.sh fetches a model");
    Backend *backend;
    Checkpoint *checkpoint = &session->model.checkpoint;
    if (checkpoint_open(checkpoint, options->checkpoint_path, error) < 0)
        return error->code;
    if (open_backend(&backend, options, &checkpoint->config, error) < 0) {
        checkpoint_close(checkpoint);
        return error->code;
    }
    if (model_open_checkpoint(&session->model, options->checkpoint_path, backend, error) < 0)
        return error->code;
    int status = session_open_tokenizer(session, options, error);
    if (status == 0)
        status = check_options(session, options, error);
    if (status == 0)
        print_notes(session);
    if (status < 0)
        session_close(session);
    return status;
}

int session_set_policy(Session *session, const SessionOptions *options, const KvPolicy *policy, Error *error) {
    size_t n_ctx = 0;
    if (session_n_ctx(options, &session->model.checkpoint.config, &n_ctx, error) < 0)
        return error->code;
    context_close(&session->context);
    return context_open(&session->context, &session->model, policy, n_ctx, 0, error);
}

void session_close(Session *session) {
    context_close(&session->context);
    tokenizer_free(session->tokenizer);
    model_close(&session->model);
    *session = (Session){0};
}

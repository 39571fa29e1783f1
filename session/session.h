/* What every program opens from its command line: model, tokenizer and a context with a cache policy.
 *
 *     static SessionOptions options = SESSION_DEFAULTS;
 *     const Option table[] = {SESSION_OPTIONS(options), …, {0}};
 *     Session session;
 *     KvPolicy policy;
 *     if (session_open(&session, &options, &error) < 0 || policy_from_options(&options.kv, &policy, &error) < 0 ||
 *         session_set_policy(&session, &options, &policy, &error) < 0) …
 *     session_close(&session);
 */
#ifndef STOWKV_SESSION_H
#define STOWKV_SESSION_H

#include "kvcache/policy_options.h"
#include "model/model.h"
#include "tokenizer/tokenizer.h"

typedef struct SessionOptions {
    const char *checkpoint_path, *tokenizer_path, *device, *simd;
    size_t n_ctx;   /* 0: the model's */
    size_t threads; /* 0: physical cores */
    PolicyOptions kv;
} SessionOptions;

#define SESSION_DEFAULTS {.device = "auto", .simd = "auto", .kv = POLICY_DEFAULTS}

#define SESSION_OPTIONS(o)                                                                                             \
    {"Model", OPTION_HEADING, NULL, NULL, NULL, 0, 0},                                                                 \
    {"checkpoint_path", OPTION_INPUT, &(o).checkpoint_path, "PATH", "a model: GGUF, a Hugging Face folder, .pth, or llama2.c .bin; required", 0, 0},\
    {"tokenizer_path", OPTION_INPUT, &(o).tokenizer_path, "PATH",                                                     \
     "tokenizer.json, SentencePiece's or tiktoken's .model; default: in the checkpoint or beside it", 0, 0},                                         \
    {"device", OPTION_STRING, &(o).device, "NAME",                                                                     \
     "cpu, cuda, or auto: a GPU that works, else the CPU; default auto", 0, 0},                                        \
    {"n_ctx", OPTION_SIZE, &(o).n_ctx, "N", "capacity of the cache in tokens; default: the model's", 1, 1 << 28},      \
    {"threads", OPTION_SIZE, &(o).threads, "N", "CPU threads; default: physical cores", 1, 1024},                      \
    {"simd", OPTION_STRING, &(o).simd, "NAME", "auto, scalar, avx2, avx512 or neon; default auto", 0, 0},                    \
    POLICY_OPTIONS((o).kv)

typedef struct Session {
    Model model;
    Tokenizer *tokenizer;
    Context context;
} Session;

/* The context that the options ask for, checked against what the model was trained for. */
int session_n_ctx(const SessionOptions *options, const ModelConfig *config, size_t *out, Error *error);

/* Opens model and tokenizer; the context waits for session_set_policy(). */
int session_open(Session *session, const SessionOptions *options, Error *error);

/* The tokenizer alone, for the checkpoint that is open in session->model. */
int session_open_tokenizer(Session *session, const SessionOptions *options, Error *error);

/* Opens the context with this policy, in place of the one that is open, if any. */
int session_set_policy(Session *session, const SessionOptions *options, const KvPolicy *policy, Error *error);
void session_close(Session *session); /* closing twice is fine */

#endif

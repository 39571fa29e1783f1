/* See quality.h. */
#include "eval/profile/quality.h"

#include "base/checked.h"
#include "eval/perplexity/report.h"
#include "eval/rouge/run.h"
#include "session/run_report.h"

#include <stdlib.h>

#define QUALITY_LEAST 32 /* tokens of a window */

/* ---- A text of the model's own */

typedef struct OwnText {
    Generation run;
    Progress progress;
} OwnText;

static int show_own_text(void *user, StringView text, Error *error) {
    const OwnText *own = user;
    (void)text, (void)error;
    progress_show(&own->progress, own->run.generated.count, "");
    return 0;
}

static int append_all(TokenList *to, const TokenList *from, Error *error) {
    int status = 0;
    for (size_t i = 0; i < from->count && status == 0; i++)
        status = token_list_append(to, from->ids[i], error);
    return status;
}

static int say_own_text(const QualityTask *task, OwnText *own, TokenList *tokens, Error *error) {
    size_t n_prompt = task->prompt->count, n_least = n_prompt + QUALITY_OWN_TOKENS / 4;
    size_t n_new = at_least(QUALITY_OWN_TOKENS, n_least) - n_prompt;
    GenerationOptions options = {n_new, true, &(StringList){.count = 0}};
    own->progress = progress_begin("quality, the model's own text", n_new, "tokens");
    int status = generation_read(&own->run, task->prompt->ids, n_prompt, error);
    if (status == 0)
        status = generation_continue(&own->run, &options, error);
    progress_end(&own->progress);
    if (status == 0 && own->run.end == END_INTERRUPTED)
        status = error_set(error, ERROR_INTERRUPTED, "interrupted");
    if (status == 0)
        status = append_all(tokens, &own->run.prompt, error);
    return status < 0 ? status : append_all(tokens, &own->run.generated, error);
}

/* At temperature 1, as its most likely text soon repeats itself. */
static int make_own_text(const QualityTask *task, TokenList *tokens, Error *error) {
    const Model *model = &task->session->model;
    SamplerOptions as_it_is = {.temperature = 1, .top_p = 1, .seed = QUALITY_SEED, .penalties = {.repetition = 1}};
    Sampler sampler;
    if (session_set_policy(task->session, task->options, &task->policies->items[0], error) < 0 ||
        sampler_open(&sampler, &as_it_is, model->checkpoint.config.n_vocab, model->backend->level, error) < 0)
        return error->code;
    OwnText own = {.run = {.session = task->session,
                           .sampler = &sampler,
                           .user = &own,
                           .on_text = show_own_text,
                           .interrupted = task->interrupted}};
    int status = say_own_text(task, &own, tokens, error);
    generation_free(&own.run);
    sampler_close(&sampler);
    return status;
}

/* ---- Perplexity and divergence */

static PplSettings settings_for(size_t n_tokens, size_t n_ctx) {
    size_t context = at_most(at_most(QUALITY_CONTEXT, n_ctx), n_tokens / 2);
    return (PplSettings){QUALITY_DEFINITION, context, context, QUALITY_TOKENS / at_least(context, 1)};
}

static void add_modes(const Evaluation *e, const PplSetup *setup, cJSON *modes) {
    for (size_t i = 0; i < e->n_modes && e->n_windows > 0; i++)
        cJSON_AddItemToArray(modes, perplexity_mode_json(e, setup, &e->modes[i]));
}

static int measure_perplexity(const QualityTask *task, const char *name, const TokenList *text, size_t n_ctx,
                              cJSON *modes, Error *error) {
    Session *session = task->session;
    PplSetup setup = {.model_path = task->options->checkpoint_path, .settings = settings_for(text->count, n_ctx)};
    Evaluation e = {.model = &session->model,
                    .divergence = task->policies->count > 1,
                    .what = "quality, perplexity",
                    .longer = "a longer text (--profile_text FILE), with a context for it (--n_ctx),",
                    .interrupted = task->interrupted};
    if (ppl_set_up(&setup, name, text, session->tokenizer, &e, error) < 0)
        return error->code;
    e.n_ctx = at_most(n_ctx, 2 * QUALITY_CONTEXT); /* a policy's window may be longer than those of the text */
    if (evaluation_open(&e, task->policies->items, task->policies->count, error) < 0)
        return error->code;
    int status = evaluation_run(&e, error);
    add_modes(&e, &setup, modes);
    evaluation_close(&e);
    return status;
}

/* ---- ROUGE-L */

/* Pieces from the text's start, one behind the other; as in a window of perplexity BOS is the first token. */
static int cut_pieces(const TokenList *text, size_t n_ctx, const Tokenizer *tokenizer, RougeSamples *pieces,
                      Error *error) {
    size_t length = at_most(at_least(text->count / QUALITY_PIECES, QUALITY_PIECE_MIN), QUALITY_PIECE_MAX);
    length = at_most(at_most(length, n_ctx - n_ctx / 4), text->count);
    size_t n = at_most(QUALITY_PIECES, text->count / length);
    pieces->items = calloc(n, sizeof *pieces->items);
    if (pieces->items == NULL)
        return error_memory(error, "pieces of a text", n * sizeof *pieces->items);
    int status = 0;
    for (; pieces->count < n && status == 0; pieces->count++) {
        RougeSample *piece = &pieces->items[pieces->count];
        TokenList part = {text->ids + pieces->count * length, length};
        piece->line = pieces->count + 1;
        status = append_all(&piece->prompt, &part, error);
        if (status == 0 && tokenizer_adds_bos(tokenizer))
            piece->prompt.ids[0] = tokenizer_bos(tokenizer);
    }
    return status;
}

static void show_piece(const RougeWork *work, const char *mode) {
    progress_show(work->user, work->n_done, mode);
}

/* What the full cache writes is what the others are compared with. */
static int write_references(RougeWork *work, RougeSamples *pieces, const KvPolicy *full, char **texts, Error *error) {
    RougeRun run;
    work->texts = texts;
    int status = rouge_run(work, full, &run, error);
    rouge_run_free(&run);
    for (size_t i = 0; i < pieces->count && status == 0; i++)
        if ((pieces->items[i].references = cJSON_CreateString(texts[i])) == NULL)
            status = error_memory(error, "a text", strlen(texts[i]));
    return status;
}

static cJSON *rouge_json(const RougeWork *work, const RougeRun *run, char *const *references) {
    size_t n = work->samples->count, n_same = 0;
    double *f = calloc(n, sizeof *f);
    cJSON *out = cJSON_CreateObject();
    for (size_t i = 0; i < n && f != NULL; i++) {
        f[i] = run->scores[i].f;
        n_same += strcmp(references[i], work->texts[i]) == 0;
    }
    cJSON_AddStringToObject(out, "variant", rouge_variant_name(work->rouge.variant));
    cJSON_AddNumberToObject(out, "n", (double)n);
    cJSON_AddNumberToObject(out, "n_prompt", (double)work->samples->items[0].prompt.count);
    cJSON_AddNumberToObject(out, "max_new_tokens", (double)work->max_new_tokens);
    cJSON_AddNumberToObject(out, "f", run->mean.f);
    if (f != NULL)
        cJSON_AddNumberToObject(out, "f_stderr", mean_error(f, n).error);
    cJSON_AddNumberToObject(out, "n_same", (double)n_same);
    cJSON_AddNumberToObject(out, "n_unaffected", (double)run->n_unaffected);
    cJSON_AddNumberToObject(out, "n_without_words", (double)run->blank.count);
    free(f);
    return out;
}

static void free_texts(char **texts, size_t n) {
    for (size_t i = 0; i < n; i++) {
        free(texts[i]);
        texts[i] = NULL;
    }
}

/* texts: (2, pieces) the full cache's, and those of the policy at hand. */
static int compare_texts(RougeWork *work, RougeSamples *pieces, const QualityTask *task, char **texts, cJSON *modes,
                         Error *error) {
    const KvPolicy *policies = task->policies->items;
    int status = write_references(work, pieces, &policies[0], texts, error);
    work->texts = texts + pieces->count;
    for (size_t i = 1; i < task->policies->count && status == 0; i++) {
        RougeRun run;
        status = rouge_run(work, &policies[i], &run, error);
        if (status == 0)
            cJSON_AddItemToObject(cJSON_GetArrayItem(modes, (int)i), "rouge", rouge_json(work, &run, texts));
        free_texts(work->texts, pieces->count);
        rouge_run_free(&run);
    }
    return status;
}

static int run_rouge(const QualityTask *task, RougeSamples *pieces, size_t n_ctx, cJSON *modes, Error *error) {
    size_t n = pieces->count, n_texts = n * task->policies->count;
    Progress progress = progress_begin("quality, ROUGE-L", n_texts, NULL);
    RougeWork work = {.session = task->session,
                      .options = task->options,
                      .samples = pieces,
                      .rouge = {ROUGE_L, false},
                      .n_ctx = n_ctx,
                      .max_new_tokens = at_most(QUALITY_PIECE_ANSWER, n_ctx - pieces->items[0].prompt.count),
                      .interrupted = task->interrupted,
                      .on_text = show_piece,
                      .user = &progress};
    for (size_t i = 1; i < task->policies->count; i++)
        if (rouge_check_policy(&work, &task->policies->items[i], error) < 0)
            return error->code;
    char **texts = calloc(2 * n, sizeof *texts);
    if (texts == NULL)
        return error_memory(error, "texts", 2 * n * sizeof *texts);
    int status = compare_texts(&work, pieces, task, texts, modes, error);
    progress_end(&progress);
    free_texts(texts, 2 * n);
    free(texts);
    return status;
}

static int measure_rouge(const QualityTask *task, const TokenList *text, size_t n_ctx, cJSON *modes, Error *error) {
    RougeSamples pieces = {0};
    int status = cut_pieces(text, n_ctx, task->session->tokenizer, &pieces, error);
    if (status == 0)
        status = run_rouge(task, &pieces, n_ctx, modes, error);
    rouge_samples_free(&pieces);
    return status;
}

/* ---- All of it */

static int measure(const QualityTask *task, const char *name, const TokenList *text, cJSON *modes, Error *error) {
    size_t n_ctx;
    if (session_n_ctx(task->options, &task->session->model.checkpoint.config, &n_ctx, error) < 0)
        return error->code;
    if (at_most(text->count / 2, n_ctx) < QUALITY_LEAST)
        return error_set(error, ERROR_ARGUMENT,
                         "%s: %zu tokens in a context of %zu are too few to tell quality; use a longer text "
                         "(--profile_text FILE), with a context for it (--n_ctx)",
                         name, text->count, n_ctx);
    context_close(&task->session->context); /* an evaluation has its own */
    if (measure_perplexity(task, name, text, n_ctx, modes, error) < 0)
        return error->code;
    return task->policies->count == 1 ? 0 : measure_rouge(task, text, n_ctx, modes, error);
}

int quality_measure(const QualityTask *task, cJSON **out, Error *error) {
    bool own = task->text->tokens.count == 0;
    const char *name = own ? "the prompt and what the model says behind it" : task->text->name;
    TokenList said = {0};
    cJSON *root = cJSON_CreateObject();
    cJSON_AddStringToObject(root, "text", name);
    cJSON_AddBoolToObject(root, "own", own);
    if (own)
        seed_json(root, QUALITY_SEED);
    cJSON *modes = cJSON_AddArrayToObject(root, "modes");
    int status = own ? make_own_text(task, &said, error) : 0;
    if (status == 0)
        status = measure(task, name, own ? &said : &task->text->tokens, modes, error);
    token_list_free(&said);
    if (cJSON_GetArraySize(modes) == 0) {
        cJSON_Delete(root);
        root = NULL;
    }
    *out = root;
    return status;
}

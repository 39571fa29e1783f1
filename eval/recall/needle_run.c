/* See needle_run.h. */
#include "eval/recall/needle_run.h"

#include "eval/proof.h"
#include "kvcache/policy_text.h"

#include <stdlib.h>

static NeedlePoint *point_at(const NeedleTask *task, const NeedleMode *mode, size_t length_index, size_t position) {
    return &mode->points[length_index * task->frame.n_positions + position];
}

const NeedlePoint *needle_point(const NeedleTask *task, const NeedleMode *mode, size_t length_index, size_t position) {
    return point_at(task, mode, length_index, position);
}

static int open_context(NeedleTask *task, const KvPolicy *policy, Error *error) {
    SessionOptions options = *task->options;
    options.n_ctx = task->n_ctx;
    return session_set_policy(task->session, &options, policy, error);
}

/* Tokens by which prompts without a haystack differ, at most: a key of up to 15 bytes three times, and a number. */
#define KEY_TOKENS 64

/* Whether every needle's question fits its length. Where one fits by far, all do. */
static int check_lengths(const NeedleTask *task, TokenList *prompt, Error *error) {
    size_t n_needles = task->frame.n_positions * task->n_samples;
    for (size_t i = 0; i < task->lengths.count; i++)
        for (size_t n = 0; n < n_needles; n++) {
            size_t length = task->lengths.items[i];
            Needle needle = needle_draw(task->seed, length, n % task->frame.n_positions, n / task->frame.n_positions);
            if (task->interrupted != NULL && *task->interrupted)
                return error_set(error, ERROR_INTERRUPTED, "interrupted");
            if (needle_check(&task->frame, &needle, length, prompt, error) < 0)
                return error->code;
            if (prompt->count + task->frame.max_new_tokens + KEY_TOKENS <= length)
                break;
        }
    return 0;
}

static int check_policy(NeedleTask *task, const KvPolicy *policy, TokenList *prompt, Error *error) {
    size_t longest = task->lengths.items[task->lengths.count - 1];
    Needle needle = needle_draw(task->seed, longest, 0, 0);
    if (open_context(task, policy, error) < 0 ||
        needle_prompt(&task->frame, &needle, longest, 0, prompt, NULL, error) < 0)
        return error->code;
    if (kv_policy_is_full(policy) || policy_changes_query(&task->session->context.cache, prompt->count))
        return 0;
    char text[KV_POLICY_TEXT];
    kv_policy_print(policy, text, sizeof text);
    return error_set(error, ERROR_ARGUMENT,
                     "policy %.160s: quantizes and drops nothing in a prompt of %zu tokens, so its figure would be the "
                     "full cache's; use longer --lengths or a smaller window",
                     text, prompt->count);
}

int needle_check_task(NeedleTask *task, const PolicyList *policies, Error *error) {
    TokenList prompt = {0};
    int status = check_lengths(task, &prompt, error);
    for (size_t i = 0; i < policies->count && status == 0; i++)
        status = check_policy(task, &policies->items[i], &prompt, error);
    token_list_free(&prompt);
    return status;
}

/* Reads the prompt into the empty context; *n_restored of its tokens were there already. */
static int read_prompt(const NeedleTask *task, Generation *run, const NeedlePrompt *prompt, size_t *n_restored,
                       Error *error) {
    Context *context = &task->session->context;
    const int32_t *ids = prompt->tokens.ids;
    size_t n_shared = prompt->n_shared - prompt->n_shared % context->n_batch; /* batches decide a device's last bits */
    *n_restored = 0;
    if (task->shared == NULL || n_shared == 0)
        return generation_read(run, ids, prompt->tokens.count, error);
    *n_restored = prefix_reuse_restore(task->shared, context, ids, n_shared + 1); /* one more, as it has no logits */
    run->reuse = task->shared;
    int status = generation_read(run, ids + *n_restored, n_shared - *n_restored, error);
    run->reuse = NULL;
    return status < 0 ? status : generation_read(run, ids + n_shared, prompt->tokens.count - n_shared, error);
}

int needle_answer(const NeedleTask *task, Sampler *sampler, const NeedlePrompt *prompt, const char *number, bool *right,
                  Error *error) {
    Generation run = {.session = task->session, .sampler = sampler, .interrupted = task->interrupted};
    StringList stops = {{number}, 1};
    GenerationOptions options = {task->frame.max_new_tokens, false, &stops};
    size_t n_restored;
    context_clear(&task->session->context);
    int status = read_prompt(task, &run, prompt, &n_restored, error);
    if (status == 0)
        status = generation_continue(&run, &options, error);
    if (status == 0 && run.end == END_INTERRUPTED)
        status = error_set(error, ERROR_INTERRUPTED, "interrupted");
    if (status == 0)
        status = proof_check_behind(&task->session->context.cache, n_restored, error);
    *right = run.end == END_STOP_STRING;
    generation_free(&run);
    return status;
}

/* The needle under one policy. */
static int run_mode(NeedleTask *task, Sampler *sampler, const NeedlePrompt *prompt, const Needle *needle,
                    NeedlePoint *point, NeedleMode *mode, Error *error) {
    const KvCache *cache = &task->session->context.cache;
    KvLedger ledger;
    bool right = false;
    if (open_context(task, &mode->policy, error) < 0 ||
        (task->shared != NULL && prefix_reuse_attach(task->shared, task->session, error) < 0) ||
        needle_answer(task, sampler, prompt, needle->number, &right, error) < 0)
        return error->code;
    if (mode->kernels == NULL)
        mode->kernels = kernels_json(&task->session->model, cache);
    kv_ledger(cache, &ledger);
    kv_ledger_add(&mode->ledger, &ledger);
    point->n++;
    point->right += right;
    return 0;
}

/* Replaces the prompt by the needle's. What it shares is what it has in common with the next sample's. */
static int make_prompt(const NeedleTask *task, size_t length, size_t position, size_t sample, NeedlePrompt *prompt,
                       Error *error) {
    Needle needle = needle_draw(task->seed, length, position, sample);
    Needle other = needle_draw(task->seed, length, position, sample + 1);
    TokenList others = {0};
    int status = needle_prompt(&task->frame, &needle, length, position, &prompt->tokens, NULL, error);
    if (status == 0)
        status = needle_prompt(&task->frame, &other, length, position, &others, NULL, error);
    prompt->n_shared = 0;
    if (status == 0)
        while (prompt->n_shared + 1 < prompt->tokens.count && prompt->n_shared < others.count &&
               prompt->tokens.ids[prompt->n_shared] == others.ids[prompt->n_shared])
            prompt->n_shared++;
    token_list_free(&others);
    return status;
}

/* The sample's needle at one place under all policies. */
static int run_needle(NeedleTask *task, Sampler *sampler, size_t length_index, size_t position, size_t sample,
                      NeedleMode *modes, size_t n_modes, Error *error) {
    size_t length = task->lengths.items[length_index];
    Needle needle = needle_draw(task->seed, length, position, sample);
    NeedlePrompt prompt = {0};
    int status = make_prompt(task, length, position, sample, &prompt, error);
    for (size_t i = 0; i < n_modes && status == 0; i++) {
        NeedlePoint *point = point_at(task, &modes[i], length_index, position);
        status = run_mode(task, sampler, &prompt, &needle, point, &modes[i], error);
        if (status < 0)
            break;
        task->n_done += length;
        if (task->on_answer != NULL)
            task->on_answer(task);
    }
    token_list_free(&prompt.tokens);
    return status;
}

static int run_sample(NeedleTask *task, Sampler *sampler, size_t sample, NeedleMode *modes, size_t n_modes,
                      Error *error) {
    for (size_t length = 0; length < task->lengths.count; length++)
        for (size_t position = 0; position < task->frame.n_positions; position++)
            if (run_needle(task, sampler, length, position, sample, modes, n_modes, error) < 0)
                return error->code;
    return 0;
}

/* Sample by sample and needle by needle, so that what is there after an interruption was asked of all policies alike.
 * For that a context is opened for each answer: milliseconds beside the seconds of reading a prompt. */
int needle_run(NeedleTask *task, NeedleMode *modes, size_t n_modes, Error *error) {
    SamplerOptions greedy = {.temperature = 0, .top_p = 1};
    const Model *model = &task->session->model;
    Sampler sampler;
    if (sampler_open(&sampler, &greedy, model->checkpoint.config.n_vocab, model->backend->level, error) < 0)
        return error->code;
    int status = 0;
    for (size_t sample = 0; sample < task->n_samples && status == 0; sample++)
        status = run_sample(task, &sampler, sample, modes, n_modes, error);
    sampler_close(&sampler);
    return status;
}

int needle_mode_open(const NeedleTask *task, const KvPolicy *policy, NeedleMode *mode, Error *error) {
    size_t n_points = task->lengths.count * task->frame.n_positions;
    *mode = (NeedleMode){.policy = *policy, .points = calloc(n_points, sizeof *mode->points)};
    return mode->points != NULL ? 0 : error_memory(error, "answers", n_points * sizeof *mode->points);
}

void needle_mode_free(NeedleMode *mode) {
    free(mode->points);
    cJSON_Delete(mode->kernels);
    *mode = (NeedleMode){0};
}

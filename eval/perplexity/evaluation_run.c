/* The loop of an evaluation; see evaluation.h. Batches go through all policies one after the other, so that the base's
 * distributions are needed for one batch at a time. */
#include "base/checked.h"
#include "base/machine/clock.h"
#include "eval/perplexity/evaluation.h"
#include "eval/proof.h"

#include <math.h>
#include <stdio.h>

/* A batch of a window. Its tokens from `first_row` on predict targets that are scored. */
typedef struct Batch {
    size_t position, n_tokens; /* in the window */
    size_t first_row, n_rows;
    const int32_t *targets; /* (n_rows) */
    size_t at;              /* of the first target in the arrays of all scored tokens */
} Batch;

static Batch make_batch(const Evaluation *e, const PplWindow *window, size_t position, size_t n_before) {
    size_t n_left = window->end - window->begin - position;
    Batch b = {.position = position, .n_tokens = context_batch(&e->modes[0].context, n_left)};
    size_t first = window->begin + position, target = first + 1; /* that the batch's first token predicts */
    size_t end = at_most(first + b.n_tokens + 1, window->end);
    size_t begin = at_least(target, window->first_target);
    b.first_row = begin - target;
    b.n_rows = begin < end ? end - begin : 0;
    b.targets = e->tokens + begin;
    b.at = n_before + begin - window->first_target;
    for (size_t i = 0; i < b.n_tokens; i++)
        e->batch[i] = e->tokens[first + i];
    if (position == 0 && e->bos >= 0)
        e->batch[0] = e->bos;
    return b;
}

static bool is_interrupted(const Evaluation *e) {
    return e->interrupted != NULL && *e->interrupted;
}

/* Lets one policy read the batch; returns its logits at the scored positions. */
static int read_batch(Evaluation *e, EvalMode *mode, const Batch *b, const float **logits, Error *error) {
    if (is_interrupted(e))
        return error_set(error, ERROR_INTERRUPTED, "interrupted");
    double begin = clock_seconds();
    LogitsWanted wanted = b->n_rows > 0 ? LOGITS_ALL : LOGITS_NONE;
    int status = forward(&mode->context, e->batch, b->n_tokens, wanted, error);
    mode->seconds += clock_seconds() - begin;
    *logits = mode->context.logits + b->first_row * e->model->checkpoint.config.n_vocab;
    return status;
}

static void score(Evaluation *e, EvalMode *mode, const Batch *b, const float *logits) {
    const BaseRows *base = mode->kld != NULL ? &e->base : NULL;
    score_tokens(e->pool, logits, b->targets, b->n_rows, e->model->checkpoint.config.n_vocab, base, e->scores);
    for (size_t i = 0; i < b->n_rows; i++) {
        const TokenScore *s = &e->scores[i];
        mode->nll[b->at + i] = s->nll;
        mode->right[b->at + i] = s->right;
        if (base == NULL)
            continue;
        mode->kld[b->at + i] = s->kld;
        mode->delta_p[b->at + i] = s->delta_p;
        mode->n_same_top_window += s->same_top;
    }
}

/* The base's distributions, from its own forward pass or from a file. The passes of the others follow. */
static int prepare_base(Evaluation *e, const Batch *b, const float *logits, Error *error) {
    if (e->load_base != NULL) {
        if (base_logits_read(&e->base_file, e->file_logits, e->base_nll + b->at, b->n_rows, error) < 0)
            return error->code;
        logits = e->file_logits;
    }
    base_rows_set(&e->base, e->pool, logits, b->n_rows);
    if (e->save_base != NULL)
        return base_logits_write(&e->base_file, logits, e->base_nll + b->at, b->n_rows, error);
    return 0;
}

static int run_batch(Evaluation *e, const Batch *b, Error *error) {
    if (e->load_base != NULL && prepare_base(e, b, NULL, error) < 0)
        return error->code;
    for (size_t i = 0; i < e->n_modes; i++) {
        EvalMode *mode = &e->modes[i];
        const float *logits = NULL;
        if (read_batch(e, mode, b, &logits, error) < 0)
            return error->code;
        score(e, mode, b, logits);
        bool is_base = e->divergence && mode->kld == NULL;
        if (is_base && prepare_base(e, b, logits, error) < 0)
            return error->code;
    }
    return 0;
}

static void begin_window(Evaluation *e, const PplWindow *window) {
    for (size_t i = 0; i < e->n_modes; i++) {
        EvalMode *mode = &e->modes[i];
        context_clear(&mode->context);
        mode->n_same_top_window = 0;
        if (mode->attribution != NULL)
            attribution_begin(mode->attribution, window->first_target - 1 - window->begin);
    }
}

static int end_window(Evaluation *e, const PplWindow *window, Error *error) {
    for (size_t i = 0; i < e->n_modes; i++) {
        EvalMode *mode = &e->modes[i];
        KvLedger ledger;
        if (proof_check(&mode->context.cache, window->end - window->begin, error) < 0)
            return error->code;
        kv_ledger(&mode->context.cache, &ledger);
        kv_ledger_add(&mode->ledger, &ledger);
        mode->n_same_top += mode->n_same_top_window;
        if (mode->attribution != NULL && attribution_end(mode->attribution, error) < 0)
            return error->code;
    }
    e->n_windows++;
    e->n_scored += ppl_window_scored(window);
    return 0;
}

static void show_progress(const Evaluation *e, size_t n_tokens) {
    char note[64] = "";
    if (e->n_windows > 0 && e->what == NULL)
        snprintf(note, sizeof note, "PPL %.4f", evaluation_ppl(e, e->modes[0].nll));
    progress_show(&e->progress, n_tokens, note);
}

int evaluation_run(Evaluation *e, Error *error) {
    int status = 0;
    size_t n_tokens = 0;
    e->progress = progress_begin(e->what != NULL ? e->what : "perplexity", e->windows.n_tokens, "tokens");
    for (size_t w = 0; w < e->windows.count && status == 0; w++) {
        const PplWindow *window = &e->windows.items[w];
        size_t length = window->end - window->begin;
        begin_window(e, window);
        for (size_t position = 0; position < length && status == 0;) {
            Batch batch = make_batch(e, window, position, e->n_scored);
            show_progress(e, n_tokens);
            status = run_batch(e, &batch, error);
            position += batch.n_tokens;
            n_tokens += batch.n_tokens;
        }
        if (status == 0)
            status = end_window(e, window, error);
    }
    progress_end(&e->progress);
    if (status == 0 && e->save_base != NULL)
        return base_logits_commit(&e->base_file, error);
    return status;
}

/* One text through one model with several caches: for each policy the negative log-likelihood of every scored token,
 * and, against a base, the divergence of its whole distribution. The base is the full cache in the same run, or its
 * distributions from a file.
 *
 *     Evaluation e = {.model = &model, .tokens = tokens.ids, .windows = windows, .context = 512, …};
 *     if (evaluation_open(&e, policies.items, policies.count, &error) < 0) …
 *     if (evaluation_run(&e, &error) < 0) …
 *     double ppl = evaluation_ppl(&e, &e.modes[0]);
 *     evaluation_close(&e);
 *
 * Each policy's cache is the one that generation uses: a batch goes through forward(), and attention reads what the
 * view shows each query. Its counters are compared with the plan's arithmetic, to the byte. */
#ifndef STOWKV_EVALUATION_H
#define STOWKV_EVALUATION_H

#include "eval/perplexity/attribution.h"
#include "eval/perplexity/base_logits.h"
#include "eval/perplexity/token_score.h"
#include "eval/perplexity/windows.h"
#include "eval/progress.h"
#include "eval/statistics.h"
#include "kvcache/ledger.h"

#include <signal.h>

/* One policy, and what it came to. */
typedef struct EvalMode {
    KvPolicy policy;
    Context context;
    double *nll;                          /* (n_scored) */
    bool *right;                          /* (n_scored) the target was the most likely token */
    double *kld, *delta_p;                /* (n_scored) against the base; NULL for the base itself, and without one */
    size_t n_same_top, n_same_top_window; /* of all windows that are through, and of the one under way */
    KvLedger ledger;                      /* at the end of a window; counters summed over windows */
    double seconds;                       /* in forward() */
    Attribution *attribution;             /* NULL without Evaluation.attribution */
} EvalMode;

typedef struct Evaluation {
    /* Given. */
    Model *model;
    const int32_t *tokens; /* of the whole text */
    int32_t bos;           /* replaces the first token of each window; -1: none does */
    PplWindows windows;    /* owned from evaluation_open() on */
    size_t n_ctx, n_batch; /* n_batch 0: the default */
    bool divergence;       /* against the base: needs a full policy, the first, or load_base */
    bool attribution;
    const char *save_base, *load_base;        /* files of base logits; NULL: none */
    const char *what;                         /* of the progress line; NULL: "perplexity", with its figure so far */
    const char *longer;                       /* how to get longer windows, for messages; NULL: as perplexity does */
    const volatile sig_atomic_t *interrupted; /* stop when it is set; may be NULL */

    EvalMode *modes; /* (n_modes) */
    size_t n_modes;
    size_t n_windows, n_scored; /* that are through */
    double *base_nll;           /* (n_scored) the full cache's, where there is a base */

    /* Working storage. */
    ThreadPool *pool;
    BaseRows base;
    BaseLogits base_file;
    float *file_logits; /* (n_batch, n_vocab) from load_base */
    TokenScore *scores; /* (n_batch) */
    int32_t *batch;     /* (n_batch) tokens on their way */
    Progress progress;
} Evaluation;

/* Refuses policies that would change nothing within the windows: their figures would be those of a full cache under
 * another name. */
int evaluation_open(Evaluation *e, const KvPolicy *policies, size_t n_policies, Error *error);

/* After ERROR_INTERRUPTED the windows that are through are complete in every mode. */
int evaluation_run(Evaluation *e, Error *error);
void evaluation_close(Evaluation *e);

/* Of the windows that are through. */
double evaluation_ppl(const Evaluation *e, const double *nll);
double evaluation_ppl_error(const Evaluation *e, const double *nll);
double evaluation_ppl_of_windows(const Evaluation *e, const double *nll, size_t n_windows);

/* ln(PPL / PPL of the base) with the standard error of the paired differences. */
MeanError evaluation_ln_ratio(const Evaluation *e, const EvalMode *mode);

/* Bits of an element of a token that has left the first tier, scales counted: 0 where such tokens are dropped, 16 for a
 * full cache. */
double eval_mode_old_bits(const EvalMode *mode);

#endif

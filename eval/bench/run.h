/* Speed of one model with several cache policies at several depths, in one run.
 *
 *     Bench bench = {.model = &model, .depths = depths, .n_generate = 64, .n_prompt = 512, .n_repetitions = 3, …};
 *     if (bench_open(&bench, policies.items, policies.count, n_ctx, &error) < 0) …
 *     if (bench_first_token(&bench, tokenizer, program_start, &error) < 0) …
 *     if (bench_run(&bench, &error) < 0) …
 *     BenchSummary decode = bench_summarise(bench.modes[0].points[0].decode_rates, bench.modes[0].points[0].n);
 *     bench_close(&bench);
 *
 * A repetition goes down through the depths: each policy reads on up to the depth, generates n_generate tokens, and
 * reads n_prompt more; then the next policy does, then all go to the next depth. So a slow moment of the machine hits
 * all policies. They take turns in being the first. Encoded tokens cannot be taken back: the first repetition keeps
 * what the caches hold at each depth (states.h), and the others begin there; they read from the beginning where memory
 * does not suffice for that. What memory can give is measured each time before tokens are generated.
 */
#ifndef STOWKV_BENCH_RUN_H
#define STOWKV_BENCH_RUN_H

#include "eval/bench/bandwidth.h"
#include "eval/bench/depths.h"
#include "eval/bench/states.h"
#include "eval/progress.h"
#include "model/model.h"
#include "tokenizer/tokenizer.h"

#include <signal.h>

#define BENCH_RATES 3 /* series of a point */

/* One policy at one depth. */
typedef struct BenchPoint {
    double *decode_rates;  /* (n_repetitions) tokens a second from the depth on */
    double *prefill_rates; /* (n_repetitions) of the tokens behind those */
    double *read_rates;    /* (n_repetitions) bytes a second that memory gave to all threads just before */
    size_t n;              /* repetitions that are through */
    double ms_min, ms_max; /* of a single generated token, over the repetitions that are through */
    double kv_bytes;       /* that a generated token reads of the cache: the mean over those measured */
    bool still_full;       /* though the policy is another: no token has left the first tier yet */
} BenchPoint;

typedef struct BenchMode {
    KvPolicy policy;
    Context context;
    BenchPoint *points; /* (depths.count) */
    CacheStates states; /* at the depths, where the bench keeps them */
    size_t n_restored;  /* tokens that the cache had not read when its counters began */
} BenchMode;

typedef struct Bench {
    /* Given. */
    Model *model;
    const char *model_path;
    SizeList depths;
    size_t n_prompt, n_generate, n_repetitions;
    const volatile sig_atomic_t *interrupted; /* stop when it is set; may be NULL */

    BenchMode *modes; /* (n_modes) */
    size_t n_modes;
    size_t weights_bytes;     /* that a generated token reads of the weights */
    Bandwidth bandwidth;      /* as it was measured last */
    double *all_reads;        /* (n_reads) of all points, bytes a second; ascending once bench_run() is through */
    double *one_thread_reads; /* (n_reads) the same by one thread */
    size_t n_reads;
    double first_token_seconds;
    size_t n_first_prompt; /* tokens of the prompt before it */

    /* Working storage. */
    double *rates;   /* (n_modes, depths.count, BENCH_RATES, n_repetitions) */
    int32_t *tokens; /* (n_batch) on their way */
    double *ms;      /* (n_generate) of each token of a measurement */
    bool keeps_states;
    Progress progress;
    size_t work_done;
} Bench;

/* Tokens that are measured at each depth. */
static inline size_t bench_measured(const Bench *bench) {
    return bench->n_prompt + bench->n_generate;
}

/* Fails where the deepest measurement does not fit into the context, unless the policies stream. */
int bench_open(Bench *bench, const KvPolicy *policies, size_t n_policies, size_t n_ctx, Error *error);

/* Seconds from program_start (of clock_seconds()) until the first policy has read a prompt of 20 tokens and the most
 * likely next token is known. With the program's start that is loading the checkpoint and its tokenizer, encoding the
 * prompt's text, and reading it; pages of the checkpoint may still be in memory from a former run. */
int bench_first_token(Bench *bench, const Tokenizer *tokenizer, double program_start, Error *error);

/* Token `position` of the sequence that every policy reads: (7 p^2 + 13 p + 11) mod n_vocab. Speed does not depend on
 * which tokens they are. */
int32_t bench_token(size_t position, size_t n_vocab);

/* Each point's figures are told on stderr once they are there. After ERROR_INTERRUPTED each point has the repetitions
 * that it was through with. Counters of the caches are compared with the plan's arithmetic after each repetition, to
 * the byte. */
int bench_run(Bench *bench, Error *error);
void bench_close(Bench *bench);

#endif

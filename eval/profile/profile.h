/* Where a run's time and memory traffic go: calls, seconds, bytes and floating point operations of each kind of
 * operation, for prompts and for single tokens, and the steps one by one. timed_backend.h fills it at the seam between
 * model and backend, so that no operation knows of it and a run without it is the same as ever.
 *
 *     Profile profile = {0};
 *     … profile_count(), profile_step_begin(), … by the timed backend
 *     profile_finish(&profile, &cache, &config);
 *     for (int op = 0; op < PROFILE_OP_COUNT; op++)
 *         printf("%s %.3f s\n", profile_op_name(op), profile.phases[PROFILE_DECODE].ops[op].seconds);
 *     profile_free(&profile);
 */
#ifndef STOWKV_PROFILE_H
#define STOWKV_PROFILE_H

#include "checkpoints/config.h"
#include "kvcache/kvcache.h"

#include <stdint.h>

/* clang-format off */
#define PROFILE_OPS(DO)                                                                                                \
    DO(BEGIN,       "batch to the device")                                                                             \
    DO(EMBED,       "embedding")                                                                                       \
    DO(ANGLES,      "RoPE angles")                                                                                     \
    DO(QKV,         "norm, Q K V products")                                                                            \
    DO(APPEND,      "RoPE, append, encode")                                                                            \
    DO(ATTENTION,   "attention")                                                                                       \
    DO(ATTN_OUTPUT, "attention output")                                                                                \
    DO(GATE_UP,     "norm, gate, up, SiLU")                                                                            \
    DO(FFN_DOWN,    "down")                                                                                            \
    DO(LOGITS,      "norm, logits product")                                                                            \
    DO(READ,        "result to the host; launching")                                                                   \
    DO(CLOCK,       "reading the device's clock, for this")                                                            \
    DO(BETWEEN,     "between steps: sampling, text")
/* clang-format on */

#define PROFILE_OP_ID(id, name) PROFILE_##id,
typedef enum ProfileOp { PROFILE_OPS(PROFILE_OP_ID) PROFILE_OP_COUNT } ProfileOp;
#undef PROFILE_OP_ID

const char *profile_op_name(ProfileOp op); /* "attention" */

/* Batches of several tokens, and single tokens. */
typedef enum ProfilePhaseId { PROFILE_PROMPT, PROFILE_DECODE, PROFILE_PHASE_COUNT } ProfilePhaseId;

const char *profile_phase_name(ProfilePhaseId phase); /* "prompt" */

typedef struct ProfileSum {
    size_t calls;
    double seconds;
    double bytes; /* that must be read and written: weights, activations, what attention reads of the cache */
    double flops; /* a multiplication with its addition is two */
} ProfileSum;

typedef struct ProfilePhase {
    ProfileSum ops[PROFILE_OP_COUNT];
    size_t n_steps, n_tokens;
    double seconds;                    /* of its steps and of what follows each, up to the next one */
    double bytes_read[KV_LEDGER_ROWS]; /* by attention, by row of the ledger */
    double encoded[KV_LEDGER_ROWS];    /* tokens that entered, by row, in each of its layers */
} ProfilePhase;

/* A batch through all layers, its logits read. Seconds since the profile began. */
typedef struct ProfileStep {
    size_t n_tokens, depth; /* tokens in the cache before it */
    double begin, end;
} ProfileStep;

/* A call, for the trace. */
typedef struct ProfileEvent {
    double begin, seconds;
    uint16_t layer;
    uint16_t op; /* ProfileOp */
} ProfileEvent;

#define PROFILE_MAX_EVENTS 200000 /* a trace that a browser still opens; later calls are in the sums alone */

typedef struct Profile {
    ProfilePhase phases[PROFILE_PHASE_COUNT];
    ProfileStep *steps;
    size_t n_steps;
    ProfileEvent *events;
    size_t n_events, n_events_left_out;
    bool out_of_memory; /* steps or events are missing */

    double start;    /* of clock_seconds() */
    double counted;  /* until then, since the start, time has been counted */
    KvLedger ledger; /* when the current phase began */
    ProfilePhaseId phase;
} Profile;

/* Forgets all; time is counted from now on. */
void profile_start(Profile *profile);
void profile_free(Profile *profile);

/* A batch is about to begin; `cache` as it is before it. What has gone by since the last step's end is BETWEEN. */
void profile_step_begin(Profile *profile, const KvCache *cache, size_t n_tokens);

/* The batch's last call has returned; again where its logits are read behind it. */
void profile_step_end(Profile *profile);

/* What a call is about, beside its time. */
typedef struct ProfileCall {
    ProfileOp op;
    size_t layer;
    double bytes, flops;
} ProfileCall;

/* A call from `begin` on (of clock_seconds()), and how long it took; or that is through now. */
void profile_add(Profile *profile, const ProfileCall *call, double begin, double seconds);
void profile_count(Profile *profile, const ProfileCall *call, double begin);

/* Takes what attention read and what was encoded in the last phase from the cache's counters. The profile is complete
 * then. */
void profile_finish(Profile *profile, const KvCache *cache, const ModelConfig *config);

/* Seconds from the first step's begin to the end of all that follows the last one, and those of them that operations
 * account for. */
double profile_wall_seconds(const Profile *profile);
double profile_counted_seconds(const Profile *profile);

#endif

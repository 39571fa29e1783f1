/* See profile.h. */
#include "eval/profile/profile.h"

#include "base/array.h"
#include "base/machine/clock.h"

#include <stdlib.h>

const char *profile_op_name(ProfileOp op) {
#define PROFILE_OP_NAME(id, name) name,
    static const char *const NAMES[] = {PROFILE_OPS(PROFILE_OP_NAME)};
#undef PROFILE_OP_NAME
    return NAMES[op];
}

const char *profile_phase_name(ProfilePhaseId phase) {
    static const char *const NAMES[] = {[PROFILE_PROMPT] = "prompt", [PROFILE_DECODE] = "decode"};
    return NAMES[phase];
}

void profile_free(Profile *profile) {
    free(profile->steps);
    free(profile->events);
    *profile = (Profile){0};
}

void profile_start(Profile *profile) {
    profile_free(profile);
    profile->start = clock_seconds();
}

static ProfilePhaseId phase_of(size_t n_tokens) {
    return n_tokens > 1 ? PROFILE_PROMPT : PROFILE_DECODE;
}

static void add_event(Profile *profile, ProfileEvent event) {
    if (profile->n_events == PROFILE_MAX_EVENTS) {
        profile->n_events_left_out++;
        return;
    }
    Error error;
    ProfileEvent *events =
        array_for_one_more(profile->events, profile->n_events, sizeof *events, "the events of a profile", &error);
    if (events == NULL) {
        profile->out_of_memory = true;
        return;
    }
    profile->events = events;
    profile->events[profile->n_events++] = event;
}

/* Counters since the phase began are its own; the next one begins. */
static void settle_phase(Profile *profile, const KvCache *cache) {
    ProfilePhase *phase = &profile->phases[profile->phase];
    KvLedger now;
    kv_ledger(cache, &now);
    for (size_t i = 0; i < now.n_rows; i++) {
        phase->bytes_read[i] += (double)(now.rows[i].bytes_read - profile->ledger.rows[i].bytes_read);
        phase->encoded[i] += (double)(now.rows[i].tokens_encoded - profile->ledger.rows[i].tokens_encoded);
    }
    profile->ledger = now;
}

void profile_add(Profile *profile, const ProfileCall *call, double begin, double seconds) {
    ProfileSum *sum = &profile->phases[profile->phase].ops[call->op];
    sum->calls++;
    sum->seconds += seconds;
    sum->bytes += call->bytes;
    sum->flops += call->flops;
    add_event(profile, (ProfileEvent){begin - profile->start, seconds, (uint16_t)call->layer, (uint16_t)call->op});
}

void profile_count(Profile *profile, const ProfileCall *call, double begin) {
    double now = clock_seconds();
    profile_add(profile, call, begin, now - begin);
    if (call->op == PROFILE_CLOCK || call->op == PROFILE_BETWEEN) { /* the others are in a step */
        profile->phases[profile->phase].seconds += now - begin;
        profile->counted = now - profile->start;
    }
}

void profile_step_begin(Profile *profile, const KvCache *cache, size_t n_tokens) {
    ProfilePhaseId phase = phase_of(n_tokens);
    if (profile->n_steps == 0) {
        kv_ledger(cache, &profile->ledger);
        profile->phase = phase;
        profile->counted = clock_seconds() - profile->start;
    } else
        profile_count(profile, &(ProfileCall){.op = PROFILE_BETWEEN}, profile->start + profile->counted);
    if (phase != profile->phase) {
        settle_phase(profile, cache);
        profile->phase = phase;
    }
    Error error;
    ProfileStep *steps =
        array_for_one_more(profile->steps, profile->n_steps, sizeof *steps, "the steps of a profile", &error);
    if (steps == NULL) {
        profile->out_of_memory = true;
        return;
    }
    double begin = profile->counted; /* the same instant as the end of what is between steps, so that sums agree */
    profile->steps = steps;
    profile->steps[profile->n_steps++] = (ProfileStep){n_tokens, cache->n_tokens, begin, begin};
    profile->phases[phase].n_steps++;
    profile->phases[phase].n_tokens += n_tokens;
}

void profile_step_end(Profile *profile) {
    if (profile->n_steps == 0)
        return;
    ProfileStep *step = &profile->steps[profile->n_steps - 1];
    double end = clock_seconds() - profile->start;
    profile->phases[profile->phase].seconds += end - step->end;
    step->end = end;
    profile->counted = end;
}

/* A row's tokens were read in its encoding by each KV head, for n_heads / n_kv_heads queries: a product with the key
 * and one with the value, an element each. What enters a tier is written in its encoding, and was read as F32 or FP16.
 */
static void count_cache(ProfilePhase *phase, const KvLedger *ledger, const ModelConfig *config) {
    double queries = (double)config->n_heads / (double)config->n_kv_heads;
    double elements_of_token = 2.0 * (double)config->n_kv_heads * (double)config->head_dim; /* keys and values */
    for (size_t i = 0; i < ledger->n_rows; i++) {
        const KvLedgerRow *row = &ledger->rows[i];
        double elements_read = phase->bytes_read[i] * 8 / row->bits;
        phase->ops[PROFILE_ATTENTION].bytes += phase->bytes_read[i];
        phase->ops[PROFILE_ATTENTION].flops += 2 * queries * elements_read;
        phase->ops[PROFILE_APPEND].bytes +=
            phase->encoded[i] * (double)row->n_layers * elements_of_token * (row->bits / 8 + sizeof(float));
    }
}

void profile_finish(Profile *profile, const KvCache *cache, const ModelConfig *config) {
    if (profile->n_steps == 0)
        return;
    settle_phase(profile, cache);
    for (int phase = 0; phase < PROFILE_PHASE_COUNT; phase++)
        count_cache(&profile->phases[phase], &profile->ledger, config);
}

double profile_wall_seconds(const Profile *profile) {
    return profile->n_steps == 0 ? 0 : profile->counted - profile->steps[0].begin;
}

double profile_counted_seconds(const Profile *profile) {
    double seconds = 0;
    for (int phase = 0; phase < PROFILE_PHASE_COUNT; phase++)
        for (int op = 0; op < PROFILE_OP_COUNT; op++)
            seconds += profile->phases[phase].ops[op].seconds;
    return seconds;
}

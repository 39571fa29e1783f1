/* See penalties.h. */
#include "session/penalties.h"

#include <float.h>
#include <stdlib.h>
#include <string.h>

bool penalties_are_on(const Penalties *p) {
    return p->window > 0 && (p->repetition != 1 || p->frequency != 0 || p->presence != 0);
}

int penalties_open(PenaltyState *state, const Penalties *penalties, size_t n_vocab, Error *error) {
    *state = (PenaltyState){.penalties = *penalties, .n_vocab = n_vocab};
    if (!penalties_are_on(penalties))
        return 0;
    state->seen = calloc(n_vocab, sizeof *state->seen);
    state->ids = calloc(n_vocab, sizeof *state->ids);
    state->logits = calloc(n_vocab, sizeof *state->logits);
    if (state->seen != NULL && state->ids != NULL && state->logits != NULL)
        return 0;
    penalties_close(state);
    return error_memory(error, "the penalties", n_vocab * (sizeof(SeenToken) + sizeof(int32_t) + sizeof(float)));
}

void penalties_close(PenaltyState *state) {
    token_list_free(&state->history);
    free(state->seen);
    free(state->ids);
    free(state->logits);
    *state = (PenaltyState){0};
}

void penalties_reset(PenaltyState *state) {
    if (state->seen == NULL)
        return;
    memset(state->seen, 0, state->n_vocab * sizeof *state->seen);
    state->history.count = state->n_ids = 0;
}

int penalties_accept(PenaltyState *state, int32_t token, Error *error) {
    if (state->seen == NULL)
        return 0;
    if (token_list_append(&state->history, token, error) < 0)
        return error->code;
    SeenToken *seen = &state->seen[token];
    seen->count++;
    if (!seen->listed)
        state->ids[state->n_ids++] = token;
    seen->listed = true;
    if (state->history.count > state->penalties.window)
        state->seen[state->history.ids[state->history.count - 1 - state->penalties.window]].count--;
    return 0;
}

static void forget_those_outside(PenaltyState *state) {
    size_t kept = 0;
    for (size_t i = 0; i < state->n_ids; i++) {
        SeenToken *seen = &state->seen[state->ids[i]];
        seen->listed = seen->count > 0;
        if (seen->listed)
            state->ids[kept++] = state->ids[i];
    }
    state->n_ids = kept;
}

/* In F32 and in llama.cpp's order. Finite logits stay finite. */
static float penalized(float logit, const Penalties *p, uint32_t count) {
    float repetition = (float)p->repetition;
    logit = logit <= 0 ? logit * repetition : logit / repetition;
    logit -= (float)count * (float)p->frequency + (float)p->presence;
    return logit < -FLT_MAX ? -FLT_MAX : logit > FLT_MAX ? FLT_MAX : logit;
}

void penalties_apply(PenaltyState *state, float *logits) {
    if (state->seen == NULL)
        return;
    forget_those_outside(state);
    for (size_t i = 0; i < state->n_ids; i++) {
        int32_t id = state->ids[i];
        state->logits[i] = logits[id];
        logits[id] = penalized(logits[id], &state->penalties, state->seen[id].count);
    }
}

void penalties_undo(const PenaltyState *state, float *logits) {
    for (size_t i = 0; state->seen != NULL && i < state->n_ids; i++)
        logits[state->ids[i]] = state->logits[i];
}

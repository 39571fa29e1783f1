/* See profiled_mode.h. */
#include "eval/profile/profiled_mode.h"

#include <stdlib.h>

#define GROWTH_POINTS 128

/* Rows of one name (several rules of a policy may have such a tier) are one tier here. */
static size_t tier_of(ProfiledMode *mode, const KvLedgerRow *row) {
    char text[KV_ROW_NAME];
    const char *name = kv_ledger_row_name(row, text);
    size_t tier = 0;
    while (tier < mode->n_tiers && strcmp(mode->tier_names[tier], name) != 0)
        tier++;
    if (tier == mode->n_tiers)
        snprintf(mode->tier_names[mode->n_tiers++], KV_ROW_NAME, "%s", name);
    return tier;
}

static int read_tiers(ProfiledMode *mode, const KvCache *cache, Error *error) {
    KvLedger ledger;
    kv_ledger_at(&cache->layout, 0, &ledger);
    size_t n_steps = mode->profile.n_steps;
    mode->tier_names = calloc(ledger.n_rows, sizeof *mode->tier_names);
    mode->held = calloc(n_steps * ledger.n_rows + 1, sizeof *mode->held);
    if (mode->tier_names == NULL || mode->held == NULL)
        return error_memory(error, "the steps of a profile", n_steps * ledger.n_rows * sizeof *mode->held);
    for (size_t i = 0; i < ledger.n_rows; i++)
        tier_of(mode, &ledger.rows[i]);
    for (size_t step = 0; step < n_steps; step++) {
        const ProfileStep *s = &mode->profile.steps[step];
        kv_ledger_at(&cache->layout, s->depth + s->n_tokens, &ledger);
        for (size_t i = 0; i < ledger.n_rows; i++)
            mode->held[step * mode->n_tiers + tier_of(mode, &ledger.rows[i])] += ledger.rows[i].bytes_held;
    }
    return 0;
}

/* What the cache would hold at depths up to its whole context. */
static cJSON *growth_json(const KvCacheLayout *layout) {
    cJSON *out = cJSON_CreateArray();
    size_t n_ctx = layout->shape.n_ctx, step = (n_ctx + GROWTH_POINTS - 1) / GROWTH_POINTS;
    for (size_t n = 0; n < n_ctx + step; n += step) {
        KvLedger ledger;
        size_t tokens = n < n_ctx ? n : n_ctx, held = 0;
        kv_ledger_at(layout, tokens, &ledger);
        for (size_t i = 0; i < ledger.n_rows; i++)
            held += ledger.rows[i].bytes_held;
        cJSON *point = cJSON_CreateObject();
        cJSON_AddNumberToObject(point, "tokens", (double)tokens);
        cJSON_AddNumberToObject(point, "bytes_held", (double)held);
        cJSON_AddItemToArray(out, point);
    }
    return out;
}

int profiled_mode_take(ProfiledMode *mode, Profile *profile, const KvCache *cache, const ModelConfig *config,
                       const ProfileRoofs *roofs, cJSON *report, Error *error) {
    *mode = (ProfiledMode){.report = report};
    profile_finish(profile, cache, config);
    mode->profile = *profile;
    *profile = (Profile){0};
    snprintf(mode->mode, sizeof mode->mode, "%s", kv_policy_mode(&cache->layout.policy));
    kv_policy_print(&cache->layout.policy, mode->policy, sizeof mode->policy);
    cJSON_AddItemToObject(report, "profile", profile_json(&mode->profile, roofs));
    cJSON_AddItemToObject(report, "growth", growth_json(&cache->layout));
    return read_tiers(mode, cache, error);
}

void profiled_mode_free(ProfiledMode *mode) {
    profile_free(&mode->profile);
    free(mode->tier_names);
    free(mode->held);
    cJSON_Delete(mode->report);
    *mode = (ProfiledMode){0};
}

size_t profiled_mode_held(const ProfiledMode *mode, size_t step) {
    size_t sum = 0;
    for (size_t tier = 0; tier < mode->n_tiers; tier++)
        sum += mode->held[step * mode->n_tiers + tier];
    return sum;
}

/* ---- steps.csv */

/* The name of a column for tiers, those of all modes in the order of their first use; NULL behind the last. */
static const char *column(const ProfiledMode *modes, size_t n_modes, size_t wanted) {
    size_t n = 0;
    for (size_t m = 0; m < n_modes; m++)
        for (size_t tier = 0; tier < modes[m].n_tiers; tier++) {
            bool seen = false;
            for (size_t before = 0; before < m && !seen; before++)
                for (size_t i = 0; i < modes[before].n_tiers && !seen; i++)
                    seen = strcmp(modes[before].tier_names[i], modes[m].tier_names[tier]) == 0;
            if (!seen && n++ == wanted)
                return modes[m].tier_names[tier];
        }
    return NULL;
}

static size_t held_of(const ProfiledMode *mode, size_t step, const char *name) {
    for (size_t tier = 0; tier < mode->n_tiers; tier++)
        if (strcmp(mode->tier_names[tier], name) == 0)
            return mode->held[step * mode->n_tiers + tier];
    return 0;
}

void profiled_modes_csv(const ProfiledMode *modes, size_t n_modes, FILE *stream) {
    const char *name;
    fputs("mode,policy,step,tokens,depth,ms,ms_between,cache_bytes", stream);
    for (size_t c = 0; (name = column(modes, n_modes, c)) != NULL; c++)
        fprintf(stream, ",%s_bytes", name);
    fputc('\n', stream);
    for (size_t m = 0; m < n_modes; m++)
        for (size_t i = 0; i < modes[m].profile.n_steps; i++) {
            const ProfileStep *step = &modes[m].profile.steps[i];
            double next = i + 1 < modes[m].profile.n_steps ? step[1].begin : step->end;
            fprintf(stream, "%s,\"%s\",%zu,%zu,%zu,%.6f,%.6f,%zu", modes[m].mode, modes[m].policy, i, step->n_tokens,
                    step->depth + step->n_tokens, 1e3 * (step->end - step->begin), 1e3 * (next - step->end),
                    profiled_mode_held(&modes[m], i));
            for (size_t c = 0; (name = column(modes, n_modes, c)) != NULL; c++)
                fprintf(stream, ",%zu", held_of(&modes[m], i, name));
            fputc('\n', stream);
        }
}

/* See profile_json.h. */
#include "eval/profile/profile_json.h"

static void add_rate(cJSON *out, const char *name, const char *share_name, double amount, double seconds, double roof) {
    if (amount <= 0 || seconds <= 0)
        return;
    cJSON_AddNumberToObject(out, name, amount / seconds);
    if (roof > 0)
        cJSON_AddNumberToObject(out, share_name, amount / seconds / roof);
}

static cJSON *operation_json(ProfileOp op, const ProfileSum *sum, ProfilePhaseId id, const ProfilePhase *phase,
                             const ProfileRoofs *roofs) {
    cJSON *out = cJSON_CreateObject();
    cJSON_AddStringToObject(out, "operation", profile_op_name(op));
    cJSON_AddNumberToObject(out, "calls", (double)sum->calls);
    cJSON_AddNumberToObject(out, "seconds", sum->seconds);
    cJSON_AddNumberToObject(out, "share", phase->seconds > 0 ? sum->seconds / phase->seconds : 0);
    cJSON_AddNumberToObject(out, "bytes", sum->bytes);
    cJSON_AddNumberToObject(out, "flops", sum->flops);
    if (id == PROFILE_DECODE)
        add_rate(out, "bytes_per_second", "bandwidth_share", sum->bytes, sum->seconds, roofs->bytes_per_second);
    add_rate(out, "flops_per_second", "flops_share", sum->flops, sum->seconds, roofs->flops_per_second);
    return out;
}

static cJSON *tiers_json(const Profile *profile, const ProfilePhase *phase) {
    cJSON *tiers = cJSON_CreateArray();
    for (size_t i = 0; i < profile->ledger.n_rows; i++) {
        char text[KV_ROW_NAME];
        cJSON *tier = cJSON_CreateObject();
        cJSON_AddStringToObject(tier, "name", kv_ledger_row_name(&profile->ledger.rows[i], text));
        cJSON_AddNumberToObject(tier, "bytes_read", phase->bytes_read[i]);
        cJSON_AddNumberToObject(tier, "tokens_encoded", phase->encoded[i]);
        cJSON_AddItemToArray(tiers, tier);
    }
    return tiers;
}

static cJSON *phase_json(const Profile *profile, ProfilePhaseId id, const ProfileRoofs *roofs) {
    const ProfilePhase *phase = &profile->phases[id];
    cJSON *out = cJSON_CreateObject();
    double counted = 0;
    cJSON_AddStringToObject(out, "phase", profile_phase_name(id));
    cJSON_AddNumberToObject(out, "steps", (double)phase->n_steps);
    cJSON_AddNumberToObject(out, "tokens", (double)phase->n_tokens);
    cJSON_AddNumberToObject(out, "seconds", phase->seconds);
    cJSON *operations = cJSON_AddArrayToObject(out, "operations");
    for (int op = 0; op < PROFILE_OP_COUNT; op++) {
        const ProfileSum *sum = &phase->ops[op];
        counted += sum->seconds;
        if (sum->calls > 0)
            cJSON_AddItemToArray(operations, operation_json((ProfileOp)op, sum, id, phase, roofs));
    }
    cJSON_AddNumberToObject(out, "unaccounted_seconds", phase->seconds - counted);
    cJSON_AddItemToObject(out, "tiers", tiers_json(profile, phase));
    return out;
}

cJSON *profile_json(const Profile *profile, const ProfileRoofs *roofs) {
    cJSON *out = cJSON_CreateObject();
    cJSON_AddNumberToObject(out, "wall_seconds", profile_wall_seconds(profile));
    cJSON_AddNumberToObject(out, "counted_seconds", profile_counted_seconds(profile));
    cJSON_AddBoolToObject(out, "complete", !profile->out_of_memory);
    cJSON_AddNumberToObject(out, "events_left_out", (double)profile->n_events_left_out);
    cJSON *phases = cJSON_AddArrayToObject(out, "phases");
    for (int phase = 0; phase < PROFILE_PHASE_COUNT; phase++)
        if (profile->phases[phase].n_steps > 0)
            cJSON_AddItemToArray(phases, phase_json(profile, (ProfilePhaseId)phase, roofs));
    return out;
}

/* See needle_report.h. */
#include "eval/recall/needle_report.h"

#include "eval/proof.h"
#include "kvcache/policy_text.h"

static const char *chat_name(const NeedleTask *task) {
    return task->frame.chat == NULL ? "none" : chat_template_name(task->frame.chat);
}

/* 0 in front of the first unit of the haystack, 1 behind the last. */
static double depth_of(const NeedleTask *task, size_t position) {
    size_t n = task->frame.n_positions;
    return n == 1 ? 0.5 : (double)position / (double)(n - 1);
}

static double share(const NeedlePoint *point) {
    return (double)point->right / (double)point->n;
}

/* Over all positions of a length. */
static NeedlePoint of_length(const NeedleTask *task, const NeedleMode *mode, size_t length_index) {
    NeedlePoint sum = {0};
    for (size_t position = 0; position < task->frame.n_positions; position++) {
        const NeedlePoint *point = needle_point(task, mode, length_index, position);
        sum.n += point->n;
        sum.right += point->right;
    }
    return sum;
}

/* ---- Text */

static void print_by_length(const NeedleResult *result, FILE *stream) {
    const NeedleTask *task = result->task;
    fprintf(stream, "\n%-11s", "mode");
    for (size_t i = 0; i < task->lengths.count; i++)
        fprintf(stream, " %15zu", task->lengths.items[i]);
    fprintf(stream, "  policy\n");
    for (size_t m = 0; m < result->n_modes; m++) {
        const NeedleMode *mode = &result->modes[m];
        char policy[KV_POLICY_TEXT];
        kv_policy_print(&mode->policy, policy, sizeof policy);
        fprintf(stream, "%-11s", kv_policy_mode(&mode->policy));
        for (size_t i = 0; i < task->lengths.count; i++) {
            NeedlePoint sum = of_length(task, mode, i);
            char text[64] = "-";
            if (sum.n > 0)
                snprintf(text, sizeof text, "%.3f %4zu/%-4zu", share(&sum), sum.right, sum.n);
            fprintf(stream, " %15s", text);
        }
        fprintf(stream, "  %s\n", policy);
    }
}

static void print_by_position(const NeedleTask *task, const NeedleMode *mode, FILE *stream) {
    char policy[KV_POLICY_TEXT];
    kv_policy_print(&mode->policy, policy, sizeof policy);
    fprintf(stream, "\nby position in the haystack, %s\n%8s", policy, "length");
    for (size_t position = 0; position < task->frame.n_positions; position++)
        fprintf(stream, " %6.2f", depth_of(task, position));
    fprintf(stream, "\n");
    for (size_t i = 0; i < task->lengths.count; i++) {
        fprintf(stream, "%8zu", task->lengths.items[i]);
        for (size_t position = 0; position < task->frame.n_positions; position++) {
            const NeedlePoint *point = needle_point(task, mode, i, position);
            char text[16] = "-";
            if (point->n > 0)
                snprintf(text, sizeof text, "%.2f", share(point));
            fprintf(stream, " %6s", text);
        }
        fprintf(stream, "\n");
    }
}

void needle_print(const NeedleResult *result, FILE *stream) {
    const NeedleTask *task = result->task;
    char backend[COMPUTED_BY_TEXT];
    fprintf(stream,
            "RULER's single needle in %s, the share of answers with its number; %zu positions, %zu samples of each; "
            "seed %llu; greedy, at most %zu new tokens; chat template: %s; computed by %s\n",
            task->frame.haystack->name, task->frame.n_positions, task->n_samples, (unsigned long long)task->seed,
            task->frame.max_new_tokens, chat_name(task), computed_by(task->session->model.backend, backend));
    print_by_length(result, stream);
    for (size_t m = 0; m < result->n_modes; m++)
        print_by_position(task, &result->modes[m], stream);
    for (size_t m = 0; m < result->n_modes; m++)
        proof_print(&result->modes[m].ledger, &result->modes[m].policy, m == 0, stream);
}

/* ---- CSV: no field holds a quote, policies may hold commas. */

void needle_csv(const NeedleResult *result, FILE *stream) {
    const NeedleTask *task = result->task;
    fprintf(stream, "seed,mode,policy,length,position,right,n\n");
    for (size_t m = 0; m < result->n_modes; m++)
        for (size_t i = 0; i < task->lengths.count; i++)
            for (size_t position = 0; position < task->frame.n_positions; position++) {
                const NeedleMode *mode = &result->modes[m];
                const NeedlePoint *point = needle_point(task, mode, i, position);
                char policy[KV_POLICY_TEXT];
                if (point->n == 0)
                    continue;
                kv_policy_print(&mode->policy, policy, sizeof policy);
                fprintf(stream, "%llu,%s,\"%s\",%zu,%.9g,%.9g,%zu\n", (unsigned long long)task->seed,
                        kv_policy_mode(&mode->policy), policy, task->lengths.items[i], depth_of(task, position),
                        share(point), point->n);
            }
}

/* ---- JSON */

static cJSON *mode_json(const NeedleTask *task, const NeedleMode *mode) {
    cJSON *root = cJSON_CreateObject();
    policy_json(root, &mode->policy);
    cJSON *points = cJSON_AddArrayToObject(root, "points");
    for (size_t i = 0; i < task->lengths.count; i++)
        for (size_t position = 0; position < task->frame.n_positions; position++) {
            const NeedlePoint *p = needle_point(task, mode, i, position);
            if (p->n == 0)
                continue;
            cJSON *point = cJSON_CreateObject();
            cJSON_AddNumberToObject(point, "length", (double)task->lengths.items[i]);
            cJSON_AddNumberToObject(point, "position", depth_of(task, position));
            cJSON_AddNumberToObject(point, "right", share(p));
            cJSON_AddNumberToObject(point, "n", (double)p->n);
            cJSON_AddItemToArray(points, point);
        }
    cJSON_AddItemToObject(root, "tiers", ledger_json(&mode->ledger));
    cJSON_AddItemToObject(root, "kernels", cJSON_Duplicate(mode->kernels, true));
    return root;
}

cJSON *needle_json(const NeedleResult *result) {
    const NeedleTask *task = result->task;
    cJSON *root = cJSON_CreateObject();
    cJSON_AddStringToObject(root, "task", "needle");
    cJSON_AddStringToObject(root, "model", task->options->checkpoint_path);
    backend_json(root, task->session->model.backend);
    cJSON_AddStringToObject(root, "haystack", task->frame.haystack->name);
    cJSON_AddNumberToObject(root, "positions", (double)task->frame.n_positions);
    cJSON_AddNumberToObject(root, "samples", (double)task->n_samples);
    seed_json(root, task->seed);
    cJSON_AddNumberToObject(root, "max_new_tokens", (double)task->frame.max_new_tokens);
    cJSON_AddStringToObject(root, "chat_template", chat_name(task));
    cJSON *modes = cJSON_AddArrayToObject(root, "modes");
    for (size_t i = 0; i < result->n_modes; i++)
        cJSON_AddItemToArray(modes, mode_json(task, &result->modes[i]));
    return root;
}

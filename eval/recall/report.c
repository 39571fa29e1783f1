/* See report.h. */
#include "eval/recall/report.h"

#include "eval/proof.h"
#include "kvcache/policy_text.h"
#include "session/run_report.h"

#include <stdlib.h>

/* Of each sample at one distance the mean log-likelihood and the share that was right. Windows are all scored alike,
 * and stand sample after sample. */
static void collect(const Evaluation *e, const EvalMode *mode, const RecallTask *task, size_t distance_index,
                    double *log_likelihood, double *right) {
    size_t n_scored = recall_scored(task->segment);
    for (size_t w = distance_index, sample = 0; w < e->n_windows; w += task->distances.count, sample++) {
        double sum = 0, n_right = 0;
        for (size_t t = w * n_scored; t < (w + 1) * n_scored; t++) {
            sum -= mode->nll[t];
            n_right += mode->right[t];
        }
        log_likelihood[sample] = sum / (double)n_scored;
        right[sample] = n_right / (double)n_scored;
    }
}

int recall_point(const Evaluation *e, const RecallTask *task, size_t mode, size_t distance_index, RecallPoint *out,
                 Error *error) {
    double *sums = calloc(4 * task->n_samples, sizeof *sums), *base = sums + 2 * task->n_samples;
    if (sums == NULL)
        return error_memory(error, "the means of samples", 4 * task->n_samples * sizeof *sums);
    size_t n_behind = e->n_windows > distance_index ? e->n_windows - distance_index - 1 : 0;
    size_t n = e->n_windows > distance_index ? n_behind / task->distances.count + 1 : 0;
    double *right = sums + task->n_samples;
    collect(e, &e->modes[0], task, distance_index, base, right);
    collect(e, &e->modes[mode], task, distance_index, sums, right);
    *out = (RecallPoint){.distance = task->distances.items[distance_index],
                         .n = n,
                         .log_likelihood = mean_error(sums, n),
                         .right = mean_error(right, n),
                         .less_full = mean_error_paired(sums, base, n)};
    free(sums);
    return 0;
}

static bool has_difference(const Evaluation *e, size_t mode) {
    return mode > 0 && kv_policy_is_full(&e->modes[0].policy);
}

/* ---- Text */

static int print_mode(const Evaluation *e, const RecallTask *task, size_t mode, FILE *stream, Error *error) {
    char policy[KV_POLICY_TEXT];
    kv_policy_print(&e->modes[mode].policy, policy, sizeof policy);
    for (size_t i = 0; i < task->distances.count; i++) {
        RecallPoint p;
        char difference[48] = "-";
        if (recall_point(e, task, mode, i, &p, error) < 0)
            return error->code;
        if (has_difference(e, mode))
            snprintf(difference, sizeof difference, "%+.4f +- %.4f", p.less_full.mean, p.less_full.error);
        fprintf(stream, "%-11s %8zu %8zu %15.4f %8.4f %20s %8.4f %8.4f  %s\n", kv_policy_mode(&e->modes[mode].policy),
                p.distance, p.n, p.log_likelihood.mean, p.log_likelihood.error, difference, p.right.mean, p.right.error,
                policy);
    }
    return 0;
}

int recall_print(const Evaluation *e, const RecallTask *task, FILE *stream, Error *error) {
    char backend[COMPUTED_BY_TEXT];
    fprintf(stream,
            "recall of %zu random tokens, the last %zu scored; of %zu ordinary tokens; seed %llu; computed by %s\n",
            task->segment, recall_scored(task->segment), task->n_ordinary, (unsigned long long)task->seed,
            computed_by(e->model->backend, backend));
    fprintf(stream, "\n%-11s %8s %8s %15s %8s %20s %8s %8s  %s\n", "mode", "distance", "samples", "log-likelihood",
            "+-", "less full", "right", "+-", "policy");
    for (size_t mode = 0; mode < e->n_modes; mode++)
        if (print_mode(e, task, mode, stream, error) < 0)
            return error->code;
    for (size_t mode = 0; mode < e->n_modes; mode++)
        proof_print(&e->modes[mode].ledger, &e->modes[mode].policy, mode == 0, stream);
    return 0;
}

/* ---- CSV: no field holds a quote, policies may hold commas. */

int recall_csv(const Evaluation *e, const RecallTask *task, FILE *stream, Error *error) {
    fprintf(stream, "segment,seed,mode,policy,distance,n,log_likelihood,stderr,less_full,less_full_stderr,right,"
                    "right_stderr\n");
    for (size_t mode = 0; mode < e->n_modes; mode++)
        for (size_t i = 0; i < task->distances.count; i++) {
            RecallPoint p;
            char policy[KV_POLICY_TEXT], difference[64] = ",";
            if (recall_point(e, task, mode, i, &p, error) < 0)
                return error->code;
            kv_policy_print(&e->modes[mode].policy, policy, sizeof policy);
            if (has_difference(e, mode))
                snprintf(difference, sizeof difference, "%.9g,%.9g", p.less_full.mean, p.less_full.error);
            fprintf(stream, "%zu,%llu,%s,\"%s\",%zu,%zu,%.9g,%.9g,%s,%.9g,%.9g\n", task->segment,
                    (unsigned long long)task->seed, kv_policy_mode(&e->modes[mode].policy), policy, p.distance, p.n,
                    p.log_likelihood.mean, p.log_likelihood.error, difference, p.right.mean, p.right.error);
        }
    return 0;
}

/* ---- JSON */

static cJSON *point_json(const RecallPoint *p, bool has_less_full) {
    cJSON *point = cJSON_CreateObject();
    cJSON_AddNumberToObject(point, "distance", (double)p->distance);
    cJSON_AddNumberToObject(point, "n", (double)p->n);
    cJSON_AddNumberToObject(point, "log_likelihood", p->log_likelihood.mean);
    cJSON_AddNumberToObject(point, "stderr", p->log_likelihood.error);
    if (has_less_full) {
        cJSON_AddNumberToObject(point, "less_full", p->less_full.mean);
        cJSON_AddNumberToObject(point, "less_full_stderr", p->less_full.error);
    }
    cJSON_AddNumberToObject(point, "right", p->right.mean);
    cJSON_AddNumberToObject(point, "right_stderr", p->right.error);
    return point;
}

static cJSON *mode_json(const Evaluation *e, const RecallTask *task, size_t index) {
    const EvalMode *mode = &e->modes[index];
    cJSON *root = cJSON_CreateObject();
    policy_json(root, &mode->policy);
    cJSON *points = cJSON_AddArrayToObject(root, "points");
    for (size_t i = 0; i < task->distances.count; i++) {
        RecallPoint p;
        Error error = {0};
        if (recall_point(e, task, index, i, &p, &error) < 0) {
            cJSON_Delete(root);
            return NULL;
        }
        cJSON_AddItemToArray(points, point_json(&p, has_difference(e, index)));
    }
    cJSON_AddNumberToObject(root, "bits_per_old_element", eval_mode_old_bits(mode));
    cJSON_AddItemToObject(root, "tiers", ledger_json(&mode->ledger));
    cJSON_AddItemToObject(root, "kernels", kernels_json(e->model, &mode->context.cache));
    return root;
}

cJSON *recall_json(const Evaluation *e, const RecallTask *task, const char *model_path) {
    cJSON *root = cJSON_CreateObject();
    cJSON_AddStringToObject(root, "task", "distance");
    cJSON_AddStringToObject(root, "model", model_path);
    backend_json(root, e->model->backend);
    cJSON_AddNumberToObject(root, "segment", (double)task->segment);
    cJSON_AddNumberToObject(root, "scored", (double)recall_scored(task->segment));
    cJSON_AddNumberToObject(root, "samples", (double)task->n_samples);
    seed_json(root, task->seed);
    cJSON_AddNumberToObject(root, "ordinary_tokens", (double)task->n_ordinary);
    cJSON_AddBoolToObject(root, "bos", task->bos >= 0);
    cJSON *modes = cJSON_AddArrayToObject(root, "modes");
    for (size_t i = 0; i < e->n_modes; i++) {
        cJSON *mode = mode_json(e, task, i);
        if (mode == NULL) {
            cJSON_Delete(root);
            return NULL;
        }
        cJSON_AddItemToArray(modes, mode);
    }
    return root;
}

/* See distances.h. */
#include "eval/recall/distances.h"

#include "base/checked.h"
#include "kvcache/policy_text.h"

size_t recall_n_ctx(const PolicyList *policies, size_t longest, size_t n_ctx) {
    for (size_t i = 0; i < policies->count; i++)
        for (size_t r = 0; r < policies->items[i].n_rules; r++) {
            const KvLayerPolicy *layer = &policies->items[i].rules[r].policy;
            size_t room = layer->sink;
            for (size_t t = 0; t < layer->n_tiers && layer->tiers[t].capacity != KV_UNLIMITED; t++)
                room = at_least(layer->tiers[t].capacity, room);
            if (room > longest)
                return n_ctx;
        }
    return longest;
}

/* A segment in the sink would be remembered by any policy. */
static int check_sink(const KvPolicy *policy, Error *error) {
    for (size_t i = 0; i < policy->n_rules; i++)
        if (policy->rules[i].policy.sink > RECALL_LEAD) {
            char text[KV_POLICY_TEXT];
            kv_policy_print(policy, text, sizeof text);
            return error_set(error, ERROR_ARGUMENT,
                             "policy %.160s: a sink of %zu tokens may hold the segment, which begins behind %d to %d; "
                             "use a sink of at most %d",
                             text, policy->rules[i].policy.sink, RECALL_LEAD, 2 * RECALL_LEAD - 1, RECALL_LEAD);
        }
    return 0;
}

int recall_run_open(RecallRun *run, Session *session, size_t n_ctx, const PolicyList *policies, Error *error) {
    RecallTask *task = &run->task;
    const Tokenizer *tokenizer = session->tokenizer;
    size_t longest = recall_tokens_needed(task->segment, task->distances.items[task->distances.count - 1]);
    task->bos = tokenizer_adds_bos(tokenizer) ? tokenizer_bos(tokenizer) : -1;
    for (size_t i = 0; i < policies->count; i++)
        if (check_sink(&policies->items[i], error) < 0)
            return error->code;
    if (recall_ordinary_tokens(tokenizer, task, error) < 0 || recall_sequences(task, &run->sequences, error) < 0)
        return error->code;
    run->evaluation = (Evaluation){.model = &session->model,
                                   .tokens = run->sequences.tokens,
                                   .bos = -1,
                                   .windows = run->sequences.windows,
                                   .n_ctx = recall_n_ctx(policies, longest, n_ctx),
                                   .n_batch = run->n_batch,
                                   .what = "recall",
                                   .longer = "longer --distances",
                                   .interrupted = run->interrupted};
    run->sequences.windows = (PplWindows){0};
    return evaluation_open(&run->evaluation, policies->items, policies->count, error);
}

void recall_run_close(RecallRun *run) {
    evaluation_close(&run->evaluation);
    recall_sequences_free(&run->sequences);
    recall_task_free(&run->task);
}

size_t recall_run_samples(const RecallRun *run) {
    return run->task.distances.count > 0 ? run->evaluation.n_windows / run->task.distances.count : 0;
}

/* See segments.h. */
#include "eval/recall/segments.h"

#include "base/checked.h"
#include "base/random.h"

#include <stdlib.h>
#include <string.h>

size_t recall_tokens_needed(size_t segment, size_t distance) {
    return 2 * RECALL_LEAD - 1 + distance + segment;
}

size_t recall_largest_distance(size_t segment, size_t n_ctx) {
    size_t needed = recall_tokens_needed(segment, segment); /* a segment and its repetition do not overlap */
    return n_ctx < needed ? 0 : segment + n_ctx - needed;
}

size_t recall_scored(size_t segment) {
    return segment - segment / 4;
}

int recall_ordinary_tokens(const Tokenizer *tokenizer, RecallTask *task, Error *error) {
    size_t n = tokenizer_n_tokens(tokenizer);
    task->n_ordinary = 0;
    task->ordinary = calloc(n, sizeof *task->ordinary);
    if (task->ordinary == NULL)
        return error_memory(error, "ordinary tokens", n * sizeof *task->ordinary);
    for (size_t id = 0; id < n; id++)
        if (tokenizer_type(tokenizer, (int32_t)id) == TOKEN_NORMAL && !tokenizer_is_end(tokenizer, (int32_t)id))
            task->ordinary[task->n_ordinary++] = (int32_t)id;
    if (task->n_ordinary < 2 * task->segment)
        return error_set(error, ERROR_ARGUMENT,
                         "--segment %zu: the vocabulary has %zu ordinary tokens, and a segment takes at most half of "
                         "them; use a --segment of at most %zu",
                         task->segment, task->n_ordinary, task->n_ordinary / 8 * 4);
    return 0;
}

void recall_task_free(RecallTask *task) {
    free(task->ordinary);
    *task = (RecallTask){0};
}

static uint64_t sample_state(uint64_t seed, size_t distance, size_t sample) {
    uint64_t state = seed;
    state = random_next(&state) ^ distance;
    return random_next(&state) ^ sample;
}

/* Brings the segment's tokens to the front of `pool`. */
static void draw_segment(int32_t *pool, size_t n, size_t segment, uint64_t *state) {
    for (size_t j = 0; j < segment; j++) {
        size_t other = j + (size_t)random_below(state, n - j);
        int32_t token = pool[j];
        pool[j] = pool[other];
        pool[other] = token;
    }
}

/* Writes a sequence; returns its length. */
static size_t make_sequence(const RecallTask *task, size_t distance, size_t sample, int32_t *pool, int32_t *tokens) {
    uint64_t state = sample_state(task->seed, distance, sample);
    size_t n = task->n_ordinary, segment = task->segment;
    size_t begin = RECALL_LEAD + (size_t)random_below(&state, RECALL_LEAD), length = begin + distance + segment;
    memcpy(pool, task->ordinary, n * sizeof *pool);
    draw_segment(pool, n, segment, &state);
    for (size_t t = 0; t < begin + distance; t++) {
        if (t == 0 && task->bos >= 0)
            tokens[t] = task->bos;
        else if (t >= begin && t < begin + segment)
            tokens[t] = pool[t - begin];
        else
            tokens[t] = pool[segment + (size_t)random_below(&state, n - segment)];
    }
    memcpy(tokens + begin + distance, pool, segment * sizeof *tokens);
    return length;
}

static void add_sequence(const RecallTask *task, size_t distance, size_t sample, int32_t *pool, RecallSequences *out) {
    PplWindows *windows = &out->windows;
    size_t begin = windows->n_tokens, n_scored = recall_scored(task->segment);
    size_t end = begin + make_sequence(task, distance, sample, pool, out->tokens + begin);
    windows->items[windows->count++] = (PplWindow){begin, end, end - n_scored, (double)n_scored};
    windows->n_tokens += end - begin;
    windows->n_scored += n_scored;
}

int recall_sequences(const RecallTask *task, RecallSequences *out, Error *error) {
    size_t most = 0, n_tokens, n_windows;
    *out = (RecallSequences){0};
    for (size_t i = 0; i < task->distances.count; i++)
        most += recall_tokens_needed(task->segment, task->distances.items[i]);
    if (!checked_mul(most, task->n_samples, &n_tokens) ||
        !checked_mul(task->distances.count, task->n_samples, &n_windows) || n_tokens > SIZE_MAX / sizeof(double))
        return error_memory(error, "the sequences", SIZE_MAX);
    int32_t *pool = calloc(task->n_ordinary, sizeof *pool);
    out->tokens = calloc(n_tokens, sizeof *out->tokens);
    out->windows.items = calloc(n_windows, sizeof *out->windows.items);
    if (pool == NULL || out->tokens == NULL || out->windows.items == NULL) {
        free(pool);
        return error_memory(error, "the sequences", n_tokens * sizeof *out->tokens);
    }
    for (size_t sample = 0; sample < task->n_samples; sample++)
        for (size_t i = 0; i < task->distances.count; i++)
            add_sequence(task, task->distances.items[i], sample, pool, out);
    free(pool);
    return 0;
}

void recall_sequences_free(RecallSequences *sequences) {
    free(sequences->tokens);
    ppl_windows_free(&sequences->windows);
    *sequences = (RecallSequences){0};
}

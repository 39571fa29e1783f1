/* The baselines that others are compared with. The column walk is the one of Taneja & Shingvi 2026 (arXiv:2601.04719)
 * and its published code: threads share the columns for the scales, and one thread writes codes and decodes; all go
 * down a column before they go to the next, so each element is on another cache line. The rows' loop is the plain one
 * that anybody would write for rows in memory. */
#include "base/checked.h"
#include "channel_int8/code.h"
#include "channel_int8/cpu_steps.h"

/* ---- Column after column */

static void walk_scales(void *context, size_t begin, size_t end, int thread) {
    ChannelCpu *cpu = context;
    const ChannelMatrix *m = &cpu->matrix;
    (void)thread;
    for (size_t d = begin; d < end; d++) {
        uint32_t largest = 0;
        for (size_t t = 0; t < m->n_tokens; t++)
            largest = channel_larger(largest, channel_magnitude(m->keys[t * m->n_channels + d]));
        cpu->scales[d] = channel_scale(largest);
    }
}

static void column_scales(ChannelCpu *cpu) {
    thread_pool_share(cpu->pool, cpu->matrix.n_channels, 4, walk_scales, cpu);
}

static void column_codes(ChannelCpu *cpu) {
    const ChannelMatrix *m = &cpu->matrix;
    for (size_t d = 0; d < m->n_channels; d++) {
        float scale = cpu->scales[d], inverse = channel_inverse(scale);
        for (size_t t = 0; t < m->n_tokens; t++)
            cpu->codes[t * m->n_channels + d] = channel_code(m->keys[t * m->n_channels + d], scale, inverse);
    }
}

static void column_decode_rows(ChannelCpu *cpu, size_t first_token, size_t n_tokens, float *decoded) {
    size_t n_channels = cpu->matrix.n_channels;
    const int8_t *codes = cpu->codes + first_token * n_channels;
    for (size_t d = 0; d < n_channels; d++)
        for (size_t t = 0; t < n_tokens; t++)
            decoded[t * n_channels + d] = channel_decode(codes[t * n_channels + d], cpu->scales[d]);
}

/* ---- Row after row */

static void row_scales(ChannelCpu *cpu) {
    const ChannelMatrix *m = &cpu->matrix;
    for (size_t d = 0; d < m->n_channels; d++)
        cpu->largest[d] = 0;
    for (size_t t = 0; t < m->n_tokens; t++)
        for (size_t d = 0; d < m->n_channels; d++)
            cpu->largest[d] = channel_larger(cpu->largest[d], channel_magnitude(m->keys[t * m->n_channels + d]));
    for (size_t d = 0; d < m->n_channels; d++)
        cpu->scales[d] = channel_scale(cpu->largest[d]);
}

static void row_codes(ChannelCpu *cpu) {
    const ChannelMatrix *m = &cpu->matrix;
    for (size_t d = 0; d < m->n_channels; d++)
        cpu->inverses[d] = channel_inverse(cpu->scales[d]);
    for (size_t t = 0; t < m->n_tokens; t++)
        for (size_t d = 0; d < m->n_channels; d++)
            cpu->codes[t * m->n_channels + d] =
                channel_code(m->keys[t * m->n_channels + d], cpu->scales[d], cpu->inverses[d]);
}

static void row_decode_rows(ChannelCpu *cpu, size_t first_token, size_t n_tokens, float *decoded) {
    size_t n_channels = cpu->matrix.n_channels;
    const int8_t *codes = cpu->codes + first_token * n_channels;
    for (size_t t = 0; t < n_tokens; t++)
        for (size_t d = 0; d < n_channels; d++)
            decoded[t * n_channels + d] = channel_decode(codes[t * n_channels + d], cpu->scales[d]);
}

/* ---- Both: all rows, round and round in the memory for decoded ones */

static void decode_all(ChannelCpu *cpu) {
    for (size_t t = 0; t < cpu->matrix.n_tokens; t += cpu->n_decoded)
        cpu->steps->decode_rows(cpu, t, at_most(cpu->matrix.n_tokens - t, cpu->n_decoded), cpu->decoded);
}

const ChannelCpuSteps channel_cpu_column_walk = {.run = {column_scales, column_codes, decode_all},
                                                 .decode_rows = column_decode_rows};
const ChannelCpuSteps channel_cpu_row_major = {.run = {row_scales, row_codes, decode_all},
                                               .decode_rows = row_decode_rows};

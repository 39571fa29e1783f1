/* See errors.h. */
#include "eval/kv_quant/errors.h"

#include "base/checked.h"
#include "base/half.h"
#include "base/random.h"
#include "channel_int8/cpu.h"
#include "channel_int8/reference.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_ELEMENTS                                                                                                 \
    ((size_t)1 << 16)                  /* that a thread takes at a time; what is added up does not depend on threads */
#define CHUNK_BYTES ((size_t)64 << 20) /* of decoded numbers that are fetched from a device at a time */

static size_t block_tokens(size_t n_channels) {
    return at_least(BLOCK_ELEMENTS / n_channels, 1);
}

/* Whole blocks. */
static size_t chunk_tokens(size_t n_tokens, size_t n_channels) {
    size_t block = block_tokens(n_channels);
    return at_most(round_up(at_least(CHUNK_BYTES / sizeof(float) / n_channels, 1), block), n_tokens);
}

size_t quant_check_bytes(size_t n_tokens, size_t n_channels) {
    return n_tokens * n_channels + chunk_tokens(n_tokens, n_channels) * n_channels * (sizeof(float) + 1);
}

/* ---- The reference */

/* Rows as a variant sees them, whose keys may be FP16. */
typedef struct Block {
    const float *keys; /* (n_tokens, n_channels) */
    size_t first_token, n_tokens;
    float *halves; /* NULL, or what keys points at; owned */
} Block;

static Block block_open(const QuantCheck *c, size_t index) {
    size_t n_channels = c->matrix.n_channels, size = block_tokens(n_channels);
    Block b = {.first_token = index * size};
    b.n_tokens = at_most(size, c->matrix.n_tokens - b.first_token);
    b.keys = c->matrix.keys + b.first_token * n_channels;
    if (!c->of_halves)
        return b;
    b.halves = malloc(b.n_tokens * n_channels * sizeof *b.halves);
    for (size_t i = 0; b.halves != NULL && i < b.n_tokens * n_channels; i++)
        b.halves[i] = half_to_float(half_from_float(b.keys[i]));
    b.keys = b.halves; /* NULL: out of memory */
    return b;
}

typedef struct Reference {
    QuantCheck *check;
    double *largest; /* (n_threads, n_channels) */
    atomic_bool failed;
} Reference;

static void find_largest(void *context, size_t begin, size_t end, int thread) {
    Reference *r = context;
    size_t n_channels = r->check->matrix.n_channels;
    for (size_t i = begin; i < end; i++) {
        Block b = block_open(r->check, i);
        if (b.keys == NULL)
            atomic_store(&r->failed, true);
        else
            channel_reference_largest(b.keys, b.n_tokens, n_channels, r->largest + (size_t)thread * n_channels);
        free(b.halves);
    }
}

static void make_codes(void *context, size_t begin, size_t end, int thread) {
    Reference *r = context;
    const QuantCheck *c = r->check;
    size_t n_channels = c->matrix.n_channels;
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        Block b = block_open(c, i);
        if (b.keys == NULL)
            atomic_store(&r->failed, true);
        else
            channel_reference_codes(b.keys, c->scales, b.n_tokens, n_channels,
                                    c->expected + b.first_token * n_channels);
        free(b.halves);
    }
}

static int make_reference(QuantCheck *c, Error *error) {
    size_t n_channels = c->matrix.n_channels, n_threads = (size_t)thread_pool_size(c->pool);
    size_t n_blocks = divide_up(c->matrix.n_tokens, block_tokens(n_channels));
    Reference r = {.check = c, .largest = calloc(n_threads * n_channels, sizeof(double))};
    if (r.largest == NULL)
        return error_memory(error, "the reference", n_threads * n_channels * sizeof(double));
    thread_pool_run(c->pool, n_blocks, 1, find_largest, &r);
    for (size_t i = n_channels; i < n_threads * n_channels; i++) {
        double *largest = &r.largest[i % n_channels];
        *largest = isnan(*largest) || isnan(r.largest[i]) ? (double)NAN : fmax(*largest, r.largest[i]);
    }
    channel_reference_scales(r.largest, n_channels, c->scales);
    free(r.largest);
    thread_pool_run(c->pool, n_blocks, 1, make_codes, &r);
    return r.failed ? error_memory(error, "keys in FP16", BLOCK_ELEMENTS * sizeof(float)) : 0;
}

static int allocate(QuantCheck *c, Error *error) {
    size_t n_channels = c->matrix.n_channels, n = c->matrix.n_tokens * n_channels;
    c->query = malloc(n_channels * sizeof *c->query);
    c->scales = malloc(2 * n_channels * sizeof *c->scales);
    c->expected = channel_map(n, "the reference's codes", error);
    c->codes = malloc(c->chunk_tokens * n_channels);
    c->decoded = malloc(c->chunk_tokens * n_channels * sizeof *c->decoded);
    if (c->query == NULL || c->scales == NULL || c->codes == NULL || c->decoded == NULL || c->expected == NULL)
        return error_memory(error, "the comparison with the reference",
                            quant_check_bytes(c->matrix.n_tokens, n_channels));
    c->found = c->scales + n_channels;
    return 0;
}

int quant_check_open(QuantCheck *c, ThreadPool *pool, const ChannelMatrix *matrix, uint64_t seed, Error *error) {
    *c = (QuantCheck){
        .pool = pool, .matrix = *matrix, .chunk_tokens = chunk_tokens(matrix->n_tokens, matrix->n_channels)};
    if (allocate(c, error) < 0 || make_reference(c, error) < 0) {
        quant_check_close(c);
        return error->code;
    }
    for (size_t d = 0; d < matrix->n_channels; d++)
        c->query[d] = 2 * random_uniform(&seed) - 1;
    return 0;
}

void quant_check_close(QuantCheck *c) {
    free(c->query);
    free(c->scales);
    free(c->codes);
    free(c->decoded);
    channel_unmap(c->expected, c->matrix.n_tokens * c->matrix.n_channels);
    *c = (QuantCheck){0};
}

/* ---- A variant */

typedef struct Sums {
    double squares, max_abs, score;
    size_t n_wrong;
} Sums;

/* A chunk of rows that a device has handed over. */
typedef struct Chunk {
    const QuantCheck *check;
    size_t first_token, n_tokens;
    Sums *sums; /* (blocks of all rows) */
} Chunk;

static bool same(float a, float b) {
    return memcmp(&a, &b, sizeof a) == 0 || (isnan(a) && isnan(b));
}

static void compare_row(const QuantCheck *c, const float *keys, const int8_t *expected, const int8_t *codes,
                        const float *decoded, Sums *sums) {
    double squares = 0, score = 0, most = sums->max_abs;
    for (size_t d = 0; d < c->matrix.n_channels; d++) {
        double error = (double)keys[d] - (double)decoded[d];
        squares += error * error;
        score += c->query[d] * error;
        most = fabs(error) > most ? fabs(error) : most;
    }
    for (size_t d = 0; d < c->matrix.n_channels; d++) {
        float product;
        channel_reference_decode(&expected[d], &c->scales[d], 1, 1, &product);
        product = c->of_halves ? half_to_float(half_from_float(product)) : product;
        sums->n_wrong += (size_t)(codes[d] != expected[d]) + (size_t)!same(decoded[d], product);
    }
    sums->squares += squares;
    sums->score += fabs(score);
    sums->max_abs = most;
}

static void compare_blocks(void *context, size_t begin, size_t end, int thread) {
    const Chunk *chunk = context;
    const QuantCheck *c = chunk->check;
    size_t n_channels = c->matrix.n_channels, size = block_tokens(n_channels);
    (void)thread;
    for (size_t i = begin; i < end; i++)
        for (size_t t = i * size; t < at_most((i + 1) * size, chunk->n_tokens); t++) {
            size_t all = (chunk->first_token + t) * n_channels, here = t * n_channels;
            compare_row(c, c->matrix.keys + all, c->expected + all, c->codes + here, c->decoded + here,
                        &chunk->sums[chunk->first_token / size + i]);
        }
}

static int compare_rows(QuantCheck *c, ChannelDevice *device, Sums *sums, Error *error) {
    size_t block = block_tokens(c->matrix.n_channels);
    for (size_t t = 0; t < c->matrix.n_tokens; t += c->chunk_tokens) {
        Chunk chunk = {c, t, at_most(c->chunk_tokens, c->matrix.n_tokens - t), sums};
        if (device->ops->read_codes(device, t, chunk.n_tokens, c->codes, error) < 0 ||
            device->ops->read_decoded(device, t, chunk.n_tokens, c->decoded, error) < 0)
            return error->code;
        thread_pool_run(c->pool, divide_up(chunk.n_tokens, block), 1, compare_blocks, &chunk);
    }
    return 0;
}

/* The reference of other keys than those before, where the variant reads others. */
static int prepare(QuantCheck *c, const ChannelVariant *variant, Error *error) {
    if (variant->half_keys == c->of_halves)
        return 0;
    c->of_halves = variant->half_keys;
    return make_reference(c, error);
}

int quant_check(QuantCheck *c, ChannelDevice *device, const ChannelVariant *variant, QuantErrors *out, Error *error) {
    size_t n_channels = c->matrix.n_channels, n_blocks = divide_up(c->matrix.n_tokens, block_tokens(n_channels));
    Sums *sums = calloc(n_blocks, sizeof *sums), all = {0};
    if (sums == NULL)
        return error_memory(error, "errors", n_blocks * sizeof *sums);
    if (prepare(c, variant, error) < 0 || device->ops->read_scales(device, c->found, error) < 0 ||
        compare_rows(c, device, sums, error) < 0) {
        free(sums);
        return error->code;
    }
    for (size_t d = 0; d < n_channels; d++)
        all.n_wrong += !same(c->found[d], c->scales[d]);
    for (size_t i = 0; i < n_blocks; i++) {
        all.squares += sums[i].squares;
        all.score += sums[i].score;
        all.max_abs = fmax(all.max_abs, sums[i].max_abs);
        all.n_wrong += sums[i].n_wrong;
    }
    free(sums);
    *out = (QuantErrors){sqrt(all.squares), all.max_abs, all.score / (double)c->matrix.n_tokens, all.n_wrong};
    return 0;
}

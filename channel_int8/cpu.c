/* See cpu.h: the device, what is loaded into it, and how fast plain loops are there. */
#include "channel_int8/cpu.h"

#include "base/checked.h"
#include "base/machine/clock.h"
#include "base/machine/memory.h"
#include "base/machine/pages.h"
#include "base/simd/detect.h"
#include "channel_int8/cpu_steps.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MIB           ((size_t)1 << 20)
#define CACHE_TIMES   4 /* what should lie in memory is so much larger than the caches */
#define SMALLEST      (256 * MIB)
#define PAGE_BYTES    4096
#define BEYOND_CACHES 2 /* what is so much larger is taken to come from memory */

/* ---- Memory */

void *channel_map(size_t size_bytes, const char *what, Error *error) {
    void *memory = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        error_memory(error, what, size_bytes);
        return NULL;
    }
    pages_ask(memory, size_bytes, PAGES_HUGE);
    return memory;
}

void channel_unmap(void *memory, size_t size_bytes) {
    if (memory != NULL)
        munmap(memory, size_bytes);
}

/* ---- What is loaded */

/* Rows of decoded numbers that have a place: all, or more than the caches hold, as many for each thread. */
static size_t decoded_rows(const ChannelCpu *cpu, size_t n_tokens, size_t n_channels) {
    size_t n_threads = (size_t)thread_pool_size(cpu->pool);
    return at_most(n_tokens, n_threads * divide_up(cpu->decoded_bytes / n_threads, n_channels * sizeof(float)));
}

/* Offsets of the parts of one piece of memory, each on a cache line of its own; the end is a multiple of MIB. Largest
 * magnitudes begin on pages, as keys do: processors take a load for one of what was just stored where the last twelve
 * bits of the addresses are the same, and so they are for what was read before. */
typedef struct Parts {
    size_t decoded, scales, inverses, largest, largest_stride, end;
} Parts;

static Parts lay_out(const ChannelCpu *cpu, size_t n_tokens, size_t n_channels) {
    size_t line = CHANNEL_LINE, channels = round_up((n_channels + CHANNEL_LINE) * sizeof(float), line);
    Parts p = {.decoded = round_up(n_tokens * n_channels, line)};
    p.scales = p.decoded + round_up(decoded_rows(cpu, n_tokens, n_channels) * n_channels * sizeof(float), line);
    p.inverses = p.scales + channels;
    p.largest = round_up(p.inverses + channels, PAGE_BYTES);
    p.largest_stride = round_up(n_channels, PAGE_BYTES / sizeof(uint32_t));
    p.end = round_up(p.largest + (size_t)thread_pool_size(cpu->pool) * p.largest_stride * sizeof(uint32_t), MIB);
    return p;
}

static void memory_of(ChannelDevice *device, const ChannelVariant *variant, size_t n_tokens, size_t n_channels,
                      size_t *needed, size_t *available) {
    (void)variant;
    *needed = lay_out((ChannelCpu *)device, n_tokens, n_channels).end;
    *available = memory_available();
}

static void touch_pieces(void *context, size_t begin, size_t end, int thread) {
    (void)thread;
    pages_touch((uint8_t *)context + begin * MIB, (end - begin) * MIB);
}

static void unload(ChannelDevice *device) {
    ChannelCpu *cpu = (ChannelCpu *)device;
    channel_unmap(cpu->codes, cpu->map_bytes);
    cpu->codes = NULL;
    cpu->steps = NULL;
}

static int load(ChannelDevice *device, const ChannelVariant *variant, const ChannelMatrix *matrix, Error *error) {
    ChannelCpu *cpu = (ChannelCpu *)device;
    size_t n_tokens = matrix->n_tokens, n_channels = matrix->n_channels;
    Parts parts = lay_out(cpu, n_tokens, n_channels);
    uint8_t *memory = channel_map(parts.end, "codes and decoded numbers", error);
    if (memory == NULL)
        return error->code;
    thread_pool_each(cpu->pool, parts.end / MIB, touch_pieces, memory);
    cpu->steps = variant->kernels;
    cpu->matrix = *matrix;
    cpu->codes = (int8_t *)memory;
    cpu->map_bytes = parts.end;
    cpu->decoded = (float *)(void *)(memory + parts.decoded);
    cpu->n_decoded = decoded_rows(cpu, n_tokens, n_channels);
    cpu->scales = (float *)(void *)(memory + parts.scales);
    cpu->inverses = (float *)(void *)(memory + parts.inverses);
    cpu->largest = (uint32_t *)(void *)(memory + parts.largest);
    cpu->largest_stride = parts.largest_stride;
    size_t read_bytes = n_tokens * n_channels * (sizeof(float) + sizeof(int8_t));
    device->from_cache = read_bytes < BEYOND_CACHES * device->cache_bytes;
    cpu->past_caches = 2 * read_bytes > device->cache_bytes;
    device->transfers = (ChannelTransfers){0};
    return 0;
}

static int run(ChannelDevice *device, ChannelStep step, size_t n_times, double *ms, Error *error) {
    ChannelCpu *cpu = (ChannelCpu *)device;
    (void)error;
    double begin = clock_seconds();
    for (size_t i = 0; i < n_times; i++)
        cpu->steps->run[step](cpu);
    *ms = (clock_seconds() - begin) * 1e3 / (double)n_times;
    return 0;
}

/* ---- Plain loops over what is loaded */

typedef struct Moving {
    ChannelCpu *cpu;
    const ChannelKernels *kernels;
    ChannelMove move;
} Moving;

/* Bytes of an element on either side. */
static const struct {
    size_t read, written;
} MOVES[CHANNEL_MOVE_COUNT] = {[CHANNEL_MOVE_SCALES] = {4, 0},
                               [CHANNEL_MOVE_CODES] = {4, 1},
                               [CHANNEL_MOVE_DECODE] = {1, 4},
                               [CHANNEL_MOVE_COPY] = {4, 4}};

/* Lines of CHANNEL_LINE elements. Decoded numbers go round and round in a thread's places, as where they are made. */
static void move_lines(void *context, size_t begin, size_t end, int thread) {
    const Moving *m = context;
    const ChannelCpu *cpu = m->cpu;
    size_t read = MOVES[m->move].read, written = MOVES[m->move].written, places = end, first = 0;
    const uint8_t *from = read == 1 ? (const uint8_t *)cpu->codes : (const uint8_t *)cpu->matrix.keys;
    uint8_t *to = written == 1 ? (uint8_t *)cpu->codes : (uint8_t *)cpu->decoded;
    if (written == 4 && cpu->n_decoded < cpu->matrix.n_tokens) {
        places = cpu->n_decoded / (size_t)thread_pool_size(cpu->pool) * cpu->matrix.n_channels / CHANNEL_LINE;
        first = (size_t)thread * places;
    }
    for (size_t n; places > 0 && begin < end; begin += n) {
        size_t place = begin % places;
        n = at_most(end - begin, places - place);
        m->kernels->move(m->move, from + begin * CHANNEL_LINE * read, to + (first + place) * CHANNEL_LINE * written, n,
                         cpu->past_caches);
    }
}

/* By the best instruction set that runs here, whatever the variant's. */
static int measure_move(ChannelDevice *device, ChannelMove move, size_t n_times, double *bytes_per_second,
                        Error *error) {
    ChannelCpu *cpu = (ChannelCpu *)device;
    size_t n_lines = cpu->matrix.n_tokens * cpu->matrix.n_channels / CHANNEL_LINE;
    Moving m = {cpu, channel_cpu_vectors(cpu_best_simd_level()).kernels, move};
    (void)error;
    double bytes = (double)(n_lines * CHANNEL_LINE * (MOVES[move].read + MOVES[move].written)), begin = clock_seconds();
    for (size_t i = 0; i < n_times; i++)
        thread_pool_share(cpu->pool, n_lines, CHANNEL_PIECES, move_lines, &m);
    *bytes_per_second = bytes * (double)n_times / (clock_seconds() - begin);
    return 0;
}

/* ---- Results */

static int read_scales(ChannelDevice *device, float *scales, Error *error) {
    const ChannelCpu *cpu = (ChannelCpu *)device;
    (void)error;
    memcpy(scales, cpu->scales, cpu->matrix.n_channels * sizeof *scales);
    return 0;
}

static int read_codes(ChannelDevice *device, size_t first_token, size_t n_tokens, int8_t *codes, Error *error) {
    const ChannelCpu *cpu = (ChannelCpu *)device;
    size_t n_channels = cpu->matrix.n_channels;
    (void)error;
    memcpy(codes, cpu->codes + first_token * n_channels, n_tokens * n_channels);
    return 0;
}

static int read_decoded(ChannelDevice *device, size_t first_token, size_t n_tokens, float *decoded, Error *error) {
    ChannelCpu *cpu = (ChannelCpu *)device;
    size_t n_channels = cpu->matrix.n_channels;
    (void)error;
    if (cpu->n_decoded == cpu->matrix.n_tokens)
        memcpy(decoded, cpu->decoded + first_token * n_channels, n_tokens * n_channels * sizeof *decoded);
    else
        cpu->steps->decode_rows(cpu, first_token, n_tokens, decoded);
    return 0;
}

/* ---- The device */

static void close_cpu(ChannelDevice *device) {
    ChannelCpu *cpu = (ChannelCpu *)device;
    unload(device);
    thread_pool_close(cpu->pool);
    free(cpu);
}

static const ChannelDeviceOps OPS = {.close = close_cpu,
                                     .memory = memory_of,
                                     .load = load,
                                     .unload = unload,
                                     .run = run,
                                     .measure_move = measure_move,
                                     .read_scales = read_scales,
                                     .read_codes = read_codes,
                                     .read_decoded = read_decoded};

/* K is read for scales and again for codes. */
static void add_variant(ChannelCpu *cpu, const char *name, const char *what, bool is_baseline,
                        const ChannelCpuSteps *steps) {
    cpu->variants[cpu->device.n_variants++] =
        (ChannelVariant){.name = name, .what = what, .is_baseline = is_baseline, .bytes = {4, 5, 5}, .kernels = steps};
}

/* Those with VNNI have the kernels of those without. */
static const char *const VECTOR_NAMES[SIMD_LEVEL_COUNT] = {
    [SIMD_SCALAR] = "simd_scalar", [SIMD_AVX2] = "simd_avx2", [SIMD_AVX512] = "simd_avx512", [SIMD_NEON] = "simd_neon"};

static void list_variants(ChannelCpu *cpu) {
    add_variant(cpu, "column_walk", "column after column, scales on all threads, the rest on one: the published kind",
                true, &channel_cpu_column_walk);
    add_variant(cpu, "row_major", "row after row, a plain loop on one thread", true, &channel_cpu_row_major);
    for (SimdLevel level = SIMD_SCALAR; level != SIMD_LEVEL_COUNT; level = cpu_next_level(level)) {
        cpu->vectors[level] = channel_cpu_vectors(level);
        if (VECTOR_NAMES[level] != NULL)
            add_variant(cpu, VECTOR_NAMES[level], "row after row, vectors on all threads", false, &cpu->vectors[level]);
    }
    cpu->device.variants = cpu->variants;
}

int channel_cpu_open(ChannelDevice **out, int n_threads, Error *error) {
    ChannelCpu *cpu = calloc(1, sizeof *cpu);
    if (cpu == NULL)
        return error_memory(error, "the variants on the CPU", sizeof *cpu);
    if (thread_pool_open(&cpu->pool, n_threads, error) < 0) {
        free(cpu);
        return error->code;
    }
    cpu->device = (ChannelDevice){.ops = &OPS, .kind = "cpu", .cache_bytes = memory_cache_bytes()};
    cpu->decoded_bytes = at_least(CACHE_TIMES * cpu->device.cache_bytes, SMALLEST);
    snprintf(cpu->device.description, sizeof cpu->device.description, "%d thread%s, %s", n_threads,
             n_threads == 1 ? "" : "s", simd_level_name(cpu_best_simd_level()));
    list_variants(cpu);
    *out = &cpu->device;
    return 0;
}

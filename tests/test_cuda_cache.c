/* The cache on a device, its kernels run on the host (tests/cuda_shim), against the cache on the host: after every
 * batch, in every layer, each byte of every store is the same; for all codecs, head dimensions, cascades, rings that
 * wrap and batches of any length. Fragment records against the codecs' own, there and back. */
#include "base/simd/detect.h"
#include "cuda/device_cache.h"
#include "kvcache/policy_check.h"
#include "kvcache/policy_text.h"
#include "tests/cuda_shim/shim.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { N_LAYERS = 2, N_KV_HEADS = 2, Q_PER_KV = 2, MAX_DIM = 256, MAX_BATCH = 150, N_CTX = 400 };

static float keys[MAX_BATCH * N_KV_HEADS * MAX_DIM], values[MAX_BATCH * N_KV_HEADS * MAX_DIM];
static float queries[MAX_BATCH * N_KV_HEADS * Q_PER_KV * MAX_DIM];
static uint64_t random_state = 1;

static size_t random_below(size_t n) {
    random_state = random_state * 6364136223846793005 + 1442695040888963407;
    return (size_t)(random_state >> 33) % n;
}

/* A channel in eight is eight times as large; a number in a thousand is beyond FP16, some are none. */
static void fill_random(float *rows, size_t n, size_t head_dim) {
    for (size_t i = 0; i < n; i++) {
        float size = i % head_dim % 8 == 3 ? 8 : 1;
        rows[i] = ((float)random_below(20001) / 1e4f - 1) * (random_below(1000) == 0 ? 1e5f : size);
        if (random_below(5000) == 0)
            rows[i] = random_below(2) == 0 ? NAN : -INFINITY;
    }
}

/* ---- Records */

static void check_record(KvCodecId id, KvSide side, const KvGroup *group) {
    static float numbers[64 * MAX_DIM], scratch[64 * MAX_DIM];
    size_t size_bytes = kv_codec_bytes(kv_codec(id), side, group);
    size_t stored_bytes = KV_FRAGMENT_RECORDS.stored_bytes(id, side, group);
    uint8_t *record = malloc(size_bytes), *stored = malloc(stored_bytes), *back = malloc(size_bytes);
    fill_random(numbers, group->n_tokens * group->head_dim, group->head_dim);
    kv_codec_encode(kv_codec(id), cpu_best_simd_level(), side, group, numbers, scratch, record);
    memset(back, 0x55, size_bytes);
    KV_FRAGMENT_RECORDS.store(id, side, group, record, stored);
    KV_FRAGMENT_RECORDS.load(id, side, group, stored, back);
    assert_memory_equal(back, record, size_bytes);
    assert_int_equal(stored_bytes % FRAGMENT_ALIGN, 0);
    free(record);
    free(stored);
    free(back);
}

static void test_records(void **state) {
    (void)state;
    const size_t dims[] = {8, 16, 48, 64, 80, 96, 128, 256};
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++)
        for (size_t n_tokens = 32; n_tokens <= 64; n_tokens += 32)
            for (KvCodecId id = 0; id < KV_CODEC_COUNT; id++) {
                KvGroup group = {n_tokens, dims[i], n_tokens, false};
                for (KvSide side = 0; side < KV_SIDES && kv_codec_check(kv_codec(id), &group, NULL) == 0; side++)
                    check_record(id, side, &group);
            }
}

/* Every code has a place of its own, and the place knows its code. */
static void test_places(void **state) {
    (void)state;
    for (uint32_t n_steps = 1; n_steps <= 16; n_steps++)
        for (KvSide side = 0; side < KV_SIDES; side++)
            for (uint32_t token = 0; token < 64; token++)
                for (uint32_t dim = 0; dim < n_steps * 16; dim++) {
                    FragmentPlace p = side == KV_KEYS ? fragment_place_key(n_steps, token, dim)
                                                      : fragment_place_value(n_steps, token, dim);
                    assert_true(p.strip < 2 && p.lane < 32 && p.quad < fragment_quads(n_steps) && p.byte < 4);
                    assert_int_equal(fragment_token(side, n_steps, p.strip, p.lane, p.quad, p.byte), token);
                    assert_int_equal(fragment_dim(side, n_steps, p.lane, p.quad, p.byte), dim);
                }
}

/* ---- Whole caches */

typedef struct Pair {
    CudaDevice device;
    KvCache host, cuda;
    void *memory; /* the host cache's */
    uint8_t *copy;
} Pair;

static void open_pair(Pair *pair, const char *policy_text, size_t group, size_t head_dim, size_t n_batch) {
    Error error = {0};
    KvPolicy policy = kv_policy_full();
    KvShape shape = {N_LAYERS, N_KV_HEADS, head_dim, N_CTX, n_batch, {{0}}, 0};
    if (kv_policy_parse(policy_text, &policy, &error) < 0)
        fail_msg("%s", error.message);
    policy.group = group;
    if (kv_policy_check(&policy, N_LAYERS, head_dim, N_CTX, &error) < 0 ||
        kvcache_open(&pair->host, &shape, &policy, &KV_FRAGMENT_RECORDS, &error) < 0 ||
        cuda_device_open(&pair->device, &error) < 0 ||
        cuda_open_cache(&pair->device, &pair->cuda, &shape, &policy, "the KV cache", &error) < 0)
        fail_msg("%s: %s", policy_text, error.message);
    pair->host.level = cpu_best_simd_level();
    pair->memory = aligned_alloc(KV_ALIGNMENT, kvcache_bytes(&pair->host));
    memset(pair->memory, 0, kvcache_bytes(&pair->host));
    kvcache_set_memory(&pair->host, pair->memory);
    pair->copy = malloc(kvcache_bytes(&pair->host));
}

static void close_pair(Pair *pair) {
    cuda_close_cache(&pair->cuda);
    cuda_device_close(&pair->device);
    kvcache_close(&pair->host);
    free(pair->memory);
    free(pair->copy);
}

/* Of exactly their size. */
static float *copy_of(const float *numbers, size_t n) {
    return memcpy(malloc(n * sizeof *numbers), numbers, n * sizeof *numbers);
}

static void rotate_all(float *x, size_t n_tokens, size_t n_heads, size_t head_dim, RopePairing pairing,
                       const float *rotation) {
    for (size_t i = 0; i < n_tokens * n_heads; i++)
        rope_rotate(x + i * head_dim, head_dim, pairing, rotation + i / n_heads * head_dim);
}

/* On the device rotated and taken at once, on the host one after the other. Rotations are any numbers. */
static void append_both(Pair *pair, size_t layer, size_t n) {
    const KvShape *shape = &pair->host.layout.shape;
    size_t dim = shape->head_dim, n_numbers = n * N_KV_HEADS * dim;
    RopePairing pairing = layer == 0 ? ROPE_HALVES : ROPE_INTERLEAVED;
    CudaBatch batch = {.cache = cuda_cache_of(&pair->cuda),
                       .layer = layer,
                       .n_tokens = n,
                       .n_heads = N_KV_HEADS * Q_PER_KV,
                       .n_kv_heads = N_KV_HEADS,
                       .head_dim = dim,
                       .row_dim = pair->host.layout.row_dim,
                       .group = pair->host.layout.policy.group,
                       .pairing = pairing,
                       .commits = n == 1 && layer == 0};
    float *k = copy_of(keys, n_numbers), *v = copy_of(values, n_numbers), *q = copy_of(queries, n_numbers * Q_PER_KV);
    float *host_k = copy_of(keys, n_numbers), *host_q = copy_of(queries, n_numbers * Q_PER_KV);
    float *rotation = copy_of(queries, n * dim);
    if (layer == 0)
        cuda_cache_begin(batch.cache, pair->cuda.n_tokens, pair->device.stream);
    cuda_cache_append(&batch, &(CudaRows){rotation, q, k, v}, pair->device.stream);
    if (!batch.commits)
        cuda_cache_commit(&batch, pair->device.stream);
    rotate_all(host_k, n, N_KV_HEADS, dim, pairing, rotation);
    rotate_all(host_q, n, N_KV_HEADS * Q_PER_KV, dim, pairing, rotation);
    assert_memory_equal(k, host_k, n_numbers * sizeof *k);
    assert_memory_equal(q, host_q, n_numbers * Q_PER_KV * sizeof *q);
    for (size_t head = 0; head < N_KV_HEADS; head++) {
        kvcache_append(&pair->host, layer, head, n, &(KvRows){.keys = host_k, .values = v});
        kvcache_commit(&pair->host, layer, head, n);
    }
    float *const all[] = {k, v, q, host_k, host_q, rotation};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
}

static void compare(Pair *pair, const char *what) {
    size_t kept = pair->host.layout.kept_bytes;
    cudaMemcpy(pair->copy, pair->cuda.memory, kept, cudaMemcpyDeviceToHost);
    for (size_t i = 0; i < kept; i++)
        if (pair->copy[i] != ((const uint8_t *)pair->memory)[i])
            fail_msg("%s: after %zu tokens byte %zu of %zu differs", what, pair->host.n_tokens, i, kept);
    for (size_t layer = 0; layer < N_LAYERS; layer++)
        for (size_t store = 0; store < KV_MAX_STORES; store++)
            assert_int_equal(kvcache_counters(&pair->cuda, layer)->tokens_encoded[store],
                             kvcache_counters(&pair->host, layer)->tokens_encoded[store]);
}

static void check_cache(const char *policy, size_t group, size_t head_dim, size_t most_batch, size_t n_tokens) {
    Pair pair;
    char what[160];
    snprintf(what, sizeof what, "%s, groups of %zu, head_dim %zu", policy, group, head_dim);
    open_pair(&pair, policy, group, head_dim, most_batch);
    while (pair.host.n_tokens < n_tokens) {
        size_t n = 1 + random_below(most_batch);
        n = n < n_tokens - pair.host.n_tokens ? n : n_tokens - pair.host.n_tokens;
        for (size_t layer = 0; layer < N_LAYERS; layer++) {
            fill_random(keys, n * N_KV_HEADS * head_dim, head_dim);
            fill_random(values, n * N_KV_HEADS * head_dim, head_dim);
            fill_random(queries, n * N_KV_HEADS * Q_PER_KV * head_dim, head_dim);
            append_both(&pair, layer, n);
        }
        kvcache_advance(&pair.host, n);
        kvcache_advance(&pair.cuda, n);
        compare(&pair, what);
    }
    close_pair(&pair);
}

static void test_codecs(void **state) {
    (void)state;
    const size_t dims[] = {8, 48, 64, 80, 128, 256, 100, 18}; /* the last two are padded where need be */
    for (KvCodecId id = 0; id < KV_CODEC_COUNT; id++)
        for (size_t i = 0; i < sizeof dims / sizeof *dims; i++) {
            KvGroup group = {i % 2 == 0 ? 64 : 32, dims[i], i % 2 == 0 ? 64 : 32, false};
            char policy[64];
            if (dims[i] % 8 == 0 && kv_codec_check(kv_codec(id), &group, NULL) < 0)
                continue;
            cuda_shim_set_seed((unsigned)i % 3);
            snprintf(policy, sizeof policy, "sink=5,f16:16,%s:*", kv_codec_name(kv_codec(id)));
            check_cache(policy, group.n_tokens, dims[i], MAX_BATCH, 160);
        }
    cuda_shim_set_seed(0);
}

static void test_policies(void **state) {
    (void)state;
    static const char *const POLICIES[] = {
        "f16:*",
        "sink=1,f16:150,int8:*",                /* rows move by less than a round of move_down(), */
        "sink=16,f16:32",                       /* streams */
        "sink=3,f16:0,int8:64,q4_0:64,int2:64", /* rings that wrap, and streams */
        "sink=1,f16:10,int8/q4_0:32,nf4:*",
        "f16:16,f16/nf4:64,fp8:*",
        "@0:f16:*;@*:sink=16,f16:32,int4:*",
        "rotate=on,sink=2,f16:8,int8:32,binary:*",
        "rotate=v,f16:8,q5_1:*",
    };
    static const char *const PADDED[] = {"sink=3,f16:0,int8:64,q4_0:64,int2:64", "rotate=off,sink=1,f16:10,int8/q4_1:*",
                                         "f16:16,f16/nf4:64,fp8/binary:*"};
    for (size_t i = 0; i < sizeof POLICIES / sizeof *POLICIES; i++) {
        cuda_shim_set_seed((unsigned)i);
        check_cache(POLICIES[i], 32, 64, 40, 330);
        check_cache(POLICIES[i], 64, 64, MAX_BATCH, 400);
    }
    for (unsigned seed = 1; seed <= 3; seed++) {
        cuda_shim_set_seed(seed);
        check_cache(POLICIES[1], 32, 80, 40, 250); /* and here from one thread's part to another's */
    }
    for (size_t i = 0; i < sizeof PADDED / sizeof *PADDED; i++)
        check_cache(PADDED[i], 32, i % 2 == 0 ? 100 : 90, 40, 250);
    cuda_shim_set_seed(0);
}

static void test_too_little_memory(void **state) {
    (void)state;
    Error error = {0};
    CudaDevice device;
    KvCache cache;
    KvPolicy policy = kv_policy_full();
    KvShape shape = {N_LAYERS, N_KV_HEADS, 64, 4096, 128, {{0}}, 0};
    assert_int_equal(cuda_device_open(&device, &error), 0);
    cuda_shim_set_memory(3 << 20);
    assert_int_equal(cuda_open_cache(&device, &cache, &shape, &policy, "the KV cache", &error), ERROR_MEMORY);
    assert_non_null(strstr(error.message, "4."));
    assert_non_null(strstr(error.message, "--quantize_kv"));
    assert_int_equal(cuda_shim_counts().n_allocated, 0);
    cuda_shim_reset();
    cuda_device_close(&device);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_records), cmocka_unit_test(test_places),
                                       cmocka_unit_test(test_codecs), cmocka_unit_test(test_policies),
                                       cmocka_unit_test(test_too_little_memory)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

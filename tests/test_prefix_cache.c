/* The prefix cache: a run that restores what another has stored gives the logits of one that reads everything, bit for
 * bit; prompts that begin alike meet at what they share; what does not match is a miss that says why; and tensors come
 * back as their codecs make them. */
#include "base/half.h"
#include "base/random.h"
#include "kvcache/prefix_cache.h"
#include "tests/tiny_model.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

enum { N_TOKENS = TINY_TOKENS, N_CTX = 320, N_VOCAB = TINY_VOCAB, N_BATCH = 32 };

static char folder[64];
static uint64_t fake_now = 1000;

static uint64_t now(void *user) {
    (void)user;
    return fake_now;
}

static const char *file_path(void) {
    static char path[128];
    snprintf(path, sizeof path, "%s/stowkv-prefixes-1.mdb", folder);
    return path;
}

static PrefixCache *open_prefixes(bool on_disk, size_t memory_bytes, bool clear) {
    PrefixStoreOptions options = {.folder = on_disk ? folder : NULL,
                                  .disk_bytes = 8 << 20,
                                  .memory_bytes = memory_bytes,
                                  .ttl_ms = 1000,
                                  .clear = clear,
                                  .now = now};
    PrefixCache *prefixes;
    Error error = {0};
    if (prefix_cache_open(&prefixes, &options, &error) < 0)
        fail_msg("%s", error.message);
    return prefixes;
}

/* Reads the ids that the cache does not hold yet; their logits go to `logits` (n_tokens, N_VOCAB), unless NULL. With
 * prefixes, each state at the end of a batch is saved, and logits with the last. */
static void read_tokens(Context *context, const int32_t *ids, size_t n_tokens, float *logits, PrefixCache *prefixes,
                        const char *identity) {
    Error error = {0};
    for (size_t done = context->cache.n_tokens; done < n_tokens;) {
        size_t n = context_batch(context, n_tokens - done);
        if (forward(context, ids + done, n, LOGITS_ALL, &error) < 0)
            fail_msg("%s", error.message);
        if (logits != NULL)
            memcpy(logits + done * N_VOCAB, context->logits, n * N_VOCAB * sizeof *logits);
        done += n;
        const float *last = done == n_tokens ? context->logits + (n - 1) * N_VOCAB : NULL;
        if (prefixes != NULL)
            prefix_cache_save(prefixes, identity, &context->cache, &(KvMemory){0}, ids, last, N_VOCAB, 1.0);
    }
}

static size_t restore(PrefixCache *prefixes, Context *context, const int32_t *ids, size_t n_tokens,
                      const char *identity, float *logits, PrefixRestored *out) {
    return prefix_cache_restore(prefixes, identity, &context->cache, &(KvMemory){0}, ids, n_tokens, logits, N_VOCAB,
                                out);
}

/* Every prompt length meets the longest state at or below it; then all logits are those of a cold run. */
static void check_restored(const char *policy, bool on_disk) {
    static float expected[N_TOKENS * N_VOCAB], logits[N_TOKENS * N_VOCAB], last[N_VOCAB];
    Context context;
    PrefixRestored restored;
    PrefixCache *prefixes = open_prefixes(on_disk, on_disk ? 0 : 8 << 20, true);
    tiny_model_context(&context, policy, N_CTX, N_BATCH);
    read_tokens(&context, tiny_tokens, 200, expected, prefixes, policy);
    context_clear(&context);
    read_tokens(&context, tiny_tokens, N_TOKENS, expected, NULL, NULL);
    context_close(&context);
    if (on_disk) {
        prefix_cache_close(prefixes);
        prefixes = open_prefixes(true, 0, false);
    }
    tiny_model_context(&context, policy, N_CTX + 32, N_BATCH);
    static const size_t LENGTHS[][2] = {{20, 0}, {32, 0}, {33, 32}, {100, 96}, {199, 192}, {200, 200}, {300, 200}};
    for (size_t i = 0; i < sizeof LENGTHS / sizeof *LENGTHS; i++) {
        size_t n = LENGTHS[i][0];
        assert_int_equal(restore(prefixes, &context, tiny_tokens, n, policy, last, &restored), LENGTHS[i][1]);
        assert_int_equal(context.cache.n_tokens, LENGTHS[i][1]);
        assert_int_equal(restored.has_logits, n == 200);
        if (n == 200)
            assert_memory_equal(last, expected + 199 * N_VOCAB, sizeof last);
        read_tokens(&context, tiny_tokens, n, logits, NULL, NULL);
        size_t from = LENGTHS[i][1] * N_VOCAB;
        if (memcmp(logits + from, expected + from, (n * N_VOCAB - from) * sizeof *logits) != 0)
            fail_msg("%s: other logits behind %zu restored tokens", policy, LENGTHS[i][1]);
    }
    context_close(&context);
    prefix_cache_close(prefixes);
}

static void test_restored_runs(void **state) {
    (void)state;
    static const char *const POLICIES[] = {"f16:*",
                                           "sink=16,f16:32",
                                           "sink=4,f16:32,int8:*",
                                           "block=32,sink=16,f16:32,int8:64,q4_0:*",
                                           "rounding=aware,sink=4,f16:32,int4:64,int2/nf4:*",
                                           "@0-0:f16:*;@*:sink=16,f16:16,nf4:*"};
    for (size_t i = 0; i < sizeof POLICIES / sizeof *POLICIES; i++) {
        check_restored(POLICIES[i], false);
        check_restored(POLICIES[i], true);
    }
}

/* A second prompt with the same 128 tokens in front: it restores them, and stores little of its own. */
static void test_shared_beginnings(void **state) {
    (void)state;
    int32_t other[N_TOKENS];
    Context context;
    PrefixRestored restored;
    PrefixCacheStats first, second;
    const char *policy = "block=32,f16:0,int8:*";
    PrefixCache *prefixes = open_prefixes(false, 8 << 20, true);
    memcpy(other, tiny_tokens, sizeof other);
    for (size_t i = 140; i < N_TOKENS; i++)
        other[i] = (other[i] + 1) % N_VOCAB;
    tiny_model_context(&context, policy, N_CTX, N_BATCH);
    read_tokens(&context, tiny_tokens, 160, NULL, prefixes, policy);
    prefix_cache_stats(prefixes, &first);
    assert_int_equal(restore(prefixes, &context, other, 160, policy, NULL, &restored), 128);
    read_tokens(&context, other, 160, NULL, prefixes, policy);
    prefix_cache_stats(prefixes, &second);
    assert_int_equal(second.n_hits, 1);
    assert_int_equal(second.tokens_restored, 128);
    assert_true(second.seconds_saved > 0.5 && second.seconds_saved < 1);
    /* One group of 32 tokens in int8, and a head: not five groups. */
    assert_true(second.bytes_stored - first.bytes_stored < first.bytes_stored / 2);
    /* Each prompt finds its own group behind the shared ones. */
    static float expected[N_TOKENS * N_VOCAB], logits[N_TOKENS * N_VOCAB];
    context_clear(&context);
    read_tokens(&context, other, 170, expected, NULL, NULL);
    assert_int_equal(restore(prefixes, &context, other, 170, policy, NULL, &restored), 160);
    read_tokens(&context, other, 170, logits, NULL, NULL);
    assert_memory_equal(logits + 160 * N_VOCAB, expected + 160 * N_VOCAB, 10 * N_VOCAB * sizeof *logits);
    context_close(&context);
    prefix_cache_close(prefixes);
}

static void damage_file(uint8_t wanted) {
    FILE *file = fopen(file_path(), "r+b");
    uint8_t page[4096];
    assert_non_null(file);
    for (long at = 0; fread(page, 1, sizeof page, file) == sizeof page; at += (long)sizeof page) {
        memset(page + 1024, wanted,
               2048); /* of every page that is not in a table's tree: those begin with their number */
        uint64_t number;
        memcpy(&number, page, sizeof number);
        if (number * sizeof page == (uint64_t)at)
            continue;
        fseek(file, at, SEEK_SET);
        fwrite(page, 1, sizeof page, file);
        fseek(file, at + (long)sizeof page, SEEK_SET);
    }
    fclose(file);
}

static void expect_miss(PrefixCache *prefixes, Context *context, const char *identity, PrefixMiss expected,
                        const char *words) {
    PrefixRestored restored;
    assert_int_equal(restore(prefixes, context, tiny_tokens, 97, identity, NULL, &restored), 0);
    assert_int_equal(restored.miss, expected);
    if (strstr(restored.reason, words) == NULL)
        fail_msg("\"%s\" has no \"%s\"", restored.reason, words);
    assert_int_equal(context->cache.n_tokens, 0);
}

static void test_misses(void **state) {
    (void)state;
    Context context;
    PrefixCacheStats stats;
    PrefixCache *prefixes = open_prefixes(true, 0, true);
    tiny_model_context(&context, "sink=4,f16:32,int8:*", N_CTX, N_BATCH);
    expect_miss(prefixes, &context, "model 1\npolicy a", MISS_ABSENT, "no beginning");
    read_tokens(&context, tiny_tokens, 96, NULL, prefixes, "model 1\npolicy a");
    expect_miss(prefixes, &context, "model 2\npolicy a", MISS_IDENTITY, "is of model 1, this run of model 2");
    expect_miss(prefixes, &context, "model 1\npolicy b", MISS_IDENTITY, "is of policy a, this run of policy b");
    fake_now += 1000;
    expect_miss(prefixes, &context, "model 1\npolicy a", MISS_EXPIRED, "expired");
    context_clear(&context);
    read_tokens(&context, tiny_tokens, 96, NULL, prefixes, "model 1\npolicy a");
    prefix_cache_close(prefixes);
    damage_file(0x55);
    prefixes = open_prefixes(true, 0, false);
    expect_miss(prefixes, &context, "model 1\npolicy a", MISS_DAMAGED, "damaged");
    prefix_cache_stats(prefixes, &stats);
    assert_int_equal(stats.misses[MISS_DAMAGED], 1);
    assert_int_equal(stats.n_misses, 1);
    context_close(&context);
    prefix_cache_close(prefixes);
}

/* Changes a byte of the piece wherever it lies in the file. */
static void damage_piece(const uint8_t *bytes, size_t size_bytes) {
    static uint8_t all[8 << 20];
    size_t n_found = 0;
    FILE *file = fopen(file_path(), "r+b");
    assert_non_null(file);
    size_t size = fread(all, 1, sizeof all, file);
    for (size_t at = 0; at + size_bytes <= size; at++)
        if (all[at] == bytes[0] && memcmp(all + at, bytes, size_bytes) == 0) {
            fseek(file, (long)(at + size_bytes / 2), SEEK_SET);
            fputc(all[at + size_bytes / 2] ^ 1, file);
            n_found++;
        }
    fclose(file);
    assert_true(n_found > 0);
}

/* A state of which some pieces came before the miss, the moments of queries among them: a run that reads everything
 * behind it knows nothing of that. */
static void test_a_miss_leaves_nothing(void **state) {
    (void)state;
    static const char policy[] = "block=32,@0-0:sink=4,f16:32,int2:*;@*:sink=4,f16:32,int2:*";
    static float expected[N_TOKENS * N_VOCAB], logits[N_TOKENS * N_VOCAB];
    static uint8_t bytes[1 << 20];
    static KvPiece pieces[256];
    Context context;
    Error error = {0};
    PrefixCache *prefixes = open_prefixes(true, 0, true);
    tiny_model_context(&context, policy, N_CTX, N_BATCH);
    read_tokens(&context, tiny_tokens, N_TOKENS, expected, prefixes, policy);
    prefix_cache_close(prefixes);
    size_t n = kv_pieces(&context.cache.layout, N_TOKENS, pieces), i = 0;
    while (i < n && (pieces[i].rule != 1 || pieces[i].store != KV_SINK))
        i++;
    assert_true(i < n && pieces[i].size_bytes <= sizeof bytes);
    assert_int_equal(kv_piece_save(&context.cache, &pieces[i], &(KvMemory){0}, bytes, &error), 0);
    damage_piece(bytes, pieces[i].size_bytes);
    prefixes = open_prefixes(true, 0, false);
    expect_miss(prefixes, &context, policy, MISS_EVICTED, "evicted"); /* once it was found damaged, it was removed */
    read_tokens(&context, tiny_tokens, N_TOKENS, logits, NULL, NULL);
    assert_memory_equal(logits, expected, sizeof logits);
    context_close(&context);
    prefix_cache_close(prefixes);
}

/* The cap is that of two states or so: what comes last is there. */
static void test_evicted_pieces(void **state) {
    (void)state;
    Context context;
    PrefixRestored restored;
    PrefixCache *prefixes = open_prefixes(false, 200000, true);
    PrefixCacheStats stats;
    tiny_model_context(&context, "f16:*", N_CTX, N_BATCH);
    read_tokens(&context, tiny_tokens, 256, NULL, prefixes, "f16:*");
    prefix_cache_stats(prefixes, &stats);
    assert_true(stats.store.memory_evicted > 0 && stats.store.memory_bytes <= 200000);
    assert_int_equal(restore(prefixes, &context, tiny_tokens, 257, "f16:*", NULL, &restored), 0);
    assert_int_equal(restored.miss, MISS_EVICTED);
    context_close(&context);
    prefix_cache_close(prefixes);
}

/* ---- Tensors */

enum { TENSOR_TOKENS = 100, TENSOR_HEADS = 2, TENSOR_DIM = 96, TENSOR_LAYERS = 3 };
static float keys[TENSOR_LAYERS][TENSOR_TOKENS][TENSOR_HEADS][TENSOR_DIM];
static float values[TENSOR_LAYERS][TENSOR_TOKENS][TENSOR_HEADS][TENSOR_DIM];

static double relative_error(const float *a, const float *b, size_t n) {
    double errors = 0, squares = 0;
    for (size_t i = 0; i < n; i++) {
        errors += pow((double)a[i] - (double)b[i], 2);
        squares += pow((double)a[i], 2);
    }
    return sqrt(errors / squares);
}

/* Of uniform numbers, whose root mean square is 1/sqrt(3) of the largest. A step of 2^-7 of int8: 2^-7 / sqrt(12) /
 * 0.577 = 0.4 %; nf4's widest step is 0.3 of the largest, which bounds its error by 0.15 / 0.577 = 26 %, and is
 * typically a third of that. */
static void check_tensors(KvCodecId id, bool rotated, double least, double most) {
    static float k[TENSOR_LAYERS][TENSOR_TOKENS][TENSOR_HEADS][TENSOR_DIM], v[sizeof k / sizeof(float)];
    PrefixTensors shape = {TENSOR_TOKENS, TENSOR_HEADS, TENSOR_DIM, id, id, rotated};
    PrefixCache *prefixes = open_prefixes(true, 1 << 20, true);
    Error error = {0};
    assert_int_equal(prefix_cache_put_layers(prefixes, "any", tiny_tokens, &shape, TENSOR_LAYERS, &keys[0][0][0][0],
                                             &values[0][0][0][0], &error),
                     0);
    prefix_cache_close(prefixes);
    prefixes = open_prefixes(true, 1 << 20, false);
    assert_true(prefix_cache_get_layers(prefixes, "any", tiny_tokens, &shape, TENSOR_LAYERS, &k[0][0][0][0], v));
    size_t n = sizeof k / sizeof(float);
    double of_keys = relative_error(&keys[0][0][0][0], &k[0][0][0][0], n);
    double of_values = relative_error(&values[0][0][0][0], v, n);
    if (of_keys < least || of_keys > most || of_values < least || of_values > most)
        fail_msg("%s: errors %g and %g", kv_codec_name(kv_codec(id)), of_keys, of_values);
    assert_true(prefix_cache_get_layer(prefixes, "any", tiny_tokens, &shape, 1, &k[0][0][0][0], v));
    assert_true(relative_error(&keys[1][0][0][0], &k[0][0][0][0], n / TENSOR_LAYERS) <= most);
    assert_false(prefix_cache_get_layer(prefixes, "any", tiny_tokens, &shape, TENSOR_LAYERS, &k[0][0][0][0], v));
    assert_false(prefix_cache_get_layer(prefixes, "other", tiny_tokens, &shape, 1, &k[0][0][0][0], v));
    assert_false(prefix_cache_get_layer(prefixes, "any", tiny_tokens + 1, &shape, 1, &k[0][0][0][0], v));
    prefix_cache_close(prefixes);
}

static void test_tensors(void **state) {
    (void)state;
    uint64_t random = 3;
    for (size_t i = 0; i < sizeof keys / sizeof(float); i++) {
        (&keys[0][0][0][0])[i] = (float)random_uniform(&random) * 2 - 1;
        (&values[0][0][0][0])[i] = (float)random_uniform(&random) * 2 - 1;
    }
    check_tensors(KV_F16, false, 0, 0x1p-11);
    check_tensors(KV_INT8, false, 0.001, 0.006);
    check_tensors(KV_NF4, false, 0.03, 0.15);
    check_tensors(KV_NF4, true, 0.03, 0.15);
    check_tensors(KV_Q4_0, false, 0.03, 0.2);
}

static int open_model(void **state) {
    snprintf(folder, sizeof folder, "/tmp/stowkv-prefix-XXXXXX");
    return mkdtemp(folder) == NULL || tiny_model_open(state);
}

static int close_model(void **state) {
    char lock[160];
    snprintf(lock, sizeof lock, "%s-lock", file_path());
    unlink(lock);
    unlink(file_path());
    return tiny_model_close(state) || rmdir(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_restored_runs),  cmocka_unit_test(test_shared_beginnings),
        cmocka_unit_test(test_misses),         cmocka_unit_test(test_a_miss_leaves_nothing),
        cmocka_unit_test(test_evicted_pieces), cmocka_unit_test(test_tensors),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}

/* Snapshots of caches: a run that goes on from the pieces of another gives the logits of one that was never
 * interrupted, bit for bit, in every mode, wherever it was cut; and prompts that begin alike share pieces. */
#include "base/random.h"
#include "kvcache/codec/weave.h"
#include "tests/tiny_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include <cmocka.h>

enum { N_TOKENS = TINY_TOKENS, N_CTX = 320, N_VOCAB = TINY_VOCAB };

static const char *const POLICIES[] = {
    "f16:*",
    "sink=16,f16:32",
    "sink=16,f16:*",
    "sink=16,f16:32,int8:*",
    "sink=4,f16:8,int8/q4_0:*",
    "rounding=nearest,sink=4,f16:8,int4:*",
    "block=32,sink=5,f16:0,nf4:*",
    "sink=16,f16:32,int8:64,q4_0:*",
    "block=32,sink=16,f16:32,int8:64,int4:32",
    "@0-0:f16:*;@*:sink=3,f16:32,fp8:*",
    "@1-1:sink=16,f16:32,int8:*;@*:sink=7,f16:16,q8_0:64",
};

/* Reads tokens [begin, end) and keeps their logits. */
static void read_tokens(Context *context, size_t begin, size_t end, float *logits) {
    Error error = {0};
    while (begin < end) {
        size_t n = context_batch(context, end - begin);
        if (forward(context, tiny_tokens + begin, n, LOGITS_ALL, &error) < 0)
            fail_msg("%s", error.message);
        memcpy(logits + begin * N_VOCAB, context->logits, n * N_VOCAB * sizeof *logits);
        begin += n;
    }
}

/* All pieces of a cache's state, one behind the other. */
typedef struct Saved {
    size_t n_tokens, n_pieces, size_bytes;
    KvPiece *pieces;
    uint8_t *bytes;
} Saved;

static Saved save(const KvCache *cache) {
    Saved saved = {.n_tokens = cache->n_tokens, .n_pieces = kv_pieces(&cache->layout, cache->n_tokens, NULL)};
    saved.pieces = calloc(saved.n_pieces, sizeof *saved.pieces);
    assert_int_equal(kv_pieces(&cache->layout, cache->n_tokens, saved.pieces), saved.n_pieces);
    for (size_t i = 0; i < saved.n_pieces; i++)
        saved.size_bytes += saved.pieces[i].size_bytes;
    saved.bytes = malloc(saved.size_bytes);
    uint8_t *at = saved.bytes;
    for (size_t i = 0; i < saved.n_pieces; at += saved.pieces[i++].size_bytes)
        assert_int_equal(kv_piece_save(cache, &saved.pieces[i], &(KvMemory){0}, at, NULL), 0);
    return saved;
}

static void load(KvCache *cache, const Saved *saved) {
    const uint8_t *at = saved->bytes;
    for (size_t i = 0; i < saved->n_pieces; at += saved->pieces[i++].size_bytes)
        assert_int_equal(kv_piece_load(cache, saved->n_tokens, &saved->pieces[i], &(KvMemory){0}, at, NULL), 0);
    kvcache_resume(cache, saved->n_tokens);
}

static void free_saved(Saved *saved) {
    free(saved->pieces);
    free(saved->bytes);
}

/* A cut at `at`, into a cache of another capacity that has read other tokens before. */
static void check_cut(const char *policy, size_t at, size_t n_batch, const float *expected) {
    static float logits[N_TOKENS * N_VOCAB];
    Context first, second;
    tiny_model_context(&first, policy, N_CTX, n_batch);
    read_tokens(&first, 0, at, logits);
    Saved saved = save(&first.cache);
    context_close(&first);
    tiny_model_context(&second, policy, N_CTX + 64, n_batch);
    read_tokens(&second, N_TOKENS / 2, N_TOKENS, logits);
    memset(second.cache.memory, 0xff, kvcache_bytes(&second.cache)); /* NaN wherever nothing is loaded */
    load(&second.cache, &saved);
    read_tokens(&second, at, N_TOKENS, logits);
    if (memcmp(logits + at * N_VOCAB, expected + at * N_VOCAB, (N_TOKENS - at) * N_VOCAB * sizeof *logits) != 0)
        fail_msg("%s, cut at %zu, batches of %zu: other logits than in one run", policy, at, n_batch);
    context_close(&second);
    free_saved(&saved);
}

/* Batches of 1 and 48 give the same bits on a CPU, so one run without a cut is the oracle of all. */
static void test_cuts(void **state) {
    (void)state;
    static float expected[N_TOKENS * N_VOCAB];
    static const size_t CUTS[] = {1, 3, 16, 48, 96, 97, 144, 192, 287};
    for (size_t p = 0; p < sizeof POLICIES / sizeof *POLICIES; p++) {
        Context whole;
        tiny_model_context(&whole, POLICIES[p], N_CTX, 48);
        read_tokens(&whole, 0, N_TOKENS, expected);
        context_close(&whole);
        for (size_t c = 0; c < sizeof CUTS / sizeof *CUTS; c++)
            check_cut(POLICIES[p], CUTS[c], c % 2 == 0 ? 48 : 7, expected);
    }
}

static size_t waiting_bytes(const KvCacheLayout *layout) {
    size_t bytes = 0;
    for (size_t layer = 0; layer < layout->shape.n_layers; layer++)
        bytes +=
            layout->shape.n_kv_heads * layout->layers[layer].waiting.n_slots * layout->layers[layer].waiting.slot_bytes;
    return bytes;
}

/* Each position that the plan keeps lies in exactly one piece of its rule, and all pieces together have the bytes that
 * the ledger says the cache holds; no query waits in a state. */
static void test_pieces_are_the_ledger(void **state) {
    (void)state;
    static float logits[N_TOKENS * N_VOCAB];
    for (size_t p = 0; p < sizeof POLICIES / sizeof *POLICIES; p++) {
        Context context;
        tiny_model_context(&context, POLICIES[p], N_CTX, 48);
        for (size_t n = 0; n < N_TOKENS; n += 37) {
            if (n > 0)
                read_tokens(&context, n - 37, n, logits);
            KvLedger ledger;
            kv_ledger(&context.cache, &ledger);
            size_t held = ledger.moments_bytes - waiting_bytes(&context.cache.layout);
            for (size_t i = 0; i < ledger.n_rows; i++)
                held += ledger.rows[i].bytes_held;
            Saved saved = save(&context.cache);
            assert_int_equal(saved.size_bytes, held);
            free_saved(&saved);
        }
        context_close(&context);
    }
}

/* The same piece of a later state has the same bytes. */
static void test_longer_states_share_pieces(void **state) {
    (void)state;
    static float logits[N_TOKENS * N_VOCAB];
    Context context;
    tiny_model_context(&context, "sink=16,f16:32,int8:64,q4_0:*", N_CTX, 48);
    read_tokens(&context, 0, 240, logits);
    Saved early = save(&context.cache);
    read_tokens(&context, 240, 300, logits);
    Saved late = save(&context.cache);
    size_t n_shared = 0;
    const uint8_t *a = early.bytes, *b;
    for (size_t i = 0; i < early.n_pieces; a += early.pieces[i++].size_bytes) {
        b = late.bytes;
        for (size_t j = 0; j < late.n_pieces; b += late.pieces[j++].size_bytes)
            if (memcmp(&early.pieces[i], &late.pieces[j], sizeof(KvPiece)) == 0) {
                assert_memory_equal(a, b, early.pieces[i].size_bytes);
                n_shared++;
            }
    }
    /* Of 240 tokens: the sink, groups 0 and 1 in q4_0... and group 2 in int8 still is the same at 300. */
    assert_true(n_shared >= 3);
    free_saved(&early);
    free_saved(&late);
    context_close(&context);
}

/* Of prompts that differ from some token on, whatever that token decides nothing of has the same bytes. */
static void check_common_pieces(const char *policy, size_t n_common) {
    static float logits[N_TOKENS * N_VOCAB];
    int32_t kept[N_TOKENS];
    Saved saved[2];
    memcpy(kept, tiny_tokens, sizeof kept);
    for (size_t i = 0; i < 2; i++) {
        Context context;
        tiny_model_context(&context, policy, N_CTX, 48);
        for (size_t t = n_common; t < N_TOKENS; t++)
            tiny_tokens[t] = (kept[t] + (int32_t)i * 7) % N_VOCAB;
        read_tokens(&context, 0, N_TOKENS, logits);
        saved[i] = save(&context.cache);
        context_close(&context);
    }
    memcpy(tiny_tokens, kept, sizeof kept);
    size_t n_decided = 0;
    const uint8_t *a = saved[0].bytes, *b = saved[1].bytes;
    for (size_t i = 0; i < saved[0].n_pieces; a += saved[0].pieces[i].size_bytes, b += saved[0].pieces[i++].size_bytes)
        if (saved[0].pieces[i].n_decisive <= n_common) {
            if (memcmp(a, b, saved[0].pieces[i].size_bytes) != 0)
                fail_msg("%s: piece %zu, decided by %zu tokens, differs", policy, i, saved[0].pieces[i].n_decisive);
            n_decided++;
        }
    assert_true(n_decided > 0);
    free_saved(&saved[0]);
    free_saved(&saved[1]);
}

static void test_what_decides_a_piece(void **state) {
    (void)state;
    for (size_t n_common = 100; n_common < 200; n_common += 33) {
        check_common_pieces("sink=16,f16:32,int8:*", n_common);
        check_common_pieces("block=32,sink=4,f16:8,int4/nf4:70,int2:*", n_common);
        check_common_pieces("sink=16,f16:32,q8_0:*", n_common);
    }
}

static char *identity(const char *policy, size_t n_ctx, const char *computed_by) {
    Context context;
    tiny_model_context(&context, policy, n_ctx, 0);
    char *text = kv_state_identity(&context.cache.layout, computed_by);
    context_close(&context);
    return text;
}

static void test_identity(void **state) {
    (void)state;
    char *a = identity("sink=16,f16:32,int8:*", 320, "model 1"), *b = identity("sink=16,f16:32,int8:*", 512, "model 1");
    char *c = identity("sink=16,f16:32,q8_0:*", 320, "model 1"), *d = identity("sink=16,f16:32,int8:*", 320, "model 2");
    char *e = identity("block=32,sink=16,f16:32,int8:*", 320, "model 1");
    assert_string_equal(a, b); /* the capacity does not matter */
    assert_string_not_equal(a, c);
    assert_string_not_equal(a, d);
    assert_string_not_equal(a, e);
    assert_non_null(strstr(a, "policy sink=16,f16:32,int8:*\nshape layers="));
    free(a), free(b), free(c), free(d), free(e);
}

/* A cache of 100 random tokens in this codec, one layer of two KV heads of 64. */
static uint64_t hash_state(const char *codec, uint64_t seed) {
    enum { DIM = 64, N_HEADS = 2, N = 100 };
    static float keys[N][N_HEADS][DIM], values[N][N_HEADS][DIM];
    char policy_text[64];
    KvCache cache;
    uint64_t random = 1;
    snprintf(policy_text, sizeof policy_text, "block=32,sink=2,f16:8,%s:*", codec);
    KvPolicy policy = policy_of(policy_text);
    KvShape shape = {.n_layers = 1, .n_kv_heads = N_HEADS, .head_dim = DIM, .n_ctx = N, .n_batch = N};
    for (size_t i = 0; i < N * N_HEADS * DIM; i++) {
        (&keys[0][0][0])[i] = (float)random_below(&random, 2001) / 1000 - 1;
        (&values[0][0][0])[i] = (float)random_below(&random, 2001) / 1000 - 1;
    }
    assert_int_equal(kvcache_open(&cache, &shape, &policy, &KV_WOVEN_RECORDS, NULL), 0);
    void *memory = aligned_alloc(KV_ALIGNMENT, kvcache_bytes(&cache));
    kvcache_set_memory(&cache, memory);
    kvcache_clear(&cache);
    for (size_t head = 0; head < N_HEADS; head++) {
        kvcache_append(&cache, 0, head, N, &(KvRows){keys[0][0], values[0][0], keys[0][0], N_HEADS});
        kvcache_commit(&cache, 0, head, N);
    }
    kvcache_advance(&cache, N);
    Saved saved = save(&cache);
    uint64_t hash = XXH3_64bits_withSeed(saved.bytes, saved.size_bytes, seed);
    free_saved(&saved);
    kvcache_close(&cache);
    free(memory);
    return hash;
}

/* What one version of the program stores another may read. Where this fails the bits have changed: raise
 * KV_STATE_VERSION, so that older states are not found, and write down the new hash. */
static void test_version(void **state) {
    (void)state;
    uint64_t hash = KV_STATE_VERSION;
    for (const char *const *name = kv_codec_names(); *name != NULL; name++)
        hash = hash_state(*name, hash);
    assert_int_equal(hash, 0x2d1d2bf8bc98e7ba);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuts),
        cmocka_unit_test(test_pieces_are_the_ledger),
        cmocka_unit_test(test_longer_states_share_pieces),
        cmocka_unit_test(test_what_decides_a_piece),
        cmocka_unit_test(test_identity),
        cmocka_unit_test(test_version),
    };
    return cmocka_run_group_tests(tests, tiny_model_open, tiny_model_close);
}

/* The text form of policies in both directions, its errors character by character, damaged text, and the check of a
 * policy against a model. Text lies in heap memory of exactly its size, so that AddressSanitizer sees a read beyond. */
#include "base/random.h"
#include "kvcache/policy.h"
#include "kvcache/policy_check.h"
#include "kvcache/policy_text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { N_ROUND_TRIPS = 5000, N_DAMAGED = 100000, MAX_TEXT = 16384 };

static size_t below(size_t n) {
    static uint64_t state = 1;
    return (size_t)random_below(&state, n);
}

static int parse(const char *text, size_t length, KvPolicy *policy, Error *error) {
    char *copy = malloc(length + 1);
    assert_non_null(copy);
    memcpy(copy, text, length);
    copy[length] = '\0';
    int status = kv_policy_parse(copy, policy, error);
    free(copy);
    return status;
}

static KvPolicy parsed(const char *text) {
    KvPolicy policy = kv_policy_full();
    Error error = {0};
    if (parse(text, strlen(text), &policy, &error) != 0)
        fail_msg("%s", error.message);
    return policy;
}

static void assert_same_tiers(const KvLayerPolicy *a, const KvLayerPolicy *b) {
    assert_int_equal(a->sink, b->sink);
    assert_int_equal(a->n_tiers, b->n_tiers);
    for (size_t t = 0; t < a->n_tiers; t++) {
        assert_int_equal(a->tiers[t].k, b->tiers[t].k);
        assert_int_equal(a->tiers[t].v, b->tiers[t].v);
        assert_int_equal(a->tiers[t].capacity, b->tiers[t].capacity);
    }
}

static void assert_same_rules(const KvPolicy *a, const KvPolicy *b) {
    assert_int_equal(a->n_rules, b->n_rules);
    assert_int_equal(a->group, b->group);
    assert_int_equal(a->rotation, b->rotation);
    for (size_t i = 0; i < a->n_rules; i++) {
        assert_int_equal(a->rules[i].first_layer, b->rules[i].first_layer);
        assert_int_equal(a->rules[i].last_layer, b->rules[i].last_layer);
        assert_same_tiers(&a->rules[i].policy, &b->rules[i].policy);
    }
}

static void assert_prints(const KvPolicy *policy, const char *expected) {
    char text[MAX_TEXT];
    assert_int_equal(kv_policy_print(policy, text, sizeof text), strlen(expected));
    assert_string_equal(text, expected);
}

static void test_presets(void **state) {
    (void)state;
    const struct {
        KvPolicy policy;
        const char *text, *mode;
        bool streams;
    } cases[] = {
        {kv_policy_full(), "f16:*", "full", false},
        {kv_policy_compressed(16, 32), "sink=16,f16:32", "compressed", true},
        {kv_policy_compressed(0, 1), "f16:1", "compressed", true},
        {kv_policy_quantized(16, 32, KV_INT8, KV_INT8), "sink=16,f16:32,int8:*", "quantized", false},
        {kv_policy_quantized(4, 0, KV_INT8, KV_Q4_0), "sink=4,f16:0,int8/q4_0:*", "quantized", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        KvPolicy policy = parsed(cases[i].text);
        assert_same_rules(&cases[i].policy, &policy);
        assert_prints(&cases[i].policy, cases[i].text);
        assert_string_equal(kv_policy_mode(&policy), cases[i].mode);
        assert_int_equal(kv_policy_streams(&policy, 4096), cases[i].streams);
        assert_int_equal(cases[i].policy.group, 64);
        assert_int_equal(cases[i].policy.rotation, KV_ROTATE_AUTO);
    }
}

static void test_mode(void **state) {
    (void)state;
    const struct {
        const char *text, *mode;
        bool streams;
    } cases[] = {
        {"@*:f16:*", "full", false},
        {"@0-*:sink=2,f16:9", "compressed", true},
        {"int8:*", "quantized", false},
        {"f16:32,int8:64", "cascade", true},
        {"sink=16,f16:32,int8:1024,q4_0:*", "cascade", false},
        {"@0-29:f16:*", "cascade", false},
        {"@1-*:f16:*", "cascade", false},
        {"@0-1:f16:*;@*:f16:32,int8:*", "cascade", false},
        {"@0-1:f16:32;@*:f16:32,int8:*", "cascade", false},
        {"@0-1:f16:32;@*:f16:64", "cascade", true},
        {"sink=16,f16:4080", "compressed", true},
        {"sink=17,f16:4080", "compressed", false}, /* it may hold more than the context: stops there */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        KvPolicy policy = parsed(cases[i].text);
        assert_string_equal(kv_policy_mode(&policy), cases[i].mode);
        assert_int_equal(kv_policy_streams(&policy, 4096), cases[i].streams);
    }
}

static void test_canonical(void **state) {
    (void)state;
    const struct {
        const char *text, *canonical;
    } cases[] = {
        {"f16:32,int8/int8:*", "f16:32,int8:*"},
        {"sink=0,f16:007", "f16:7"},
        {"int8:*", "f16:0,int8:*"},
        {"f16/int8:8", "f16:0,f16/int8:8"},
        {"@*:f16:*", "f16:*"},
        {"@0-*:f16:*", "f16:*"},
        {"@3-3:f16:*", "@3:f16:*"},
        {"@0-1:f16:*;sink=16,f16:32,int8:*", "@0-1:f16:*;@*:sink=16,f16:32,int8:*"},
        {"@5-*:f16:*;@2:int8:*;@*:f16:1", "@5-*:f16:*;@2:f16:0,int8:*;@*:f16:1"},
        {" @ 0 - 1 : f16 : * ;\t@ * : sink = 4 , f16 : 32 , int8 / q4_0 : * ",
         "@0-1:f16:*;@*:sink=4,f16:32,int8/q4_0:*"},
        {"f16:1,f16:2,f16:3,f16:4,f16:5,f16:6,f16:7,f16:8", "f16:1,f16:2,f16:3,f16:4,f16:5,f16:6,f16:7,f16:8"},
        {"f16:18446744073709551614", "f16:18446744073709551614"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        KvPolicy policy = parsed(cases[i].text);
        assert_prints(&policy, cases[i].canonical);
    }
}

/* The first rule that names a layer holds for it. */
static void test_rules_by_layer(void **state) {
    (void)state;
    KvPolicy policy = parsed("@5:f16:5;@4-9:f16:4;@20-*:f16:20");
    const size_t capacities[] = {[4] = 4, [5] = 5, [6] = 4, [7] = 4, [8] = 4, [9] = 4, [20] = 20, [21] = 20};
    for (size_t layer = 0; layer < sizeof capacities / sizeof *capacities; layer++) {
        const KvLayerPolicy *found = kv_policy_of_layer(&policy, layer);
        if (capacities[layer] == 0)
            assert_null(found);
        else
            assert_int_equal(found->tiers[0].capacity, capacities[layer]);
    }
    assert_non_null(kv_policy_of_layer(&policy, SIZE_MAX - 1));
}

/* Parsing keeps the settings that the text does not name; a text that cannot be parsed changes nothing. */
static void test_parse_keeps(void **state) {
    (void)state;
    KvPolicy policy = kv_policy_compressed(16, 32);
    policy.group = 32;
    policy.rotation = KV_ROTATE_OFF;
    assert_int_equal(kv_policy_parse("sink=1,f16:2;f16:*", &policy, NULL), ERROR_USAGE);
    assert_int_equal(kv_policy_parse("rotate=on,block=64,f16:", &policy, NULL), ERROR_USAGE);
    assert_prints(&policy, "rotate=off,block=32,sink=16,f16:32");
    assert_int_equal(kv_policy_parse("sink=1,f16:2", &policy, NULL), 0);
    assert_prints(&policy, "rotate=off,block=32,sink=1,f16:2");
    assert_int_equal(kv_policy_parse(" block = 64 , rotate=auto,@0:f16:*;@*:f16:2", &policy, NULL), 0);
    assert_prints(&policy, "@0:f16:*;@*:f16:2");
}

/* A round trip alone would not see two names exchanged. */
static void test_rotation_names(void **state) {
    (void)state;
    assert_int_equal(parsed("rotate=auto,f16:*").rotation, KV_ROTATE_AUTO);
    assert_int_equal(parsed("rotate=on,f16:*").rotation, KV_ROTATE_ON);
    assert_int_equal(parsed("rotate=off,f16:*").rotation, KV_ROTATE_OFF);
    assert_int_equal(parsed("rotate=k,f16:*").rotation, KV_ROTATE_KEYS);
    assert_int_equal(parsed("rotate=v,f16:*").rotation, KV_ROTATE_VALUES);
}

static void test_print_cut(void **state) {
    (void)state;
    const char *whole = "@0-1:f16:*;@*:sink=16,f16:32,int8/q4_0:*";
    KvPolicy policy = parsed(whole);
    assert_int_equal(kv_policy_print(&policy, NULL, 0), strlen(whole));
    for (size_t size = 1; size <= strlen(whole) + 1; size++) {
        char *text = malloc(size);
        assert_non_null(text);
        assert_int_equal(kv_policy_print(&policy, text, size), strlen(whole));
        assert_int_equal(strlen(text), size - 1);
        assert_memory_equal(text, whole, size - 1);
        free(text);
    }
}

static const struct {
    const char *text;
    size_t character;
    const char *words;
} BAD[] = {
    {"", 1, "expected a tier as codec:capacity, but the text ends here"},
    {"  ", 3, "expected a tier as codec:capacity, but the text ends here"},
    {"sink=16,f16:32,itn8:*", 16, "no codec 'itn8'; did you mean int8?"},
    {"sink=16,f16:32,int8/q4_2:*", 21, "no codec 'q4_2'; did you mean q4_"},
    {"F16:32", 1, "no codec 'F16'; did you mean f16?"},
    {"f16:32,int8/:*", 13, "expected a codec, not ':'"},
    {"f16", 4, "expected ':' and a capacity in tokens, as in f16:32 or int8:*, but the text ends here"},
    {"f16 32", 5, "expected ':' and a capacity in tokens, as in f16:32 or int8:*, not '32'"},
    {"f16:", 5, "expected a capacity in tokens, or * for unlimited, but the text ends here"},
    {"f16:32,int8:,q4_0:*", 13, "expected a capacity in tokens, or * for unlimited, not ','"},
    {"f16:-3", 5, "expected a capacity in tokens, or * for unlimited, not '-3'"},
    {"f16:+3", 5, "not '+3'"},
    {"f16:x", 5, "not 'x'"},
    {"f16:1 6", 7, "expected ',' and a tier, ';' and a rule, or the end, not '6'"},
    {"f16:1k", 6, "or the end, not 'k'"},
    {"f16:3.5", 6, "or the end, not '.5'"},
    {"f16:0x10", 6, "not 'x10'"},
    {"f16:**", 6, "or the end, not '*'"},
    {"f16:32:", 7, "or the end, not ':'"},
    {"f16:18446744073709551615", 5, "the number is too large; at most 18446744073709551614"},
    {"f16:18446744073709551616", 5, "the number is too large"},
    {"f16:99999999999999999999999999", 5, "the number is too large"},
    {"sink=18446744073709551615,f16:1", 6, "the number is too large"},
    {"@18446744073709551615:f16:1", 2, "the number is too large"},
    {"f16:*,int8:4", 5, "* can only come last"},
    {"sink=16,f16:32,int8:*,q4_0:*", 21, "* can only come last"},
    {"f16:32,", 8, "expected a tier as codec:capacity, but the text ends here"},
    {",f16:32", 1, "expected a tier as codec:capacity, not ','"},
    {"f16:32,,int8:*", 8, "expected a tier as codec:capacity, not ','"},
    {"sink", 5, "expected '=' and a number of tokens, as in sink=16, but the text ends here"},
    {"sink:16,f16:32", 5, "expected '=' and a number of tokens, as in sink=16, not ':'"},
    {"sink=,f16:32", 6, "expected a number of tokens, not ','"},
    {"sink=-1,f16:32", 6, "expected a number of tokens, not '-1'"},
    {"sink=*,f16:32", 6, "expected a number of tokens, not '*'"},
    {"rotate=maybe,f16:32", 8, "expected auto, on, off, k or v, not 'maybe'"},
    {"rotate,f16:32", 7, "expected '=', as in rotate=off or block=32, not ','"},
    {"block=48,f16:32", 7, "expected 32 or 64, not 48"},
    {"block=32", 9, "expected ',' and a tier as codec:capacity, but the text ends here"},
    {"f16:32,block=32", 8, "expected a tier as codec:capacity"},
    {"sink=16", 8, "expected ',' and a tier as codec:capacity, but the text ends here"},
    {"sink=16;f16:32", 8, "expected ',' and a tier as codec:capacity, not ';'"},
    {"sink=16,", 9, "expected a tier as codec:capacity, but the text ends here"},
    {"sink=16,sink=4,f16:32", 9, "the sink is given once, in front of the tiers"},
    {"f16:32, sink=16", 9, "the sink is given once, in front of the tiers"},
    {"snk=16,f16:32", 1, "expected a tier as codec:capacity, not 'snk'"},
    {"f16:32;", 8, "expected a tier as codec:capacity, but the text ends here"},
    {";f16:32", 1, "expected a tier as codec:capacity, not ';'"},
    {"@0:f16:*;;@*:f16:32", 10, "expected a tier as codec:capacity, not ';'"},
    {"@0:", 4, "expected a tier as codec:capacity, but the text ends here"},
    {"@0:;@*:f16:32", 4, "expected a tier as codec:capacity, not ';'"},
    {"@", 2, "expected layers as N, N-N, N-* or *, but the text ends here"},
    {"@:f16:*", 2, "expected layers as N, N-N, N-* or *, not ':'"},
    {"@-1:f16:*", 2, "expected layers as N, N-N, N-* or *, not '-1'"},
    {"@first:f16:*", 2, "expected layers as N, N-N, N-* or *, not 'first'"},
    {"@0", 3, "expected ':' after the layers, but the text ends here"},
    {"@0,1:f16:*", 3, "expected ':' after the layers, not ','"},
    {"@0-:f16:*", 4, "expected the last layer, or *, not ':'"},
    {"@0--1:f16:*", 4, "expected the last layer, or *, not '-1'"},
    {"@3-1:f16:*", 2, "layers 3-1 run backwards"},
    {"@*-3:f16:*", 3, "expected ':' after the layers, not '-3'"},
    {"@@0:f16:*", 2, "not '@'"},
    {"f16:*;f16:32", 7, "this rule has no effect"},
    {"@*:f16:*;@3:f16:32", 10, "this rule has no effect"},
    {"@0-3:f16:*;@4-7:f16:1;@2-5:f16:32", 23, "this rule has no effect"},
    {"@4-7:f16:*;@0-3:f16:1;@2-5:f16:32", 23, "this rule has no effect"},
    {"@3-*:f16:*;@0-2:f16:1;@*:f16:32", 23, "this rule has no effect"},
    {"@3-*:f16:*; @7-*:f16:32", 13, "this rule has no effect"},
    {"f16:1,f16:2,f16:3,f16:4,f16:5,f16:6,f16:7,f16:8,f16:9", 49, "more than 8 tiers"},
    {"int8:1,f16:2,f16:3,f16:4,f16:5,f16:6,f16:7,f16:8", 44, "more than 8 tiers, counting the f16 one in front"},
    {"f16:32 \xc3\xa9", 8, "or the end, not '\xc3\xa9'"},
    {"f16:32\nf16:1", 8, "or the end, not 'f16'"},
    {"f16:32,\x01", 8, "expected a tier as codec:capacity, not '?'"},
};

static void test_bad(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) {
        KvPolicy policy = kv_policy_full();
        Error error = {0};
        char place[64];
        snprintf(place, sizeof place, "\": character %zu: ", BAD[i].character);
        int status = parse(BAD[i].text, strlen(BAD[i].text), &policy, &error);
        const char *found = strstr(error.message, place);
        if (status != ERROR_USAGE || error.code != ERROR_USAGE || found == NULL ||
            strstr(found, BAD[i].words) == NULL || strncmp(error.message, "--kv_policy \"", 13) != 0)
            fail_msg("'%s': %d, %s", BAD[i].text, status, error.message);
    }
}

static void test_too_many_rules(void **state) {
    (void)state;
    char text[MAX_TEXT], place[64];
    size_t length = 0;
    for (int i = 0; i < KV_MAX_RULES; i++)
        length += (size_t)snprintf(text + length, sizeof text - length, "%s@%d:f16:%d", i > 0 ? ";" : "", i, i + 1);
    KvPolicy policy = parsed(text);
    assert_prints(&policy, text);
    Error error = {0};
    snprintf(place, sizeof place, "...\": character %zu: more than 32 rules", length + 2);
    strcat(text, ";@*:f16:*");
    assert_int_equal(parse(text, strlen(text), &policy, &error), ERROR_USAGE);
    assert_non_null(strstr(error.message, place));
}

static size_t random_capacity(void) {
    switch (below(4)) {
    case 0:
        return below(3);
    case 1:
        return SIZE_MAX - 1 - below(3);
    default:
        return below(100000);
    }
}

static KvLayerPolicy random_layer_policy(void) {
    KvLayerPolicy layer = {.sink = below(2) == 0 ? 0 : random_capacity(), .n_tiers = 1 + below(KV_MAX_TIERS)};
    for (size_t t = 0; t < layer.n_tiers; t++) {
        KvCodecId k = t == 0 ? KV_F16 : (KvCodecId)below(KV_CODEC_COUNT);
        KvCodecId v = t == 0 || below(2) == 0 ? k : (KvCodecId)below(KV_CODEC_COUNT);
        layer.tiers[t] = (KvTier){k, v, random_capacity()};
    }
    if (below(2) == 0)
        layer.tiers[layer.n_tiers - 1].capacity = KV_UNLIMITED;
    return layer;
}

/* Rules whose layers begin after those of the rules before always have an effect; one for all layers may close them. */
static KvPolicy random_policy(void) {
    KvPolicy policy = {.n_rules = 1 + below(below(2) == 0 ? 2 : KV_MAX_RULES),
                       .group = below(2) == 0 ? 32 : 64,
                       .rotation = (KvRotation)below(KV_ROTATION_COUNT)};
    size_t layer = below(2);
    for (size_t i = 0; i < policy.n_rules; i++) {
        size_t last = layer + below(3);
        policy.rules[i] = (KvRule){layer, last, random_layer_policy()};
        layer = last + 1 + below(2);
    }
    KvRule *end = &policy.rules[policy.n_rules - 1];
    if (below(2) == 0)
        end->last_layer = SIZE_MAX;
    if (below(2) == 0)
        end->first_layer = 0;
    return policy;
}

static void test_round_trip(void **state) {
    (void)state;
    for (int i = 0; i < N_ROUND_TRIPS; i++) {
        KvPolicy policy = random_policy();
        char text[MAX_TEXT];
        assert_in_range(kv_policy_print(&policy, text, sizeof text), 1, sizeof text - 1);
        KvPolicy again = parsed(text);
        assert_same_rules(&policy, &again);
        assert_prints(&again, text);
    }
}

/* Whatever comes in: an error of one line that points into the text, or rules that print and parse again. */
static void check_any(const char *text, size_t length) {
    KvPolicy policy = kv_policy_full();
    Error error = {0};
    char printed[MAX_TEXT];
    if (parse(text, length, &policy, &error) == 0) {
        assert_in_range(kv_policy_print(&policy, printed, sizeof printed), 1, sizeof printed - 1);
        KvPolicy again = parsed(printed);
        assert_same_rules(&policy, &again);
        return;
    }
    assert_int_equal(error.code, ERROR_USAGE);
    const char *found = NULL;
    for (const char *at = error.message; (at = strstr(at, "\": character ")) != NULL; at++)
        found = at;
    assert_non_null(found);
    assert_in_range(strtoull(found + strlen("\": character "), NULL, 10), 1, strlen(text) + 1);
}

static void test_damaged(void **state) {
    (void)state;
    static const char *const symbols[] = {"@", "0", "1",  "-",    "*",   ":",    ";",    ",",     "sink", "=", "f16",
                                          "/", "4", "32", "int8", "nf4", "q4_0", "9999", "sink=", "f16:", " ", "x"};
    const char *whole = "@0-1:f16:*;@2,3:f16:1;@*:sink=16,f16:32,int8/q4_0:1024,binary:*";
    for (size_t length = 0; length <= strlen(whole); length++) {
        char text[128] = {0};
        memcpy(text, whole, length);
        check_any(text, length);
    }
    for (int i = 0; i < N_DAMAGED; i++) {
        char text[1024] = {0};
        if (i % 3 == 0) { /* bytes */
            for (size_t n = below(40), j = 0; j < n; j++)
                text[j] = (char)(1 + below(255));
        } else if (i % 3 == 1) { /* symbols of the grammar */
            for (size_t n = below(60); n > 0; n--)
                strcat(text, symbols[below(sizeof symbols / sizeof *symbols)]);
        } else { /* a byte of a good text changed */
            strcpy(text, "@0-1:f16:*;@2:f16:1;@*:sink=16,f16:32,int8/q4_0:1024,binary:*");
            text[below(strlen(text))] = (char)(' ' + below(95));
        }
        check_any(text, strlen(text));
    }
}

static void test_codec_pair(void **state) {
    (void)state;
    const struct {
        const char *text;
        KvCodecId k, v;
    } good[] = {
        {"int8", KV_INT8, KV_INT8},
        {"k=int8,v=q4_0", KV_INT8, KV_Q4_0},
        {" k = nf4 , v = f16 ", KV_NF4, KV_F16},
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        KvCodecId k = KV_CODEC_COUNT, v = KV_CODEC_COUNT;
        assert_int_equal(kv_codec_pair_parse(good[i].text, &k, &v, NULL), 0);
        assert_int_equal(k, good[i].k);
        assert_int_equal(v, good[i].v);
    }
    const struct {
        const char *text, *message;
    } bad[] = {
        {"", "--kv_codec \"\": character 1: expected a codec, but the text ends here"},
        {"itn8", "--kv_codec \"itn8\": character 1: no codec 'itn8'; did you mean int8? --list_codecs lists all"},
        {"int8,q4_0", "--kv_codec \"int8,q4_0\": character 5: expected the end, not ','"},
        {"k=int8", "--kv_codec \"k=int8\": character 7: expected a codec, or k=CODEC,v=CODEC, but the text ends here"},
        {"v=int8,k=f16", "--kv_codec \"v=int8,k=f16\": character 1: expected a codec, or k=CODEC,v=CODEC, not 'v'"},
        {"k=int8,v=int8,", "--kv_codec \"k=int8,v=int8,\": character 14: expected the end, not ','"},
        {"k=,v=int8", "--kv_codec \"k=,v=int8\": character 3: expected a codec, not ','"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        KvCodecId k = KV_NF4, v = KV_NF4;
        Error error = {0};
        assert_int_equal(kv_codec_pair_parse(bad[i].text, &k, &v, &error), ERROR_USAGE);
        assert_string_equal(error.message, bad[i].message);
        assert_true(k == KV_NF4 && v == KV_NF4);
    }
}

/* A model of 30 layers, head_dim 64 unless said, and a context of 4096. */
static const struct {
    const char *text;
    size_t head_dim, group;
    KvRotation rotation;
    const char *words; /* NULL: good; "": an error of the codec's own */
} CHECKS[] = {
    {"f16:*", 64, 64, KV_ROTATE_AUTO, NULL},
    {"sink=16,f16:32,int8:*", 64, 32, KV_ROTATE_AUTO, NULL},
    {"sink=16,f16:32,int8:1024,q4_0:*", 128, 64, KV_ROTATE_ON, NULL},
    {"@0-1:f16:*;@2-29:f16:32,int8:*", 64, 64, KV_ROTATE_AUTO, NULL},
    {"@0-29:f16:*;@*:f16:32", 64, 64, KV_ROTATE_AUTO, NULL}, /* written for a deeper model */
    {"f16:*", 64, 16, KV_ROTATE_AUTO, "groups of 16 tokens; --kv_block_size takes 32 or 64"},
    {"f16:*", 64, 0, KV_ROTATE_AUTO, "groups of 0 tokens"},
    {"f16:*", 64, 128, KV_ROTATE_AUTO, "groups of 128 tokens"},

    {"@31:f16:*;@*:f16:32", 64, 64, KV_ROTATE_AUTO, "names layer 31, the model has 30"},
    {"@0-30:f16:*;@*:f16:32", 64, 64, KV_ROTATE_AUTO, "names layer 30, the model has 30"},
    {"@30-*:f16:*;@*:f16:32", 64, 64, KV_ROTATE_AUTO, "names layer 30, the model has 30"},
    {"@0-28:f16:*", 64, 64, KV_ROTATE_AUTO, "no rule for layer 29, the model has 30"},
    {"@1-*:f16:*", 64, 64, KV_ROTATE_AUTO, "no rule for layer 0"},
    {"@20-29:f16:*;@0-9:f16:1;@11-19:f16:1", 64, 64, KV_ROTATE_AUTO, "no rule for layer 10"},

    {"sink=4096,f16:*", 64, 64, KV_ROTATE_AUTO, NULL},
    {"sink=4097,f16:*", 64, 64, KV_ROTATE_AUTO, "sink=4097 is more than the context of 4096 tokens"},
    {"f16:4096", 64, 64, KV_ROTATE_AUTO, NULL},
    {"f16:4097", 64, 64, KV_ROTATE_AUTO, "f16:4097 is more than the context of 4096 tokens"},
    {"f16:32,int8/q4_0:5000,f16:*", 64, 64, KV_ROTATE_AUTO, "int8/q4_0:5000 is more than the context"},
    {"sink=16,f16:4080", 64, 64, KV_ROTATE_AUTO, NULL},
    {"sink=17,f16:4080", 64, 64, KV_ROTATE_AUTO, NULL},
    {"sink=16,f16:80,int8:4000,int8:*", 64, 64, KV_ROTATE_AUTO, NULL},
    {"sink=16,f16:80,int8:4001,int8:*", 64, 64, KV_ROTATE_AUTO, NULL},
    {"f16:18446744073709551614", 64, 64, KV_ROTATE_AUTO, "is more than the context of 4096 tokens"},
    {"@3-4:f16:9999;@*:f16:*", 64, 64, KV_ROTATE_AUTO, "@3-4:f16:9999 is more than the context"},
    {"f16:0", 64, 64, KV_ROTATE_AUTO, "no token outside the sink is kept"},
    {"sink=4,f16:0,int8:0", 64, 64, KV_ROTATE_AUTO, "no token outside the sink is kept"},
    {"f16:0,int8:1", 64, 64, KV_ROTATE_AUTO, NULL},

    {"f16:32,int8:64,q4_0:*", 48, 64, KV_ROTATE_OFF, NULL}, /* padded */
    {"f16:32,nf4/int3:*", 100, 64, KV_ROTATE_AUTO, NULL},
    {"f16:32,q4_0:*", 100, 64, KV_ROTATE_ON, NULL}, /* to 128 */
    {"f16:32,int8:*", 100, 64, KV_ROTATE_ON, "int8 cannot be rotated: rows have 100 elements"},
    {"f16:32,q4_0:*", 96, 64, KV_ROTATE_AUTO, NULL}, /* stays unrotated */
    {"f16:32,q4_0:*", 96, 64, KV_ROTATE_OFF, NULL},
    {"f16:32,q4_0:*", 96, 64, KV_ROTATE_ON, "q4_0 cannot be rotated: rows have 96 elements, not a power of two"},
    {"f16:32,f16/int8:*", 96, 64, KV_ROTATE_ON, "int8 cannot be rotated"},
    {"f16:32,int8:*", 96, 64, KV_ROTATE_ON, "use --kv_rotate auto, which leaves it unrotated"},
    {"f16:*", 96, 64, KV_ROTATE_ON, NULL}, /* nothing to rotate */
};

static void test_check(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof CHECKS / sizeof *CHECKS; i++) {
        KvPolicy policy = parsed(CHECKS[i].text);
        policy.group = CHECKS[i].group;
        policy.rotation = CHECKS[i].rotation;
        Error error = {0};
        int status = kv_policy_check(&policy, 30, CHECKS[i].head_dim, 4096, &error);
        bool refused = status < 0 && error.code == status && error.message[0] != '\0';
        if (CHECKS[i].words == NULL ? status != 0 : !refused || strstr(error.message, CHECKS[i].words) == NULL)
            fail_msg("'%s': %d, '%s'", CHECKS[i].text, status, error.message);
    }
}

static void test_rotates(void **state) {
    (void)state;
    const struct {
        KvRotation rotation;
        KvCodecId codec;
        size_t head_dim;
        bool rotates;
    } cases[] = {

        {KV_ROTATE_OFF, KV_Q4_0, 64, false},  {KV_ROTATE_OFF, KV_INT8, 64, false},
        {KV_ROTATE_ON, KV_F16, 64, false},    {KV_ROTATE_ON, KV_INT8, 64, true},
        {KV_ROTATE_ON, KV_BINARY, 64, true},  {KV_ROTATE_AUTO, KV_F16, 64, false},
        {KV_ROTATE_AUTO, KV_INT8, 64, true},  {KV_ROTATE_AUTO, KV_Q8_0, 64, true},
        {KV_ROTATE_AUTO, KV_FP8, 128, true},  {KV_ROTATE_AUTO, KV_INT8, 96, false},
        {KV_ROTATE_AUTO, KV_Q4_0, 64, true},  {KV_ROTATE_AUTO, KV_NF4, 128, true},
        {KV_ROTATE_AUTO, KV_INT2, 256, true}, {KV_ROTATE_AUTO, KV_Q4_0, 96, false},
        {KV_ROTATE_AUTO, KV_Q4_0, 80, false}, {KV_ROTATE_AUTO, KV_INT4, 0, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        KvPolicy policy = kv_policy_full();
        policy.rotation = cases[i].rotation;
        for (KvSide side = KV_KEYS; side <= KV_VALUES; side++)
            if (kv_policy_rotates(&policy, side, cases[i].codec, cases[i].head_dim) != cases[i].rotates)
                fail_msg("case %zu", i);
    }
    KvPolicy one_side = kv_policy_full();
    one_side.rotation = KV_ROTATE_KEYS;
    assert_true(kv_policy_rotates(&one_side, KV_KEYS, KV_INT8, 64));
    assert_false(kv_policy_rotates(&one_side, KV_VALUES, KV_Q4_0, 64));
    one_side.rotation = KV_ROTATE_VALUES;
    assert_false(kv_policy_rotates(&one_side, KV_KEYS, KV_Q4_0, 64));
    assert_true(kv_policy_rotates(&one_side, KV_VALUES, KV_INT8, 64));
    assert_false(kv_policy_rotates(&one_side, KV_VALUES, KV_F16, 64));
}

/* What docs/codecs.md says of head_dim; the longest row that a codec of any rule needs. */
static void test_row_dim(void **state) {
    (void)state;
    const struct {
        const char *policy;
        size_t head_dim, group, row_dim;
    } cases[] = {
        {"f16:*", 100, 64, 100},
        {"sink=4,f16:32", 90, 64, 90},
        {"f16:32,int8/fp8:*", 100, 64, 100},
        {"f16:32,binary:*", 100, 64, 104},
        {"f16:32,q8_0:*", 100, 64, 128},
        {"f16:32,int8/q4_0:*", 80, 64, 96},
        {"f16:32,q5_1/f16:*", 20, 64, 32},
        {"f16:32,q5_0/nf4:*", 20, 64, 64},
        {"f16:32,int4:*", 100, 64, 128},
        {"f16:32,int4:*", 90, 32, 96},
        {"f16:32,int4:*", 96, 64, 128},
        {"f16:32,int4:*", 20, 64, 20}, /* a block of its own */
        {"f16:32,int3:*", 20, 64, 24}, /* whole bytes */
        {"f16:32,int2:*", 6, 32, 8},
        {"f16:32,int8:64,q4_1:64,int8:*", 90, 64, 96},
        {"@0:f16:*;@*:f16:32,nf4:*", 90, 64, 128},
        {"f16:32,int8:64,nf4/int2:*", 256, 64, 256},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        KvPolicy policy = parsed(cases[i].policy);
        policy.group = cases[i].group;
        size_t row_dim = kv_policy_row_dim(&policy, cases[i].head_dim);
        if (row_dim != cases[i].row_dim)
            fail_msg("'%s', head_dim %zu: %zu", cases[i].policy, cases[i].head_dim, row_dim);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_presets),        cmocka_unit_test(test_mode),
        cmocka_unit_test(test_canonical),      cmocka_unit_test(test_rules_by_layer),
        cmocka_unit_test(test_parse_keeps),    cmocka_unit_test(test_rotation_names),
        cmocka_unit_test(test_print_cut),      cmocka_unit_test(test_bad),
        cmocka_unit_test(test_too_many_rules), cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_damaged),        cmocka_unit_test(test_codec_pair),
        cmocka_unit_test(test_check),          cmocka_unit_test(test_rotates),
        cmocka_unit_test(test_row_dim),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Budgets for the cache: the allocation against all allocations there are and against a Lagrangian one, policies
 * against the ledger of the cache that they make, to the byte, the text of a budget, and calibrations as files: whole,
 * damaged, and those that come with the program. */
#include "base/random.h"
#include "kvcache/allocation.h"
#include "kvcache/budget.h"
#include "kvcache/ledger.h"
#include "kvcache/policy_check.h"
#include "kvcache/policy_text.h"
#include "session/calibration.h"

#include <glob.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static size_t below(size_t n) {
    static uint64_t state = 1;
    return (size_t)random_below(&state, n);
}

static double uniform(void) {
    return (double)below(1 << 20) / (1 << 20);
}

/* ---- Allocation */

enum { N_PARTS = 4, N_WAYS = 5, N_ALL = 625, N_TABLES = 400 };

static size_t bytes[N_PARTS * N_WAYS];
static double harms[N_PARTS * N_WAYS];
static const AllocationTable TABLE = {N_PARTS, N_WAYS, bytes, harms};

static void random_table(void) {
    for (size_t i = 0; i < N_PARTS * N_WAYS; i++) {
        bytes[i] = 1 + below(30);
        harms[i] = below(4) == 0 ? (double)below(3) : uniform() / (double)bytes[i];
    }
}

/* The least harm of all allocations of at most so many bytes; infinite where there is none. */
static double least_harm(size_t budget) {
    double least = INFINITY;
    for (size_t i = 0; i < N_ALL; i++) {
        size_t ways[N_PARTS], rest = i;
        for (size_t p = 0; p < N_PARTS; p++, rest /= N_WAYS)
            ways[p] = rest % N_WAYS;
        if (allocation_bytes(&TABLE, ways) <= budget)
            least = fmin(least, allocation_harm(&TABLE, ways));
    }
    return least;
}

/* Each part for itself where a byte has a price: no allocation of no more bytes does less harm. Of equals the larger.
 */
static void allocate_at_price(double price, size_t ways[N_PARTS]) {
    for (size_t p = 0; p < N_PARTS; p++) {
        ways[p] = 0;
        for (size_t w = 1; w < N_WAYS; w++) {
            double a = harms[p * N_WAYS + w] + price * (double)bytes[p * N_WAYS + w];
            double b = harms[p * N_WAYS + ways[p]] + price * (double)bytes[p * N_WAYS + ways[p]];
            if (a < b)
                ways[p] = w;
        }
    }
}

static void test_allocation(void **state) {
    (void)state;
    size_t n_optimal = 0, n_budgets = 0;
    for (size_t t = 0; t < N_TABLES; t++) {
        random_table();
        for (size_t budget = 0; budget <= N_PARTS * 30; budget += 1 + below(5)) {
            size_t ways[N_PARTS];
            double least = least_harm(budget);
            assert_int_equal(allocate(&TABLE, budget, ways), isfinite(least));
            if (!isfinite(least))
                continue;
            assert_true(allocation_bytes(&TABLE, ways) <= budget);
            double harm = allocation_harm(&TABLE, ways);
            assert_true(harm >= least - 1e-12);
            n_optimal += harm <= least + 1e-12;
            n_budgets++;
        }
        for (double price = 1e-4; price < 1; price *= 1.3) {
            size_t best[N_PARTS], ways[N_PARTS];
            allocate_at_price(price, best);
            for (size_t more = 0; more < 4; more++) { /* harm falls, or stays, as the budget grows past it */
                assert_true(allocate(&TABLE, allocation_bytes(&TABLE, best) + more, ways));
                assert_true(allocation_harm(&TABLE, ways) <= allocation_harm(&TABLE, best) + 1e-12);
            }
        }
    }
    assert_true(n_optimal > n_budgets * 3 / 4); /* between the hull's points it need not be */
}

static void test_sizes_at_the_limit(void **state) {
    (void)state;
    size_t ways[N_PARTS];
    for (size_t i = 0; i < N_PARTS * N_WAYS; i++) {
        bytes[i] = SIZE_MAX / 8 - i;
        harms[i] = (double)i;
    }
    assert_true(allocate(&TABLE, SIZE_MAX, ways));
    assert_int_equal(ways[0], 0);
    assert_false(allocate(&TABLE, SIZE_MAX / 4, ways));
    assert_int_equal(ways[0], N_WAYS - 1); /* the smallest, all the same */
}

/* ---- Text */

static void test_text(void **state) {
    (void)state;
    static const struct {
        const char *text;
        KvBudgetUnit unit;
        double amount;
    } GOOD[] = {{"400MB", KV_BUDGET_BYTES, 4e8},
                {"380MiB", KV_BUDGET_BYTES, 380. * 1048576},
                {"0.5GB", KV_BUDGET_BYTES, 5e8},
                {"1B", KV_BUDGET_BYTES, 1},
                {"2kB", KV_BUDGET_BYTES, 2000},
                {"2KiB", KV_BUDGET_BYTES, 2048},
                {"1.5TiB", KV_BUDGET_BYTES, 1.5 * (1ull << 40)},
                {"30%", KV_BUDGET_SHARE, 0.3},
                {"100%", KV_BUDGET_SHARE, 1},
                {"4.3b", KV_BUDGET_BITS, 4.3},
                {"16b", KV_BUDGET_BITS, 16}};
    static const char *const BAD[] = {
        "",    "b",    "4",      "4 b",      "-4b",   "+4b",   "4e1b",
        "0b",  "0.0%", "0MB",    "16.1b",    "101%",  "400mb", "4bb",
        "4.b", ".4b",  "4,3b",   "nanb",     "infMB", "0x4b",  "1000000000000000000000000MB",
        "4%%", "MB",   "4.3.1b", "4\xc3\xa9"};
    KvBudget budget;
    for (size_t i = 0; i < sizeof GOOD / sizeof *GOOD; i++) {
        Error error = {0};
        if (kv_budget_parse(GOOD[i].text, &budget, &error) < 0)
            fail_msg("%s: %s", GOOD[i].text, error.message);
        assert_int_equal(budget.unit, GOOD[i].unit);
        assert_true(fabs(budget.amount - GOOD[i].amount) <= 1e-12 * GOOD[i].amount);
    }
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) {
        Error error = {0};
        if (kv_budget_parse(BAD[i], &budget, &error) != ERROR_USAGE)
            fail_msg("%s passes", BAD[i]);
        assert_non_null(strstr(error.message, "--kv_budget"));
    }
}

/* ---- Policies */

static KvRecordForm form; /* plain records, of a backend whose encoders get the queries or not */

static void choose_form(void) {
    form = KV_PLAIN_RECORDS;
    form.takes_queries = below(2) == 0;
}

static void random_harms(Calibration *c, size_t n_layers) {
    calibration_open(c, n_layers);
    for (KvSide side = 0; side < KV_SIDES; side++)
        for (int rotated = 0; rotated < 2; rotated++)
            for (KvCodecId codec = KV_INT8; codec < KV_BINARY; codec++) {
                double *nats = calibration_add(c, side, rotated, codec);
                assert_non_null(nats);
                for (size_t i = 0; i < n_layers; i++)
                    nats[i] = uniform() * pow(2, -2.0 * kv_codec_nominal_bits(kv_codec(codec)));
            }
    c->context = c->chunks = c->sink = c->window = c->group = 1;
}

static size_t ledger_bytes(const KvShape *shape, const KvPolicy *policy, double *bits) {
    static KvLedger ledger;
    KvCacheLayout layout;
    Error error = {0};
    if (kvcache_layout_open(&layout, shape, policy, &form, &error) < 0)
        fail_msg("%s", error.message);
    kv_ledger_at(&layout, shape->n_ctx, &ledger);
    kvcache_layout_close(&layout);
    double sum = 0, elements = 0;
    for (size_t i = 0; i < ledger.n_rows; i++)
        if (ledger.rows[i].store >= KV_FIRST_ENCODED) {
            sum += ledger.rows[i].bits * (double)(ledger.rows[i].tokens * ledger.rows[i].n_layers);
            elements += (double)(ledger.rows[i].tokens * ledger.rows[i].n_layers);
        }
    *bits = elements > 0 ? sum / elements : 0;
    return ledger.bytes;
}

static double harm_in(const Calibration *c, const KvPolicy *policy, size_t layer) {
    const KvLayerPolicy *own = kv_policy_of_layer(policy, layer);
    double harm = 0;
    for (KvSide side = 0; side < KV_SIDES && own->n_tiers > 1; side++) {
        KvCodecId codec = side == KV_KEYS ? own->tiers[1].k : own->tiers[1].v;
        bool rotated = policy->rotation == KV_ROTATE_ON ||
                       policy->rotation == (side == KV_KEYS ? KV_ROTATE_KEYS : KV_ROTATE_VALUES);
        harm += codec == KV_F16 ? 0 : c->harms.of[side][rotated][codec][layer];
    }
    return harm;
}

/* Of one layer to itself: its policy with another codec on a side. */
static KvPolicy changed(const KvPolicy *policy, size_t layer, KvSide side, KvCodecId codec) {
    KvPolicy other = *policy;
    memmove(other.rules + 1, other.rules, other.n_rules * sizeof *other.rules);
    other.n_rules++;
    other.rules[0] = (KvRule){layer, layer, *kv_policy_of_layer(policy, layer)};
    if (side == KV_KEYS)
        other.rules[0].policy.tiers[1].k = codec;
    else
        other.rules[0].policy.tiers[1].v = codec;
    return other;
}

/* The same with an encoded tier in each layer, of FP16 where the policy has none, so that all layers count in the mean.
 */
static KvPolicy with_tiers(const KvPolicy *policy, const KvPolicy *preset) {
    KvPolicy other = *policy;
    for (size_t i = 0; i < other.n_rules; i++)
        if (other.rules[i].policy.n_tiers == 1) {
            other.rules[i].policy = preset->rules[0].policy;
            other.rules[i].policy.tiers[1].k = other.rules[i].policy.tiers[1].v = KV_F16;
        }
    return other;
}

/* No codec of one layer alone could be a better one within the budget; but for a layer that is all FP16, which takes
 * less than its two sides were counted. */
static void check_nothing_fits(const Calibration *c, const KvShape *shape, const KvBudgetPolicy *found, size_t budget) {
    double bits;
    for (size_t i = 0; i < found->policy.n_rules; i++)
        if (found->policy.rules[i].policy.n_tiers < 2)
            return;
    for (size_t layer = 0; layer < shape->n_layers; layer++)
        for (KvSide side = 0; side < KV_SIDES; side++)
            for (KvCodecId codec = KV_INT8; codec < KV_BINARY; codec++) {
                KvPolicy other = changed(&found->policy, layer, side, codec);
                if (ledger_bytes(shape, &other, &bits) <= budget &&
                    harm_in(c, &other, layer) < harm_in(c, &found->policy, layer) - 1e-15)
                    fail_msg("layer %zu could have %s", layer, kv_codec_name(kv_codec(codec)));
            }
}

static void check_text(const KvPolicy *policy) {
    char text[KV_POLICY_TEXT], again[KV_POLICY_TEXT];
    KvPolicy parsed = kv_policy_full();
    Error error = {0};
    kv_policy_print(policy, text, sizeof text);
    if (kv_policy_parse(text, &parsed, &error) < 0)
        fail_msg("%s", error.message);
    kv_policy_print(&parsed, again, sizeof again);
    assert_string_equal(text, again);
}

/* Folded, a ledger has each row once, and the same sums. */
static void check_fold(const KvShape *shape, const KvPolicy *policy) {
    static KvLedger ledger;
    KvCacheLayout layout;
    size_t sums[2][3] = {{0}};
    assert_int_equal(kvcache_layout_open(&layout, shape, policy, &form, NULL), 0);
    kv_ledger_at(&layout, shape->n_ctx, &ledger);
    kvcache_layout_close(&layout);
    for (size_t folded = 0; folded < 2; folded++) {
        for (size_t i = 0; i < ledger.n_rows; i++) {
            sums[folded][0] += ledger.rows[i].n_layers;
            sums[folded][1] += ledger.rows[i].bytes;
            sums[folded][2] += ledger.rows[i].bytes_held;
        }
        kv_ledger_fold(&ledger);
    }
    assert_memory_equal(sums[0], sums[1], sizeof sums[0]);
    for (size_t i = 0; i < ledger.n_rows; i++)
        for (size_t j = 0; j < i; j++) {
            char a[KV_ROW_NAME], b[KV_ROW_NAME];
            assert_true(ledger.rows[i].tokens != ledger.rows[j].tokens ||
                        strcmp(kv_ledger_row_name(&ledger.rows[i], a), kv_ledger_row_name(&ledger.rows[j], b)) != 0 ||
                        ledger.rows[i].store != ledger.rows[j].store);
        }
}

static void check_budget(const Calibration *c, const KvShape *shape, const KvPolicy *preset, const char *text,
                         size_t most_bytes, double most_bits) {
    KvBudget budget;
    KvBudgetPolicy found;
    Error error = {0};
    double bits, harm = 0;
    assert_int_equal(kv_budget_parse(text, &budget, &error), 0);
    if (kv_budget_policy(&budget, preset, shape, &form, &c->harms, &found, &error) < 0)
        fail_msg("%s: %s", text, error.message);
    assert_int_equal(kv_policy_check(&found.policy, shape->n_layers, shape->head_dim, shape->n_ctx, &error), 0);
    assert_int_equal(found.bytes, ledger_bytes(shape, &found.policy, &bits));
    assert_true(found.bytes <= most_bytes);
    KvPolicy tiered = with_tiers(&found.policy, preset);
    ledger_bytes(shape, &tiered, &bits);
    assert_true(bits <= most_bits * (1 + 1e-9));
    for (size_t layer = 0; layer < shape->n_layers; layer++)
        harm += harm_in(c, &found.policy, layer);
    assert_true(fabs(harm - found.harm) <= 1e-9 * harm + 1e-15);
    assert_true(preset->rotation == KV_ROTATE_AUTO || kv_policy_is_full(&found.policy) ||
                found.policy.rotation == preset->rotation);
    check_text(&found.policy);
    check_fold(shape, &found.policy);
    if (most_bytes < SIZE_MAX && shape->n_layers <= KV_MAX_RULES / 2)
        check_nothing_fits(c, shape, &found, most_bytes);
}

static KvShape random_shape(size_t n_layers) {
    KvShape shape = {n_layers, 1 + below(3), below(2) == 0 ? 64 : 128, 300 + below(900), 128, {{0}}, 0};
    if (below(2) == 0)
        shape.lookback = 20 + below(200);
    for (size_t i = 0; i < n_layers; i++)
        if (below(2) == 0)
            layer_set_add(&shape.local, i);
    return shape;
}

static void test_policies(void **state) {
    (void)state;
    static const KvRotation ROTATIONS[] = {KV_ROTATE_AUTO, KV_ROTATE_ON, KV_ROTATE_VALUES, KV_ROTATE_OFF};
    for (size_t i = 0; i < 60; i++) {
        Calibration c;
        size_t n_layers = i < 50 ? 1 + below(6) : 33 + below(70);
        KvShape shape = random_shape(n_layers);
        KvPolicy preset = kv_policy_quantized(below(20), below(64), KV_INT8, KV_INT8);
        preset.group = below(2) == 0 ? 32 : 64;
        preset.rotation = ROTATIONS[below(4)];
        preset.rounding = below(2) == 0 ? KV_ROUND_AUTO : KV_ROUND_NEAREST;
        random_harms(&c, n_layers);
        choose_form();
        const KvPolicy full = kv_policy_full();
        double bits;
        size_t full_bytes = ledger_bytes(&shape, &full, &bits);
        char text[32];
        size_t budget = full_bytes * 6 / 10 + below(full_bytes / 2);
        snprintf(text, sizeof text, "%zuB", budget);
        check_budget(&c, &shape, &preset, text, budget, INFINITY);
        for (double b = 4; b <= 16; b += 0.75 + uniform()) {
            snprintf(text, sizeof text, "%.3fb", b);
            check_budget(&c, &shape, &preset, text, SIZE_MAX, b + 5e-4);
        }
        calibration_free(&c);
    }
}

static void test_refusals(void **state) {
    (void)state;
    static const struct {
        const char *budget, *message;
    } CASES[] = {{"2.4b", "the smallest policy, rotate=on,sink=16,f16:32,int2:*, has 2.5 bits"},
                 {"9999B", "the smallest policy, rotate=on,sink=16,f16:32,int2:*, takes"},
                 {"1%", "give at least that"}};
    const KvShape shape = {3, 2, 64, 1000, 128, {{0}}, 0};
    const KvPolicy preset = kv_policy_quantized(16, 32, KV_INT8, KV_INT8);
    Calibration c;
    random_harms(&c, 3);
    choose_form();
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        KvBudget budget;
        KvBudgetPolicy found;
        Error error = {0};
        assert_int_equal(kv_budget_parse(CASES[i].budget, &budget, &error), 0);
        assert_int_equal(kv_budget_policy(&budget, &preset, &shape, &form, &c.harms, &found, &error), ERROR_ARGUMENT);
        if (strstr(error.message, CASES[i].message) == NULL)
            fail_msg("%s: %s", CASES[i].budget, error.message);
    }
    calibration_free(&c);
}

/* ---- Files */

static char path[64];

static void write_text(const char *text) {
    snprintf(path, sizeof path, "/tmp/stowkv-calibration-%d.json", (int)getpid());
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static char *calibration_text(const Calibration *c) {
    cJSON *root = calibration_json(c);
    char *text = cJSON_PrintUnformatted(root);
    assert_non_null(text);
    cJSON_Delete(root);
    return text;
}

static void test_round_trip(void **state) {
    (void)state;
    Calibration c, again;
    Error error = {0};
    random_harms(&c, 7);
    c.fingerprint = 0xfedcba9876543210;
    c.rounding = KV_ROUND_NEAREST;
    snprintf(c.model, sizeof c.model, "a model, \"so called\"");
    char *text = calibration_text(&c);
    write_text(text);
    free(text);
    if (calibration_read(&again, path, &error) < 0)
        fail_msg("%s", error.message);
    assert_true(again.fingerprint == c.fingerprint);
    assert_string_equal(again.model, c.model);
    assert_int_equal(again.rounding, c.rounding);
    for (size_t i = 0; i < 7; i++) {
        double a = c.harms.of[KV_VALUES][1][KV_INT4][i], b = again.harms.of[KV_VALUES][1][KV_INT4][i];
        assert_true(fabs(a - b) <= 1e-3 * a);
    }
    assert_null(again.harms.of[KV_KEYS][0][KV_F16]);
    calibration_free(&c);
    calibration_free(&again);
    unlink(path);
}

/* Replaces the first `from` of a calibration of two layers; what is read then is refused. */
static void test_damaged_files(void **state) {
    (void)state;
    static const struct {
        const char *from, *to, *message;
    } CASES[] = {
        {"{", "", "JSON"},
        {"\"harms\"", "\"harm\"", "has no harms"},
        {"stowkv calibration", "calibration", "is no calibration"},
        {"\"version\":1", "\"version\":2", "version 2, and this program reads version 1"},
        {"\"version\":1", "\"version\":\"1\"", "is no calibration"},
        {"00000000000000ff", "0xff", "16 hex digits"},
        {"\"n_layers\":2", "\"n_layers\":3", "not a number for each layer"},
        {"\"n_layers\":2", "\"n_layers\":0", "no number of layers"},
        {"\"n_layers\":2", "\"n_layers\":9007199254740992", "no number of layers"},
        {"\"n_layers\":2", "\"n_layers\":-1", "no number of layers"},
        {"\"sink\":1", "\"sink\":1.5", "sink"},
        {"\"kv_rounding\":\"auto\"", "\"kv_rounding\":\"up\"", "kv_rounding"},
        {"\"side\":\"k\"", "\"side\":\"q\"", "no side"},
        {"\"codec\":\"int8\"", "\"codec\":\"int9\"", "no codec"},
        {"\"codec\":\"int8\"", "\"codec\":\"int4\"", "two harms"},
        {"\"rotated\":false", "\"rotated\":0", "no side"},
        {"[0.5,", "[-0.5,", "no divergence"},
        {"[0.5,", "[1e999,", "no divergence"},
        {"[0.5,", "[\"0.5\",", "no divergence"},
        {"[0.5,", "[", "not a number for each layer"},
        {"\"model\":", "\"version\":1,\"model\":", "duplicate key"},
    };
    Calibration c;
    random_harms(&c, 2);
    c.fingerprint = 0xff;
    c.harms.of[KV_KEYS][0][KV_INT8][0] = 0.5;
    char *text = calibration_text(&c);
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        char *damaged = calloc(strlen(text) + 100, 1), *at = strstr(text, CASES[i].from);
        Calibration read;
        Error error = {0};
        assert_non_null(damaged);
        if (at == NULL)
            fail_msg("%s is not in %.300s", CASES[i].from, text);
        sprintf(damaged, "%.*s%s%s", (int)(at - text), text, CASES[i].to, at + strlen(CASES[i].from));
        write_text(damaged);
        if (calibration_read(&read, path, &error) == 0 || strstr(error.message, CASES[i].message) == NULL)
            fail_msg("%s for %s: %s", CASES[i].to, CASES[i].from, error.message);
        free(damaged);
    }
    for (size_t length = 0; length < strlen(text); length += 1 + below(60)) { /* cut off */
        char *cut = strndup(text, length);
        Calibration read;
        Error error = {0};
        write_text(cut);
        assert_true(calibration_read(&read, path, &error) < 0 && strstr(error.message, path) != NULL);
        free(cut);
    }
    free(text);
    calibration_free(&c);
    unlink(path);
}

/* Of those that come with the program: under the name by which it looks for them, with a harm of every codec. */
static void test_shipped(void **state) {
    (void)state;
    glob_t files;
    assert_int_equal(glob(STOWKV_SOURCE_DIR "/checkpoints/calibrations/*.json", 0, NULL, &files), 0);
    for (size_t i = 0; i < files.gl_pathc; i++) {
        Calibration c;
        Error error = {0};
        char name[32];
        if (calibration_read(&c, files.gl_pathv[i], &error) < 0)
            fail_msg("%s", error.message);
        snprintf(name, sizeof name, "/%016llx.json", (unsigned long long)c.fingerprint);
        assert_string_equal(strrchr(files.gl_pathv[i], '/'), name);
        for (KvCodecId id = 0; id < KV_CODEC_COUNT; id++) {
            const char *codec = kv_codec_name(kv_codec(id));
            bool is_left_out = strcmp(codec, "f16") == 0 || strcmp(codec, "binary") == 0;
            for (size_t way = 0; way < 4; way++)
                if ((c.harms.of[way / 2][way % 2][id] == NULL) != is_left_out)
                    fail_msg("%s: %s, side %zu, rotated %zu", name, codec, way / 2, way % 2);
        }
        calibration_free(&c);
    }
    globfree(&files);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_allocation),    cmocka_unit_test(test_sizes_at_the_limit),
        cmocka_unit_test(test_text),          cmocka_unit_test(test_policies),
        cmocka_unit_test(test_refusals),      cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_damaged_files), cmocka_unit_test(test_shipped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

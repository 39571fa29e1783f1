/* See budget.h. Costs are those of the layout that the cache itself has: what a codec takes in a layer is read from the
 * layout of a policy that has it in all layers, and the policy that is found is laid out again. */
#include "kvcache/budget.h"

#include "base/checked.h"
#include "base/options.h"
#include "kvcache/allocation.h"
#include "kvcache/ledger.h"
#include "kvcache/policy_check.h"
#include "kvcache/policy_text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- Text */

static const struct Unit {
    const char *name;
    KvBudgetUnit unit;
    double factor, most; /* most: of the number in front of it */
} UNITS[] = {{"B", KV_BUDGET_BYTES, 1, 1e15},
             {"kB", KV_BUDGET_BYTES, 1e3, 1e12},
             {"MB", KV_BUDGET_BYTES, 1e6, 1e9},
             {"GB", KV_BUDGET_BYTES, 1e9, 1e6},
             {"TB", KV_BUDGET_BYTES, 1e12, 1e3},
             {"KiB", KV_BUDGET_BYTES, 1024, 1e12},
             {"MiB", KV_BUDGET_BYTES, 1024. * 1024, 1e9},
             {"GiB", KV_BUDGET_BYTES, 1024. * 1024 * 1024, 1e6},
             {"TiB", KV_BUDGET_BYTES, 1024. * 1024 * 1024 * 1024, 1e3},
             {"%", KV_BUDGET_SHARE, 0.01, 100},
             {"b", KV_BUDGET_BITS, 1, 16}};

#define N_UNITS     (sizeof UNITS / sizeof *UNITS)
#define MAX_SHOWN   32 /* characters of a budget in a message */
#define BUDGET_FORM "a size such as 400MB or 380MiB, 30% of the full cache, or 4.3b, bits of an old element"

/* Digits, and a fraction: its length; 0 where there is no number. */
static size_t number_length(const char *text) {
    static const char DIGITS[] = "0123456789";
    size_t whole = strspn(text, DIGITS);
    if (whole == 0 || text[whole] != '.')
        return whole;
    size_t fraction = strspn(text + whole + 1, DIGITS);
    return fraction > 0 ? whole + 1 + fraction : 0;
}

int kv_budget_parse(const char *text, KvBudget *out, Error *error) {
    size_t length = number_length(text), i = 0;
    while (i < N_UNITS && strcmp(text + length, UNITS[i].name) != 0)
        i++;
    if (length == 0 || i == N_UNITS)
        return error_set(error, ERROR_USAGE, "--kv_budget %.*s: expected %s", MAX_SHOWN, text, BUDGET_FORM);
    double number = strtod(text, NULL);
    if (!(number > 0 && number <= UNITS[i].most))
        return error_set(error, ERROR_USAGE, "--kv_budget %.*s: expected more than 0%s and at most %.0f%s", MAX_SHOWN,
                         text, UNITS[i].name, UNITS[i].most, UNITS[i].name);
    *out = (KvBudget){text, UNITS[i].unit, number * UNITS[i].factor};
    return 0;
}

/* ---- What codecs take and do */

/* Layers in one block share their codecs; a block has two parts, keys and values, which follow one another. */
typedef struct Search {
    const KvBudget *budget;
    const KvPolicy *preset;
    const KvShape *shape;
    const KvRecordForm *form;
    const KvHarms *harms;
    size_t block_layers, n_blocks, n_parts;
    KvCodecId codecs[KV_CODEC_COUNT]; /* (n_ways) */
    size_t n_ways;
    size_t *bytes;   /* (n_parts, n_ways) as the budget counts them */
    double *harm;    /* (n_parts, n_ways) under the rotation that is looked at */
    size_t *ways;    /* (n_parts) */
    size_t fixed;    /* bytes that no codec changes: sinks and windows, where the budget counts them */
    size_t elements; /* of tokens that are encoded */
} Search;

static size_t part_of(const Search *s, size_t layer, KvSide side) {
    return layer / s->block_layers * KV_SIDES + side;
}

static KvPolicy uniform(const Search *s, KvCodecId k, KvCodecId v) {
    KvPolicy policy = *s->preset;
    KvTier *tiers = policy.rules[0].policy.tiers;
    tiers[1].k = k;
    tiers[1].v = v;
    return policy;
}

static const double *harms_of(const Search *s, KvRotation rotation, KvSide side, KvCodecId codec) {
    bool rotated = rotation == KV_ROTATE_ON || rotation == (side == KV_KEYS ? KV_ROTATE_KEYS : KV_ROTATE_VALUES);
    return s->harms->of[side][rotated][codec];
}

/* FP16 does none. */
static bool is_known(const Search *s, KvRotation rotation, KvCodecId codec) {
    return codec == KV_F16 ||
           (harms_of(s, rotation, KV_KEYS, codec) != NULL && harms_of(s, rotation, KV_VALUES, codec) != NULL);
}

/* The codecs that can be had under this rotation. */
static void choose_codecs(Search *s, KvRotation rotation) {
    s->n_ways = 0;
    for (KvCodecId codec = 0; codec < KV_CODEC_COUNT; codec++) {
        KvPolicy policy = uniform(s, codec, codec);
        policy.rotation = rotation;
        if (is_known(s, rotation, codec) && kv_policy_row_dim(&policy, s->shape->head_dim) == s->shape->head_dim &&
            kv_policy_check(&policy, s->shape->n_layers, s->shape->head_dim, s->shape->n_ctx, NULL) == 0)
            s->codecs[s->n_ways++] = codec;
    }
}

/* Of an encoded side of a layer: all that it takes, or the records that it holds once the context is full. */
static size_t side_bytes(const Search *s, const KvLayerLayout *layer, KvSide side, size_t n_groups) {
    const KvStore *store = &layer->stores[KV_FIRST_ENCODED];
    if (s->budget->unit == KV_BUDGET_BITS)
        return n_groups * store->array[side].slot_bytes * s->shape->n_kv_heads;
    size_t keys = store->array[KV_VALUES].offset - store->array[KV_KEYS].offset;
    return side == KV_KEYS ? keys + layer->moments_bytes : store->bytes - keys;
}

static void count_layer(Search *s, const KvCacheLayout *layout, size_t index, size_t way) {
    const KvLayerLayout *layer = &layout->layers[index];
    if (s->budget->unit != KV_BUDGET_BITS)
        s->fixed += layer->stores[KV_SINK].bytes + layer->stores[KV_TIER(0)].bytes;
    if (layer->n_stores <= KV_FIRST_ENCODED) /* it looks back on no more than its window */
        return;
    KvPlan plan = kvcache_layer_plan(layout, index, s->shape->n_ctx);
    size_t n_tokens = kv_store_held(&plan, KV_FIRST_ENCODED);
    s->elements += KV_SIDES * n_tokens * s->shape->n_kv_heads * s->shape->head_dim;
    for (KvSide side = 0; side < KV_SIDES; side++)
        s->bytes[part_of(s, index, side) * s->n_ways + way] +=
            side_bytes(s, layer, side, n_tokens / layout->policy.group);
}

static int count_bytes(Search *s, size_t way, Error *error) {
    KvPolicy policy = uniform(s, s->codecs[way], s->codecs[way]);
    KvCacheLayout layout;
    if (kvcache_layout_open(&layout, s->shape, &policy, s->form, error) < 0)
        return error->code;
    s->fixed = s->elements = 0;
    for (size_t i = 0; i < s->shape->n_layers; i++)
        count_layer(s, &layout, i, way);
    kvcache_layout_close(&layout);
    return 0;
}

static void add_harms(Search *s, KvRotation rotation, size_t way) {
    for (KvSide side = 0; side < KV_SIDES; side++) {
        const double *harms = harms_of(s, rotation, side, s->codecs[way]);
        for (size_t i = 0; i < s->shape->n_layers && s->codecs[way] != KV_F16; i++)
            s->harm[part_of(s, i, side) * s->n_ways + way] += harms[i];
    }
}

static int fill_table(Search *s, KvRotation rotation, Error *error) {
    size_t n = s->n_parts * KV_CODEC_COUNT;
    memset(s->bytes, 0, n * sizeof *s->bytes);
    memset(s->harm, 0, n * sizeof *s->harm);
    choose_codecs(s, rotation);
    for (size_t way = 0; way < s->n_ways; way++) {
        if (count_bytes(s, way, error) < 0)
            return error->code;
        add_harms(s, rotation, way);
    }
    return 0;
}

/* The budget in bytes, of all that the search counts. */
static size_t budget_bytes(const Search *s) {
    const KvShape *shape = s->shape;
    double full = (double)(shape->n_layers * shape->n_kv_heads) * (double)(shape->n_ctx * shape->head_dim) * KV_SIDES *
                  sizeof(uint16_t);
    double bytes = s->budget->unit == KV_BUDGET_BITS    ? s->budget->amount * (double)s->elements / 8
                   : s->budget->unit == KV_BUDGET_SHARE ? s->budget->amount * full
                                                        : s->budget->amount;
    return (size_t)floor(bytes * (1 + 1e-12)); /* 30 % of 1,000 are 300, whatever 0.01 is in binary */
}

/* ---- The policy */

static bool is_alike(const Search *s, size_t a, size_t b) {
    return s->ways[a * KV_SIDES] == s->ways[b * KV_SIDES] && s->ways[a * KV_SIDES + 1] == s->ways[b * KV_SIDES + 1];
}

static KvLayerPolicy policy_of_block(const Search *s, size_t block) {
    KvCodecId k = s->codecs[s->ways[block * KV_SIDES]], v = s->codecs[s->ways[block * KV_SIDES + 1]];
    return k == KV_F16 && v == KV_F16 ? kv_policy_full().rules[0].policy : uniform(s, k, v).rules[0].policy;
}

/* The block that has the same codecs as most: its rule is the one for all layers that no other names. */
static size_t commonest_block(const Search *s) {
    size_t best = 0, most = 0;
    for (size_t a = 0; a < s->n_blocks; a++) {
        size_t n = 0;
        for (size_t b = 0; b < s->n_blocks; b++)
            n += is_alike(s, a, b);
        if (n > most) {
            most = n;
            best = a;
        }
    }
    return best;
}

static KvPolicy make_policy(const Search *s, KvRotation rotation) {
    KvPolicy policy = *s->preset;
    size_t common = commonest_block(s);
    policy.rotation = rotation;
    policy.n_rules = 0;
    for (size_t block = 0; block < s->n_blocks;) {
        size_t end = block + 1;
        while (end < s->n_blocks && is_alike(s, block, end))
            end++;
        if (!is_alike(s, block, common))
            policy.rules[policy.n_rules++] =
                (KvRule){block * s->block_layers, at_most(end * s->block_layers, s->shape->n_layers) - 1,
                         policy_of_block(s, block)};
        block = end;
    }
    policy.rules[policy.n_rules++] = (KvRule){0, SIZE_MAX, policy_of_block(s, common)};
    return policy;
}

static int count_policy(const Search *s, KvBudgetPolicy *found, Error *error) {
    KvCacheLayout layout;
    KvLedger *ledger = malloc(sizeof *ledger);
    if (ledger == NULL)
        return error_memory(error, "a ledger", sizeof *ledger);
    int status = kvcache_layout_open(&layout, s->shape, &found->policy, s->form, error);
    if (status == 0) {
        kv_ledger_at(&layout, s->shape->n_ctx, ledger);
        found->bytes = ledger->bytes;
        kvcache_layout_close(&layout);
    }
    free(ledger);
    return status;
}

/* Where there is room for all of it, the full cache itself, which has no tiers whose groups and windows overlap. */
static int try_full(const Search *s, bool *fits, KvBudgetPolicy *out, Error *error) {
    *out = (KvBudgetPolicy){.policy = kv_policy_full(), .bits = 16};
    out->policy.group = s->preset->group;
    if (count_policy(s, out, error) < 0)
        return error->code;
    *fits = s->budget->unit == KV_BUDGET_BITS ? s->budget->amount >= 16 : out->bytes <= budget_bytes(s);
    return 0;
}

/* Takes what is found under a rotation where it is better than what was found before; while nothing fits, the smallest.
 */
static int try_rotation(Search *s, KvRotation rotation, bool *fits, KvBudgetPolicy *best, Error *error) {
    KvBudgetPolicy found = {0};
    if (fill_table(s, rotation, error) < 0)
        return error->code;
    const AllocationTable table = {s->n_parts, s->n_ways, s->bytes, s->harm};
    size_t budget = budget_bytes(s);
    bool found_one = allocate(&table, budget > s->fixed ? budget - s->fixed : 0, s->ways) && budget >= s->fixed;
    found.policy = make_policy(s, rotation);
    found.harm = allocation_harm(&table, s->ways);
    if (s->budget->unit == KV_BUDGET_BITS && s->elements > 0)
        found.bits = 8.0 * (double)allocation_bytes(&table, s->ways) / (double)s->elements;
    if (count_policy(s, &found, error) < 0)
        return error->code;
    bool better = found_one ? !*fits || found.harm < best->harm : !*fits && found.bytes < best->bytes;
    if (best->policy.n_rules == 0 || better)
        *best = found;
    *fits = *fits || found_one;
    return 0;
}

static int refuse(const Search *s, const KvBudgetPolicy *smallest, Error *error) {
    char text[KV_POLICY_TEXT];
    kv_policy_print(&smallest->policy, text, sizeof text);
    if (s->budget->unit == KV_BUDGET_BITS)
        return error_set(error, ERROR_ARGUMENT,
                         "--kv_budget %.*s: the smallest policy, %.200s, has %.4g bits; give at least that", MAX_SHOWN,
                         s->budget->text, text, smallest->bits);
    return error_set(error, ERROR_ARGUMENT,
                     "--kv_budget %.*s: the smallest policy, %.200s, takes %zu bytes in a context of %zu tokens; give "
                     "at least that, or a smaller --n_ctx",
                     MAX_SHOWN, s->budget->text, text, smallest->bytes, s->shape->n_ctx);
}

static int find_policy(Search *s, KvBudgetPolicy *out, Error *error) {
    static const KvRotation ROTATIONS[] = {KV_ROTATE_ON, KV_ROTATE_VALUES, KV_ROTATE_KEYS, KV_ROTATE_OFF};
    bool fits = false;
    if (try_full(s, &fits, out, error) < 0)
        return error->code;
    if (fits)
        return 0;
    *out = (KvBudgetPolicy){0};
    for (size_t i = 0; i < sizeof ROTATIONS / sizeof *ROTATIONS; i++)
        if ((s->preset->rotation == KV_ROTATE_AUTO || s->preset->rotation == ROTATIONS[i]) &&
            try_rotation(s, ROTATIONS[i], &fits, out, error) < 0)
            return error->code;
    return fits ? 0 : refuse(s, out, error);
}

int kv_budget_policy(const KvBudget *budget, const KvPolicy *preset, const KvShape *shape, const KvRecordForm *form,
                     const KvHarms *harms, KvBudgetPolicy *out, Error *error) {
    Search s = {.budget = budget, .preset = preset, .shape = shape, .form = form, .harms = harms};
    s.block_layers = divide_up(shape->n_layers, KV_MAX_RULES);
    s.n_blocks = divide_up(shape->n_layers, s.block_layers);
    s.n_parts = s.n_blocks * KV_SIDES;
    s.bytes = calloc(s.n_parts * KV_CODEC_COUNT, sizeof *s.bytes);
    s.harm = calloc(s.n_parts * KV_CODEC_COUNT, sizeof *s.harm);
    s.ways = calloc(s.n_parts, sizeof *s.ways);
    int status = s.bytes == NULL || s.harm == NULL || s.ways == NULL
                     ? error_memory(error, "the search for a policy", s.n_parts * KV_CODEC_COUNT * sizeof *s.bytes)
                     : find_policy(&s, out, error);
    free(s.bytes);
    free(s.harm);
    free(s.ways);
    return status;
}

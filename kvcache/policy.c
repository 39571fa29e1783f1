/* Policies: the presets, the text form in both directions, and the check against a model; see policy.h. Where tokens
 * are at a position is plan.c's subject.
 *
 * The grammar, with white space allowed between its symbols:
 *
 *     policy = rule {";" rule}
 *     rule   = ["@" layers ":"] ["sink=" N ","] tier {"," tier}
 *     layers = "*" | N | N "-" N | N "-" "*"
 *     tier   = codec ["/" codec] ":" (N | "*") */
#include "kvcache/policy.h"

#include "model/base/checked.h"
#include "model/base/options.h"

#include <stdarg.h>
#include <stdio.h>

#define MAX_NAME      32
#define DEFAULT_GROUP 64

static const KvTier EMPTY_F16 = {KV_F16, KV_F16, 0};

/* Presets */

static KvPolicy preset(KvLayerPolicy layer) {
    return (KvPolicy){
        .n_rules = 1, .rules = {{0, SIZE_MAX, layer}}, .group = DEFAULT_GROUP, .rotation = KV_ROTATE_AUTO};
}

KvPolicy kv_policy_full(void) {
    return preset((KvLayerPolicy){.n_tiers = 1, .tiers = {{KV_F16, KV_F16, KV_UNLIMITED}}});
}

KvPolicy kv_policy_compressed(size_t sink, size_t window) {
    return preset((KvLayerPolicy){.sink = sink, .n_tiers = 1, .tiers = {{KV_F16, KV_F16, window}}});
}

KvPolicy kv_policy_quantized(size_t sink, size_t window, KvCodecId k, KvCodecId v) {
    return preset(
        (KvLayerPolicy){.sink = sink, .n_tiers = 2, .tiers = {{KV_F16, KV_F16, window}, {k, v, KV_UNLIMITED}}});
}

/* Questions about a policy */

static bool names_layer(const KvRule *rule, size_t layer) {
    return rule->first_layer <= layer && layer <= rule->last_layer;
}

static bool names_all_layers(const KvRule *rule) {
    return rule->first_layer == 0 && rule->last_layer == SIZE_MAX;
}

static bool is_bounded(const KvLayerPolicy *layer) {
    return layer->tiers[layer->n_tiers - 1].capacity != KV_UNLIMITED;
}

static const KvRule *rule_of_layer(const KvPolicy *policy, size_t layer) {
    for (size_t i = 0; i < policy->n_rules; i++)
        if (names_layer(&policy->rules[i], layer))
            return &policy->rules[i];
    return NULL;
}

const KvLayerPolicy *kv_policy_of_layer(const KvPolicy *policy, size_t layer) {
    const KvRule *rule = rule_of_layer(policy, layer);
    return rule != NULL ? &rule->policy : NULL;
}

/* The first layer from `layer` on that no rule names; SIZE_MAX where all are named. */
static size_t first_unnamed_layer(const KvPolicy *policy, size_t layer) {
    const KvRule *rule;
    while (layer != SIZE_MAX && (rule = rule_of_layer(policy, layer)) != NULL)
        layer = rule->last_layer == SIZE_MAX ? SIZE_MAX : rule->last_layer + 1;
    return layer;
}

const char *kv_policy_mode(const KvPolicy *policy) {
    const KvLayerPolicy *layer = &policy->rules[0].policy;
    if (policy->n_rules != 1 || !names_all_layers(&policy->rules[0]) || layer->n_tiers > 2)
        return "cascade";
    if (layer->n_tiers == 1) /* a sink changes nothing where no token ever leaves */
        return is_bounded(layer) ? "compressed" : "full";
    return is_bounded(layer) ? "cascade" : "quantized";
}

static bool layer_streams(const KvLayerPolicy *layer, size_t n_ctx) {
    size_t total = layer->sink;
    for (size_t t = 0; t < layer->n_tiers; t++)
        if (!checked_add(total, layer->tiers[t].capacity, &total))
            return false;
    return total <= n_ctx;
}

bool kv_policy_streams(const KvPolicy *policy, size_t n_ctx) {
    for (size_t i = 0; i < policy->n_rules; i++)
        if (!layer_streams(&policy->rules[i].policy, n_ctx))
            return false;
    return true;
}

static bool is_power_of_two(size_t n) {
    return n != 0 && (n & (n - 1)) == 0;
}

bool kv_policy_rotates(const KvPolicy *policy, KvCodecId codec, size_t head_dim) {
    if (codec == KV_F16 || policy->rotation == KV_ROTATE_OFF)
        return false;
    return policy->rotation == KV_ROTATE_ON ||
           (kv_codec_nominal_bits(kv_codec(codec)) < 8 && is_power_of_two(head_dim));
}

/* Printing */

typedef struct Writer {
    char *text;
    size_t size, length; /* length: of all that was written, whether it fitted or not */
} Writer;

__attribute__((format(printf, 2, 3))) static void write_text(Writer *writer, const char *format, ...) {
    bool fits = writer->length < writer->size;
    va_list arguments;
    va_start(arguments, format);
    writer->length += (size_t)vsnprintf(fits ? writer->text + writer->length : NULL,
                                        fits ? writer->size - writer->length : 0, format, arguments);
    va_end(arguments);
}

static void write_layers(Writer *writer, const KvRule *rule) {
    if (names_all_layers(rule))
        write_text(writer, "@*:");
    else if (rule->first_layer == rule->last_layer)
        write_text(writer, "@%zu:", rule->first_layer);
    else if (rule->last_layer == SIZE_MAX)
        write_text(writer, "@%zu-*:", rule->first_layer);
    else
        write_text(writer, "@%zu-%zu:", rule->first_layer, rule->last_layer);
}

static void write_tier(Writer *writer, const KvTier *tier) {
    write_text(writer, "%s", kv_codec_name(kv_codec(tier->k)));
    if (tier->v != tier->k)
        write_text(writer, "/%s", kv_codec_name(kv_codec(tier->v)));
    if (tier->capacity == KV_UNLIMITED)
        write_text(writer, ":*");
    else
        write_text(writer, ":%zu", tier->capacity);
}

static void write_layer_policy(Writer *writer, const KvLayerPolicy *layer) {
    if (layer->sink > 0)
        write_text(writer, "sink=%zu,", layer->sink);
    for (size_t t = 0; t < layer->n_tiers; t++) {
        write_text(writer, "%s", t > 0 ? "," : "");
        write_tier(writer, &layer->tiers[t]);
    }
}

size_t kv_policy_print(const KvPolicy *policy, char *text, size_t size) {
    Writer writer = {text, size, 0};
    for (size_t i = 0; i < policy->n_rules; i++) {
        write_text(&writer, "%s", i > 0 ? ";" : "");
        if (policy->n_rules > 1 || !names_all_layers(&policy->rules[i]))
            write_layers(&writer, &policy->rules[i]);
        write_layer_policy(&writer, &policy->rules[i].policy);
    }
    return writer.length;
}

/* Parsing */

typedef struct Parser {
    const char *flag, *text; /* for messages */
    const char *at;          /* what comes next */
    const char *star;        /* the last capacity that is unlimited */
    Error *error;
} Parser;

__attribute__((format(printf, 3, 4))) static int fail_at(const Parser *parser, const char *at, const char *format,
                                                         ...) {
    char what[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    return error_set(parser->error, ERROR_USAGE, "%s \"%.128s%s\": character %zu: %s", parser->flag, parser->text,
                     strlen(parser->text) > 128 ? "..." : "", (size_t)(at - parser->text) + 1, what);
}

static char peek(Parser *parser) {
    parser->at += strspn(parser->at, " \t\r\n");
    return *parser->at;
}

static bool accept(Parser *parser, char symbol) {
    if (peek(parser) != symbol)
        return false;
    parser->at++;
    return true;
}

/* The name that comes next, empty where there is none. */
static StringView peek_name(Parser *parser) {
    peek(parser);
    return (StringView){parser->at, strspn(parser->at, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                                       "0123456789_")};
}

static int expected(Parser *parser, const char *what) {
    if (peek(parser) == '\0')
        return fail_at(parser, parser->at, "expected %s, but the text ends here", what);
    size_t length = strcspn(parser->at, "@,;:/=* \t\r\n");
    length = length == 0 ? 1 : length; /* a lone symbol */
    return fail_at(parser, parser->at, "expected %s, not '%.*s'", what, (int)(length < MAX_NAME ? length : MAX_NAME),
                   parser->at);
}

/* Any number below SIZE_MAX, which stands for "unlimited". */
static int parse_number(Parser *parser, const char *what, size_t *out) {
    const size_t largest = SIZE_MAX - 1;
    if (peek(parser) < '0' || *parser->at > '9')
        return expected(parser, what);
    const char *start = parser->at;
    for (*out = 0; *parser->at >= '0' && *parser->at <= '9'; parser->at++) {
        size_t digit = (size_t)(*parser->at - '0');
        if (*out > (largest - digit) / 10)
            return fail_at(parser, start, "the number is too large; at most %zu", largest);
        *out = *out * 10 + digit;
    }
    return 0;
}

static int parse_codec(Parser *parser, KvCodecId *id) {
    StringView name = peek_name(parser);
    const KvCodec *codec = kv_codec_named(name);
    if (codec == NULL) {
        char text[MAX_NAME] = {0};
        memcpy(text, name.bytes, name.length < MAX_NAME ? name.length : MAX_NAME - 1);
        if (name.length == 0)
            return expected(parser, "a codec");
        return fail_at(parser, name.bytes, "no codec '%s'; did you mean %s? --list_codecs lists all", text,
                       nearest_name(text, kv_codec_names()));
    }
    parser->at += name.length;
    *id = kv_codec_id(codec);
    return 0;
}

static int parse_capacity(Parser *parser, size_t *capacity) {
    if (!accept(parser, ':'))
        return expected(parser, "':' and a capacity in tokens, as in f16:32 or int8:*");
    if (accept(parser, '*')) {
        parser->star = parser->at - 1;
        *capacity = KV_UNLIMITED;
        return 0;
    }
    return parse_number(parser, "a capacity in tokens, or * for unlimited", capacity);
}

static int parse_tier(Parser *parser, KvLayerPolicy *layer) {
    KvTier tier;
    if (layer->n_tiers > 0 && !is_bounded(layer))
        return fail_at(parser, parser->star, "no token ever leaves an unlimited tier; * can only come last");
    StringView name = peek_name(parser);
    if (name.length == 0 || name.bytes[name.length] == '=')
        return expected(parser, "a tier as codec:capacity");
    if (parse_codec(parser, &tier.k) < 0)
        return ERROR_USAGE;
    tier.v = tier.k;
    if (accept(parser, '/') && parse_codec(parser, &tier.v) < 0)
        return ERROR_USAGE;
    if (layer->n_tiers == 0 && (tier.k != KV_F16 || tier.v != KV_F16))
        layer->tiers[layer->n_tiers++] = EMPTY_F16;
    if (layer->n_tiers == KV_MAX_TIERS)
        return fail_at(parser, name.bytes, "more than %d tiers, counting the f16 one in front; merge some",
                       KV_MAX_TIERS);
    if (parse_capacity(parser, &tier.capacity) < 0)
        return ERROR_USAGE;
    layer->tiers[layer->n_tiers++] = tier;
    return 0;
}

static int parse_sink(Parser *parser, size_t *sink) {
    parser->at += strlen("sink");
    if (!accept(parser, '='))
        return expected(parser, "'=' and a number of tokens, as in sink=16");
    if (parse_number(parser, "a number of tokens", sink) < 0)
        return ERROR_USAGE;
    return accept(parser, ',') ? 0 : expected(parser, "',' and a tier as codec:capacity");
}

static int parse_layer_policy(Parser *parser, KvLayerPolicy *layer) {
    if (sv_is(peek_name(parser), "sink") && parse_sink(parser, &layer->sink) < 0)
        return ERROR_USAGE;
    do {
        if (sv_is(peek_name(parser), "sink"))
            return fail_at(parser, parser->at, "the sink is given once, in front of the tiers");
        if (parse_tier(parser, layer) < 0)
            return ERROR_USAGE;
    } while (accept(parser, ','));
    return 0;
}

static int parse_layers(Parser *parser, KvRule *rule) {
    if (accept(parser, '*'))
        return 0;
    peek(parser);
    const char *start = parser->at;
    if (parse_number(parser, "layers as N, N-N, N-* or *", &rule->first_layer) < 0)
        return ERROR_USAGE;
    rule->last_layer = rule->first_layer;
    if (!accept(parser, '-'))
        return 0;
    if (accept(parser, '*')) {
        rule->last_layer = SIZE_MAX;
        return 0;
    }
    if (parse_number(parser, "the last layer, or *", &rule->last_layer) < 0)
        return ERROR_USAGE;
    if (rule->last_layer < rule->first_layer)
        return fail_at(parser, start, "layers %zu-%zu run backwards; the lower number comes first", rule->first_layer,
                       rule->last_layer);
    return 0;
}

static int parse_rule(Parser *parser, KvPolicy *policy) {
    KvRule rule = {.first_layer = 0, .last_layer = SIZE_MAX};
    peek(parser);
    const char *start = parser->at;
    if (accept(parser, '@')) {
        if (parse_layers(parser, &rule) < 0)
            return ERROR_USAGE;
        if (!accept(parser, ':'))
            return expected(parser, "':' after the layers");
    }
    if (policy->n_rules == KV_MAX_RULES)
        return fail_at(parser, start, "more than %d rules; merge some", KV_MAX_RULES);
    if (parse_layer_policy(parser, &rule.policy) < 0)
        return ERROR_USAGE;
    size_t unnamed = first_unnamed_layer(policy, rule.first_layer);
    if (unnamed > rule.last_layer || unnamed == SIZE_MAX)
        return fail_at(parser, start, "this rule has no effect: those before it name all its layers; put it first");
    policy->rules[policy->n_rules++] = rule;
    return 0;
}

int kv_policy_parse(const char *text, KvPolicy *policy, Error *error) {
    Parser parser = {.flag = "--kv_policy", .text = text, .at = text, .error = error};
    KvPolicy parsed = {.group = policy->group, .rotation = policy->rotation};
    do {
        if (parse_rule(&parser, &parsed) < 0)
            return ERROR_USAGE;
    } while (accept(&parser, ';'));
    if (peek(&parser) != '\0')
        return expected(&parser, "',' and a tier, ';' and a rule, or the end");
    *policy = parsed;
    return 0;
}

int kv_codec_pair_parse(const char *text, KvCodecId *k, KvCodecId *v, Error *error) {
    Parser parser = {.flag = "--kv_codec", .text = text, .at = text, .error = error};
    KvCodecId pair[2];
    if (strchr(text, '=') == NULL) {
        if (parse_codec(&parser, &pair[KV_KEYS]) < 0)
            return ERROR_USAGE;
        pair[KV_VALUES] = pair[KV_KEYS];
    } else
        for (KvSide side = KV_KEYS; side <= KV_VALUES; side++) {
            const char *start = side == KV_KEYS ? "k=" : ",v=";
            for (const char *symbol = start; *symbol != '\0'; symbol++)
                if (!accept(&parser, *symbol))
                    return expected(&parser, "a codec, or k=CODEC,v=CODEC");
            if (parse_codec(&parser, &pair[side]) < 0)
                return ERROR_USAGE;
        }
    if (peek(&parser) != '\0')
        return expected(&parser, "the end");
    *k = pair[KV_KEYS];
    *v = pair[KV_VALUES];
    return 0;
}

/* The check against a model */

static int check_layers(const KvPolicy *policy, size_t n_layers, Error *error) {
    for (size_t i = 0; i < policy->n_rules; i++) {
        const KvRule *rule = &policy->rules[i];
        size_t layer = rule->last_layer == SIZE_MAX ? rule->first_layer : rule->last_layer;
        if (layer >= n_layers)
            return error_set(error, ERROR_ARGUMENT,
                             "the cache policy names layer %zu, the model has %zu; layers are counted from 0", layer,
                             n_layers);
    }
    size_t unnamed = first_unnamed_layer(policy, 0);
    if (unnamed < n_layers)
        return error_set(error, ERROR_ARGUMENT,
                         "the cache policy has no rule for layer %zu, the model has %zu; end it with a rule for @*",
                         unnamed, n_layers);
    return 0;
}

/* `where` begins messages: the rule's layers. */
static int check_sizes(const KvLayerPolicy *layer, const char *where, size_t n_ctx, Error *error) {
    const char *cure = "make it smaller, or give a larger --n_ctx";
    bool holds = false;
    if (layer->sink > n_ctx)
        return error_set(error, ERROR_ARGUMENT, "%ssink=%zu is more than the context of %zu tokens; %s", where,
                         layer->sink, n_ctx, cure);
    for (size_t t = 0; t < layer->n_tiers; t++) {
        char text[96];
        Writer writer = {text, sizeof text, 0};
        if (layer->tiers[t].capacity == KV_UNLIMITED)
            continue;
        write_tier(&writer, &layer->tiers[t]);
        if (layer->tiers[t].capacity > n_ctx)
            return error_set(error, ERROR_ARGUMENT, "%s%s is more than the context of %zu tokens; %s", where, text,
                             n_ctx, cure);
        holds = holds || layer->tiers[t].capacity > 0;
    }
    if (is_bounded(layer) && !holds)
        return error_set(error, ERROR_ARGUMENT,
                         "%sno token outside the sink is kept, not even the newest; give a tier a capacity", where);
    return 0;
}

static int check_codec(const KvPolicy *policy, KvCodecId id, const char *where, size_t head_dim, Error *error) {
    KvGroup group = {.n_tokens = policy->group,
                     .head_dim = head_dim,
                     .block = policy->group,
                     .rotated = kv_policy_rotates(policy, id, head_dim)};
    if (group.rotated && !is_power_of_two(head_dim))
        return error_set(error, ERROR_ARGUMENT,
                         "%s%s cannot be rotated: head_dim is %zu, not a power of two; use --kv_rotate auto, which "
                         "leaves it unrotated",
                         where, kv_codec_name(kv_codec(id)), head_dim);
    return kv_codec_check(kv_codec(id), &group, error);
}

static int check_rule(const KvPolicy *policy, const KvRule *rule, size_t head_dim, size_t n_ctx, Error *error) {
    char where[64] = "";
    Writer writer = {where, sizeof where, 0};
    if (!names_all_layers(rule))
        write_layers(&writer, rule);
    if (check_sizes(&rule->policy, where, n_ctx, error) < 0)
        return ERROR_ARGUMENT;
    for (size_t t = 1; t < rule->policy.n_tiers; t++) {
        const KvTier *tier = &rule->policy.tiers[t];
        int status = check_codec(policy, tier->k, where, head_dim, error);
        if (status == 0)
            status = check_codec(policy, tier->v, where, head_dim, error);
        if (status < 0)
            return status;
    }
    return 0;
}

int kv_policy_check(const KvPolicy *policy, size_t n_layers, size_t head_dim, size_t n_ctx, Error *error) {
    if (policy->group != 32 && policy->group != 64)
        return error_set(error, ERROR_ARGUMENT, "groups of %zu tokens; --kv_block_size takes 32 or 64", policy->group);
    if (check_layers(policy, n_layers, error) < 0)
        return ERROR_ARGUMENT;
    for (size_t i = 0; i < policy->n_rules; i++) {
        int status = check_rule(policy, &policy->rules[i], head_dim, n_ctx, error);
        if (status < 0)
            return status;
    }
    return 0;
}

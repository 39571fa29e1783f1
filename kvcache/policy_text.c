/* The text form of policies in both directions; see policy_text.h. The grammar, with white space allowed between its
 * symbols:
 *
 *     policy = {"rotate=" ("auto" | "on" | "off" | "k" | "v") "," | "block=" ("32" | "64") "," |
 *               "rounding=" ("auto" | "nearest" | "aware") ","} rule {";" rule}
 *     rule   = ["@" layers ":"] ["sink=" N ","] tier {"," tier}
 *     layers = "*" | N | N "-" N | N "-" "*"
 *     tier   = codec ["/" codec] ":" (N | "*") */
#include "kvcache/policy_text.h"

#include "base/options.h"

#include <stdarg.h>
#include <stdio.h>

#define MAX_NAME 32

static const KvTier EMPTY_F16 = {KV_F16, KV_F16, 0};

/* Printing */

const char *const *kv_rotation_names(void) {
    static const char *const NAMES[KV_ROTATION_COUNT + 1] = {
        [KV_ROTATE_AUTO] = "auto", [KV_ROTATE_ON] = "on",    [KV_ROTATE_OFF] = "off",
        [KV_ROTATE_KEYS] = "k",    [KV_ROTATE_VALUES] = "v", [KV_ROTATION_COUNT] = NULL};
    return NAMES;
}

const char *const *kv_rounding_names(void) {
    static const char *const NAMES[KV_ROUNDING_COUNT + 1] = {[KV_ROUND_AUTO] = "auto",
                                                             [KV_ROUND_NEAREST] = "nearest",
                                                             [KV_ROUND_AWARE] = "aware",
                                                             [KV_ROUNDING_COUNT] = NULL};
    return NAMES;
}

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
    if (kv_rule_names_all_layers(rule))
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
    const KvPolicy preset = kv_policy_full();
    if (policy->rotation != preset.rotation)
        write_text(&writer, "rotate=%s,", kv_rotation_names()[policy->rotation]);
    if (policy->rounding != preset.rounding)
        write_text(&writer, "rounding=%s,", kv_rounding_names()[policy->rounding]);
    if (policy->group != preset.group)
        write_text(&writer, "block=%zu,", policy->group);
    for (size_t i = 0; i < policy->n_rules; i++) {
        write_text(&writer, "%s", i > 0 ? ";" : "");
        if (policy->n_rules > 1 || !kv_rule_names_all_layers(&policy->rules[i]))
            write_layers(&writer, &policy->rules[i]);
        write_layer_policy(&writer, &policy->rules[i].policy);
    }
    return writer.length;
}

void kv_tier_print(const KvTier *tier, char text[KV_TIER_TEXT]) {
    Writer writer = {text, KV_TIER_TEXT, 0};
    write_tier(&writer, tier);
}

void kv_rule_print_layers(const KvRule *rule, char text[KV_LAYERS_TEXT]) {
    Writer writer = {text, KV_LAYERS_TEXT, 0};
    write_layers(&writer, rule);
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
    if (layer->n_tiers > 0 && !kv_layer_is_bounded(layer))
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
    size_t unnamed = kv_policy_first_unnamed_layer(policy, rule.first_layer);
    if (unnamed > rule.last_layer || unnamed == SIZE_MAX)
        return fail_at(parser, start, "this rule has no effect: those before it name all its layers; put it first");
    policy->rules[policy->n_rules++] = rule;
    return 0;
}

/* One of `names`, as its index. */
static int parse_name(Parser *parser, const char *const *names, const char *what, int *index) {
    StringView name = peek_name(parser);
    for (int i = 0; names[i] != NULL; i++)
        if (sv_is(name, names[i])) {
            parser->at += name.length;
            *index = i;
            return 0;
        }
    return expected(parser, what);
}

static int parse_rotation(Parser *parser, KvPolicy *policy) {
    int index = 0;
    if (parse_name(parser, kv_rotation_names(), "auto, on, off, k or v", &index) < 0)
        return ERROR_USAGE;
    policy->rotation = (KvRotation)index;
    return 0;
}

static int parse_rounding(Parser *parser, KvPolicy *policy) {
    int index = 0;
    if (parse_name(parser, kv_rounding_names(), "auto, nearest or aware", &index) < 0)
        return ERROR_USAGE;
    policy->rounding = (KvRounding)index;
    return 0;
}

static int parse_block(Parser *parser, KvPolicy *policy) {
    peek(parser);
    const char *start = parser->at;
    if (parse_number(parser, "32 or 64", &policy->group) < 0)
        return ERROR_USAGE;
    return kv_is_group_size(policy->group) ? 0 : fail_at(parser, start, "expected 32 or 64, not %zu", policy->group);
}

/* The settings in front of all rules, which hold for all of them. */
static int parse_settings(Parser *parser, KvPolicy *policy) {
    static const struct {
        const char *name;
        int (*parse)(Parser *parser, KvPolicy *policy);
    } SETTINGS[] = {{"rotate", parse_rotation}, {"rounding", parse_rounding}, {"block", parse_block}};
    const size_t n_settings = sizeof SETTINGS / sizeof *SETTINGS;
    for (;;) {
        StringView name = peek_name(parser);
        size_t i = 0;
        while (i < n_settings && !sv_is(name, SETTINGS[i].name))
            i++;
        if (i == n_settings)
            return 0;
        parser->at += name.length;
        if (!accept(parser, '='))
            return expected(parser, "'=', as in rotate=off or block=32");
        if (SETTINGS[i].parse(parser, policy) < 0)
            return ERROR_USAGE;
        if (!accept(parser, ','))
            return expected(parser, "',' and a tier as codec:capacity");
    }
}

int kv_policy_parse(const char *text, KvPolicy *policy, Error *error) {
    Parser parser = {.flag = "--kv_policy", .text = text, .at = text, .error = error};
    KvPolicy parsed = {.group = policy->group, .rotation = policy->rotation, .rounding = policy->rounding};
    if (parse_settings(&parser, &parsed) < 0)
        return ERROR_USAGE;
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

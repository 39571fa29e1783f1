/* See tokenizer_json_rules.h. A step may be a sequence of steps; each list is read as one. */
#include "tokenizer/tokenizer_json_rules.h"

#include "tokenizer/json_fields.h"
#include "tokenizer/pre_tokenizer_rows.h"
#include "tokenizer/split_regex.h"
#include "tokenizer/utf8.h"

#include <math.h>
#include <stdlib.h>

enum { MAX_STEPS = 32 };

#define GGUF_INSTEAD "use a checkpoint in GGUF"

typedef struct Steps {
    const cJSON *items[MAX_STEPS]; /* (n) objects with a "type" */
    size_t n;
} Steps;

typedef struct Rules {
    VocabularyFile *file;
    const char *path;
    TextRules *text;
    SplitPattern *patterns; /* (MAX_STEPS), those of `text` */
    bool spells_spaces;     /* U+2581 for spaces */
    bool byte_level;
} Rules;

static const char *type_of(const cJSON *step) {
    return json_text_field(step, "type", "?");
}

/* Of `list`, "pre_tokenizer" say. */
static int refuse_step(const Rules *rules, const char *list, const cJSON *step, const char *what, Error *error) {
    return error_set(error, ERROR_UNSUPPORTED, "%s: the %s has %.64s%s, which is not supported; " GGUF_INSTEAD,
                     rules->path, list, type_of(step), what);
}

/* Adds a step, or those of a sequence, whose items are called `items`. */
static int add_steps(const Rules *rules, Steps *steps, const cJSON *step, const char *list, const char *items,
                     Error *error) {
    if (strcmp(type_of(step), "Sequence") == 0) {
        for (const cJSON *item = cJSON_GetArrayItem(json_field(step, items), 0); item != NULL; item = item->next)
            if (add_steps(rules, steps, item, list, items, error) < 0)
                return error->code;
        return 0;
    }
    if (steps->n == MAX_STEPS || !cJSON_IsObject(step))
        return error_set(error, ERROR_FORMAT, "%s: the %s is no list of at most %d steps; fetch it again", rules->path,
                         list, MAX_STEPS);
    steps->items[steps->n++] = step;
    return 0;
}

static int read_steps(const Rules *rules, Steps *steps, const cJSON *root, const char *list, const char *items,
                      Error *error) {
    const cJSON *step = json_field(root, list);
    *steps = (Steps){.n = 0};
    return step == NULL ? 0 : add_steps(rules, steps, step, list, items, error);
}

/* ---- Normalizer */

static bool replaces(const cJSON *step, const char *pattern, const char *content) {
    return json_text_is(json_field(step, "pattern"), "String", pattern) && json_text_is(step, "content", content);
}

static int read_normalizer(Rules *rules, const cJSON *root, Error *error) {
    Steps steps;
    if (read_steps(rules, &steps, root, "normalizer", "normalizers", error) < 0)
        return error->code;
    for (size_t i = 0; i < steps.n; i++) {
        const cJSON *step = steps.items[i];
        const char *type = type_of(step);
        if (strcmp(type, "NFC") == 0)
            rules->text->nfc = true;
        else if (strcmp(type, "Prepend") == 0 && json_text_is(step, "prepend", PIECE_SPACE))
            rules->text->prefix = SPACE_PREFIX_ALWAYS;
        else if (strcmp(type, "Replace") == 0 && replaces(step, " ", PIECE_SPACE))
            rules->spells_spaces = true;
        else
            return refuse_step(rules, "normalizer", step, "", error);
    }
    return 0;
}

/* ---- Pre-tokenizer */

/* `regex` is static, or owned by the file. */
static void add_pattern(Rules *rules, const char *regex, bool drops_rest) {
    rules->patterns[rules->text->n_patterns++] = (SplitPattern){regex, drops_rest};
}

static int read_split(Rules *rules, const cJSON *step, Error *error) {
    const cJSON *pattern = json_field(step, "pattern");
    const char *regex = json_text_field(pattern, "Regex", NULL), *text = json_text_field(pattern, "String", NULL);
    const char *behavior = json_text_field(step, "behavior", "?");
    bool inverted = json_truth_field(step, "invert", false);
    bool isolated = strcmp(behavior, "Isolated") == 0, drops_rest = strcmp(behavior, "Removed") == 0 && inverted;
    char *translated;
    if (text != NULL && strcmp(text, " ") == 0 && rules->spells_spaces)
        return 0; /* there are none any more */
    if (!isolated && !drops_rest)
        return refuse_step(rules, "pre_tokenizer", step, " of this behavior", error);
    if (regex == NULL && text == NULL)
        return refuse_step(rules, "pre_tokenizer", step, " without a pattern", error);
    int status = regex != NULL ? split_regex_translate(sv(regex), &translated, error)
                               : split_regex_quote(sv(text), &translated, error);
    if (status == 0)
        status = vocabulary_own(rules->file, translated, error);
    if (status == 0)
        add_pattern(rules, translated, drops_rest);
    return status;
}

/* Words that begin at each U+2581, unless "split" is off. */
static int read_metaspace(Rules *rules, const cJSON *step, Error *error) {
    static const struct {
        const char *name;
        SpacePrefix prefix;
    } SCHEMES[] = {{"always", SPACE_PREFIX_UNLESS_SPACE}, {"first", SPACE_PREFIX_FIRST}, {"never", SPACE_PREFIX_NONE}};
    bool old = json_truth_field(step, "add_prefix_space", true);
    const char *scheme = json_text_field(step, "prepend_scheme", old ? "always" : "never");
    for (size_t i = 0; i < sizeof SCHEMES / sizeof *SCHEMES; i++) {
        if (strcmp(scheme, SCHEMES[i].name) != 0)
            continue;
        if (!json_text_is(step, "replacement", PIECE_SPACE) || rules->text->n_patterns > 0)
            break;
        if (SCHEMES[i].prefix != SPACE_PREFIX_NONE)
            rules->text->prefix = SCHEMES[i].prefix;
        rules->spells_spaces = true;
        if (json_truth_field(step, "split", true))
            add_pattern(rules, PIECE_SPACE "[^" PIECE_SPACE "]*|[^" PIECE_SPACE "]+", false);
        return 0;
    }
    return refuse_step(rules, "pre_tokenizer", step, " of this kind", error);
}

static int read_byte_level(Rules *rules, const cJSON *step, Error *error) {
    if (json_truth_field(step, "add_prefix_space", true))
        return refuse_step(rules, "pre_tokenizer", step, " with add_prefix_space", error);
    if (json_truth_field(step, "use_regex", true))
        add_pattern(rules, GPT2_PATTERN, false);
    rules->byte_level = true;
    return 0;
}

static int read_digits(Rules *rules, const cJSON *step, Error *error) {
    (void)error;
    add_pattern(rules, json_truth_field(step, "individual_digits", false) ? "\\p{N}" : "\\p{N}+", false);
    return 0;
}

static const struct {
    const char *type;
    int (*read)(Rules *rules, const cJSON *step, Error *error);
} PRE_TOKENIZERS[] = {
    {"Split", read_split},
    {"Digits", read_digits},
    {"Metaspace", read_metaspace},
    {"ByteLevel", read_byte_level}, /* the last: behind it are no characters any more */
};

static int read_pre_tokenizer(Rules *rules, const cJSON *root, Error *error) {
    enum { N = sizeof PRE_TOKENIZERS / sizeof *PRE_TOKENIZERS };
    Steps steps;
    if (read_steps(rules, &steps, root, "pre_tokenizer", "pretokenizers", error) < 0)
        return error->code;
    for (size_t i = 0; i < steps.n; i++) {
        size_t row = 0;
        while (row < N && strcmp(type_of(steps.items[i]), PRE_TOKENIZERS[row].type) != 0)
            row++;
        if (row == N || rules->byte_level)
            return refuse_step(rules, "pre_tokenizer", steps.items[i], row == N ? "" : " behind ByteLevel", error);
        if (PRE_TOKENIZERS[row].read(rules, steps.items[i], error) < 0)
            return error->code;
    }
    return 0;
}

/* ---- Decoder: what text_stream.h does */

static int check_decoder(const Rules *rules, const cJSON *root, Error *error) {
    Steps steps;
    if (read_steps(rules, &steps, root, "decoder", "decoders", error) < 0)
        return error->code;
    for (size_t i = 0; i < steps.n; i++) {
        const cJSON *step = steps.items[i];
        const char *type = type_of(step);
        bool known = rules->byte_level ? strcmp(type, "ByteLevel") == 0
                                       : strcmp(type, "ByteFallback") == 0 || strcmp(type, "Fuse") == 0 ||
                                             strcmp(type, "Metaspace") == 0 ||
                                             (strcmp(type, "Strip") == 0 && json_text_is(step, "content", " ")) ||
                                             (strcmp(type, "Replace") == 0 && replaces(step, PIECE_SPACE, " "));
        if (!known)
            return refuse_step(rules, "decoder", step, "", error);
    }
    return 0;
}

/* ---- Post-processor: BOS and EOS */

/* The only id of a special token that a template names, or -1. */
static int64_t template_id(const cJSON *step, const cJSON *special) {
    const cJSON *ids =
        json_field(json_field(json_field(step, "special_tokens"), json_text_field(special, "id", "")), "ids");
    const cJSON *id = cJSON_GetArraySize(ids) == 1 ? cJSON_GetArrayItem(ids, 0) : NULL;
    bool whole = cJSON_IsNumber(id) && id->valuedouble >= 0 && id->valuedouble <= INT32_MAX &&
                 id->valuedouble == floor(id->valuedouble);
    return whole ? (int64_t)id->valuedouble : -1;
}

/* "single": at most a special token, the text, at most a special token. */
static int read_template(Rules *rules, const cJSON *step, Error *error) {
    Vocabulary *vocabulary = &rules->file->vocabulary;
    bool behind = false;
    for (const cJSON *item = cJSON_GetArrayItem(json_field(step, "single"), 0); item != NULL; item = item->next) {
        const cJSON *special = json_field(item, "SpecialToken");
        int64_t *id = behind ? &vocabulary->eos_id : &vocabulary->bos_id;
        int *add = behind ? &vocabulary->add_eos : &vocabulary->add_bos;
        if (special == NULL) {
            if (behind || json_field(item, "Sequence") == NULL)
                return refuse_step(rules, "post_processor", step, " of this form", error);
            behind = true;
            continue;
        }
        if (*add == 1 || (*id = template_id(step, special)) < 0)
            return refuse_step(rules, "post_processor", step, " of this form", error);
        *add = 1;
    }
    return 0;
}

static int read_post_processor(Rules *rules, const cJSON *root, Error *error) {
    Vocabulary *vocabulary = &rules->file->vocabulary;
    Steps steps;
    if (read_steps(rules, &steps, root, "post_processor", "processors", error) < 0)
        return error->code;
    vocabulary->add_bos = vocabulary->add_eos = 0;
    for (size_t i = 0; i < steps.n; i++) {
        const char *type = type_of(steps.items[i]);
        if (strcmp(type, "ByteLevel") == 0) /* about offsets */
            continue;
        if (strcmp(type, "TemplateProcessing") != 0)
            return refuse_step(rules, "post_processor", steps.items[i], "", error);
        if (read_template(rules, steps.items[i], error) < 0)
            return error->code;
    }
    return 0;
}

static int choose_kind(const Rules *rules, Error *error) {
    if (rules->byte_level && (rules->spells_spaces || rules->text->prefix != SPACE_PREFIX_NONE))
        return error_set(
            error, ERROR_UNSUPPORTED,
            "%s: spells spaces as U+2581 and bytes in GPT-2's alphabet, which is not supported together; " GGUF_INSTEAD,
            rules->path);
    if (!rules->byte_level && !rules->spells_spaces)
        return error_set(error, ERROR_UNSUPPORTED,
                         "%s: its texts are neither bytes (ByteLevel) nor pieces whose spaces are U+2581 (Metaspace, "
                         "Replace), and nothing else is supported; " GGUF_INSTEAD,
                         rules->path);
    rules->file->vocabulary.kind = rules->byte_level ? VOCABULARY_BYTE_LEVEL_BPE : VOCABULARY_PIECE_BPE;
    return 0;
}

int tokenizer_json_read_rules(VocabularyFile *file, const cJSON *root, const char *path, TextRules *rules,
                              Error *error) {
    Rules all = {.file = file, .path = path, .text = rules};
    rules->patterns = all.patterns = vocabulary_allocate(file, MAX_STEPS, sizeof *all.patterns, error);
    if (all.patterns == NULL || read_normalizer(&all, root, error) < 0 || read_pre_tokenizer(&all, root, error) < 0 ||
        choose_kind(&all, error) < 0 || check_decoder(&all, root, error) < 0)
        return error->code;
    return read_post_processor(&all, root, error);
}

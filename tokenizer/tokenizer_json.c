/* See tokenizer_json.h: the model's tokens and merges, and the added tokens. What the document says about texts reads
 * tokenizer_json_rules.c. */
#include "tokenizer/tokenizer_json.h"

#include "base/checked.h"
#include "base/json_document.h"
#include "tokenizer/json_fields.h"
#include "tokenizer/tokenizer_json_rules.h"

#include <stdio.h>
#include <stdlib.h>

/* Models have matrices of rounded size: a few rows more than tokens. And a few tokens may be those of another model's
 * parts, images say, and have no row. */
enum { MOST_PADDING = 4096, MOST_BEYOND = 64 };

#define AGAIN "use the tokenizer that came with the model"

typedef struct Reader {
    VocabularyFile *file;
    const char *path;
    const cJSON *root, *model, *tokens, *added, *merges;
    size_t n_vocab;
    size_t n_named; /* tokens and added tokens, those that are both twice */
    StringView *views;
    int32_t *types;
    uint8_t *strips;
    char *text; /* where the next string goes */
    TextRules *rules;
} Reader;

/* ---- The model */

/* What would change ids and is not done. */
static int check_model(const Reader *r, Error *error) {
    static const char *const EMPTY[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    const char *type = json_text_field(r->model, "type", r->merges != NULL ? "BPE" : "?");
    const cJSON *dropout = json_field(r->model, "dropout");
    if (strcmp(type, "BPE") != 0)
        return error_set(error, ERROR_UNSUPPORTED,
                         "%s: a tokenizer of the kind %.64s, and BPE alone is supported; use a "
                         "checkpoint in GGUF",
                         r->path, type);
    if (dropout != NULL && !(cJSON_IsNumber(dropout) && dropout->valuedouble == 0))
        return error_set(error, ERROR_UNSUPPORTED,
                         "%s: leaves out merges by chance (dropout), which is not supported; " AGAIN, r->path);
    for (size_t i = 0; i < sizeof EMPTY / sizeof *EMPTY; i++)
        if (json_text_field(r->model, EMPTY[i], "")[0] != '\0')
            return error_set(error, ERROR_UNSUPPORTED,
                             "%s: a model with %s, which is not supported; use a checkpoint in "
                             "GGUF",
                             r->path, EMPTY[i]);
    if (!cJSON_IsObject(r->tokens) || !cJSON_IsArray(r->merges))
        return error_set(error, ERROR_FORMAT, "%s: a model without vocab and merges; fetch it again", r->path);
    return 0;
}

static StringView keep(Reader *r, const char *text) {
    size_t length = strlen(text);
    StringView view = {r->text, length};
    memcpy(r->text, text, length);
    r->text += length;
    return view;
}

/* ---- Tokens */

/* An id below the number of names, or there are holes. */
static int read_id(const Reader *r, const cJSON *number, const char *token, size_t *id, Error *error) {
    if (!json_whole_number(number, id))
        return error_set(error, ERROR_FORMAT, "%s: token '%.64s' has no whole number as id; fetch it again", r->path,
                         token);
    if (*id >= r->n_named)
        return error_set(error, ERROR_FORMAT,
                         "%s: token '%.64s' has id %zu, and there are %zu tokens: ids are missing; " AGAIN, r->path,
                         token, *id, r->n_named);
    return 0;
}

static int set_token(Reader *r, size_t id, const char *text, TokenType type, Error *error) {
    StringView *view = &r->views[id];
    if (view->bytes != NULL)
        return error_set(error, ERROR_FORMAT, "%s: tokens '%.*s' and '%.64s' have one id, %zu; " AGAIN, r->path,
                         SV_ARGS(*view), text, id);
    *view = keep(r, text);
    r->types[id] = type;
    return 0;
}

static int read_tokens(Reader *r, Error *error) {
    for (const cJSON *token = r->tokens->child; token != NULL; token = token->next) {
        size_t id;
        if (read_id(r, token, token->string, &id, error) < 0 ||
            set_token(r, id, token->string, TOKEN_NORMAL, error) < 0)
            return error->code;
    }
    return 0;
}

/* An added token that is looked for in normalized text, with its own text normalized. That changes nothing where
 * nothing is put in front of a text and the token has no space. */
static int check_normalized(Reader *r, const char *content, bool special, Error *error) {
    bool prefixed = r->rules->prefix == SPACE_PREFIX_ALWAYS;
    if (special && prefixed)
        return r->file->n_notes > 0
                   ? 0
                   : vocabulary_note(r->file, error,
                                     "%s: special tokens such as '%s' are \"normalized\": they are read "
                                     "wherever they are spelled, not only behind spaces; nothing need be "
                                     "done",
                                     r->path, content);
    bool spaced = r->file->vocabulary.kind == VOCABULARY_PIECE_BPE && strchr(content, ' ') != NULL;
    bool composed = false; /* what NFC may change */
    for (const char *c = content; r->rules->nfc && *c != '\0'; c++)
        composed |= (unsigned char)*c >= 0x80;
    if (prefixed || spaced || composed)
        return error_set(error, ERROR_UNSUPPORTED,
                         "%s: the added token '%.64s' is \"normalized\", which is not supported with this normalizer; "
                         "use a checkpoint in GGUF",
                         r->path, content);
    return 0;
}

static int read_added(Reader *r, const cJSON *added, Error *error) {
    const char *content = json_text_field(added, "content", "");
    bool special = json_truth_field(added, "special", false);
    size_t id;
    if (content[0] == '\0')
        return error_set(error, ERROR_FORMAT, "%s: an added token without text; fetch it again", r->path);
    if (json_truth_field(added, "single_word", false))
        return error_set(error, ERROR_UNSUPPORTED,
                         "%s: the added token '%.64s' is for whole words alone (single_word), which is not supported; "
                         "use a checkpoint in GGUF",
                         r->path, content);
    if (read_id(r, json_field(added, "id"), content, &id, error) < 0 ||
        (json_truth_field(added, "normalized", !special) && check_normalized(r, content, special, error) < 0))
        return error->code;
    if (!sv_is(r->views[id], content) && set_token(r, id, content, TOKEN_NORMAL, error) < 0)
        return error->code;
    if (r->types[id] != TOKEN_NORMAL)
        return error_set(error, ERROR_FORMAT, "%s: the token '%.64s' is added twice; " AGAIN, r->path, content);
    r->types[id] = special ? TOKEN_CONTROL : TOKEN_USER_DEFINED;
    r->strips[id] = (json_truth_field(added, "lstrip", false) ? TOKEN_STRIPS_LEFT : 0) |
                    (json_truth_field(added, "rstrip", false) ? TOKEN_STRIPS_RIGHT : 0);
    return 0;
}

/* The tokens from 0 on that have names; behind them nothing may be. */
static int count_tokens(Reader *r, Error *error) {
    size_t n = r->n_named;
    while (n > 0 && r->views[n - 1].bytes == NULL)
        n--;
    for (size_t id = 0; id < n; id++)
        if (r->views[id].bytes == NULL)
            return error_set(error, ERROR_FORMAT, "%s: no token has id %zu, and %zu has one; " AGAIN, r->path, id,
                             n - 1);
    if (n == 0)
        return error_set(error, ERROR_FORMAT, "%s: a vocabulary without tokens; fetch it again", r->path);
    r->file->vocabulary.n_tokens = n;
    return 0;
}

/* As many tokens as the model has, where the difference is a small one; a large one is left for who knows the model to
 * refuse. */
static int fit(Reader *r, Error *error) {
    Vocabulary *vocabulary = &r->file->vocabulary;
    size_t n = vocabulary->n_tokens, wanted = r->n_vocab;
    if (n < wanted && wanted - n <= MOST_PADDING)
        for (; vocabulary->n_tokens < wanted; vocabulary->n_tokens++) {
            r->views[vocabulary->n_tokens] = (StringView){"", 0};
            r->types[vocabulary->n_tokens] = TOKEN_UNUSED;
        }
    if (wanted == 0 || n <= wanted || n - wanted > MOST_BEYOND)
        return 0;
    for (size_t id = wanted; id < n; id++)
        if (r->types[id] == TOKEN_NORMAL)
            return 0;
    vocabulary->n_tokens = wanted;
    return vocabulary_note(
        r->file, error,
        "%s: the model has no row for the added token '%.*s' and those behind it: they are left out; "
        "nothing need be done",
        r->path, SV_ARGS(r->views[wanted]));
}

/* Pieces: bytes, and the unknown one, where it is no special token. */
static int read_fallbacks(Reader *r, Error *error) {
    Vocabulary *vocabulary = &r->file->vocabulary;
    const char *unknown = json_text_field(r->model, "unk_token", NULL);
    StringView unknown_text = sv(unknown != NULL ? unknown : "");
    unsigned byte;
    char behind;
    bool bytes = vocabulary->kind == VOCABULARY_PIECE_BPE && json_truth_field(r->model, "byte_fallback", false);
    r->rules->byte_fallback = bytes;
    r->rules->fuses_unknown = json_truth_field(r->model, "fuse_unk", false);
    r->rules->ignores_merges = json_truth_field(r->model, "ignore_merges", false);
    r->rules->unknown_id = -1;
    for (size_t id = 0; id < vocabulary->n_tokens; id++) {
        StringView token = r->views[id];
        if (bytes && token.length == 6 && r->types[id] == TOKEN_NORMAL) {
            char spelled[8];
            snprintf(spelled, sizeof spelled, "%.*s", (int)token.length, token.bytes);
            if (sscanf(spelled, "<0x%2X%c", &byte, &behind) == 2 && behind == '>')
                r->types[id] = TOKEN_BYTE;
        }
        if (unknown != NULL && sv_equal(token, unknown_text))
            r->rules->unknown_id = vocabulary->unknown_id = (int64_t)id;
    }
    if (unknown != NULL && r->rules->unknown_id < 0)
        return error_set(error, ERROR_FORMAT, "%s: unk_token '%.64s' is no token; " AGAIN, r->path, unknown);
    if (vocabulary->kind == VOCABULARY_PIECE_BPE && r->rules->unknown_id >= 0 &&
        r->types[r->rules->unknown_id] == TOKEN_NORMAL)
        r->types[r->rules->unknown_id] = TOKEN_UNKNOWN;
    return 0;
}

/* ---- Merges */

/* "left right", or a pair of texts. */
static int read_merge(Reader *r, const cJSON *merge, size_t rank, StringView *out, Error *error) {
    const cJSON *left = cJSON_GetArrayItem(merge, 0), *right = cJSON_GetArrayItem(merge, 1);
    bool pair = cJSON_IsArray(merge) && cJSON_IsString(left) && cJSON_IsString(right) && right->next == NULL;
    if (cJSON_IsString(merge)) {
        *out = keep(r, merge->valuestring);
        return 0;
    }
    if (!pair)
        return error_set(error, ERROR_FORMAT, "%s: merge %zu is no pair of tokens; fetch it again", r->path, rank);
    if (strchr(left->valuestring, ' ') != NULL || strchr(right->valuestring, ' ') != NULL)
        return error_set(
            error, ERROR_UNSUPPORTED,
            "%s: merge %zu has a token with a space in it, which is not supported; use a checkpoint in GGUF", r->path,
            rank);
    StringView first = keep(r, left->valuestring);
    *r->text++ = ' ';
    StringView second = keep(r, right->valuestring);
    *out = (StringView){first.bytes, first.length + 1 + second.length};
    return 0;
}

static int read_merges(Reader *r, size_t n_merges, Error *error) {
    StringView *merges = vocabulary_allocate(r->file, n_merges, sizeof *merges, error);
    size_t rank = 0;
    if (merges == NULL)
        return error->code;
    for (const cJSON *merge = r->merges->child; merge != NULL; merge = merge->next, rank++)
        if (read_merge(r, merge, rank, &merges[rank], error) < 0)
            return error->code;
    r->file->vocabulary.merges = merges;
    r->file->vocabulary.n_merges = n_merges;
    return 0;
}

/* ---- All of it */

/* Bytes of all strings, and how many tokens and merges there are. */
static size_t measure(Reader *r, size_t *n_merges) {
    size_t n_bytes = 0;
    for (const cJSON *token = r->tokens->child; token != NULL; token = token->next, r->n_named++)
        n_bytes += strlen(token->string);
    for (const cJSON *added = cJSON_GetArrayItem(r->added, 0); added != NULL; added = added->next, r->n_named++)
        n_bytes += strlen(json_text_field(added, "content", ""));
    *n_merges = 0;
    for (const cJSON *merge = r->merges->child; merge != NULL; merge = merge->next, ++*n_merges) {
        const cJSON *part = cJSON_IsArray(merge) ? merge->child : merge;
        for (; part != NULL; part = cJSON_IsArray(merge) ? part->next : NULL)
            n_bytes += 1 + (cJSON_IsString(part) ? strlen(part->valuestring) : 0);
    }
    return n_bytes;
}

static int allocate(Reader *r, size_t n_bytes, Error *error) {
    size_t room = at_least(r->n_named, at_most(r->n_vocab, r->n_named + MOST_PADDING));
    if (r->n_named > INT32_MAX / 2)
        return error_set(error, ERROR_FORMAT, "%s: %zu tokens; fetch it again", r->path, r->n_named);
    r->views = vocabulary_allocate(r->file, room, sizeof *r->views, error);
    r->types = vocabulary_allocate(r->file, room, sizeof *r->types, error);
    r->strips = vocabulary_allocate(r->file, room, sizeof *r->strips, error);
    r->text = vocabulary_allocate(r->file, n_bytes, 1, error);
    r->rules = vocabulary_allocate(r->file, 1, sizeof *r->rules, error);
    if (r->views == NULL || r->types == NULL || r->strips == NULL || r->text == NULL || r->rules == NULL)
        return ERROR_MEMORY;
    r->file->vocabulary.tokens = r->views;
    r->file->vocabulary.types = r->types;
    r->file->vocabulary.strips = r->strips;
    r->file->vocabulary.rules = r->rules;
    return 0;
}

int tokenizer_json_read(VocabularyFile *file, const cJSON *root, const char *path, size_t n_vocab, Error *error) {
    const cJSON *model = json_field(root, "model");
    Reader r = {.file = file,
                .path = path,
                .root = root,
                .model = model,
                .tokens = json_field(model, "vocab"),
                .added = json_field(root, "added_tokens"),
                .merges = json_field(model, "merges"),
                .n_vocab = n_vocab};
    size_t n_merges;
    if (model == NULL)
        return error_set(error, ERROR_FORMAT,
                         "%s: no tokenizer of Hugging Face: there is no \"model\" in it; name the "
                         "model's tokenizer.json",
                         path);
    if (check_model(&r, error) < 0 || allocate(&r, measure(&r, &n_merges), error) < 0 ||
        tokenizer_json_read_rules(file, root, path, r.rules, error) < 0 || read_tokens(&r, error) < 0)
        return error->code;
    for (const cJSON *added = cJSON_GetArrayItem(r.added, 0); added != NULL; added = added->next)
        if (read_added(&r, added, error) < 0)
            return error->code;
    if (count_tokens(&r, error) < 0 || read_fallbacks(&r, error) < 0 || read_merges(&r, n_merges, error) < 0)
        return error->code;
    return fit(&r, error);
}

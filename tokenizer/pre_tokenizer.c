/* Compiling a row's patterns, and the walk over a text's matches; see pre_tokenizer.h. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "tokenizer/pre_tokenizer.h"

#include "base/checked.h"
#include "base/name_list.h"
#include "tokenizer/pre_tokenizer_rows.h"

#include <pcre2.h>
#include <stdlib.h>
#include <utf8proc.h>

enum {
    JIT_STACK_START = 32 << 10, /* bytes; the stack grows on demand up to JIT_STACK_MAX */
    JIT_STACK_MAX = 16 << 20,
    MAX_SPLIT_PATTERNS = 16,
    FOREIGN_STEPS = 1000 /* of a match of a file's own pattern, for each byte of the text */
};

typedef struct CompiledPattern {
    pcre2_code *code;
    bool drops_rest; /* what lies between two matches is no word */
} CompiledPattern;

struct PreTokenizer {
    CompiledPattern patterns[MAX_SPLIT_PATTERNS]; /* (n_patterns) */
    size_t n_patterns;
    bool nfc, ignores_merges, adds_bos;
    bool from_file; /* patterns that this program does not know */
};

/* What one split needs beside the compiled patterns. */
typedef struct Split {
    const PreTokenizer *pre;
    pcre2_match_data *match;
    pcre2_match_context *limits;
    pcre2_jit_stack *stack;
    PreTokenFunction on_word;
    void *context;
} Split;

static const PreTokenizerRow *find_row(StringView name) {
    for (size_t i = 0; i < N_PRE_TOKENIZER_ROWS; i++)
        for (size_t j = 0; j < PRE_TOKENIZER_NAMES && PRE_TOKENIZER_ROWS[i].names[j] != NULL; j++)
            if (sv_is(name, PRE_TOKENIZER_ROWS[i].names[j]))
                return &PRE_TOKENIZER_ROWS[i];
    return NULL;
}

static pcre2_code *compile(const char *pattern, bool from_file, Error *error) {
    int code;
    PCRE2_SIZE offset;
    pcre2_code *compiled =
        pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &code, &offset, NULL);
    if (compiled == NULL) {
        char reason[128];
        pcre2_get_error_message(code, (PCRE2_UCHAR *)reason, sizeof reason);
        error_set(error, ERROR_UNSUPPORTED, "PCRE2 cannot compile a pre-tokenizer pattern (%s at offset %zu); %s",
                  reason, (size_t)offset,
                  from_file ? "use a checkpoint in GGUF, which names its pattern" : "PCRE2 10.40 or newer is needed");
        return NULL;
    }
    /* Where there is no JIT for this machine, pcre2_match interprets: slower, same matches. */
    pcre2_jit_compile(compiled, PCRE2_JIT_COMPLETE);
    return compiled;
}

static int unknown_name(StringView name, Error *error) {
    NameList known = {0};
    for (size_t i = 0; i < N_PRE_TOKENIZER_ROWS; i++)
        name_list_add(&known, PRE_TOKENIZER_ROWS[i].names[0]);
    return error_set(
        error, ERROR_UNSUPPORTED,
        "unknown pre-tokenizer '%.*s'; use a checkpoint whose tokenizer.ggml.pre is one of: %s, or another "
        "name of these",
        SV_ARGS(name), known.text);
}

static int add_pattern(PreTokenizer *pre, const char *regex, bool drops_rest, Error *error) {
    pcre2_code *code = compile(regex, pre->from_file, error);
    if (code == NULL)
        return ERROR_UNSUPPORTED;
    pre->patterns[pre->n_patterns++] = (CompiledPattern){code, drops_rest};
    return 0;
}

int pre_tokenizer_open(PreTokenizer **out, StringView name, Error *error) {
    *out = NULL;
    const PreTokenizerRow *row = find_row(name);
    if (row == NULL)
        return unknown_name(name, error);
    PreTokenizer *pre = calloc(1, sizeof *pre);
    if (pre == NULL)
        return error_memory(error, "the pre-tokenizer", sizeof *pre);
    pre->nfc = row->nfc;
    pre->ignores_merges = row->ignores_merges;
    pre->adds_bos = row->adds_bos;
    for (size_t i = 0; i < PRE_TOKENIZER_PATTERNS && row->patterns[i] != NULL; i++)
        if (add_pattern(pre, row->patterns[i], false, error) < 0) {
            pre_tokenizer_free(pre);
            return ERROR_UNSUPPORTED;
        }
    *out = pre;
    return 0;
}

int pre_tokenizer_open_rules(PreTokenizer **out, const TextRules *rules, Error *error) {
    *out = NULL;
    PreTokenizer *pre = calloc(1, sizeof *pre);
    if (pre == NULL)
        return error_memory(error, "the pre-tokenizer", sizeof *pre);
    pre->nfc = rules->nfc;
    pre->ignores_merges = rules->ignores_merges;
    pre->from_file = true;
    int status = rules->n_patterns > MAX_SPLIT_PATTERNS
                     ? error_set(error, ERROR_UNSUPPORTED,
                                 "%zu patterns that split a text, and %d is the limit; use a checkpoint in GGUF",
                                 rules->n_patterns, MAX_SPLIT_PATTERNS)
                     : 0;
    for (size_t i = 0; i < rules->n_patterns && status == 0; i++)
        status = add_pattern(pre, rules->patterns[i].regex, rules->patterns[i].drops_rest, error);
    if (status < 0) {
        pre_tokenizer_free(pre);
        return status;
    }
    *out = pre;
    return 0;
}

void pre_tokenizer_free(PreTokenizer *pre) {
    if (pre == NULL)
        return;
    for (size_t i = 0; i < pre->n_patterns; i++)
        pcre2_code_free(pre->patterns[i].code);
    free(pre);
}

bool pre_tokenizer_ignores_merges(const PreTokenizer *pre) {
    return pre->ignores_merges;
}

bool pre_tokenizer_adds_bos(const PreTokenizer *pre) {
    return pre->adds_bos;
}

/* Finds the first match at or after *start: 1, 0 where there is none, or a negative error code. */
static int next_match(Split *split, const pcre2_code *code, StringView text, size_t *start, size_t *end, Error *error) {
    int status = pcre2_match(code, (PCRE2_SPTR)text.bytes, text.length, *start, PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY,
                             split->match, split->limits);
    if (status == PCRE2_ERROR_NOMATCH)
        return 0;
    if (status < 0) {
        char reason[128];
        pcre2_get_error_message(status, (PCRE2_UCHAR *)reason, sizeof reason);
        return error_set(error, ERROR_UNSUPPORTED,
                         "the text cannot be split into words (PCRE2: %s at byte %zu of %zu); give it in smaller parts",
                         reason, *start, text.length);
    }
    const PCRE2_SIZE *range = pcre2_get_ovector_pointer(split->match);
    *start = range[0];
    *end = range[1];
    return 1;
}

/* Splits a text by the i-th pattern and those behind it. Each part is split as if it stood alone: patterns do not look
 * past its ends. */
static int split_by(Split *split, size_t i, StringView text, Error *error) {
    if (text.length == 0)
        return 0;
    if (i == split->pre->n_patterns)
        return split->on_word(split->context, text, error);
    for (size_t at = 0; at < text.length;) {
        size_t start = at, end = at;
        int status = next_match(split, split->pre->patterns[i].code, text, &start, &end, error);
        if (status < 0)
            return status;
        if (status == 0)
            start = end = text.length;
        status = split->pre->patterns[i].drops_rest
                     ? 0
                     : split_by(split, i + 1, (StringView){text.bytes + at, start - at}, error);
        if (status == 0)
            status = split_by(split, i + 1, (StringView){text.bytes + start, end - start}, error);
        if (status < 0)
            return status;
        at = end;
    }
    return 0;
}

/* NFC of `text` in a new allocation, or NULL with *status 0 where it is NFC already (ASCII). */
static char *normalize(StringView text, size_t *length, int *status, Error *error) {
    *status = 0;
    size_t i = 0;
    while (i < text.length && (unsigned char)text.bytes[i] < 0x80)
        i++;
    if (i == text.length)
        return NULL;
    utf8proc_uint8_t *normal = NULL;
    utf8proc_ssize_t n = utf8proc_map((const utf8proc_uint8_t *)text.bytes, (utf8proc_ssize_t)text.length, &normal,
                                      UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    if (n < 0) {
        *status = error_set(error, n == UTF8PROC_ERROR_NOMEM ? ERROR_MEMORY : ERROR_UNSUPPORTED,
                            "a text of %zu bytes cannot be normalized to NFC (%s); give it in smaller parts",
                            text.length, utf8proc_errmsg(n));
        return NULL;
    }
    *length = (size_t)n;
    return (char *)normal;
}

int pre_tokenizer_split(const PreTokenizer *pre, StringView text, PreTokenFunction on_word, void *context,
                        Error *error) {
    int status = 0;
    char *normal = NULL;
    if (pre->nfc && (normal = normalize(text, &text.length, &status, error)) != NULL)
        text.bytes = normal;
    Split split = {.pre = pre, .on_word = on_word, .context = context};
    split.match = pcre2_match_data_create(1, NULL);
    split.limits = pcre2_match_context_create(NULL);
    split.stack = pcre2_jit_stack_create(JIT_STACK_START, JIT_STACK_MAX, NULL);
    if (status == 0 && (split.match == NULL || split.limits == NULL || split.stack == NULL))
        status = error_memory(error, "the pre-tokenizer's matcher", JIT_STACK_MAX);
    if (status == 0) {
        pcre2_jit_stack_assign(split.limits, NULL, split.stack);
        /* A run of spaces may backtrack once for each of them; the default limit is ten million. A stranger's pattern
         * may do so some hundred times, and not for ever. */
        size_t steps = text.length < UINT32_MAX / FOREIGN_STEPS ? FOREIGN_STEPS * (text.length + 1) : UINT32_MAX;
        pcre2_set_match_limit(split.limits, pre->from_file ? (uint32_t)at_most(steps, UINT32_MAX) : UINT32_MAX);
        status = split_by(&split, 0, text, error);
    }
    pcre2_jit_stack_free(split.stack);
    pcre2_match_context_free(split.limits);
    pcre2_match_data_free(split.match);
    free(normal);
    return status;
}

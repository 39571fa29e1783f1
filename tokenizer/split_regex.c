/* See split_regex.h. */
#include "tokenizer/split_regex.h"

#include <ctype.h>
#include <stdlib.h>

enum { MAX_REGEX_BYTES = 8192, MAX_GROWTH = 16 /* bytes of the output for one of the input */ };

typedef struct Translation {
    StringView in;
    size_t at;
    char *out;
    size_t n;
    size_t depth; /* open groups */
} Translation;

static StringView rest_of(const Translation *t) {
    return (StringView){t->in.bytes + t->at, t->in.length - t->at};
}

static void put(Translation *t, const char *text) {
    size_t length = strlen(text);
    memcpy(t->out + t->n, text, length);
    t->n += length;
}

/* Takes `length` bytes over as they are. */
static void copy(Translation *t, size_t length) {
    memcpy(t->out + t->n, t->in.bytes + t->at, length);
    t->n += length;
    t->at += length;
}

static int refuse(const Translation *t, Error *error) {
    StringView rest = rest_of(t);
    return error_set(error, ERROR_UNSUPPORTED,
                     "the regular expression of a pre-tokenizer has '%.*s' at byte %zu, which is not supported; use a "
                     "checkpoint in GGUF, which names its pattern",
                     (int)(rest.length < 24 ? rest.length : 24), rest.bytes, t->at);
}

static char look(const Translation *t, size_t ahead) {
    return t->at + ahead < t->in.length ? t->in.bytes[t->at + ahead] : '\0';
}

/* ---- Escapes */

/* "{L}" at the position: a category, or a script whose name both libraries have. Returns its length, or 0. */
static size_t property_length(StringView text) {
    static const char *const NAMES[] = {
        "L",     "Lu",       "Ll",     "Lt",     "Lm",   "Lo",  "M",        "Mn",       "Mc",     "Me", "N",  "Nd",
        "Nl",    "No",       "P",      "Pc",     "Pd",   "Ps",  "Pe",       "Pi",       "Pf",     "Po", "S",  "Sm",
        "Sc",    "Sk",       "So",     "Z",      "Zs",   "Zl",  "Zp",       "C",        "Cc",     "Cf", "Co", "Latin",
        "Greek", "Cyrillic", "Arabic", "Hebrew", "Thai", "Han", "Hiragana", "Katakana", "Hangul",
    };
    size_t close = sv_find(text, sv("}"), 0);
    if (text.length == 0 || text.bytes[0] != '{' || close == text.length)
        return 0;
    StringView name = {text.bytes + 1, close - 1};
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++)
        if (sv_is(name, NAMES[i]))
            return close + 1;
    return 0;
}

/* The same within and without brackets. */
static int translate_escape(Translation *t, Error *error) {
    char c = look(t, 1);
    StringView behind = {t->in.bytes + t->at + 2, t->at + 2 < t->in.length ? t->in.length - t->at - 2 : 0};
    if (c == 's' || c == 'S') {
        put(t, c == 's' ? "\\p{White_Space}" : "\\P{White_Space}"); /* PCRE2's \s also takes U+180E */
        t->at += 2;
    } else if (c == 'd') {
        put(t, "\\p{Nd}");
        t->at += 2;
    } else if ((c == 'p' || c == 'P') && property_length(behind) > 0) {
        copy(t, 2 + property_length(behind));
    } else if (c != '\0' && (strchr("rnt", c) != NULL || ispunct((unsigned char)c))) {
        copy(t, 2);
    } else {
        return refuse(t, error);
    }
    return 0;
}

/* ---- Brackets */

/* Sets within sets and intersections are Oniguruma's alone. */
static int translate_set(Translation *t, Error *error) {
    size_t begin = t->at;
    copy(t, look(t, 1) == '^' ? 2 : 1);
    for (size_t n = 0; t->at < t->in.length; n++) {
        char c = look(t, 0);
        if (c == ']' && n > 0) {
            copy(t, 1);
            return 0;
        }
        bool strange = c == '[' || c == ']' || (c == '&' && look(t, 1) == '&');
        if (strange || (c == '\\' && translate_escape(t, error) < 0))
            return strange ? refuse(t, error) : error->code;
        if (c != '\\')
            copy(t, 1);
    }
    t->at = begin;
    return refuse(t, error);
}

/* ---- Groups and what repeats */

/* Letters without regard to case, as far as it is known that both libraries take the same for equal: Oniguruma also
 * takes one character for several. */
static size_t known_caseless(StringView text) {
    static const char *const KNOWN[] = {"(?i:'s|'t|'re|'ve|'m|'ll|'d)", "(?i:[sdmt]|ll|ve|re)"};
    for (size_t i = 0; i < sizeof KNOWN / sizeof *KNOWN; i++)
        if (sv_starts_with(text, sv(KNOWN[i])))
            return strlen(KNOWN[i]);
    return 0;
}

/* A group that repeats could backtrack without end. */
static bool repeats(char behind) {
    return behind == '*' || behind == '+' || behind == '{';
}

static int translate_group(Translation *t, Error *error) {
    static const char *const BEGINNINGS[] = {"(?:", "(?!", "(?=", "(?<!", "(?<="};
    size_t caseless = known_caseless(rest_of(t));
    if (caseless > 0) {
        char behind = look(t, caseless);
        copy(t, caseless);
        return repeats(behind) ? refuse(t, error) : 0;
    }
    size_t length = look(t, 1) != '?' && look(t, 1) != '*' ? 1 : 0;
    for (size_t i = 0; i < sizeof BEGINNINGS / sizeof *BEGINNINGS; i++)
        if (sv_starts_with(rest_of(t), sv(BEGINNINGS[i])))
            length = strlen(BEGINNINGS[i]);
    if (length == 0)
        return refuse(t, error);
    copy(t, length);
    t->depth++;
    return 0;
}

static int translate_group_end(Translation *t, Error *error) {
    if (t->depth == 0 || repeats(look(t, 1)))
        return refuse(t, error);
    t->depth--;
    copy(t, 1);
    return 0;
}

/* "{1,3}": what stands behind means something else in either library. */
static int translate_count(Translation *t, Error *error) {
    size_t length = 1;
    while (isdigit((unsigned char)look(t, length)))
        length++;
    bool counted = length > 1;
    if (counted && look(t, length) == ',')
        length++;
    while (isdigit((unsigned char)look(t, length)))
        length++;
    char behind = look(t, length + 1);
    if (!counted || look(t, length) != '}' || behind == '+' || behind == '?' || behind == '*' || behind == '{')
        return refuse(t, error);
    copy(t, length + 1);
    return 0;
}

static int translate_next(Translation *t, Error *error) {
    switch (look(t, 0)) {
    case '\\':
        return translate_escape(t, error);
    case '[':
        return translate_set(t, error);
    case '(':
        return translate_group(t, error);
    case ')':
        return translate_group_end(t, error);
    case '{':
        return translate_count(t, error);
    case '$': /* the end of a line, always */
        put(t, "(?=\\n|\\z)");
        t->at++;
        return 0;
    case '.':
        put(t, "[^\\n]");
        t->at++;
        return 0;
    case '^':
    case ']':
    case '}':
    case '\0':
        return refuse(t, error);
    default:
        copy(t, 1);
        return 0;
    }
}

static int start(Translation *t, StringView in, Error *error) {
    *t = (Translation){.in = in};
    if (in.length == 0 || in.length > MAX_REGEX_BYTES)
        return error_set(error, ERROR_UNSUPPORTED,
                         "the pattern of a pre-tokenizer has %zu bytes, and 1 to %d are supported; use a checkpoint in "
                         "GGUF, which names its pattern",
                         in.length, MAX_REGEX_BYTES);
    t->out = malloc(MAX_GROWTH * in.length + 1);
    return t->out == NULL ? error_memory(error, "a pattern", MAX_GROWTH * in.length) : 0;
}

int split_regex_translate(StringView regex, char **out, Error *error) {
    Translation t;
    *out = NULL;
    int status = start(&t, regex, error);
    while (status == 0 && t.at < t.in.length)
        status = translate_next(&t, error);
    if (status == 0 && t.depth > 0) {
        t.at = 0;
        status = refuse(&t, error);
    }
    if (status < 0) {
        free(t.out);
        return status;
    }
    t.out[t.n] = '\0';
    *out = t.out;
    return 0;
}

int split_regex_quote(StringView text, char **out, Error *error) {
    Translation t;
    *out = NULL;
    if (start(&t, text, error) < 0)
        return error->code;
    while (t.at < text.length) {
        if (ispunct((unsigned char)look(&t, 0)))
            put(&t, "\\");
        copy(&t, 1);
    }
    t.out[t.n] = '\0';
    *out = t.out;
    return 0;
}

/* Porter's steps 1a to 5b, each a few rules "suffix -> replacement, where the stem is long enough"; see
 * porter_stemmer.h. The names of the steps are the paper's. */
#include "eval/rouge/porter_stemmer.h"

#include <stdbool.h>
#include <string.h>

static bool is_vowel_letter(char c) {
    return c == 'a' || c == 'e' || c == 'i' || c == 'o' || c == 'u';
}

/* A 'y' is a consonant at the start of a word and behind a vowel. */
static bool is_consonant(const char *word, size_t i) {
    size_t first = i;
    while (first > 0 && word[first] == 'y')
        first--;
    bool consonant = !is_vowel_letter(word[first]);
    return (i - first) % 2 == 0 ? consonant : !consonant;
}

/* m of the form [C](VC){m}[V]: how often a consonant follows a vowel. */
static size_t measure(const char *word, size_t length) {
    size_t m = 0;
    bool after_vowel = false;
    for (size_t i = 0; i < length; i++) {
        bool vowel = is_vowel_letter(word[i]) || (word[i] == 'y' && i > 0 && !after_vowel);
        m += after_vowel && !vowel;
        after_vowel = vowel;
    }
    return m;
}

static bool contains_vowel(const char *word, size_t length) {
    for (size_t i = 0; i < length; i++)
        if (is_vowel_letter(word[i]) || (word[i] == 'y' && i > 0)) /* the first vowel: a consonant is before it */
            return true;
    return false;
}

static bool ends_with(const char *word, size_t length, const char *suffix) {
    size_t n = strlen(suffix);
    return length >= n && memcmp(word + length - n, suffix, n) == 0;
}

static bool ends_in_double_consonant(const char *word, size_t length) {
    return length >= 2 && word[length - 1] == word[length - 2] && is_consonant(word, length - 1);
}

/* The paper's *o, as in "hop": then an E belongs to the word, "hoping" to "hope". NLTK adds two letters as in "us". */
static bool ends_short(const char *word, size_t length) {
    if (length == 2)
        return !is_consonant(word, 0) && is_consonant(word, 1);
    return length >= 3 && is_consonant(word, length - 3) && !is_consonant(word, length - 2) &&
           is_consonant(word, length - 1) && strchr("wxy", word[length - 1]) == NULL;
}

typedef struct Rule {
    const char *suffix, *replacement;
} Rule;

/* The first rule whose suffix is there decides: the suffix is replaced where the stem's measure is at least `least`. */
static size_t apply(char *word, size_t length, const Rule *rules, size_t n_rules, size_t least) {
    for (size_t i = 0; i < n_rules; i++) {
        if (!ends_with(word, length, rules[i].suffix))
            continue;
        size_t stem = length - strlen(rules[i].suffix), n = strlen(rules[i].replacement);
        if (measure(word, stem) < least)
            return length;
        memcpy(word + stem, rules[i].replacement, n);
        return stem + n;
    }
    return length;
}

#define APPLY(word, length, rules, least) apply(word, length, rules, sizeof rules / sizeof *rules, least)

/* Plurals. NLTK: "dies" to "die", but "flies" to "fli". */
static size_t step_1a(char *word, size_t length) {
    static const Rule RULES[] = {{"sses", "ss"}, {"ies", "i"}, {"ss", "ss"}, {"s", ""}};
    if (length == 4 && ends_with(word, length, "ies"))
        return 3;
    return APPLY(word, length, RULES, 0);
}

/* What "-ed" and "-ing" leave behind: "conflat" to "conflate", "hopp" to "hop", "fil" to "file". */
static size_t mend(char *word, size_t length) {
    bool add_e = ends_with(word, length, "at") || ends_with(word, length, "bl") || ends_with(word, length, "iz");
    if (!add_e && ends_in_double_consonant(word, length))
        return strchr("lsz", word[length - 1]) == NULL ? length - 1 : length;
    if (!add_e && !(measure(word, length) == 1 && ends_short(word, length)))
        return length;
    word[length] = 'e';
    return length + 1;
}

/* Past and progressive. NLTK: "died" to "die", but "spied" to "spi". */
static size_t step_1b(char *word, size_t length) {
    if (ends_with(word, length, "ied"))
        return length == 4 ? 3 : length - 2;
    if (ends_with(word, length, "eed"))
        return measure(word, length - 3) > 0 ? length - 1 : length;
    size_t suffix = ends_with(word, length, "ed") ? 2 : ends_with(word, length, "ing") ? 3 : 0;
    if (suffix == 0 || !contains_vowel(word, length - suffix))
        return length;
    return mend(word, length - suffix);
}

/* NLTK: a Y becomes I behind a consonant alone, and not in a word of two letters: "happi", "enjoy", "by". */
static size_t step_1c(char *word, size_t length) {
    if (length > 2 && word[length - 1] == 'y' && is_consonant(word, length - 2))
        word[length - 1] = 'i';
    return length;
}

static size_t step_2(char *word, size_t length) {
    static const Rule RULES[] = {
        {"ational", "ate"}, {"tional", "tion"}, {"enci", "ence"}, {"anci", "ance"}, {"izer", "ize"},
        {"bli", "ble"},     {"alli", "al"},     {"entli", "ent"}, {"eli", "e"},     {"ousli", "ous"},
        {"ization", "ize"}, {"ation", "ate"},   {"ator", "ate"},  {"alism", "al"},  {"iveness", "ive"},
        {"fulness", "ful"}, {"ousness", "ous"}, {"aliti", "al"},  {"iviti", "ive"}, {"biliti", "ble"},
        {"fulli", "ful"},
    };
    /* NLTK: "radicalli" becomes "radical", which may have another of these suffixes. */
    if (ends_with(word, length, "alli") && measure(word, length - 4) > 0)
        length -= 2;
    /* NLTK: the L counts as the stem's: "geologi" becomes "geolog", though "geo" has no measure. */
    if (ends_with(word, length, "logi"))
        return measure(word, length - 3) > 0 ? length - 1 : length;
    return APPLY(word, length, RULES, 1);
}

static size_t step_3(char *word, size_t length) {
    static const Rule RULES[] = {
        {"icate", "ic"}, {"ative", ""}, {"alize", "al"}, {"iciti", "ic"}, {"ical", "ic"}, {"ful", ""}, {"ness", ""},
    };
    return APPLY(word, length, RULES, 1);
}

static size_t step_4(char *word, size_t length) {
    static const Rule RULES[] = {
        {"al", ""},   {"ance", ""}, {"ence", ""},  {"er", ""},   {"ic", ""},  {"able", ""},
        {"ible", ""}, {"ant", ""},  {"ement", ""}, {"ment", ""}, {"ent", ""}, {"ou", ""},
        {"ism", ""},  {"ate", ""},  {"iti", ""},   {"ous", ""},  {"ive", ""}, {"ize", ""},
    };
    if (ends_with(word, length, "ion") && measure(word, length - 3) >= 2)
        return strchr("st", word[length - 4]) != NULL ? length - 3 : length;
    return APPLY(word, length, RULES, 2);
}

static size_t step_5a(const char *word, size_t length) {
    if (!ends_with(word, length, "e"))
        return length;
    size_t m = measure(word, length - 1);
    return m > 1 || (m == 1 && !ends_short(word, length - 1)) ? length - 1 : length;
}

static size_t step_5b(const char *word, size_t length) {
    return ends_with(word, length, "ll") && measure(word, length - 1) > 1 ? length - 1 : length;
}

/* Writes the stem of an irregular form over it; false where the word is none. */
static bool is_irregular(char *word, size_t *length) {
    static const char *const FORMS[][2] = {
        {"sky", "sky"},        {"skies", "sky"},       {"dying", "die"},        {"lying", "lie"},
        {"tying", "tie"},      {"news", "news"},       {"innings", "inning"},   {"inning", "inning"},
        {"outings", "outing"}, {"outing", "outing"},   {"cannings", "canning"}, {"canning", "canning"},
        {"howe", "howe"},      {"proceed", "proceed"}, {"exceed", "exceed"},    {"succeed", "succeed"},
    };
    for (size_t i = 0; i < sizeof FORMS / sizeof *FORMS; i++)
        if (strlen(FORMS[i][0]) == *length && memcmp(FORMS[i][0], word, *length) == 0) {
            *length = strlen(FORMS[i][1]);
            memcpy(word, FORMS[i][1], *length);
            return true;
        }
    return false;
}

size_t porter_stem(char *word, size_t length) {
    if (is_irregular(word, &length) || length <= 2)
        return length;
    length = step_1a(word, length);
    length = step_1b(word, length);
    length = step_1c(word, length);
    length = step_2(word, length);
    length = step_3(word, length);
    length = step_4(word, length);
    length = step_5a(word, length);
    return step_5b(word, length);
}

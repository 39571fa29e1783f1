/* Splitting texts into words and numbering them; see tokens.h. Bytes suffice: of all characters outside ASCII
 * two alone have an ASCII letter in lower case. */
#include "eval/rouge/tokens.h"

#include "base/array.h"
#include "base/checked.h"
#include "eval/rouge/porter_stemmer.h"

#include <stdlib.h>

#define KELVIN_SIGN "\xE2\x84\xAA" /* U+212A: in lower case "k" */
#define DOTTED_I    "\xC4\xB0"     /* U+0130: in lower case "i" and a combining dot, which ends the word */

typedef struct Word {
    StringView text; /* into Words.letters */
    size_t position; /* in its text, reference before prediction */
} Word;

typedef struct Words {
    char *letters; /* of all words, one behind the other */
    size_t n_letters;
    Word *items;
    size_t count;
} Words;

/* The lower-case letter or digit that starts `text`, or '\0'; `length`: the bytes that it takes. */
static char word_letter(StringView text, size_t *length, bool *ends_word) {
    char c = text.bytes[0];
    *length = 1;
    *ends_word = false;
    if (c >= 'A' && c <= 'Z')
        return (char)(c - 'A' + 'a');
    if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'))
        return c;
    if (sv_starts_with(text, sv(KELVIN_SIGN))) {
        *length = strlen(KELVIN_SIGN);
        return 'k';
    }
    if (sv_starts_with(text, sv(DOTTED_I))) {
        *length = strlen(DOTTED_I);
        *ends_word = true;
        return 'i';
    }
    return '\0';
}

bool rouge_has_words(StringView text) {
    bool ends_word;
    for (size_t i = 0, length; i < text.length; i += length)
        if (word_letter((StringView){text.bytes + i, text.length - i}, &length, &ends_word) != '\0')
            return true;
    return false;
}

/* Makes a word of the letters from `begin` on, if there are any. */
static int end_word(Words *words, size_t begin, bool stem, Error *error) {
    size_t length = words->n_letters - begin;
    if (length == 0)
        return 0;
    Word *items = array_for_one_more(words->items, words->count, sizeof *items, "the words of a text", error);
    if (items == NULL)
        return ERROR_MEMORY;
    words->items = items;
    if (stem && length > 3)
        length = porter_stem(words->letters + begin, length);
    words->n_letters = begin + length;
    if (words->count == UINT32_MAX)
        return error_set(error, ERROR_UNSUPPORTED, "a text has more than %u words; split it", UINT32_MAX);
    words->items[words->count] = (Word){{words->letters + begin, length}, words->count};
    words->count++;
    return 0;
}

static int end_sentence(RougeText *out, size_t n_words, Error *error) {
    size_t n_before = out->n_sentences > 0 ? out->ends[out->n_sentences - 1] : 0;
    if (n_words == n_before)
        return 0;
    size_t *ends = array_for_one_more(out->ends, out->n_sentences, sizeof *ends, "the sentences of a text", error);
    if (ends == NULL)
        return ERROR_MEMORY;
    out->ends = ends;
    out->ends[out->n_sentences++] = n_words;
    return 0;
}

/* Appends the words of `text`; the sentences of `out` count from its own first word. */
static int split(Words *words, RougeText *out, StringView text, bool stem, bool by_line, Error *error) {
    size_t first = words->count, begin = words->n_letters;
    for (size_t i = 0, length; i < text.length; i += length) {
        bool ends_word;
        char letter = word_letter((StringView){text.bytes + i, text.length - i}, &length, &ends_word);
        if (letter != '\0')
            words->letters[words->n_letters++] = letter;
        if (letter == '\0' || ends_word) {
            if (end_word(words, begin, stem, error) < 0)
                return error->code;
            begin = words->n_letters;
        }
        if (by_line && text.bytes[i] == '\n' && end_sentence(out, words->count - first, error) < 0)
            return error->code;
    }
    if (end_word(words, begin, stem, error) < 0)
        return error->code;
    out->count = words->count - first;
    return end_sentence(out, out->count, error);
}

static int by_text(const void *a, const void *b) {
    StringView x = ((const Word *)a)->text, y = ((const Word *)b)->text;
    int order = memcmp(x.bytes, y.bytes, x.length < y.length ? x.length : y.length);
    return order != 0 ? order : (x.length > y.length) - (x.length < y.length);
}

/* Gives equal words the same id: sorted, they stand together. */
static int number(Words *words, RougePair *pair, Error *error) {
    size_t n_reference = pair->reference.count, n_prediction = pair->prediction.count;
    pair->reference.ids = calloc(n_reference + 1, sizeof(uint32_t));
    pair->prediction.ids = calloc(n_prediction + 1, sizeof(uint32_t));
    if (pair->reference.ids == NULL || pair->prediction.ids == NULL)
        return error_memory(error, "the words of two texts", words->count * sizeof(uint32_t));
    if (words->count > 0)
        qsort(words->items, words->count, sizeof *words->items, by_text);
    uint32_t id = 0;
    for (size_t i = 0; i < words->count; i++) {
        if (i > 0 && !sv_equal(words->items[i - 1].text, words->items[i].text))
            id++;
        size_t position = words->items[i].position;
        if (position < n_reference)
            pair->reference.ids[position] = id;
        else
            pair->prediction.ids[position - n_reference] = id;
    }
    return 0;
}

int rouge_pair_open(RougePair *pair, StringView reference, StringView prediction, bool stem, bool by_line,
                    Error *error) {
    *pair = (RougePair){0};
    size_t size;
    if (!checked_add(reference.length, prediction.length, &size) || !checked_add(size, 1, &size))
        return error_memory(error, "two texts", SIZE_MAX);
    Words words = {.letters = malloc(size)};
    if (words.letters == NULL)
        return error_memory(error, "two texts", size);
    int status = split(&words, &pair->reference, reference, stem, by_line, error);
    if (status == 0)
        status = split(&words, &pair->prediction, prediction, stem, by_line, error);
    if (status == 0)
        status = number(&words, pair, error);
    free(words.letters);
    free(words.items);
    if (status < 0)
        rouge_pair_close(pair);
    return status;
}

static void free_text(RougeText *text) {
    free(text->ids);
    free(text->ends);
    *text = (RougeText){0};
}

void rouge_pair_close(RougePair *pair) {
    free_text(&pair->reference);
    free_text(&pair->prediction);
}

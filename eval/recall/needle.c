/* See needle.h. */
#include "eval/recall/needle.h"

#include "base/random.h"

#include <stdio.h>
#include <stdlib.h>

static const char *const ADJECTIVES[32] = {
    "ancient", "brave",  "calm",   "clever", "curious", "distant", "early",  "famous", "fierce", "gentle", "golden",
    "hidden",  "hollow", "humble", "lively", "lonely",  "lucky",   "mellow", "modest", "narrow", "nimble", "patient",
    "polite",  "proud",  "quiet",  "rapid",  "rusty",   "silent",  "simple", "sturdy", "tender", "wise"};
static const char *const NOUNS[32] = {
    "anchor", "basket", "bridge",  "candle", "castle", "cloud",  "comet",  "desert",  "engine", "falcon", "forest",
    "garden", "hammer", "harbor",  "island", "jungle", "kettle", "ladder", "lantern", "meadow", "mirror", "mountain",
    "needle", "ocean",  "orchard", "otter",  "pebble", "river",  "saddle", "temple",  "valley", "violin"};

Needle needle_draw(uint64_t seed, size_t length, size_t position, size_t sample) {
    uint64_t state = seed;
    state = random_next(&state) ^ length;
    state = random_next(&state) ^ position;
    state = random_next(&state) ^ sample;
    Needle needle;
    const char *adjective = ADJECTIVES[random_below(&state, 32)], *noun = NOUNS[random_below(&state, 32)];
    snprintf(needle.key, sizeof needle.key, "%s-%s", adjective, noun);
    snprintf(needle.number, sizeof needle.number, "%u", (unsigned)(1000000 + random_below(&state, 9000000)));
    return needle;
}

size_t needle_place(size_t n_units, size_t position, size_t n_positions) {
    if (n_positions == 1)
        return n_units / 2;
    return (position * n_units + (n_positions - 1) / 2) / (n_positions - 1);
}

/* Ends a text that was written to memory. */
static int finish(FILE *stream, const char *what, Error *error) {
    bool failed = ferror(stream) != 0;
    return fclose(stream) != 0 || failed ? error_memory(error, what, 0) : 0;
}

static void write_context(const Haystack *haystack, const Needle *needle, size_t n_units, size_t place, FILE *stream) {
    for (size_t i = 0; i <= n_units; i++) {
        if (i == place)
            fprintf(stream, "%sOne of the special magic numbers for %s is: %s.", i > 0 ? haystack->separator : "",
                    needle->key, needle->number);
        if (i == n_units)
            return;
        StringView unit = haystack_unit(haystack, i);
        if (i > 0 || place == 0)
            fputs(haystack->separator, stream);
        fwrite(unit.bytes, 1, unit.length, stream);
    }
}

static int write_question(const Haystack *haystack, const Needle *needle, size_t n_units, size_t place, char **out,
                          Error *error) {
    size_t length;
    FILE *stream = open_memstream(out, &length);
    if (stream == NULL)
        return error_memory(error, "a prompt", 0);
    fputs("A special magic number is hidden within the following text. Make sure to memorize it. I will quiz you about "
          "the number afterwards.\n",
          stream);
    write_context(haystack, needle, n_units, place, stream);
    fprintf(stream, "\nWhat is the special magic number for %s mentioned in the provided text?", needle->key);
    return finish(stream, "a prompt", error);
}

static int write_answer(const Needle *needle, char **out, Error *error) {
    size_t length;
    FILE *stream = open_memstream(out, &length);
    if (stream == NULL)
        return error_memory(error, "an answer", 0);
    fprintf(stream, " The special magic number for %s mentioned in the provided text is", needle->key);
    return finish(stream, "an answer", error);
}

int needle_text(const Haystack *haystack, const Needle *needle, size_t n_units, size_t place, NeedleText *out,
                Error *error) {
    *out = (NeedleText){0};
    if (write_question(haystack, needle, n_units, place, &out->question, error) < 0 ||
        write_answer(needle, &out->answer, error) < 0) {
        needle_text_free(out);
        return error->code;
    }
    return 0;
}

void needle_text_free(NeedleText *text) {
    free(text->question);
    free(text->answer);
    *text = (NeedleText){0};
}

/* Behind a chat template's tokens the answer is a text of its own, whose space some tokenizers put there themselves. */
static int encode_chat(const NeedleFrame *frame, const NeedleText *text, TokenList *tokens, Error *error) {
    const Tokenizer *tokenizer = frame->session->tokenizer;
    if (prompt_encode(frame->session, &(PromptOptions){.chat = frame->chat}, sv(text->question), tokens, error) < 0)
        return error->code;
    return tokenizer_encode(tokenizer, sv(text->answer + tokenizer_adds_space(tokenizer)), 0, tokens, error);
}

static int encode_plain(const NeedleFrame *frame, const NeedleText *text, TokenList *tokens, Error *error) {
    size_t size = strlen(text->question) + strlen(text->answer) + 1;
    char *all = malloc(size);
    if (all == NULL)
        return error_memory(error, "a prompt", size);
    snprintf(all, size, "%s%s", text->question, text->answer);
    int status = prompt_encode(frame->session, &(PromptOptions){.chat = NULL}, sv(all), tokens, error);
    free(all);
    return status;
}

/* Replaces `tokens` by the prompt with n_units. */
static int encode(const NeedleFrame *frame, const Needle *needle, size_t n_units, size_t position, TokenList *tokens,
                  Error *error) {
    NeedleText text;
    size_t place = needle_place(n_units, position, frame->n_positions);
    tokens->count = 0;
    if (needle_text(frame->haystack, needle, n_units, place, &text, error) < 0)
        return error->code;
    int status =
        frame->chat != NULL ? encode_chat(frame, &text, tokens, error) : encode_plain(frame, &text, tokens, error);
    needle_text_free(&text);
    return status;
}

/* Doubles the units until they do not fit, and bisects. A tokenizer may need fewer tokens for a longer text here and
 * there; then this finds one of the numbers that fit. */
static int fit_units(const NeedleFrame *frame, const Needle *needle, size_t limit, size_t position, TokenList *tokens,
                     size_t *n_units, Error *error) {
    size_t fits = 0, too_many = 1;
    for (;; too_many *= 2) {
        if (encode(frame, needle, too_many, position, tokens, error) < 0)
            return error->code;
        if (tokens->count > limit)
            break;
        fits = too_many;
    }
    while (too_many - fits > 1) {
        size_t middle = fits + (too_many - fits) / 2;
        if (encode(frame, needle, middle, position, tokens, error) < 0)
            return error->code;
        if (tokens->count <= limit)
            fits = middle;
        else
            too_many = middle;
    }
    *n_units = fits;
    return encode(frame, needle, fits, position, tokens, error);
}

static size_t prompt_limit(const NeedleFrame *frame, size_t length) {
    return length > frame->max_new_tokens ? length - frame->max_new_tokens : 0;
}

int needle_check(const NeedleFrame *frame, const Needle *needle, size_t length, TokenList *tokens, Error *error) {
    if (encode(frame, needle, 0, 0, tokens, error) < 0)
        return error->code;
    if (tokens->count <= prompt_limit(frame, length))
        return 0;
    return error_set(error, ERROR_ARGUMENT,
                     "a length of %zu tokens: question and answer take %zu, and --max_new_tokens %zu more; use "
                     "lengths from %zu on, or fewer new tokens",
                     length, tokens->count, frame->max_new_tokens, tokens->count + frame->max_new_tokens);
}

int needle_prompt(const NeedleFrame *frame, const Needle *needle, size_t length, size_t position, TokenList *tokens,
                  size_t *n_units, Error *error) {
    size_t fitting = 0;
    if (needle_check(frame, needle, length, tokens, error) < 0 ||
        fit_units(frame, needle, prompt_limit(frame, length), position, tokens, &fitting, error) < 0)
        return error->code;
    if (n_units != NULL)
        *n_units = fitting;
    return 0;
}

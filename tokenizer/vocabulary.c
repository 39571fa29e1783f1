/* What a vocabulary tells about itself where its file does not say; see vocabulary.h. */
#include "tokenizer/vocabulary.h"

Vocabulary vocabulary_empty(VocabularyKind kind) {
    return (Vocabulary){.kind = kind,
                        .bos_id = -1,
                        .eos_id = -1,
                        .eot_id = -1,
                        .unknown_id = -1,
                        .add_bos = -1,
                        .add_eos = -1,
                        .add_space_prefix = -1};
}

/* ---- Byte-level BPE: which pre-tokenizer the merges were learned with */

/* Vocabularies that are known by a token, and where several have it by their size. */
static const struct {
    const char *token;
    size_t min_tokens, max_tokens;
    const char *pre_tokenizer;
} KNOWN[] = {
    {"<|begin_of_text|>", 0, SIZE_MAX, "llama-bpe"},
    {"<\xEF\xBD\x9C"
     "begin\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>",
     128000, 130000, "deepseek-v3"},
    {"<\xEF\xBD\x9C"
     "begin\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>",
     100000, 103000, "deepseek-llm"},
    {"<\xEF\xBD\x9C"
     "begin\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>",
     32000, 33000, "deepseek-coder"},
    {"<SPECIAL_20>", 0, SIZE_MAX, "tekken"},
    {">>ABSTRACT<<", 0, SIZE_MAX, "falcon"},
};

/* A pattern shows in the words that it lets merge: the longest run of digits, and whether punctuation goes with the
 * letters behind it ("(self"), as with cl100k_base, or does not, as with GPT-2. */
typedef struct Traces {
    size_t longest_digits;
    size_t n_glued; /* tokens of a sign and letters */
    bool has_im_start, has_reponame;
} Traces;

static bool is_letter(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

static bool all_letters(StringView text) {
    for (size_t i = 0; i < text.length; i++)
        if (!is_letter(text.bytes[i]))
            return false;
    return text.length > 0;
}

static size_t longest_digits(StringView text) {
    size_t longest = 0, run = 0;
    for (size_t i = 0; i < text.length; i++) {
        run = is_digit(text.bytes[i]) ? run + 1 : 0;
        longest = run > longest ? run : longest;
    }
    return longest;
}

/* Tokens in brackets were added, not merged, whatever type the file gives them. */
static bool is_merged(const Vocabulary *vocabulary, size_t id) {
    StringView token = vocabulary->tokens[id];
    bool normal = vocabulary->types == NULL || vocabulary->types[id] == TOKEN_NORMAL;
    return normal && token.length > 1 && !(token.bytes[0] == '<' && token.bytes[token.length - 1] == '>') &&
           token.bytes[0] != '[';
}

static Traces find_traces(const Vocabulary *vocabulary) {
    Traces traces = {0};
    for (size_t id = 0; id < vocabulary->n_tokens; id++) {
        StringView token = vocabulary->tokens[id];
        traces.has_im_start |= sv_is(token, "<|im_start|>");
        traces.has_reponame |= sv_is(token, "<reponame>") || sv_is(token, "<gh_stars>");
        if (!is_merged(vocabulary, id))
            continue;
        size_t digits = longest_digits(token);
        traces.longest_digits = digits > traces.longest_digits ? digits : traces.longest_digits;
        char first = token.bytes[0];
        bool sign = first > ' ' && first < 0x7F && first != '\'' && !is_letter(first) && !is_digit(first);
        traces.n_glued += sign && all_letters((StringView){token.bytes + 1, token.length - 1});
    }
    return traces;
}

static bool has_token(const Vocabulary *vocabulary, const char *text) {
    for (size_t id = 0; id < vocabulary->n_tokens; id++)
        if (sv_is(vocabulary->tokens[id], text))
            return true;
    return false;
}

const char *vocabulary_guess_pre_tokenizer(const Vocabulary *vocabulary) {
    enum { MANY_MERGES = 1000 }; /* a vocabulary of that many has numbers of several digits, if it may */
    for (size_t i = 0; i < sizeof KNOWN / sizeof *KNOWN; i++)
        if (vocabulary->n_tokens >= KNOWN[i].min_tokens && vocabulary->n_tokens <= KNOWN[i].max_tokens &&
            has_token(vocabulary, KNOWN[i].token))
            return KNOWN[i].pre_tokenizer;
    Traces traces = find_traces(vocabulary);
    bool single_digits = traces.longest_digits < 2 && vocabulary->n_merges >= MANY_MERGES;
    if (traces.longest_digits > 3)
        return "gpt-2";
    if (traces.n_glued > 0)
        return traces.longest_digits > 1 ? "smaug-bpe" : "qwen2";
    if (single_digits || traces.has_reponame)
        return "smollm";
    return traces.longest_digits < 2 && traces.has_im_start ? "qwen2" : "gpt-2";
}

/* ---- SentencePiece */

bool vocabulary_scores_are_equal(const Vocabulary *vocabulary) {
    size_t n_pieces = 0;
    float first = 0;
    for (size_t id = 0; vocabulary->scores != NULL && id < vocabulary->n_tokens; id++) {
        bool longer = vocabulary->tokens[id].length > 1;
        if (!longer || (vocabulary->types != NULL && vocabulary->types[id] != TOKEN_NORMAL))
            continue;
        if (n_pieces++ == 0)
            first = vocabulary->scores[id];
        if (vocabulary->scores[id] != first)
            return false;
    }
    return n_pieces > 2;
}

/* See marks.h. */
#include "tokenizer/marks.h"

#define LONGEST_STEM 24

/* Control tokens whatever the file says. */
static const struct {
    const char *text;
    TokenMark mark;
} KNOWN[] = {
    {"</s>", MARK_END},
    {"<|im_end|>", MARK_END},
    {"<|eot_id|>", MARK_END},
    {"<|eom_id|>", MARK_END},
    {"<|endoftext|>", MARK_END},
    {"<|end|>", MARK_END},
    {"<|end_of_text|>", MARK_END},
    {"<|end_of_turn|>", MARK_END}, /* OpenChat, Starling */
    {"<end_of_turn>", MARK_END},
    {"<end_of_utterance>", MARK_END},
    {"<|im_start|>", MARK_CONTROL},
    {"<|begin_of_text|>", MARK_CONTROL},
    {"<|start_header_id|>", MARK_CONTROL},
    {"<|end_header_id|>", MARK_CONTROL},
};

/* Ends where the file says control or user defined: padding, what begins the next document of a training set, and
 * calls of tools. */
static const char *const SPECIAL_ENDS[] = {
    "<|fim_pad|>", "<fim-pad>", "<fim_pad>",    "<PAD>",      "[PAD]",    "<|fim_repo|>", "<|repo_name|>", "<fim-repo>",
    "<reponame>",  "<REPO>",    "<|file_sep|>", "<|return|>", "<|call|>", "<|calls|>",    "<|flush|>",
};

/* The same by the ASCII letters of a name, in lower case: "eot" is <EOT>, _<EOT>, [EOT] and <|eot|>, "endofsentence" is
 * DeepSeek's token, which has other characters for bars and blanks. */
static const char *const STEMS[] = {
    "eos",           "eot",
    "eom",           "eod",
    "eotid",         "eomid",
    "imend",         "endoftext",
    "endofturn",     "endofturntoken",
    "endofmessage",  "endofsentence",
    "endofdocument", "endofutterance",
};

static bool is_one_of(StringView text, const char *const *names, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (sv_is(text, names[i]))
            return true;
    return false;
}

static bool has_stem(StringView token) {
    char stem[LONGEST_STEM];
    size_t n = 0;
    if (token.length == 0 || strchr("<[_", token.bytes[0]) == NULL)
        return false;
    for (size_t i = 0; i < token.length; i++) {
        char lower = (char)(token.bytes[i] | 0x20);
        if (lower < 'a' || lower > 'z')
            continue;
        if (n == LONGEST_STEM)
            return false;
        stem[n++] = lower;
    }
    return is_one_of((StringView){stem, n}, STEMS, sizeof STEMS / sizeof *STEMS);
}

TokenMark token_mark(StringView token, TokenType type) {
    if (type == TOKEN_USER_DEFINED && sv_is(token, "</s>")) /* a tag of HTML among Gemma's */
        return MARK_NONE;
    for (size_t i = 0; i < sizeof KNOWN / sizeof *KNOWN; i++)
        if (sv_is(token, KNOWN[i].text))
            return KNOWN[i].mark;
    if (type != TOKEN_CONTROL && type != TOKEN_USER_DEFINED)
        return MARK_NONE;
    bool ends = is_one_of(token, SPECIAL_ENDS, sizeof SPECIAL_ENDS / sizeof *SPECIAL_ENDS) || has_stem(token);
    return ends ? MARK_END : MARK_NONE;
}

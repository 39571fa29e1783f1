/* What a checkpoint says about its tokenizer, as plain data: a checkpoint reader fills it, tokenizer.h builds a
 * tokenizer from it. Views and arrays belong to the checkpoint and must outlive the tokenizer. */
#ifndef STOWKV_VOCABULARY_H
#define STOWKV_VOCABULARY_H

#include "base/string_view.h"

#include <stdint.h>

/* The numbers of GGUF's tokenizer.ggml.token_type, which are those of SentencePiece's ModelProto.SentencePiece.Type. */
typedef enum TokenType {
    TOKEN_NORMAL = 1,
    TOKEN_UNKNOWN = 2,
    TOKEN_CONTROL = 3,
    TOKEN_USER_DEFINED = 4,
    TOKEN_UNUSED = 5,
    TOKEN_BYTE = 6
} TokenType;

typedef enum VocabularyKind {
    VOCABULARY_NONE = 0,       /* the checkpoint carries no tokenizer (llama2.c) */
    VOCABULARY_SENTENCEPIECE,  /* tokenizer.ggml.model "llama": pieces, scores, types */
    VOCABULARY_BYTE_LEVEL_BPE, /* tokenizer.ggml.model "gpt2": tokens in GPT-2's byte alphabet, merges, pre-tokenizer */
    VOCABULARY_PIECE_BPE,      /* tokenizer.json: pieces as SentencePiece spells them, put together by merges; rules */
    VOCABULARY_MODEL_FILE      /* all of it is in `model`, a SentencePiece .model; no tokens here */
} VocabularyKind;

/* What a text is read with in front of it, spelled U+2581 as every space of a piece. */
typedef enum SpacePrefix {
    SPACE_PREFIX_NONE,
    SPACE_PREFIX_ALWAYS,       /* in front of each stretch between special tokens */
    SPACE_PREFIX_UNLESS_SPACE, /* the same, but for stretches that begin with a space */
    SPACE_PREFIX_FIRST         /* the same, where no special token stands in front */
} SpacePrefix;

typedef struct SplitPattern {
    const char *regex; /* PCRE2's syntax */
    bool drops_rest;   /* what lies between two matches is no part of the text */
} SplitPattern;

/* How tokenizer.json says that a text is taken apart. */
typedef struct TextRules {
    const SplitPattern *patterns; /* (n_patterns) one after the other; none: a text is one word */
    size_t n_patterns;
    bool nfc;
    bool ignores_merges; /* a word that is a token as a whole is taken as that */
    SpacePrefix prefix;  /* of pieces */
    bool byte_fallback;  /* of pieces: a character without a token is its bytes' tokens, <0x00> to <0xFF> */
    bool fuses_unknown;  /* several characters without tokens are one unknown token */
    int64_t unknown_id;  /* of a character without any token; -1: it is left out */
} TextRules;

/* White space that belongs to a special token, before and behind it. */
enum { TOKEN_STRIPS_LEFT = 1, TOKEN_STRIPS_RIGHT = 2 };

typedef struct Vocabulary {
    VocabularyKind kind;
    StringView pre_tokenizer; /* tokenizer.ggml.pre: "smollm", "llama-bpe", …; empty where the file does not say */
    size_t n_tokens;
    const StringView *tokens; /* (n_tokens) */
    const float *scores;      /* (n_tokens) or NULL */
    const int32_t *types;     /* (n_tokens) TokenType, or NULL: all normal */
    size_t n_merges;
    const StringView *merges;                   /* (n_merges) "left right", most frequent first */
    bool merges_by_id;                          /* no merges: two tokens become any that they spell, lowest id first */
    const TextRules *rules;                     /* NULL: the pre-tokenizer's */
    const uint8_t *strips;                      /* (n_tokens) TOKEN_STRIPS_* of special tokens, or NULL */
    StringView model;                           /* of VOCABULARY_MODEL_FILE: the file */
    const char *name;                           /* of VOCABULARY_MODEL_FILE: its path, for messages */
    int64_t bos_id, eos_id, eot_id, unknown_id; /* -1 where the file does not say */
    size_t n_end_ids;
    const int64_t *end_ids;                 /* (n_end_ids) further ids that end a text: end of message, … */
    int add_bos, add_eos, add_space_prefix; /* 0, 1, or -1 where the file does not say */
    int remove_extra_spaces;                /* SentencePiece: 1 makes runs of spaces one, and none at the ends */
    StringView chat_template;               /* the Jinja text, or empty */
} Vocabulary;

/* A vocabulary of which a file says nothing yet: no tokens, and -1 where that means so. */
Vocabulary vocabulary_empty(VocabularyKind kind);

/* Of a byte-level BPE vocabulary that does not say: the pre-tokenizer which its tokens and merges look like. A name of
 * pre_tokenizer.h; static. */
const char *vocabulary_guess_pre_tokenizer(const Vocabulary *vocabulary);

/* Whether no piece of a SentencePiece vocabulary is preferred to any other, as where a converter had no scores. */
bool vocabulary_scores_are_equal(const Vocabulary *vocabulary);

#endif

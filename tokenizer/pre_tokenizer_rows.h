/* The pre-tokenizers as a table: what pre_tokenizer.c compiles. Names are those to which llama.cpp gives the same
 * patterns (llama-vocab.cpp); the first of a row stands for it in messages. Patterns are those of the Hugging Face
 * tokenizer.json files, with \s written out as the property White_Space: PCRE2's \s also takes U+180E. */
#ifndef STOWKV_PRE_TOKENIZER_ROWS_H
#define STOWKV_PRE_TOKENIZER_ROWS_H

#include <stdbool.h>

#define SPACE    "\\p{White_Space}"
#define NO_SPACE "\\P{White_Space}"

/* A run of spaces; the last one goes to the word that follows. */
#define SPACES SPACE "+(?!" NO_SPACE ")|" SPACE "+"

#define GPT2_PATTERN "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^" SPACE "\\p{L}\\p{N}]+|" SPACES

/* OpenAI's cl100k_base, which many vary in how many digits make a word. */
#define CONTRACTIONS  "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define LETTERS       "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+"
#define LINES_OR_RUNS SPACE "*[\\r\\n]+|" SPACES
#define CL100K_PATTERN(digits)                                                                                         \
    CONTRACTIONS "|" LETTERS "|" digits "| ?[^" SPACE "\\p{L}\\p{N}]+[\\r\\n]*|" LINES_OR_RUNS

/* OpenAI's o200k_base: words end where a lower-case letter meets an upper-case one. */
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define O200K_PATTERN(ending, digits)                                                                                  \
    "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+" ending "|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER "*" ending           \
    "|" digits "| ?[^" SPACE "\\p{L}\\p{N}]+[\\r\\n/]*|" LINES_OR_RUNS

/* DeepSeek's first models: letters with case, one by one, as their tokenizer.json lists them. */
#define DEEPSEEK_LETTERS                                                                                               \
    "[A-Za-z\\x{B5}\\x{C0}-\\x{D6}\\x{D8}-\\x{F6}\\x{F8}-\\x{1BA}\\x{1BC}-\\x{1BF}\\x{1C4}-\\x{293}"                   \
    "\\x{295}-\\x{2AF}\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37B}-\\x{37D}\\x{37F}\\x{386}\\x{388}-\\x{38A}"             \
    "\\x{38C}\\x{38E}-\\x{3A1}\\x{3A3}-\\x{3F5}\\x{3F7}-\\x{481}\\x{48A}-\\x{52F}\\x{531}-\\x{556}"                    \
    "\\x{10A0}-\\x{10C5}\\x{13A0}-\\x{13F5}\\x{13F8}-\\x{13FD}\\x{1C90}-\\x{1CBA}\\x{1CBD}-\\x{1CBF}"                  \
    "\\x{1D00}-\\x{1D2B}\\x{1D6B}-\\x{1D77}\\x{1D79}-\\x{1D9A}\\x{1E00}-\\x{1F15}\\x{1F18}-\\x{1F1D}"                  \
    "\\x{1F20}-\\x{1F45}\\x{1F48}-\\x{1F4D}\\x{1F50}-\\x{1F57}\\x{1F59}\\x{1F5B}\\x{1F5D}\\x{1F5F}-\\x{1F7D}"          \
    "\\x{1F80}-\\x{1FB4}\\x{1FB6}-\\x{1FBC}\\x{1FBE}\\x{1FC2}-\\x{1FC4}\\x{1FC6}-\\x{1FCC}\\x{1FD0}-\\x{1FD3}"         \
    "\\x{1FD6}-\\x{1FDB}\\x{1FE0}-\\x{1FEC}\\x{1FF2}-\\x{1FF4}\\x{1FF6}-\\x{1FFC}\\x{2102}\\x{2107}"                   \
    "\\x{210A}-\\x{2113}\\x{2115}\\x{2119}-\\x{211D}\\x{2124}\\x{2126}\\x{2128}\\x{212A}-\\x{212D}"                    \
    "\\x{212F}-\\x{2134}\\x{2139}\\x{213C}-\\x{213F}\\x{2145}-\\x{2149}\\x{214E}\\x{2183}\\x{2184}"                    \
    "\\x{2C00}-\\x{2C7B}\\x{2C7E}-\\x{2CE4}\\x{2CEB}-\\x{2CEE}\\x{2CF2}\\x{2CF3}\\x{A640}-\\x{A66D}"                   \
    "\\x{A680}-\\x{A69B}\\x{A722}-\\x{A76F}\\x{A771}-\\x{A787}\\x{A78B}-\\x{A78E}\\x{AB70}-\\x{ABBF}"                  \
    "\\x{FB00}-\\x{FB06}\\x{FB13}-\\x{FB17}\\x{FF21}-\\x{FF3A}\\x{FF41}-\\x{FF5A}\\x{10400}-\\x{1044F}"                \
    "\\x{104B0}-\\x{104D3}\\x{104D8}-\\x{104FB}\\x{10C80}-\\x{10CB2}\\x{10CC0}-\\x{10CF2}"                             \
    "\\x{118A0}-\\x{118DF}\\x{1E900}-\\x{1E943}]+"

#define BLOOM_PATTERN " ?[^(" SPACE "|.,!?…。，、।۔،)]+"

enum { PRE_TOKENIZER_NAMES = 20, PRE_TOKENIZER_PATTERNS = 6 };

typedef struct PreTokenizerRow {
    const char *names[PRE_TOKENIZER_NAMES];
    /* One after the other: each splits what the one before it has left into its matches and what lies between them. */
    const char *patterns[PRE_TOKENIZER_PATTERNS];
    bool nfc, ignores_merges, adds_bos;
} PreTokenizerRow;

/* clang-format off */
static const PreTokenizerRow PRE_TOKENIZER_ROWS[] = {
    {{"gpt-2", "", "phi-2", "mpt", "olmo", "jais", "trillion", "gigachat", "a.x-4.0", "mellum", "exaone4",
      "granite-docling", "modern-bert", "jina-es", "jina-de", "jina-v2-es", "jina-v2-de", "jina-v1-en", "jina-v2-code",
      "roberta-bpe"}, {GPT2_PATTERN}, false, false, false},
    {{"llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano"},
     {CL100K_PATTERN("\\p{N}{1,3}")}, false, true, true},
    {{"smaug-bpe", "dbrx", "glm4", "chatglm-bpe"}, {CL100K_PATTERN("\\p{N}{1,3}")}, false, false, false},
    {{"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"},
     {"\\p{N}", GPT2_PATTERN}, false, false, false},
    {{"qwen2", "deepseek-r1-qwen"}, {CL100K_PATTERN("\\p{N}")}, true, false, false},
    {{"stablelm2", "hunyuan", "solar-open", "grok-2", "kormo", "f2llmv2", "megrez"},
     {CL100K_PATTERN("\\p{N}")}, false, false, false},
    {{"minicpm5"}, {"\\p{N}{1,3}", CL100K_PATTERN("\\p{N}+")}, false, true, false},
    {{"seed-coder"},
     {CONTRACTIONS "|" LETTERS "|\\p{N}| ?[^" SPACE "\\p{L}\\p{N}\\r\\n]+|" LINES_OR_RUNS}, false, false, false},
    {{"bailingmoe", "bailingmoe2", "llada-moe"},
     {"'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}| ?[^" SPACE "\\p{L}\\p{N}]++[\\r\\n]*|" SPACE
      "*[\\r\\n]|" SPACES}, false, false, false},
    {{"tekken"}, {O200K_PATTERN("", "\\p{N}")}, false, true, true},
    {{"gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"},
     {O200K_PATTERN(CONTRACTIONS "?", "\\p{N}{1,3}")}, false, false, false},
    {{"deepseek-llm"},
     {"[\\r\\n]", SPACE "?" DEEPSEEK_LETTERS, SPACE "?[!-/:-~！-／：-～‘-‟　-。]+", SPACE "+\\z", "[一-龥ࠀ-一가-퟿]+",
      "\\p{N}+"}, false, false, false},
    {{"deepseek-coder"},
     {"[\\r\\n]", SPACE "?\\p{L}+", SPACE "?\\p{P}+", "[一-龥ࠀ-一가-퟿]+", "\\p{N}"}, false, false, false},
    {{"deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"},
     {"\\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+",
      "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+"
      "[\\r\\n]*|" LINES_OR_RUNS}, false, false, false},
    {{"falcon"}, {"[\\p{P}\\$\\+<=>\\^~\\|`]+", GPT2_PATTERN, "[0-9][0-9][0-9]"}, false, false, false},
    {{"default"}, {"[\\p{P}\\$\\+<=>\\^~\\|]+", GPT2_PATTERN, "\\p{N}+", "[0-9][0-9][0-9]"}, false, false, false},
    {{"bloom", "poro-chat", "gpt3-finnish"}, {BLOOM_PATTERN}, false, false, false},
    {{"viking"}, {BLOOM_PATTERN, "\\p{N}"}, false, false, false},
};
/* clang-format on */

enum { N_PRE_TOKENIZER_ROWS = sizeof PRE_TOKENIZER_ROWS / sizeof PRE_TOKENIZER_ROWS[0] };

#endif

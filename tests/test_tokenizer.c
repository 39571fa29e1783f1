/* The tokenizer against Hugging Face's tokenizers and SentencePiece (cases from the fixture maker), its streams, its
 * bounds on long words, and what it says about damaged input. */
#include "session/prompt.h"
#include "tests/vocabulary_fixture.h"
#include "tokenizer/pre_tokenizer.h"
#include "tokenizer/text_stream.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/utf8.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <utf8proc.h>

#include <cmocka.h>

/* A small byte-level BPE vocabulary in memory: the 94 printable characters, 'Ġ' for the space, and a few merges. */
typedef struct Tiny {
    char characters[95][2];
    StringView tokens[110], merges[8];
    int32_t types[110];
    Vocabulary vocabulary;
} Tiny;

enum { TINY_AB = 95, TINY_BC, TINY_ABC, TINY_CONTROL, TINY_ADDED, TINY_LONGER, TINY_COUNT };

static void tiny_start(Tiny *tiny) {
    *tiny = (Tiny){0};
    for (int i = 0; i < 94; i++) {
        tiny->characters[i][0] = (char)(0x21 + i);
        tiny->tokens[i] = (StringView){tiny->characters[i], 1};
    }
    tiny->tokens[94] = sv("\xC4\xA0");
    const char *more[] = {"ab", "bc", "abc", "<|c|>", "<t>", "<t>>"};
    for (int i = 0; i < 6; i++)
        tiny->tokens[TINY_AB + i] = sv(more[i]);
    for (int i = 0; i < TINY_COUNT; i++)
        tiny->types[i] = TOKEN_NORMAL;
    tiny->types[TINY_CONTROL] = TOKEN_CONTROL;
    tiny->types[TINY_ADDED] = tiny->types[TINY_LONGER] = TOKEN_USER_DEFINED;
    tiny->merges[0] = sv("b c");
    tiny->merges[1] = sv("a b");
    tiny->merges[2] = sv("ab c");
    tiny->vocabulary = (Vocabulary){.kind = VOCABULARY_BYTE_LEVEL_BPE,
                                    .pre_tokenizer = sv("gpt-2"),
                                    .n_tokens = TINY_COUNT,
                                    .tokens = tiny->tokens,
                                    .types = tiny->types,
                                    .n_merges = 3,
                                    .merges = tiny->merges,
                                    .bos_id = -1,
                                    .eos_id = -1,
                                    .eot_id = -1,
                                    .unknown_id = -1,
                                    .add_bos = -1,
                                    .add_eos = -1,
                                    .add_space_prefix = -1};
}

/* Opening must fail with `code` and a message that holds `part` and a cure. */
static void expect_refused(const Vocabulary *vocabulary, int code, const char *part) {
    Tokenizer *tokenizer = NULL;
    Error error = {0};
    assert_int_equal(tokenizer_open_vocabulary(&tokenizer, vocabulary, &error), code);
    assert_null(tokenizer);
    if (strstr(error.message, part) == NULL || strchr(error.message, ';') == NULL)
        fail_msg("'%s' lacks '%s' or a cure", error.message, part);
}

static void expect_ids(const Tokenizer *tokenizer, const char *text, unsigned flags, const int32_t *ids, size_t n) {
    TokenList tokens = {0};
    Error error = {0};
    if (tokenizer_encode(tokenizer, sv(text), flags, &tokens, &error) < 0)
        fail_msg("%s", error.message);
    assert_int_equal(tokens.count, n);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(tokens.ids[i], ids[i]);
    token_list_free(&tokens);
}

#define EXPECT_IDS(tokenizer, text, flags, ...)                                                                        \
    expect_ids(tokenizer, text, flags, (const int32_t[]){__VA_ARGS__},                                                 \
               sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t))

/* Streams ids to text, a token at a time; what comes out of each step must be valid UTF-8. The caller frees .bytes. */
static StringView stream_all(const Tokenizer *tokenizer, const TokenList *tokens) {
    TextStream stream = text_stream_start(tokenizer, NULL, 0);
    Error error = {0};
    size_t length = 0, capacity = 64;
    char *text = malloc(capacity);
    for (size_t i = 0; i <= tokens->count; i++) {
        StringView part =
            i < tokens->count ? text_stream_next(&stream, tokens->ids[i], &error) : text_stream_finish(&stream);
        assert_int_equal(error.code, 0);
        assert_true(utf8_is_valid(part));
        while (length + part.length > capacity)
            text = realloc(text, capacity *= 2);
        assert_non_null(text);
        memcpy(text + length, part.bytes, part.length);
        length += part.length;
    }
    text_stream_free(&stream);
    return (StringView){text, length};
}

static void check_case(const Tokenizer *tokenizer, const char *name, const cJSON *item) {
    const char *hex = cJSON_GetObjectItemCaseSensitive(item, "text")->valuestring;
    unsigned flags = (unsigned)cJSON_GetObjectItemCaseSensitive(item, "flags")->valueint;
    const cJSON *ids = cJSON_GetObjectItemCaseSensitive(item, "ids");
    const cJSON *decoded = cJSON_GetObjectItemCaseSensitive(item, "decoded");
    StringView text = from_hex(hex);
    TokenList tokens = {0};
    Error error = {0};
    if (tokenizer_encode(tokenizer, text, flags, &tokens, &error) < 0)
        fail_msg("%s: %s", name, error.message);
    char what[400];
    snprintf(what, sizeof what, "%s: flags %u, text %.300s", name, flags, hex);
    check_ids(&tokens, ids, what);
    if (cJSON_IsString(decoded)) {
        StringView expected = from_hex(decoded->valuestring), streamed = stream_all(tokenizer, &tokens);
        if (!sv_equal(expected, streamed))
            fail_msg("%s: text %.300s: streams back as '%.*s'", name, hex, SV_ARGS(streamed));
        free((char *)expected.bytes);
        free((char *)streamed.bytes);
    }
    token_list_free(&tokens);
    free((char *)text.bytes);
}

static void check_cases(const char *name) {
    const char *directory = fixture_directory();
    if (directory == NULL)
        skip();
    cJSON *json = read_json(directory, name);
    const cJSON *model = cJSON_GetObjectItemCaseSensitive(json, "model");
    const cJSON *pre = cJSON_GetObjectItemCaseSensitive(json, "pre_tokenizer");
    VocabularyFixture *fixture = NULL;
    Tokenizer *tokenizer = NULL;
    Error error = {0};
    if (cJSON_IsString(model)) {
        const char *data = data_directory();
        if (data == NULL) {
            cJSON_Delete(json);
            skip();
        }
        char *path = join_path(data, model->valuestring);
        if (tokenizer_open_file(&tokenizer, path, &error) < 0)
            fail_msg("%s", error.message);
        free(path);
    } else {
        const char *vocabulary = cJSON_GetObjectItemCaseSensitive(json, "vocabulary")->valuestring;
        fixture = vocabulary_fixture_open(directory, vocabulary);
        if (cJSON_IsString(pre))
            fixture->vocabulary.pre_tokenizer = sv(pre->valuestring);
        tokenizer = open_or_fail(&fixture->vocabulary);
    }
    const cJSON *item;
    cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(json, "cases")) check_case(tokenizer, name, item);
    tokenizer_free(tokenizer);
    vocabulary_fixture_free(fixture);
    cJSON_Delete(json);
}

static void test_gpt2_cases(void **state) {
    (void)state;
    check_cases("small.gpt-2.cases.json");
}

static void test_smollm_cases(void **state) {
    (void)state;
    check_cases("small.smollm.cases.json");
}

static void test_llama3_cases(void **state) {
    (void)state;
    check_cases("small.llama-bpe.cases.json");
}

static void test_qwen2_cases(void **state) {
    (void)state;
    check_cases("small.qwen2.cases.json");
}

static void test_cases_of_other_patterns(void **state) {
    (void)state;
    static const char *const NAMES[] = {
        "smaug-bpe",    "stablelm2", "minicpm5",       "seed-coder",  "bailingmoe", "tekken", "gpt-4o",
        "deepseek-llm", "default",   "deepseek-coder", "deepseek-v3", "falcon",     "bloom",  "viking",
    };
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++) {
        char name[64];
        snprintf(name, sizeof name, "small.%s.cases.json", NAMES[i]);
        check_cases(name);
    }
}

/* Names that llama.cpp reads as a pattern which another name has here. */
static void test_names_of_pre_tokenizers(void **state) {
    (void)state;
    static const char *const NAMES[] = {
        "phi-2",   "mpt",       "olmo",      "jais",       "exaone4",    "roberta-bpe", "llama3",    "llama-v3",
        "pixtral", "falcon3",   "lfm2",      "dbrx",       "glm4",       "chatglm-bpe", "starcoder", "refact",
        "exaone",  "command-r", "megrez",    "hunyuan",    "kormo",      "llada-moe",   "llama4",    "deepseek-r1-qwen",
        "viking",  "poro-chat", "joyai-llm", "minerva-7b", "solar-open", "kanana2",
    };
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++) {
        PreTokenizer *pre;
        Error error = {0};
        if (pre_tokenizer_open(&pre, sv(NAMES[i]), &error) < 0)
            fail_msg("%s: %s", NAMES[i], error.message);
        bool llama = pre_tokenizer_adds_bos(pre);
        assert_int_equal(llama, i >= 6 && i < 11);
        assert_int_equal(pre_tokenizer_ignores_merges(pre), llama);
        pre_tokenizer_free(pre);
    }
}

static void expect_guess(const char *directory, const char *name, const char *pre) {
    char file[96];
    snprintf(file, sizeof file, "%s.vocabulary.json", name);
    VocabularyFixture *fixture = vocabulary_fixture_open(directory, file);
    assert_string_equal(vocabulary_guess_pre_tokenizer(&fixture->vocabulary), pre);
    vocabulary_fixture_free(fixture);
}

/* What a vocabulary was trained with is told by it; so are those whose tokens are known. */
static void test_guesses(void **state) {
    (void)state;
    const char *directory = fixture_directory();
    if (directory == NULL)
        skip();
    expect_guess(directory, "guess.gpt-2", "gpt-2");
    expect_guess(directory, "guess.smollm", "smollm");
    expect_guess(directory, "guess.smaug-bpe", "smaug-bpe");
    expect_guess(directory, "guess.qwen2", "qwen2");
    expect_guess(directory, "small", "llama-bpe"); /* it has <|begin_of_text|> */
    char *path = join_path(directory, "smollm2.vocabulary.json");
    if (access(path, F_OK) == 0)
        expect_guess(directory, "smollm2", "smollm");
    free(path);
}

/* Without merges only bytes are left: an error, unless the vocabulary has nothing but bytes. */
static void test_no_merges(void **state) {
    (void)state;
    Tiny tiny;
    tiny_start(&tiny);
    tiny.vocabulary.n_merges = 0;
    expect_refused(&tiny.vocabulary, ERROR_FORMAT, "merges");
    tiny.vocabulary.merges = NULL;
    expect_refused(&tiny.vocabulary, ERROR_FORMAT, "merges");
    for (int i = 0; i < TINY_COUNT; i++)
        if (tiny.tokens[i].length > 1 && tiny.types[i] == TOKEN_NORMAL)
            tiny.types[i] = TOKEN_UNUSED;
    expect_refused(&tiny.vocabulary, ERROR_FORMAT, "merges");
    tiny.vocabulary.merges = tiny.merges;
    Tokenizer *tokenizer;
    Error error = {0};
    assert_int_equal(tokenizer_open_vocabulary(&tokenizer, &tiny.vocabulary, &error), 0);
    tokenizer_free(tokenizer);
}

static void test_sentencepiece_file_cases(void **state) {
    (void)state;
    check_cases("tok512.model.cases.json");
}

static void test_sentencepiece_rebuilt_cases(void **state) {
    (void)state;
    check_cases("tok512.rebuilt.cases.json");
    check_cases("tok512.collapsing.cases.json");   /* remove_extra_whitespaces */
    check_cases("tok512.normal_bytes.cases.json"); /* bytes have the type of normal tokens */
}

/* The real vocabulary is there only where the checkpoint was fetched before the fixtures were made. */
static void test_smollm2_cases(void **state) {
    (void)state;
    const char *directory = fixture_directory();
    if (directory == NULL)
        skip();
    char *path = join_path(directory, "smollm2.vocabulary.json");
    bool there = access(path, R_OK) == 0;
    if (!there)
        fprintf(stderr, "SKIPPED: %s is not there; fetch the checkpoint and make the fixtures again\n", path);
    free(path);
    if (!there)
        skip();
    check_cases("smollm2.smollm.cases.json");
    check_cases("smollm2.llama-bpe.cases.json");
    check_cases("smollm2.qwen2.cases.json");
}

static void test_merge_order(void **state) {
    (void)state;
    Tiny tiny;
    tiny_start(&tiny);
    Tokenizer *tokenizer = open_or_fail(&tiny.vocabulary);
    EXPECT_IDS(tokenizer, "abc", 0, 'a' - 0x21, TINY_BC); /* "b c" ranks before "a b" */
    EXPECT_IDS(tokenizer, "ab", 0, TINY_AB);
    EXPECT_IDS(tokenizer, "a bc", 0, 'a' - 0x21, 94, TINY_BC);
    tokenizer_free(tokenizer);
    tiny.vocabulary.pre_tokenizer = sv("llama3"); /* takes a whole word that is a token */
    tokenizer = open_or_fail(&tiny.vocabulary);
    EXPECT_IDS(tokenizer, "abc", 0, TINY_ABC);
    EXPECT_IDS(tokenizer, "abcab", 0, 'a' - 0x21, TINY_BC, TINY_AB);
    tokenizer_free(tokenizer);
}

static void test_special_tokens(void **state) {
    (void)state;
    Tiny tiny;
    tiny_start(&tiny);
    Tokenizer *tokenizer = open_or_fail(&tiny.vocabulary);
    EXPECT_IDS(tokenizer, "<|c|>", TOKENIZE_PARSE_SPECIAL, TINY_CONTROL);
    EXPECT_IDS(tokenizer, "<|c|>", 0, '<' - 0x21, '|' - 0x21, 'c' - 0x21, '|' - 0x21, '>' - 0x21);
    EXPECT_IDS(tokenizer, "a<t>>b<t>", 0, 'a' - 0x21, TINY_LONGER, 'b' - 0x21, TINY_ADDED);
    assert_int_equal(tokenizer_special(tokenizer, sv("<|c|>")), TINY_CONTROL);
    assert_int_equal(tokenizer_special(tokenizer, sv("<t>")), TINY_ADDED);
    assert_int_equal(tokenizer_special(tokenizer, sv("ab")), -1);
    tokenizer_free(tokenizer);
}

static void test_bos_and_ends(void **state) {
    (void)state;
    Tiny tiny;
    tiny_start(&tiny);
    Tokenizer *tokenizer = open_or_fail(&tiny.vocabulary);
    assert_int_equal(tokenizer_bos(tokenizer), -1);
    assert_false(tokenizer_adds_bos(tokenizer));
    assert_false(tokenizer_is_end(tokenizer, TINY_CONTROL));
    assert_false(tokenizer_is_end(tokenizer, -1));
    assert_false(tokenizer_is_end(tokenizer, 1 << 30));
    tokenizer_free(tokenizer);

    tiny.vocabulary.bos_id = TINY_CONTROL;
    tokenizer = open_or_fail(&tiny.vocabulary);
    assert_false(tokenizer_adds_bos(tokenizer));
    EXPECT_IDS(tokenizer, "ab", TOKENIZE_ADD_BOS, TINY_AB);
    assert_true(tokenizer_is_end(tokenizer, TINY_CONTROL));
    tokenizer_free(tokenizer);

    tiny.vocabulary.pre_tokenizer = sv("llama-bpe");
    tokenizer = open_or_fail(&tiny.vocabulary);
    EXPECT_IDS(tokenizer, "ab", TOKENIZE_ADD_BOS, TINY_CONTROL, TINY_AB);
    EXPECT_IDS(tokenizer, "ab", 0, TINY_AB);
    tokenizer_free(tokenizer);

    tiny.vocabulary.add_bos = 0;
    tiny.tokens[TINY_ADDED] = sv("<|im_end|>"); /* stored as user defined, a control token by its name */
    tokenizer = open_or_fail(&tiny.vocabulary);
    EXPECT_IDS(tokenizer, "ab", TOKENIZE_ADD_BOS, TINY_AB);
    assert_true(tokenizer_is_end(tokenizer, TINY_ADDED));
    EXPECT_IDS(tokenizer, "<|im_end|>", TOKENIZE_PARSE_SPECIAL, TINY_ADDED);
    TokenList tokens = {0};
    assert_int_equal(tokenizer_encode(tokenizer, sv("<|im_end|>"), 0, &tokens, NULL), 0);
    for (size_t i = 0; i < tokens.count; i++)
        assert_int_not_equal(tokens.ids[i], TINY_ADDED);
    token_list_free(&tokens);
    tokenizer_free(tokenizer);
}

/* What llama.cpp's vocabulary loader takes for an end of generation by name, and names of its kind that it leaves to
 * the file's EOS; against each what looks like it and is text, or another control token. */
static void test_names_of_ends(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int32_t type;
        bool ends;
    } rows[] = {
        {"<|eot_id|>", TOKEN_CONTROL, true},
        {"<|eot_id|>", TOKEN_NORMAL, true},
        {"<|im_end|>", TOKEN_NORMAL, true},
        {"<|end|>", TOKEN_USER_DEFINED, true},
        {"<end_of_turn>", TOKEN_NORMAL, true},
        {"<|endoftext|>", TOKEN_NORMAL, true},
        {"</s>", TOKEN_NORMAL, true},
        {"<|eom_id|>", TOKEN_NORMAL, true},
        {"<|end_of_text|>", TOKEN_CONTROL, true},
        {"<end_of_utterance>", TOKEN_CONTROL, true},
        {"<EOT>", TOKEN_CONTROL, true},
        {"_<EOT>", TOKEN_CONTROL, true},
        {"[EOT]", TOKEN_CONTROL, true},
        {"[EOS]", TOKEN_CONTROL, true},
        {"<eos>", TOKEN_CONTROL, true},
        {"<|return|>", TOKEN_CONTROL, true},
        {"<|call|>", TOKEN_CONTROL, true},
        {"<|fim_pad|>", TOKEN_CONTROL, true},
        {"<PAD>", TOKEN_CONTROL, true},
        {"<reponame>", TOKEN_CONTROL, true},
        {"<|repo_name|>", TOKEN_CONTROL, true},
        {"<|file_sep|>", TOKEN_CONTROL, true},
        {"<|end_of_turn|>", TOKEN_USER_DEFINED, true},
        {"<|eot|>", TOKEN_CONTROL, true},
        {"<|eom|>", TOKEN_CONTROL, true},
        {"<|EOT|>", TOKEN_CONTROL, true},
        {"<|END_OF_TURN_TOKEN|>", TOKEN_CONTROL, true},
        {"<\xEF\xBD\x9C"
         "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>",
         TOKEN_CONTROL, true},
        {"<EOT>", TOKEN_NORMAL, false},
        {"<eos>", TOKEN_NORMAL, false},
        {"[EOS]", TOKEN_NORMAL, false},
        {"<reponame>", TOKEN_NORMAL, false},
        {"<PAD>", TOKEN_UNUSED, false},
        {"eos", TOKEN_USER_DEFINED, false},
        {"</eos_and_more_than_a_name_has>", TOKEN_CONTROL, false},
        {"<|im_start|>", TOKEN_CONTROL, false},
        {"<|start_header_id|>", TOKEN_CONTROL, false},
        {"<|end_header_id|>", TOKEN_CONTROL, false},
        {"<|endofprompt|>", TOKEN_CONTROL, false},
        {"<tool_call>", TOKEN_CONTROL, false},
        {"[/INST]", TOKEN_CONTROL, false},
        {"<|python_tag|>", TOKEN_CONTROL, false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        Tiny tiny;
        tiny_start(&tiny);
        tiny.tokens[TINY_ADDED] = sv(rows[i].text);
        tiny.types[TINY_ADDED] = rows[i].type;
        Tokenizer *tokenizer = open_or_fail(&tiny.vocabulary);
        if (tokenizer_is_end(tokenizer, TINY_ADDED) != rows[i].ends)
            fail_msg("%s of type %d: expected %d", rows[i].text, rows[i].type, rows[i].ends);
        for (int32_t other = 0; other < TINY_COUNT; other++)
            assert_true(other == TINY_ADDED || !tokenizer_is_end(tokenizer, other));
        tokenizer_free(tokenizer);
    }
}

/* Ids that the file names: EOS, end of turn, and any further ones, which become control tokens. */
static void test_named_ends(void **state) {
    (void)state;
    Tiny tiny;
    tiny_start(&tiny);
    const int64_t more[] = {TINY_ADDED, TINY_ABC};
    tiny.vocabulary.eos_id = TINY_CONTROL;
    tiny.vocabulary.eot_id = TINY_LONGER;
    tiny.vocabulary.end_ids = more;
    tiny.vocabulary.n_end_ids = 2;
    Tokenizer *tokenizer = open_or_fail(&tiny.vocabulary);
    for (int32_t id = 0; id < TINY_COUNT; id++)
        assert_int_equal(tokenizer_is_end(tokenizer, id),
                         id == TINY_CONTROL || id == TINY_LONGER || id == TINY_ADDED || id == TINY_ABC);
    assert_int_equal(tokenizer_type(tokenizer, TINY_ADDED), TOKEN_CONTROL);
    tokenizer_free(tokenizer);
    tiny.vocabulary.end_ids = (const int64_t[]){TINY_ADDED, TINY_COUNT};
    expect_refused(&tiny.vocabulary, ERROR_FORMAT, "end token");
}

/* Generation starts from BOS where the vocabulary has one, as llama2.c does, even if no rule puts it in front of texts.
 */
static void test_empty_prompt(void **state) {
    (void)state;
    Tiny tiny;
    tiny_start(&tiny);
    const PromptOptions options = {0};
    Error error = {0};
    TokenList tokens = {0};
    Session session = {.tokenizer = open_or_fail(&tiny.vocabulary)};
    assert_int_equal(prompt_encode(&session, &options, sv(""), &tokens, &error), ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "no BOS to start from"));
    tokenizer_free(session.tokenizer);

    tiny.vocabulary.bos_id = TINY_CONTROL;
    session.tokenizer = open_or_fail(&tiny.vocabulary);
    assert_false(tokenizer_adds_bos(session.tokenizer));
    assert_int_equal(prompt_encode(&session, &options, sv(""), &tokens, &error), 0);
    assert_int_equal(tokens.count, 1);
    assert_int_equal(tokens.ids[0], TINY_CONTROL);
    token_list_free(&tokens);
    tokenizer_free(session.tokenizer);
}

static void test_damaged_vocabularies(void **state) {
    (void)state;
    Tiny tiny;
    tiny_start(&tiny);
    tiny.merges[2] = sv("ab d");
    expect_refused(&tiny.vocabulary, ERROR_FORMAT, "'abd'");
    tiny.merges[2] = sv("q\xC4\xA0z c");
    expect_refused(&tiny.vocabulary, ERROR_FORMAT, "merge 2");
    const char *malformed[] = {"", " ", "a", "a ", " a"};
    for (size_t i = 0; i < sizeof malformed / sizeof *malformed; i++) {
        tiny.merges[2] = sv(malformed[i]);
        expect_refused(&tiny.vocabulary, ERROR_FORMAT, "merge 2");
    }
    tiny_start(&tiny);
    tiny.tokens[TINY_BC] = sv("ab");
    expect_refused(&tiny.vocabulary, ERROR_FORMAT, "both spelled 'ab'");
    tiny_start(&tiny);
    tiny.tokens['x' - 0x21] = sv("xx");
    expect_refused(&tiny.vocabulary, ERROR_FORMAT, "'x'");
    tiny_start(&tiny);
    tiny.types[3] = 7;
    expect_refused(&tiny.vocabulary, ERROR_FORMAT, "type 7");
    tiny_start(&tiny);
    tiny.vocabulary.eos_id = TINY_COUNT;
    expect_refused(&tiny.vocabulary, ERROR_FORMAT, "EOS");
    tiny_start(&tiny);
    tiny.vocabulary.bos_id = INT64_MAX;
    expect_refused(&tiny.vocabulary, ERROR_FORMAT, "BOS");
    tiny_start(&tiny);
    tiny.vocabulary.pre_tokenizer = sv("kimi-k2");
    expect_refused(&tiny.vocabulary, ERROR_UNSUPPORTED, "gpt-2, llama-bpe, smaug-bpe, smollm, qwen2, stablelm2");
    tiny_start(&tiny);
    tiny.vocabulary.n_tokens = 0;
    expect_refused(&tiny.vocabulary, ERROR_FORMAT, "0 tokens");
    tiny.vocabulary.kind = VOCABULARY_NONE;
    expect_refused(&tiny.vocabulary, ERROR_UNSUPPORTED, "--tokenizer_path");
}

static void test_damaged_sentencepiece_vocabularies(void **state) {
    (void)state;
    StringView tokens[] = {sv("<unk>"),
                           sv("<s>"),
                           sv("</s>"),
                           sv("\xE2\x96\x81"),
                           sv("a"),
                           sv("\xE2\x96\x81"
                              "a")};
    int32_t types[] = {TOKEN_UNKNOWN, TOKEN_CONTROL, TOKEN_CONTROL, TOKEN_NORMAL, TOKEN_NORMAL, TOKEN_NORMAL};
    float scores[] = {0, 0, 0, -1, -2, -3};
    Vocabulary vocabulary = {.kind = VOCABULARY_SENTENCEPIECE,
                             .n_tokens = 6,
                             .tokens = tokens,
                             .scores = scores,
                             .types = types,
                             .bos_id = -1,
                             .eos_id = -1,
                             .eot_id = -1,
                             .unknown_id = -1,
                             .add_bos = -1,
                             .add_eos = -1,
                             .add_space_prefix = -1};
    Tokenizer *tokenizer = open_or_fail(&vocabulary);
    EXPECT_IDS(tokenizer, "a", TOKENIZE_ADD_BOS, 1, 5);
    EXPECT_IDS(tokenizer, "z", 0, 3, 0); /* no byte tokens: unknown */
    assert_int_equal(tokenizer_eos(tokenizer), 2);
    tokenizer_free(tokenizer);

    vocabulary.add_space_prefix = 0;
    tokenizer = open_or_fail(&vocabulary);
    EXPECT_IDS(tokenizer, "a a", 0, 4, 5);
    tokenizer_free(tokenizer);

    vocabulary.scores = NULL;
    expect_refused(&vocabulary, ERROR_FORMAT, "scores");
    vocabulary.scores = scores;
    types[4] = TOKEN_BYTE;
    expect_refused(&vocabulary, ERROR_FORMAT, "byte tokens");
    types[4] = TOKEN_NORMAL;
    tokens[4] = tokens[3];
    expect_refused(&vocabulary, ERROR_FORMAT, "already defined");
    tokens[4] = sv("");
    tokenizer = open_or_fail(&vocabulary); /* padding */
    tokenizer_free(tokenizer);
}

static StringView read_model(const char *path) {
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    char *bytes = malloc(1 << 16);
    assert_non_null(bytes);
    size_t length = fread(bytes, 1, 1 << 16, file);
    fclose(file);
    return (StringView){bytes, length};
}

/* Writes `bytes` as a .model file and opens it; returns the status. */
static int open_bytes(StringView bytes, Error *error) {
    char path[] = "/tmp/stowkv_model_XXXXXX";
    int descriptor = mkstemp(path);
    assert_true(descriptor >= 0);
    assert_int_equal(write(descriptor, bytes.bytes, bytes.length), (ssize_t)bytes.length);
    close(descriptor);
    Tokenizer *tokenizer;
    int status = tokenizer_open_file(&tokenizer, path, error);
    if (status == 0) {
        TokenList tokens = {0};
        tokenizer_encode(tokenizer, sv("Once upon <s> a time \xFF"), TOKENIZE_ADD_BOS | TOKENIZE_PARSE_SPECIAL, &tokens,
                         error);
        for (size_t i = 0; i < tokens.count; i++)
            assert_in_range(tokens.ids[i], 0, tokenizer_n_tokens(tokenizer) - 1);
        token_list_free(&tokens);
        tokenizer_free(tokenizer);
    }
    unlink(path);
    return status;
}

static void test_damaged_model_files(void **state) {
    (void)state;
    const char *data = data_directory();
    if (data == NULL)
        skip();
    char *path = join_path(data, "tok512.model");
    StringView model = read_model(path);
    free(path);
    Error error = {0};
    assert_int_equal(open_bytes(model, &error), 0);
    for (size_t length = 0; length < model.length; length += length < model.length - 200 ? 37 : 1) {
        assert_int_equal(open_bytes((StringView){model.bytes, length}, &error), ERROR_FORMAT);
        assert_non_null(strchr(error.message, ';'));
    }
    /* Any byte may be any other: an error or a working tokenizer, never a crash. */
    char *damaged = malloc(model.length);
    unsigned random = 1;
    for (int i = 0; i < 500; i++) {
        memcpy(damaged, model.bytes, model.length);
        for (int j = 0; j < 1 + i % 4; j++) {
            random = random * 1664525u + 1013904223u;
            damaged[(random >> 8) % model.length] = (char)(random >> 3);
        }
        int status = open_bytes((StringView){damaged, model.length}, &error);
        assert_true(status == 0 || status == ERROR_FORMAT);
    }
    free(damaged);
    assert_int_equal(open_bytes(sv("GGUF\3 this is not a SentencePiece model"), &error), ERROR_FORMAT);
    Tokenizer *tokenizer;
    assert_int_equal(tokenizer_open_file(&tokenizer, "/nonexistent/tok.model", &error), ERROR_IO);
    assert_int_equal(tokenizer_open_file(&tokenizer, data, &error), ERROR_IO);
    assert_non_null(strstr(error.message, "is a directory"));
    free((char *)model.bytes);
}

static void test_model_file_rules(void **state) {
    (void)state;
    const char *data = data_directory();
    if (data == NULL)
        skip();
    char *path = join_path(data, "tok512.model");
    Tokenizer *tokenizer;
    Error error = {0};
    assert_int_equal(tokenizer_open_file(&tokenizer, path, &error), 0);
    assert_int_equal(tokenizer_n_tokens(tokenizer), 512);
    assert_int_equal(tokenizer_bos(tokenizer), 1);
    assert_int_equal(tokenizer_eos(tokenizer), 2);
    assert_true(tokenizer_adds_bos(tokenizer));
    assert_true(tokenizer_is_end(tokenizer, 1) && tokenizer_is_end(tokenizer, 2) && !tokenizer_is_end(tokenizer, 300));
    /* The dummy prefix space is left out where a text starts, and only there. */
    TokenList tokens = {0};
    assert_int_equal(tokenizer_encode(tokenizer, sv("Once"), 0, &tokens, &error), 0);
    const int32_t bos = 1;
    TextStream stream = text_stream_start(tokenizer, &bos, 1);
    assert_memory_equal(text_stream_next(&stream, tokens.ids[0], &error).bytes, "O", 1);
    text_stream_free(&stream);
    stream = text_stream_start(tokenizer, tokens.ids, tokens.count);
    assert_memory_equal(text_stream_next(&stream, tokens.ids[0], &error).bytes, " O", 2);
    text_stream_free(&stream);
    token_list_free(&tokens);
    tokenizer_free(tokenizer);
    free(path);
}

static void expect_part(TextStream *stream, int32_t id, const char *text) {
    Error error = {0};
    StringView part = text_stream_next(stream, id, &error);
    if (!sv_is(part, text))
        fail_msg("token %d completes '%.*s', expected '%s'", id, SV_ARGS(part), text);
}

/* Byte tokens of a SentencePiece vocabulary are ids 3 to 258 in tok512: half characters wait, broken ones become
 * U+FFFD. */
static void test_stream_holds_characters(void **state) {
    (void)state;
    const char *directory = fixture_directory();
    if (directory == NULL)
        skip();
    VocabularyFixture *fixture = vocabulary_fixture_open(directory, "tok512.vocabulary.json");
    Tokenizer *tokenizer = open_or_fail(&fixture->vocabulary);
    TextStream stream = text_stream_start(tokenizer, NULL, 0);
    expect_part(&stream, 3 + 0xF0, "");
    expect_part(&stream, 3 + 0x9F, "");
    expect_part(&stream, 3 + 0x98, "");
    expect_part(&stream, 3 + 0x80, "\xF0\x9F\x98\x80");
    expect_part(&stream, 3 + 0xE2, "");
    expect_part(&stream, 2, ""); /* control tokens have no text */
    expect_part(&stream, 3 + 0x82, "");
    expect_part(&stream, 3 + 0x41, UTF8_REPLACEMENT "A");
    expect_part(&stream, 3 + 0x80, UTF8_REPLACEMENT);
    expect_part(&stream, 3 + 0xFF, UTF8_REPLACEMENT);
    expect_part(&stream, 3 + 0xC3, "");
    expect_part(&stream, 3 + 0xC3, UTF8_REPLACEMENT);
    expect_part(&stream, 3 + 0xA9, "\xC3\xA9");
    expect_part(&stream, 1 << 20, "");
    expect_part(&stream, 3 + 0xE2, "");
    assert_true(sv_is(text_stream_finish(&stream), UTF8_REPLACEMENT));
    assert_true(sv_is(text_stream_finish(&stream), ""));
    text_stream_free(&stream);
    tokenizer_free(tokenizer);
    vocabulary_fixture_free(fixture);
}

/* One word of a megabyte, and no byte lost. In O(n²) steps the first of them would last until ctest ends the test. */
static void test_long_words(void **state) {
    (void)state;
    const char *names[] = {"gpt-2", "llama-bpe", "smollm", "qwen2"};
    const char *units[] = {"abc", "ab", " ", "1", "!", "\r\n", "\xE4\xBD\xA0"};
    enum { SIZE = 1 << 20 };
    char *text = malloc(SIZE);
    Tiny tiny;
    tiny_start(&tiny);
    for (size_t i = 0; i < 4; i++) {
        tiny.vocabulary.pre_tokenizer = sv(names[i]);
        Tokenizer *tokenizer = open_or_fail(&tiny.vocabulary);
        for (size_t j = 0; j < sizeof units / sizeof *units; j++) {
            size_t unit = strlen(units[j]), length = SIZE / unit * unit;
            for (size_t at = 0; at < length; at += unit)
                memcpy(text + at, units[j], unit);
            TokenList tokens = {0};
            Error error = {0};
            if (tokenizer_encode(tokenizer, (StringView){text, length}, 0, &tokens, &error) < 0)
                fail_msg("%s: '%s': %s", names[i], units[j], error.message);
            if ((unsigned char)units[j][0] < 0x80 && units[j][0] != '\r') {
                StringView back = stream_all(tokenizer, &tokens);
                assert_true(sv_equal(back, (StringView){text, length}));
                free((char *)back.bytes);
            }
            token_list_free(&tokens);
        }
        tokenizer_free(tokenizer);
    }
    free(text);
}

static void test_utf8(void **state) {
    (void)state;
    char out[64];
    const struct {
        const char *bytes, *repaired;
    } cases[] = {
        {"\xE2\x82", UTF8_REPLACEMENT},
        {"\xE2\x82z", UTF8_REPLACEMENT "z"},
        {"\xED\xA0\x80", UTF8_REPLACEMENT UTF8_REPLACEMENT UTF8_REPLACEMENT},
        {"\xF0\x9F\x98", UTF8_REPLACEMENT},
        {"\xC0\xAF", UTF8_REPLACEMENT UTF8_REPLACEMENT},
        {"\xF4\x90\x80\x80", UTF8_REPLACEMENT UTF8_REPLACEMENT UTF8_REPLACEMENT UTF8_REPLACEMENT},
        {"\xF4\x8F\xBF\xBF", "\xF4\x8F\xBF\xBF"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        StringView repaired = {out, utf8_repair(sv(cases[i].bytes), out)};
        assert_true(sv_is(repaired, cases[i].repaired));
    }
    /* Every code point but the surrogates is a character, and without its last byte the start of one. */
    for (int32_t code_point = 0; code_point < 0x110000; code_point++) {
        size_t n = (size_t)utf8proc_encode_char(code_point, (utf8proc_uint8_t *)out), length;
        bool surrogate = code_point >= 0xD800 && code_point < 0xE000;
        assert_int_equal(utf8_scan(out, n, &length), surrogate ? UTF8_INVALID : UTF8_VALID);
        if (surrogate)
            continue;
        assert_int_equal(length, n);
        if (n > 1)
            assert_int_equal(utf8_scan(out, n - 1, &length), UTF8_INCOMPLETE);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_utf8),
        cmocka_unit_test(test_merge_order),
        cmocka_unit_test(test_special_tokens),
        cmocka_unit_test(test_bos_and_ends),
        cmocka_unit_test(test_empty_prompt),
        cmocka_unit_test(test_names_of_ends),
        cmocka_unit_test(test_named_ends),
        cmocka_unit_test(test_damaged_vocabularies),
        cmocka_unit_test(test_damaged_sentencepiece_vocabularies),
        cmocka_unit_test(test_damaged_model_files),
        cmocka_unit_test(test_model_file_rules),
        cmocka_unit_test(test_stream_holds_characters),
        cmocka_unit_test(test_long_words),
        cmocka_unit_test(test_gpt2_cases),
        cmocka_unit_test(test_smollm_cases),
        cmocka_unit_test(test_llama3_cases),
        cmocka_unit_test(test_qwen2_cases),
        cmocka_unit_test(test_cases_of_other_patterns),
        cmocka_unit_test(test_names_of_pre_tokenizers),
        cmocka_unit_test(test_guesses),
        cmocka_unit_test(test_no_merges),
        cmocka_unit_test(test_sentencepiece_file_cases),
        cmocka_unit_test(test_sentencepiece_rebuilt_cases),
        cmocka_unit_test(test_smollm2_cases),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

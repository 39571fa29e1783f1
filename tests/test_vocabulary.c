/* Vocabularies in memory: the order of merges, special tokens, BOS and ends, and what is said about damaged ones. */
#include "session/prompt.h"
#include "tests/compared_bytes.h"
#include "tests/tiny_vocabulary.h"
#include "tests/vocabulary_fixture.h"
#include "tokenizer/sentencepiece_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

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
        {"</s>", TOKEN_USER_DEFINED, false},
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

static Vocabulary sentencepiece_vocabulary(const StringView *tokens, const float *scores, const int32_t *types,
                                           size_t n_tokens) {
    Vocabulary vocabulary = vocabulary_empty(VOCABULARY_SENTENCEPIECE);
    vocabulary.n_tokens = n_tokens;
    vocabulary.tokens = tokens;
    vocabulary.scores = scores;
    vocabulary.types = types;
    return vocabulary;
}

static void test_damaged_sentencepiece_vocabularies(void **state) {
    (void)state;
    StringView tokens[] = {sv("<unk>"),
                           sv("<s>"),
                           sv("</s>"),
                           sv("\xE2\x96\x81"),
                           sv("a"),
                           sv("\xE2\x96\x81"
                              "a"),
                           sv("  "),
                           sv("\xE2\x96\x81\xE2\x96\x81")};
    int32_t types[] = {TOKEN_UNKNOWN, TOKEN_CONTROL, TOKEN_CONTROL,      TOKEN_NORMAL,
                       TOKEN_NORMAL,  TOKEN_NORMAL,  TOKEN_USER_DEFINED, TOKEN_NORMAL};
    float scores[] = {0, 0, 0, -1, -2, -3, 0, -4};
    Vocabulary vocabulary = sentencepiece_vocabulary(tokens, scores, types, 6);
    Tokenizer *tokenizer = open_or_fail(&vocabulary);
    EXPECT_IDS(tokenizer, "a", TOKENIZE_ADD_BOS, 1, 5);
    EXPECT_IDS(tokenizer, "z", 0, 3, 0); /* no byte tokens: unknown */
    assert_int_equal(tokenizer_eos(tokenizer), 2);
    tokenizer_free(tokenizer);

    vocabulary.add_space_prefix = 0;
    tokenizer = open_or_fail(&vocabulary);
    EXPECT_IDS(tokenizer, "a a", 0, 4, 5);
    EXPECT_IDS(tokenizer, "a  a", 0, 4, 3, 5);
    tokenizer_free(tokenizer);

    vocabulary.n_tokens = 7; /* spaces that are a user-defined token are taken before all else, as Gemma has them */
    tokenizer = open_or_fail(&vocabulary);
    EXPECT_IDS(tokenizer, "a  a", 0, 4, 6, 4);
    EXPECT_IDS(tokenizer, "a   a", 0, 4, 6, 5);
    tokenizer_free(tokenizer);
    vocabulary.n_tokens = 8; /* unless another token is SentencePiece's spelling of them */
    tokenizer = open_or_fail(&vocabulary);
    EXPECT_IDS(tokenizer, "a  a", 0, 4, 3, 5);
    tokenizer_free(tokenizer);
    vocabulary.n_tokens = 6;

    vocabulary.scores = NULL;
    expect_refused(&vocabulary, ERROR_FORMAT, "scores");
    vocabulary.scores = scores;
    types[4] = TOKEN_BYTE;
    expect_refused(&vocabulary, ERROR_FORMAT, "byte tokens");
    types[4] = TOKEN_NORMAL;
    tokens[4] = tokens[3];
    expect_refused(&vocabulary, ERROR_FORMAT, "tokens 3 and 4 are both spelled");
    tokens[4] = sv("");
    tokenizer = open_or_fail(&vocabulary); /* padding */
    tokenizer_free(tokenizer);
}

/* As many user-defined tokens with a space as others that one of them could be spelled like: looking at all of those
 * for each would be N * N comparisons. */
static void test_many_user_defined_tokens(void **state) {
    (void)state;
    enum { N = 20000, LENGTH = 16 }; /* of any int */
    char(*texts)[LENGTH] = calloc(2 * N, sizeof *texts);
    StringView *tokens = calloc(2 * N, sizeof *tokens);
    int32_t *types = calloc(2 * N, sizeof *types);
    float *scores = calloc(2 * N, sizeof *scores);
    for (int i = 0; i < N; i++) {
        snprintf(texts[i], LENGTH, "%05d q", i);
        snprintf(texts[N + i], LENGTH, "%05d\xE2\x96\x81%c", i, i % 2 == 0 ? 'q' : 'r');
        types[i] = TOKEN_USER_DEFINED;
        types[N + i] = TOKEN_NORMAL;
    }
    types[2 * N - 1] = TOKEN_UNKNOWN;
    for (int i = 0; i < 2 * N; i++)
        tokens[i] = sv(texts[i]);
    Vocabulary vocabulary = sentencepiece_vocabulary(tokens, scores, types, 2 * N);
    vocabulary.unknown_id = 2 * N - 1;
    uint8_t *kinds = malloc(2 * N);
    for (int i = 0; i < 2 * N; i++)
        kinds[i] = (uint8_t)types[i];
    char *proto;
    size_t size_bytes;
    Error error = {0};
    n_comparisons = 0;
    assert_int_equal(sentencepiece_model_build(&vocabulary, kinds, &proto, &size_bytes, &error), 0);
    assert_in_range(n_comparisons, 1, 16 * N);
    /* What has another token's spelling keeps its own. */
    StringView model = {proto, size_bytes};
    assert_true(sv_find(model, sv("00000 q"), 0) < size_bytes);
    assert_true(sv_find(model, sv("00001 q"), 0) == size_bytes);
    free(proto);
    free(kinds);
    free(scores);
    free(types);
    free(tokens);
    free(texts);
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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_merge_order),
        cmocka_unit_test(test_special_tokens),
        cmocka_unit_test(test_bos_and_ends),
        cmocka_unit_test(test_empty_prompt),
        cmocka_unit_test(test_names_of_ends),
        cmocka_unit_test(test_named_ends),
        cmocka_unit_test(test_damaged_vocabularies),
        cmocka_unit_test(test_damaged_sentencepiece_vocabularies),
        cmocka_unit_test(test_many_user_defined_tokens),
        cmocka_unit_test(test_no_merges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Vocabularies and cases that the fixture maker wrote as JSON, for tests of the tokenizer without a checkpoint reader.
 *
 *     VocabularyFixture *fixture = vocabulary_fixture_open(directory, "small.vocabulary.json");
 *     tokenizer_open_vocabulary(&tokenizer, &fixture->vocabulary, &error);
 *     vocabulary_fixture_free(fixture);                                      // after the tokenizer
 */
#ifndef STOWKV_VOCABULARY_FIXTURE_H
#define STOWKV_VOCABULARY_FIXTURE_H

#include "tokenizer/tokenizer.h"

#include <cjson/cJSON.h>

typedef struct VocabularyFixture {
    Vocabulary vocabulary;
    cJSON *json;
    StringView *tokens, *merges;
    float *scores;
    int32_t *types;
} VocabularyFixture;

/* The directory of the tokenizer's cases, or NULL after a line that says why the test is skipped. */
const char *fixture_directory(void);

/* The directory of the models, likewise. */
const char *data_directory(void);

/* All of these fail the running test where they cannot do what they say. Free with free, cJSON_Delete, and below. */
char *join_path(const char *directory, const char *name);
cJSON *read_json(const char *directory, const char *name);
StringView from_hex(const char *hex); /* the caller frees .bytes */
VocabularyFixture *vocabulary_fixture_open(const char *directory, const char *name);
void vocabulary_fixture_free(VocabularyFixture *fixture);
Tokenizer *open_or_fail(const Vocabulary *vocabulary);

/* `ids`: an array of numbers; `what` begins the message. */
void check_ids(const TokenList *tokens, const cJSON *ids, const char *what);

#endif

/* See tokenizer_settings.h. Of two files that say something the first of SOURCES counts. */
#include "tokenizer/tokenizer_settings.h"

#include "base/json_document.h"
#include "base/text_file.h"
#include "tokenizer/json_fields.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { MAX_TEMPLATE_BYTES = 1 << 20, PATH_BYTES = 4096 };

enum { TOKENIZER_CONFIG, SPECIAL_TOKENS, GENERATION_CONFIG, MODEL_CONFIG, N_SOURCES };

static const char *const SOURCES[N_SOURCES] = {
    [TOKENIZER_CONFIG] = "tokenizer_config.json",
    [SPECIAL_TOKENS] = "special_tokens_map.json",
    [GENERATION_CONFIG] = "generation_config.json",
    [MODEL_CONFIG] = "config.json",
};

typedef struct Settings {
    VocabularyFile *file;
    const char *folder;
    cJSON *documents[N_SOURCES]; /* NULL: not there */
} Settings;

static int path_of(const Settings *settings, const char *name, char *path, Error *error) {
    int length = snprintf(path, PATH_BYTES, "%s%s", settings->folder, name);
    if (length < 0 || length >= PATH_BYTES)
        return error_set(error, ERROR_ARGUMENT, "%s: a path of more than %d bytes; move the folder", name, PATH_BYTES);
    return 0;
}

static int read_documents(Settings *settings, Error *error) {
    for (size_t i = 0; i < N_SOURCES; i++) {
        char path[PATH_BYTES];
        if (path_of(settings, SOURCES[i], path, error) < 0)
            return error->code;
        if (access(path, F_OK) != 0)
            continue;
        settings->documents[i] = json_document_load(path, error);
        if (settings->documents[i] == NULL)
            return error->code;
    }
    return 0;
}

/* ---- BOS and EOS */

static int64_t find_token(const Vocabulary *vocabulary, StringView text) {
    for (size_t id = 0; id < vocabulary->n_tokens; id++)
        if (sv_equal(vocabulary->tokens[id], text))
            return (int64_t)id;
    return -1;
}

/* "bos_token": a text, or an object with its "content". */
static int read_token(const Settings *settings, const char *key, int64_t *id, Error *error) {
    const Vocabulary *vocabulary = &settings->file->vocabulary;
    for (size_t i = TOKENIZER_CONFIG; i <= SPECIAL_TOKENS; i++) {
        const cJSON *item = json_field(settings->documents[i], key);
        const char *text = cJSON_IsString(item) ? item->valuestring : json_text_field(item, "content", NULL);
        if (text == NULL || text[0] == '\0')
            continue;
        *id = find_token(vocabulary, sv(text));
        return *id >= 0 ? 0
                        : error_set(error, ERROR_FORMAT,
                                    "%s%s: %s is '%.64s', which is no token of the tokenizer; use "
                                    "the files that came with the model",
                                    settings->folder, SOURCES[i], key, text);
    }
    return 0;
}

/* The model's files give ids: of one a number, of several a list. Those of a model that reads images too may be a level
 * further down. */
static const cJSON *find_ids(const Settings *settings, const char *key, size_t *source) {
    for (size_t i = GENERATION_CONFIG; i <= MODEL_CONFIG; i++) {
        const cJSON *document = settings->documents[i], *item = json_field(document, key);
        *source = i;
        if (item == NULL)
            item = json_field(json_field(document, "text_config"), key);
        if (item != NULL)
            return item;
    }
    return NULL;
}

static int read_id(const Settings *settings, const cJSON *number, const char *key, size_t source, int64_t *id,
                   Error *error) {
    size_t whole;
    if (!json_whole_number(number, &whole))
        return error_set(error, ERROR_FORMAT, "%s%s: %s is no token's id; use the files that came with the model",
                         settings->folder, SOURCES[source], key);
    *id = (int64_t)whole;
    return 0;
}

/* Of BOS the id that the model's files give counts only where no token is named. */
static int read_bos(const Settings *settings, Error *error) {
    Vocabulary *vocabulary = &settings->file->vocabulary;
    size_t source;
    const cJSON *number = find_ids(settings, "bos_token_id", &source);
    if (vocabulary->kind == VOCABULARY_MODEL_FILE)
        return 0;
    if (read_token(settings, "bos_token", &vocabulary->bos_id, error) < 0 ||
        read_token(settings, "eos_token", &vocabulary->eos_id, error) < 0)
        return error->code;
    if (vocabulary->bos_id < 0 && number != NULL && !cJSON_IsArray(number))
        return read_id(settings, number, "bos_token_id", source, &vocabulary->bos_id, error);
    return 0;
}

static void read_rules(const Settings *settings) {
    Vocabulary *vocabulary = &settings->file->vocabulary;
    const cJSON *config = settings->documents[TOKENIZER_CONFIG];
    if (json_field(config, "add_bos_token") != NULL)
        vocabulary->add_bos = json_truth_field(config, "add_bos_token", vocabulary->add_bos == 1);
    if (json_field(config, "add_eos_token") != NULL)
        vocabulary->add_eos = json_truth_field(config, "add_eos_token", vocabulary->add_eos == 1);
}

static int read_ends(const Settings *settings, Error *error) {
    Vocabulary *vocabulary = &settings->file->vocabulary;
    size_t source, n = 0;
    const cJSON *ids = find_ids(settings, "eos_token_id", &source);
    if (ids == NULL)
        return 0;
    int count = cJSON_IsArray(ids) ? cJSON_GetArraySize(ids) : 1;
    int64_t *ends = vocabulary_allocate(settings->file, (size_t)count, sizeof *ends, error);
    if (ends == NULL)
        return error->code;
    for (const cJSON *id = cJSON_IsArray(ids) ? ids->child : ids; id != NULL; id = cJSON_IsArray(ids) ? id->next : NULL)
        if (read_id(settings, id, "eos_token_id", source, &ends[n++], error) < 0)
            return error->code;
    vocabulary->end_ids = ends;
    vocabulary->n_end_ids = n;
    return 0;
}

/* ---- The chat template */

/* A text, or the one called "default" of several. */
static const char *template_in(const cJSON *config) {
    const cJSON *item = json_field(config, "chat_template");
    if (cJSON_IsString(item))
        return item->valuestring;
    for (const cJSON *named = cJSON_IsArray(item) ? item->child : NULL; named != NULL; named = named->next)
        if (json_text_is(named, "name", "default"))
            return json_text_field(named, "template", NULL);
    return NULL;
}

static int keep_template(const Settings *settings, StringView text, Error *error) {
    char *copy = vocabulary_allocate(settings->file, text.length + 1, 1, error);
    if (copy == NULL)
        return error->code;
    if (text.length > 0)
        memcpy(copy, text.bytes, text.length);
    settings->file->vocabulary.chat_template = (StringView){copy, text.length};
    return 0;
}

static int read_template(const Settings *settings, Error *error) {
    const char *text = template_in(settings->documents[TOKENIZER_CONFIG]);
    char path[PATH_BYTES];
    if (path_of(settings, "chat_template.jinja", path, error) < 0)
        return error->code;
    if (access(path, F_OK) != 0)
        return text != NULL ? keep_template(settings, sv(text), error) : 0;
    TextFile file;
    int status = text_file_read(&file, path, MAX_TEMPLATE_BYTES, error);
    if (status == 0) {
        text_file_clean(&file);
        status = keep_template(settings, file.text, error);
    }
    text_file_free(&file);
    return status;
}

int tokenizer_settings_read(VocabularyFile *file, const char *folder, Error *error) {
    Settings settings = {.file = file, .folder = folder};
    int status = read_documents(&settings, error);
    if (status == 0)
        status = read_bos(&settings, error);
    if (status == 0) {
        read_rules(&settings);
        status = read_ends(&settings, error);
    }
    if (status == 0)
        status = read_template(&settings, error);
    for (size_t i = 0; i < N_SOURCES; i++)
        cJSON_Delete(settings.documents[i]);
    return status;
}

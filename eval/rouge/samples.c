/* See samples.h. */
#include "eval/rouge/samples.h"

#include "base/array.h"
#include "base/checked.h"

#include <stdlib.h>

/* A template around its article. */
typedef struct Frame {
    StringView before, after;
} Frame;

/* How often `mark` stands in the template; the frame around the last one. */
static size_t find_marks(StringView text, const char *mark, Frame *frame) {
    size_t count = 0, length = strlen(mark);
    for (size_t at = sv_find(text, sv(mark), 0); at < text.length; at = sv_find(text, sv(mark), at + length)) {
        count++;
        frame->before = (StringView){text.bytes, at};
        frame->after = (StringView){text.bytes + at + length, text.length - at - length};
    }
    return count;
}

static int split_template(const char *prompt_template, const char *field, Frame *frame, Error *error) {
    size_t size = strlen(field) + 3;
    char *named = malloc(size);
    if (named == NULL)
        return error_memory(error, "a field's name", size);
    snprintf(named, size, "{%s}", field);
    size_t count = find_marks(sv(prompt_template), "{}", frame);
    if (field[0] != '\0')
        count += find_marks(sv(prompt_template), named, frame);
    free(named);
    if (count == 1)
        return 0;
    return error_set(error, ERROR_USAGE, "--prompt_template: has {} or {%.40s} %s; put it once, where the text goes",
                     field, count == 0 ? "nowhere" : "more than once");
}

int rouge_template_check(const char *prompt_template, const char *prompt_field, Error *error) {
    Frame frame;
    return split_template(prompt_template, prompt_field, &frame, error);
}

/* What reading carries from record to record. */
typedef struct Reading {
    const Session *session;
    const ChatTemplate *chat;
    const RougeData *data;
    Frame frame;
    char *text; /* of a prompt */
    size_t capacity;
} Reading;

/* Replaces `tokens` by those of the prompt with this article. */
static int encode(Reading *reading, StringView article, TokenList *tokens, Error *error) {
    StringView parts[] = {reading->frame.before, article, reading->frame.after};
    size_t size = 1, length = 0;
    bool fits = true;
    for (int i = 0; i < 3; i++)
        fits = fits && checked_add(size, parts[i].length, &size);
    if (!fits || size > reading->capacity) {
        char *grown = fits ? realloc(reading->text, size) : NULL;
        if (grown == NULL)
            return error_memory(error, "a prompt", size);
        reading->text = grown;
        reading->capacity = size;
    }
    for (int i = 0; i < 3; i++) {
        memcpy(reading->text + length, parts[i].bytes, parts[i].length);
        length += parts[i].length;
    }
    tokens->count = 0;
    PromptOptions options = {.chat = reading->chat};
    return prompt_encode(reading->session, &options, (StringView){reading->text, length}, tokens, error);
}

static size_t character_begin(StringView text, size_t at) {
    while (at > 0 && at < text.length && ((unsigned char)text.bytes[at] & 0xC0) == 0x80)
        at--;
    return at;
}

/* Bisects for the article's length: `fits` bytes fit, `too_long` bytes do not. A tokenizer may need fewer tokens for a
 * longer text here and there; then this finds one of the lengths that fit. */
static int cut_article(Reading *reading, StringView article, TokenList *tokens, Error *error) {
    size_t fits = 0, too_long = article.length, limit = reading->data->n_prompt_max;
    if (encode(reading, (StringView){article.bytes, 0}, tokens, error) < 0)
        return error->code;
    if (tokens->count > limit)
        return error_set(error, ERROR_ARGUMENT,
                         "the prompt has %zu tokens without its article, and there is room for %zu; use a shorter "
                         "--prompt_template, a larger --n_ctx or a smaller --max_new_tokens",
                         tokens->count, limit);
    for (;;) {
        size_t middle = character_begin(article, fits + (too_long - fits) / 2);
        if (middle <= fits)
            break;
        if (encode(reading, (StringView){article.bytes, middle}, tokens, error) < 0)
            return error->code;
        if (tokens->count <= limit)
            fits = middle;
        else
            too_long = middle;
    }
    return encode(reading, (StringView){article.bytes, fits}, tokens, error);
}

static int add_sample(RougeSamples *samples, RougeSample *sample, Error *error) {
    RougeSample *items = array_for_one_more(samples->items, samples->count, sizeof *items, "samples", error);
    if (items == NULL)
        return ERROR_MEMORY;
    samples->items = items;
    samples->n_cut += sample->n_cut > 0;
    samples->n_tokens_cut += sample->n_cut;
    samples->items[samples->count++] = *sample;
    *sample = (RougeSample){0};
    return 0;
}

static void free_sample(RougeSample *sample) {
    cJSON_Delete(sample->references);
    token_list_free(&sample->prompt);
}

/* Turns the record at hand into a sample. */
static int read_record(Reading *reading, JsonlReader *reader, RougeSamples *samples, Error *error) {
    const RougeData *data = reading->data;
    RougeSample sample = {.line = reader->number};
    StringView article;
    cJSON *references;
    if (jsonl_text(reader, data->prompt_field, &article, error) < 0 ||
        jsonl_texts(reader, data->reference_field, &references, error) < 0)
        return jsonl_settle(reader, error);
    int status = encode(reading, article, &sample.prompt, error);
    size_t n_whole = sample.prompt.count;
    bool too_long = status == 0 && n_whole > data->n_prompt_max;
    if (too_long && data->skip_long) {
        samples->n_too_long++;
    } else if (status == 0) {
        if (too_long)
            status = cut_article(reading, article, &sample.prompt, error);
        sample.n_cut = n_whole - sample.prompt.count;
        sample.references = cJSON_Duplicate(references, true);
        if (sample.references == NULL)
            status = error_memory(error, "a reference", 0);
        if (status == 0)
            status = add_sample(samples, &sample, error);
    }
    free_sample(&sample);
    return status;
}

static int read_records(Reading *reading, JsonlReader *reader, RougeSamples *samples, Error *error) {
    const RougeData *data = reading->data;
    int status = 0;
    while ((data->n_samples == 0 || samples->count < data->n_samples) && (status = jsonl_next(reader, error)) > 0) {
        if (data->interrupted != NULL && *data->interrupted)
            return error_set(error, ERROR_INTERRUPTED, "interrupted");
        if ((status = read_record(reading, reader, samples, error)) < 0)
            break;
    }
    samples->n_bad = reader->n_bad;
    if (status == 0 && samples->count == 0)
        return error_set(error, ERROR_FORMAT,
                         "%s: has no record to use (%zu bad lines, %zu prompts too long); name a "
                         "file of JSON objects, one a line",
                         reader->path, samples->n_bad, samples->n_too_long);
    return status < 0 ? status : 0;
}

int rouge_samples_read(RougeSamples *samples, const Session *session, const ChatTemplate *chat, const RougeData *data,
                       Error *error) {
    Reading reading = {.session = session, .chat = chat, .data = data};
    JsonlReader reader;
    *samples = (RougeSamples){0};
    if (split_template(data->prompt_template, data->prompt_field, &reading.frame, error) < 0 ||
        jsonl_open(&reader, data->path, error) < 0)
        return error->code;
    reader.notes = data->skip_bad_lines ? stderr : NULL;
    int status = read_records(&reading, &reader, samples, error);
    jsonl_close(&reader);
    free(reading.text);
    return status;
}

void rouge_samples_free(RougeSamples *samples) {
    for (size_t i = 0; i < samples->count; i++)
        free_sample(&samples->items[i]);
    free(samples->items);
    *samples = (RougeSamples){0};
}

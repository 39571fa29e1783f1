/* See chat_template.h. */
#include "session/chat_template.h"

#include "base/text_file.h"
#include "jinja/jinja.h"
#include "session/named_templates.h"
#include "tokenizer/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { MAX_FILE_BYTES = 1 << 20 };

struct ChatTemplate {
    JinjaTemplate *jinja;
    const NamedTemplate *named; /* NULL: a file's or the checkpoint's */
    struct tm date;
    char name[256];
};

/* --- opening -------------------------------------------------------------------------------------------------------
 */

static int read_date(const char *text, struct tm *date, Error *error) {
    time_t now = time(NULL);
    int year, month, day, end = 0;
    localtime_r(&now, date);
    if (text == NULL)
        return 0;
    bool read = sscanf(text, "%4d-%2d-%2d%n", &year, &month, &day, &end) == 3 && end == 10 && text[end] == '\0';
    struct tm given = {.tm_year = year - 1900, .tm_mon = month - 1, .tm_mday = day, .tm_hour = 12, .tm_isdst = -1};
    *date = given;
    if (!read || mktime(date) == (time_t)-1 || date->tm_mon != given.tm_mon || date->tm_mday != given.tm_mday)
        return error_set(error, ERROR_USAGE, "--date %s: is no day; give it as YYYY-MM-DD", text);
    return 0;
}

static int open_file(ChatTemplate *chat, const char *path, Error *error) {
    TextFile file;
    if (strcmp(path, "-") != 0 && access(path, F_OK) != 0)
        return error_set(error, ERROR_USAGE, "--chat_template %s: unknown; name a file, or one of %s", path,
                         named_template_names());
    int status = text_file_read(&file, path, MAX_FILE_BYTES, error);
    if (status == 0) {
        text_file_clean(&file);
        status = jinja_parse(&chat->jinja, file.text, error);
    }
    text_file_free(&file);
    return status;
}

static int open_template(ChatTemplate *chat, const Vocabulary *vocabulary, const char *name, Error *error) {
    snprintf(chat->name, sizeof chat->name, "%s", name != NULL ? name : "checkpoint");
    chat->named = name != NULL ? named_template(name) : NULL;
    if (chat->named != NULL)
        return jinja_parse(&chat->jinja, sv(chat->named->jinja), error);
    if (name != NULL)
        return open_file(chat, name, error);
    if (vocabulary->chat_template.length == 0)
        return error_set(error, ERROR_UNSUPPORTED,
                         "the checkpoint has no chat template; name one with --chat_template (%s, or a file)",
                         named_template_names());
    return jinja_parse(&chat->jinja, vocabulary->chat_template, error);
}

int chat_template_open(ChatTemplate **out, const Vocabulary *vocabulary, const char *name, const char *date,
                       Error *error) {
    ChatTemplate *chat = *out = calloc(1, sizeof *chat);
    if (chat == NULL)
        return error_memory(error, "a chat template", sizeof *chat);
    if (read_date(date, &chat->date, error) == 0 && open_template(chat, vocabulary, name, error) == 0)
        return 0;
    chat_template_free(chat);
    *out = NULL;
    return error->code;
}

void chat_template_free(ChatTemplate *chat) {
    if (chat != NULL)
        jinja_template_free(chat->jinja);
    free(chat);
}

int chat_template_choose(ChatTemplate **out, const Vocabulary *vocabulary, const char *name, const char *date,
                         Error *error) {
    *out = NULL;
    if (name != NULL ? strcmp(name, "none") == 0 : vocabulary->chat_template.length == 0)
        return 0;
    return chat_template_open(out, vocabulary, name, date, error);
}

const char *chat_template_name(const ChatTemplate *chat) {
    return chat->name;
}

/* --- rendering -----------------------------------------------------------------------------------------------------
 */

static StringView spelling(const Tokenizer *tokenizer, int32_t id) {
    return id >= 0 ? tokenizer_token(tokenizer, id) : (StringView){NULL, 0};
}

static int check_vocabulary(const ChatTemplate *chat, const Tokenizer *tokenizer, Error *error) {
    const NamedTemplate *named = chat->named;
    const char *missing = NULL;
    if (named == NULL)
        return 0;
    for (int i = 0; i < 3 && named->required[i] != NULL; i++)
        if (tokenizer_special(tokenizer, sv(named->required[i])) < 0)
            missing = named->required[i];
    if (tokenizer_bos(tokenizer) < 0 && strstr(named->jinja, "bos_token") != NULL)
        missing = "BOS";
    if (tokenizer_eos(tokenizer) < 0 && strstr(named->jinja, "eos_token") != NULL)
        missing = "EOS";
    if (missing == NULL)
        return 0;
    return error_set(error, ERROR_UNSUPPORTED,
                     "chat template %s needs the special token %s, which the vocabulary does not have; choose another "
                     "template or run without --chat",
                     chat->name, missing);
}

/* A message as Jinja takes it: valid UTF-8. *owned is freed by the caller. */
static int read_message(const ChatMessage *message, JinjaMessage *out, char **owned, Error *error) {
    static const char *const ROLES[] = {[CHAT_SYSTEM] = "system", [CHAT_USER] = "user", [CHAT_ASSISTANT] = "assistant"};
    StringView content = message->content.length > 0 ? message->content : sv("");
    *out = (JinjaMessage){sv(ROLES[message->role]), content};
    if (utf8_is_valid(content))
        return 0;
    if (content.length > SIZE_MAX / 3 || (*owned = malloc(3 * content.length)) == NULL)
        return error_memory(error, "a message", 3ull * content.length);
    out->content = (StringView){*owned, utf8_repair(content, *owned)};
    return 0;
}

/* Whether there is text in the messages and none of it in the rendering: then the template is none for chats. */
static bool leaves_out(const JinjaInput *input, const JinjaOutput *text) {
    bool any = false;
    for (size_t i = 0; i < input->n_messages; i++)
        for (size_t at = 0, length; at < input->messages[i].content.length && !any; at += length) {
            StringView content = input->messages[i].content;
            any = !utf8_starts_with_space((StringView){content.bytes + at, content.length - at}, &length);
        }
    return any && memchr(text->from_message, 1, text->length) == NULL;
}

static int render(const ChatTemplate *chat, const Tokenizer *tokenizer, const ChatMessage *messages, size_t n_messages,
                  JinjaOutput *out, Error *error) {
    if (n_messages == 0)
        return error_set(error, ERROR_ARGUMENT, "a conversation without messages; give a prompt");
    JinjaMessage *read = calloc(n_messages, sizeof *read);
    char **owned = calloc(n_messages, sizeof *owned);
    int status = read == NULL || owned == NULL ? error_memory(error, "a conversation", n_messages) : 0;
    if (status == 0)
        status = check_vocabulary(chat, tokenizer, error);
    for (size_t i = 0; i < n_messages && status == 0; i++)
        status = read_message(&messages[i], &read[i], &owned[i], error);
    JinjaInput input = {.messages = read,
                        .n_messages = n_messages,
                        .add_generation_prompt = true,
                        .bos_token = spelling(tokenizer, tokenizer_bos(tokenizer)),
                        .eos_token = spelling(tokenizer, tokenizer_eos(tokenizer)),
                        .date = chat->date};
    if (status == 0)
        status = jinja_render(chat->jinja, &input, out, error);
    if (status == 0 && leaves_out(&input, out)) {
        jinja_output_free(out);
        status = error_set(error, ERROR_FORMAT,
                           "chat template %s leaves out what the messages say; choose another with --chat_template",
                           chat->name);
    }
    for (size_t i = 0; owned != NULL && i < n_messages; i++)
        free(owned[i]);
    free(owned);
    free(read);
    return status;
}

static int encode_from(const Tokenizer *tokenizer, const JinjaOutput *text, size_t begin, TokenList *out,
                       Error *error) {
    return tokenizer_encode_marked(tokenizer, (StringView){text->bytes, text->length}, text->from_message, begin, out,
                                   error);
}

int chat_encode(const ChatTemplate *chat, const Tokenizer *tokenizer, const ChatMessage *messages, size_t n_messages,
                TokenList *out, Error *error) {
    JinjaOutput text = {0};
    int status = render(chat, tokenizer, messages, n_messages, &text, error);
    if (status == 0)
        status = encode_from(tokenizer, &text, 0, out, error);
    jinja_output_free(&text);
    return status;
}

/* --- conversations that go on --------------------------------------------------------------------------------------
 */

static bool begins_with(const TokenList *ids, const TokenList *first) {
    return first->count <= ids->count &&
           (first->count == 0 || memcmp(ids->ids, first->ids, first->count * sizeof *ids->ids) == 0);
}

/* Where `whole` goes on behind the text of what was read before, `earlier`, and the answer to it; 0: nowhere. */
static size_t find_rest(const JinjaOutput *whole, const JinjaOutput *earlier, StringView answer) {
    StringView all = {whole->bytes, whole->length}, before = {earlier->bytes, earlier->length};
    if (!sv_starts_with(all, before))
        return 0;
    StringView behind = {all.bytes + before.length, all.length - before.length};
    return sv_starts_with(behind, answer) ? before.length + answer.length : 0;
}

int chat_encode_next(const ChatTemplate *chat, const Tokenizer *tokenizer, const ChatMessage *messages,
                     size_t n_messages, const TokenList *seen, bool *rewrites, TokenList *out, Error *error) {
    JinjaOutput whole = {0}, earlier = {0};
    TokenList ids = {0};
    Error ignored;
    size_t from = 0, rest = 0;
    int status = render(chat, tokenizer, messages, n_messages, &whole, error);
    if (status == 0)
        status = encode_from(tokenizer, &whole, 0, &ids, error);
    bool goes_on = status == 0 && seen != NULL && begins_with(&ids, seen);
    if (goes_on)
        from = seen->count;
    /* A template may refuse a conversation that ends otherwise than this one: then there is nothing to compare. */
    else if (status == 0 && seen != NULL && n_messages >= 3 &&
             render(chat, tokenizer, messages, n_messages - 2, &earlier, &ignored) == 0)
        rest = find_rest(&whole, &earlier, messages[n_messages - 2].content);
    *rewrites = !goes_on && rest == 0;
    if (rest > 0)
        status = encode_from(tokenizer, &whole, rest, out, error);
    else
        for (size_t i = from; i < ids.count && status == 0; i++)
            status = token_list_append(out, ids.ids[i], error);
    token_list_free(&ids);
    jinja_output_free(&earlier);
    jinja_output_free(&whole);
    return status;
}

/* The table of chat templates and the renderer that reads it; see chat_template.h. A conversation is rendered into runs
 * of text between special tokens. Markup and message text that touch are one run, so that the ids are those of the
 * rendered string; special tokens come from markup alone. */
#include "tokenizer/chat_template.h"
#include "tokenizer/utf8.h"

#include <stdlib.h>

enum { MAX_MARKS = 4 };

/* In markup, {bos} and {eos} are the vocabulary's BOS and EOS, whatever their spelling. */
struct ChatTemplate {
    const char *name;
    const char *marks[MAX_MARKS];    /* recognised by: all of these in the Jinja text … */
    const char *absent[MAX_MARKS];   /* … and none of these */
    const char *required[MAX_MARKS]; /* special tokens that the vocabulary must have */
    const char *optional[MAX_MARKS]; /* markup that is a special token where the vocabulary has it, text elsewhere */
    const char *start;               /* before the first message */
    const char *user_turn;           /* before each user message, and before a system message inside it */
    const char *before[3];           /* by ChatRole: before a message's text … */
    const char *after[3];            /* … and after it; an answer's is followed by `end` and `tail` */
    const char *end;                 /* what the model generates to end its answer */
    const char *tail;                /* what the template puts after that */
    const char *answer;              /* before the answer to generate */
    bool trims;                      /* message text is stripped of white space at both ends */
    bool system_in_user;             /* the system message is part of the first user message, and turns alternate */
};

#define LLAMA3_HEADER(role) "<|start_header_id|>" role "<|end_header_id|>\n\n"

static const ChatTemplate templates[] = {
    {
        .name = "chatml",
        .marks = {"<|im_start|>", "<|im_end|>"},
        .required = {"<|im_start|>", "<|im_end|>"},
        .start = "",
        .user_turn = "",
        .before = {"<|im_start|>system\n", "<|im_start|>user\n", "<|im_start|>assistant\n"},
        .after = {"<|im_end|>\n", "<|im_end|>\n", ""},
        .end = "<|im_end|>",
        .tail = "\n",
        .answer = "<|im_start|>assistant\n",
    },
    {
        .name = "llama2",
        .marks = {"[INST]", "<<SYS>>"},
        .start = "",
        .user_turn = "{bos}[INST] ",
        .before = {"<<SYS>>\n", "", " "},
        .after = {"\n<</SYS>>\n\n", " [/INST]", " "},
        .end = "{eos}",
        .tail = "",
        .answer = "",
        .trims = true,
        .system_in_user = true,
    },
    {
        .name = "llama3",
        .marks = {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"},
        .required = {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"},
        .start = "{bos}",
        .user_turn = "",
        .before = {LLAMA3_HEADER("system"), LLAMA3_HEADER("user"), LLAMA3_HEADER("assistant")},
        .after = {"<|eot_id|>", "<|eot_id|>", ""},
        .end = "<|eot_id|>",
        .tail = "",
        .answer = LLAMA3_HEADER("assistant"),
        .trims = true,
    },
    /* chat_template.h says which model has which of Mistral's three forms. */
    {
        .name = "mistral",
        .marks = {"[INST] ", " [/INST]"},
        .absent = {"<<SYS>>", " [INST]", "[SYSTEM_PROMPT]"},
        .optional = {"[INST]", "[/INST]"},
        .start = "{bos}",
        .user_turn = "[INST] ",
        .before = {"", "", ""},
        .after = {"\n\n", " [/INST]", ""},
        .end = "{eos}",
        .tail = "",
        .answer = "",
        .system_in_user = true,
    },
    {
        .name = "mistral-v2",
        .marks = {" [INST] ", " [/INST]"},
        .absent = {"<<SYS>>", "[SYSTEM_PROMPT]"},
        .optional = {"[INST]", "[/INST]"},
        .start = "{bos}",
        .user_turn = " [INST] ",
        .before = {"", "", " "},
        .after = {"\n\n", " [/INST]", ""},
        .end = "{eos}",
        .tail = "",
        .answer = "",
        .system_in_user = true,
    },
    {
        .name = "mistral-v3",
        .marks = {"[INST] ", "[/INST]"},
        .absent = {"<<SYS>>", " [INST]", " [/INST]", "[SYSTEM_PROMPT]"},
        .optional = {"[INST]", "[/INST]"},
        .start = "{bos}",
        .user_turn = "[INST] ",
        .before = {"", "", " "},
        .after = {"\n\n", "[/INST]", ""},
        .end = "{eos}",
        .tail = "",
        .answer = "",
        .system_in_user = true,
    },
    {
        .name = "zephyr",
        .marks = {"<|user|>", "<|assistant|>", "eos_token"},
        .absent = {"<|end|>"},
        .optional = {"<|system|>", "<|user|>", "<|assistant|>"},
        .start = "",
        .user_turn = "",
        .before = {"<|system|>\n", "<|user|>\n", "<|assistant|>\n"},
        .after = {"{eos}\n", "{eos}\n", ""},
        .end = "{eos}",
        .tail = "\n",
        .answer = "<|assistant|>\n",
    },
};

enum { N_TEMPLATES = sizeof templates / sizeof templates[0] };

static bool contains(StringView text, const char *part) {
    return part != NULL && sv_find(text, sv(part), 0) < text.length;
}

static bool is_form_of(StringView jinja, const ChatTemplate *chat) {
    for (int i = 0; i < MAX_MARKS; i++)
        if ((chat->marks[i] != NULL && !contains(jinja, chat->marks[i])) || contains(jinja, chat->absent[i]))
            return false;
    return true;
}

const ChatTemplate *chat_template_recognise(StringView jinja) {
    for (int i = 0; i < N_TEMPLATES; i++)
        if (is_form_of(jinja, &templates[i]))
            return &templates[i];
    return NULL;
}

const ChatTemplate *chat_template_named(StringView name) {
    for (int i = 0; i < N_TEMPLATES; i++)
        if (sv_is(name, templates[i].name))
            return &templates[i];
    return NULL;
}

const char *chat_template_name(const ChatTemplate *chat) {
    return chat->name;
}

const char *chat_template_names(void) {
    return "chatml llama2 llama3 mistral mistral-v2 mistral-v3 zephyr";
}

/* In ChatML templates the message is a string literal that continues after the system header. A literal that ends right
 * there introduces a variable instead; one with escapes in it cannot be given as a view of the Jinja text. */
StringView chat_template_default_system(StringView jinja) {
    StringView header = sv("<|im_start|>system"), end = sv("<|im_end|>");
    for (size_t at = sv_find(jinja, header, 0); at < jinja.length; at = sv_find(jinja, header, at + 1)) {
        StringView rest = {jinja.bytes + at + header.length, jinja.length - at - header.length};
        size_t newline = sv_starts_with(rest, sv("\\n")) ? 2 : sv_starts_with(rest, sv("\n")) ? 1 : 0;
        StringView message = {rest.bytes + newline, sv_find(rest, end, 0)};
        if (newline == 0 || message.length == rest.length || message.length <= newline)
            continue;
        message.length -= newline;
        if (memchr(message.bytes, '\'', message.length) == NULL && memchr(message.bytes, '"', message.length) == NULL &&
            memchr(message.bytes, '\\', message.length) == NULL)
            return message;
    }
    return (StringView){"", 0};
}

/* A conversation on its way to ids: `text` is the run since the last special token. */
typedef struct Rendering {
    const ChatTemplate *chat;
    const Tokenizer *tokenizer;
    TokenList *out;
    Error *error;
    char *text;
    size_t n_text, capacity;
    int status; /* the first failure; nothing more is rendered then */
} Rendering;

static void add_text(Rendering *rendering, StringView text) {
    if (rendering->status < 0 || text.length == 0)
        return;
    if (text.length > SIZE_MAX / 4 - rendering->n_text) {
        rendering->status = error_memory(rendering->error, "a conversation", text.length);
        return;
    }
    size_t needed = rendering->n_text + text.length;
    if (needed > rendering->capacity) {
        char *grown = realloc(rendering->text, 2 * needed);
        if (grown == NULL) {
            rendering->status = error_memory(rendering->error, "a conversation", 2 * needed);
            return;
        }
        rendering->text = grown;
        rendering->capacity = 2 * needed;
    }
    memcpy(rendering->text + rendering->n_text, text.bytes, text.length);
    rendering->n_text = needed;
}

static void flush(Rendering *rendering) {
    if (rendering->status == 0)
        rendering->status = tokenizer_encode(rendering->tokenizer, (StringView){rendering->text, rendering->n_text}, 0,
                                             rendering->out, rendering->error);
    rendering->n_text = 0;
}

static void add_special(Rendering *rendering, int32_t id, const char *name) {
    flush(rendering);
    if (rendering->status == 0 && id < 0)
        rendering->status = error_set(rendering->error, ERROR_UNSUPPORTED,
                                      "chat template %s needs the special token %s, which the vocabulary does not "
                                      "have; choose another template or run without --chat",
                                      rendering->chat->name, name);
    if (rendering->status == 0)
        rendering->status = token_list_append(rendering->out, id, rendering->error);
}

/* The special token that `markup` starts with: its spelling, or NULL; *id is -1 where the vocabulary lacks it. */
static const char *special_at(const Rendering *rendering, StringView markup, int32_t *id) {
    if (sv_starts_with(markup, sv("{bos}"))) {
        *id = tokenizer_bos(rendering->tokenizer);
        return "{bos}";
    }
    if (sv_starts_with(markup, sv("{eos}"))) {
        *id = tokenizer_eos(rendering->tokenizer);
        return "{eos}";
    }
    for (int i = 0; i < 2 * MAX_MARKS; i++) {
        bool required = i < MAX_MARKS;
        const char *name = required ? rendering->chat->required[i] : rendering->chat->optional[i - MAX_MARKS];
        if (name == NULL || !sv_starts_with(markup, sv(name)))
            continue;
        *id = tokenizer_special(rendering->tokenizer, sv(name));
        if (required || *id >= 0)
            return name;
    }
    return NULL;
}

static void add_markup(Rendering *rendering, const char *markup) {
    for (StringView rest = sv(markup); rest.length > 0;) {
        int32_t id;
        const char *special = special_at(rendering, rest, &id);
        size_t length = special != NULL ? strlen(special) : 1;
        if (special != NULL)
            add_special(rendering, id, special);
        else
            add_text(rendering, (StringView){rest.bytes, 1});
        rest = (StringView){rest.bytes + length, rest.length - length};
    }
}

static StringView trim_start(StringView text) {
    size_t length;
    while (utf8_starts_with_space(text, &length))
        text = (StringView){text.bytes + length, text.length - length};
    return text;
}

static StringView trim_end(StringView text) {
    for (;;) {
        size_t start = text.length, length;
        while (start > 0 && text.length - start < 3 && (text.bytes[start - 1] & 0xC0) == 0x80)
            start--; /* continuation bytes */
        start -= start > 0;
        StringView last = {text.bytes + start, text.length - start};
        if (last.length == 0 || !utf8_starts_with_space(last, &length) || length != last.length)
            return text;
        text.length = start;
    }
}

/* `inside`: the system text stands in front of this user message. Templates strip the two as one string, so only the
 * end of the user's text loses white space. */
static void add_message(Rendering *rendering, ChatRole role, StringView content, bool inside) {
    const ChatTemplate *chat = rendering->chat;
    bool trims = chat->trims && !(chat->system_in_user && role == CHAT_SYSTEM);
    add_markup(rendering, chat->before[role]);
    if (trims)
        content = trim_end(inside ? content : trim_start(content));
    add_text(rendering, content);
    add_markup(rendering, chat->after[role]);
}

/* Refuses roles in an order that the template has no form for. */
static int check_order(const ChatTemplate *chat, const ChatMessage *messages, size_t n_messages, Error *error) {
    if (n_messages == 0)
        return error_set(error, ERROR_ARGUMENT, "a conversation without messages; give a prompt");
    for (size_t i = 0; i < n_messages; i++)
        if (messages[i].role != CHAT_SYSTEM && messages[i].role != CHAT_USER && messages[i].role != CHAT_ASSISTANT)
            return error_set(error, ERROR_ARGUMENT,
                             "message %zu has an unknown role; roles are system, user and assistant", i + 1);
    if (!chat->system_in_user)
        return 0;
    size_t first = messages[0].role == CHAT_SYSTEM;
    for (size_t i = first; i < n_messages; i++)
        if (messages[i].role != ((i - first) % 2 == 0 ? CHAT_USER : CHAT_ASSISTANT))
            return error_set(error, ERROR_ARGUMENT,
                             "message %zu is out of order for chat template %s; user and assistant must alternate, "
                             "after at most one system message",
                             i + 1, chat->name);
    if (n_messages == first || messages[n_messages - 1].role != CHAT_USER)
        return error_set(error, ERROR_ARGUMENT,
                         "chat template %s cannot begin an answer here; end the conversation with a user message",
                         chat->name);
    return 0;
}

static int finish(Rendering *rendering, size_t n_before) {
    add_markup(rendering, rendering->chat->answer);
    flush(rendering);
    free(rendering->text);
    if (rendering->status < 0)
        rendering->out->count = n_before;
    return rendering->status;
}

int chat_encode(const ChatTemplate *chat, const Tokenizer *tokenizer, const ChatMessage *messages, size_t n_messages,
                TokenList *out, Error *error) {
    size_t n_before = out->count;
    int status = check_order(chat, messages, n_messages, error);
    if (status < 0)
        return status;
    Rendering rendering = {.chat = chat, .tokenizer = tokenizer, .out = out, .error = error};
    add_markup(&rendering, chat->start);
    for (size_t i = 0; i < n_messages; i++) {
        ChatRole role = messages[i].role;
        bool inside = chat->system_in_user && role == CHAT_USER && i > 0 && messages[i - 1].role == CHAT_SYSTEM;
        if ((role == CHAT_USER && !inside) || (role == CHAT_SYSTEM && chat->system_in_user))
            add_markup(&rendering, chat->user_turn);
        add_message(&rendering, role, messages[i].content, inside);
        if (role == CHAT_ASSISTANT) {
            add_markup(&rendering, chat->end);
            add_markup(&rendering, chat->tail);
        }
    }
    return finish(&rendering, n_before);
}

int chat_encode_next(const ChatTemplate *chat, const Tokenizer *tokenizer, StringView user, TokenList *out,
                     Error *error) {
    size_t n_before = out->count;
    Rendering rendering = {.chat = chat, .tokenizer = tokenizer, .out = out, .error = error};
    add_markup(&rendering, chat->end);
    add_markup(&rendering, chat->tail);
    add_markup(&rendering, chat->user_turn);
    add_message(&rendering, CHAT_USER, user, false);
    return finish(&rendering, n_before);
}

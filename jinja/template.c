/* See jinja.h: a template's text in, a conversation's out. */
#include "jinja/evaluate.h"
#include "tokenizer/utf8.h"

#include <stdlib.h>

struct JinjaTemplate {
    Machine m;
    Token *tokens;
};

/* As Jinja2 reads a file: "\n" for each kind of newline, and without the last one. */
static StringView normalised(Machine *m, StringView source) {
    char *bytes = jinja_take(m, source.length);
    size_t length = 0;
    for (size_t i = 0; i < source.length; i++)
        if (source.bytes[i] != '\n' || i == 0 || source.bytes[i - 1] != '\r')
            bytes[length++] = source.bytes[i] == '\r' ? '\n' : source.bytes[i];
    return (StringView){bytes, length - (length > 0 && bytes[length - 1] == '\n')};
}

int jinja_parse(JinjaTemplate **out, StringView source, Error *error) {
    JinjaTemplate *template = *out = calloc(1, sizeof **out);
    if (template == NULL)
        return error_memory(error, "a chat template", sizeof **out);
    template->m.error = error;
    template->m.line = 1;
    template->m.max_steps = JINJA_MAX_STEPS;
    if (setjmp(template->m.on_failure) == 0) {
        if (!utf8_is_valid(source))
            jinja_fail(&template->m, ERROR_FORMAT, "the text is no UTF-8");
        template->m.at = template->tokens = jinja_lex(&template->m, normalised(&template->m, source));
        template->m.skips = true;
        jinja_body(&template->m, "");
        return 0;
    }
    jinja_template_free(*out);
    *out = NULL;
    return error->code;
}

static void define(Machine *m, const char *name, Value value) {
    if (value.kind != JINJA_TEXT || value.text.bytes != NULL)
        jinja_assign(m, &m->scope->names, jinja_string(sv(name)), value);
}

static Value list_messages(Machine *m, const JinjaInput *input) {
    Value list = jinja_items(m, JINJA_LIST);
    for (size_t i = 0; i < input->n_messages; i++) {
        Text content = {input->messages[i].content.bytes, input->messages[i].content.length, NULL};
        unsigned char *marks = jinja_take(m, content.length);
        memset(marks, 1, content.length);
        content.from_message = marks;
        Value message = jinja_items(m, JINJA_MAPPING);
        jinja_assign(m, message.items, jinja_string(sv("role")), jinja_string(input->messages[i].role));
        jinja_assign(m, message.items, jinja_string(sv("content")), jinja_text(content));
        jinja_append(m, list.items, message);
    }
    return list;
}

static void run(Machine *m, JinjaOutput *out) {
    Buffer buffer = {0};
    m->scope = jinja_take(m, sizeof *m->scope);
    m->out = &buffer;
    define(m, "messages", list_messages(m, m->input));
    define(m, "add_generation_prompt", jinja_boolean(m->input->add_generation_prompt));
    define(m, "tools", (Value){.kind = JINJA_NONE});
    define(m, "documents", (Value){.kind = JINJA_NONE});
    define(m, "bos_token", jinja_string(m->input->bos_token));
    define(m, "eos_token", jinja_string(m->input->eos_token));
    jinja_body(m, "");
    m->at--;
    *out = (JinjaOutput){malloc(buffer.length + 1), malloc(buffer.length + 1), buffer.length};
    if (out->bytes == NULL || out->from_message == NULL)
        jinja_fail(m, ERROR_MEMORY, "out of memory");
    memcpy(out->bytes, jinja_written(&buffer).bytes, buffer.length);
    if (buffer.length > 0)
        memcpy(out->from_message, buffer.from_message, buffer.length);
}

int jinja_render(const JinjaTemplate *template, const JinjaInput *input, JinjaOutput *out, Error *error) {
    Machine m = {.error = error, .at = template->tokens, .input = input, .max_steps = JINJA_MAX_STEPS};
    for (size_t i = 0; i < input->n_messages; i++)
        m.max_steps += input->messages[i].content.length;
    *out = (JinjaOutput){0};
    if (setjmp(m.on_failure) == 0) {
        run(&m, out);
        jinja_machine_free(&m);
        return 0;
    }
    jinja_machine_free(&m);
    jinja_output_free(out);
    return error->code;
}

void jinja_output_free(JinjaOutput *output) {
    free(output->bytes);
    free(output->from_message);
    *output = (JinjaOutput){0};
}

void jinja_template_free(JinjaTemplate *template) {
    if (template != NULL)
        jinja_machine_free(&template->m);
    free(template);
}

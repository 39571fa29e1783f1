/* Chat templates: an evaluator of the part of Jinja2 that they use, in the environment that Hugging Face's
 * apply_chat_template gives them (trim_blocks, lstrip_blocks, loopcontrols, tojson, raise_exception, strftime_now; no
 * tools, no documents). What it does not know is an error that names it. Templates come from strangers: memory, steps
 * and depth are limited.
 *
 *     JinjaTemplate *template;
 *     JinjaOutput output;
 *     JinjaInput input = {.messages = messages, .n_messages = 1, .add_generation_prompt = true, .date = today};
 *     if (jinja_parse(&template, source, &error) < 0 || jinja_render(template, &input, &output, &error) < 0) …
 *     jinja_output_free(&output);
 *     jinja_template_free(template);
 */
#ifndef STOWKV_JINJA_H
#define STOWKV_JINJA_H

#include "base/error.h"
#include "base/string_view.h"

#include <time.h>

typedef struct JinjaTemplate JinjaTemplate;

typedef struct JinjaMessage {
    StringView role, content; /* UTF-8 */
} JinjaMessage;

typedef struct JinjaInput {
    const JinjaMessage *messages;
    size_t n_messages;
    bool add_generation_prompt;
    StringView bos_token, eos_token; /* bytes NULL: the vocabulary has none */
    struct tm date;                  /* of strftime_now */
} JinjaInput;

/* A rendered text. Whatever the template did to it, each byte says whether it comes from a message. */
typedef struct JinjaOutput {
    char *bytes;
    unsigned char *from_message; /* (length) 1: the content of a message; 0: the template's own markup */
    size_t length;
} JinjaOutput;

/* ERROR_FORMAT: no template; ERROR_UNSUPPORTED: more of Jinja than there is here. Copies `source`. */
int jinja_parse(JinjaTemplate **out, StringView source, Error *error);

/* Errors as above; ERROR_ARGUMENT: the template refuses the conversation (raise_exception). */
int jinja_render(const JinjaTemplate *template, const JinjaInput *input, JinjaOutput *out, Error *error);

void jinja_output_free(JinjaOutput *output);
void jinja_template_free(JinjaTemplate *template); /* NULL is fine */

#endif

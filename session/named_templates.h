/* The chat templates that --chat_template knows by name, for checkpoints that carry none. */
#ifndef STOWKV_NAMED_TEMPLATES_H
#define STOWKV_NAMED_TEMPLATES_H

#include <stddef.h>

typedef struct NamedTemplate {
    const char *name, *jinja;
    const char *required[3]; /* special tokens that the vocabulary must have */
} NamedTemplate;

/* NULL where there is none of that name. Mistral has published three forms that differ in spaces: "mistral" is the form
 * of 7B-Instruct v0.1 and v0.2, "mistral-v2" v0.2's later one, "mistral-v3" v0.3's. */
const NamedTemplate *named_template(const char *name);
const char *named_template_names(void); /* "chatml llama2 …", for messages */

#endif

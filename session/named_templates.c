/* See named_templates.h. */
#include "session/named_templates.h"

#include <string.h>

#define LLAMA3_HEADER(role) "<|start_header_id|>" role "<|end_header_id|>\n\n"

/* User and assistant take turns, after at most one system message, which becomes part of the first user's. */
#define TURNS                                                                                                          \
    "{% set turns = messages %}"                                                                                       \
    "{% if messages[0].role == 'system' %}{% set system = messages[0].content %}{% set turns = messages[1:] %}"        \
    "{% endif %}{% for m in turns %}"                                                                                  \
    "{% if m.role != ('user' if loop.index0 % 2 == 0 else 'assistant') %}"                                             \
    "{{ raise_exception('user and assistant must alternate, after at most one system message') }}{% endif %}"

#define MISTRAL(before, after, answer)                                                                                 \
    "{{ bos_token }}" TURNS "{% if m.role == 'user' %}" before "{% if loop.first and system %}"                        \
    "{{ system }}\n\n{% endif %}{{ m.content }}" after "{% else %}" answer "{{ m.content }}{{ eos_token }}"            \
    "{% endif %}{% endfor %}"

static const NamedTemplate TEMPLATES[] = {
    {"chatml",
     "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
     "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
     {"<|im_start|>", "<|im_end|>"}},
    {"llama2",
     TURNS "{% set text = m.content %}{% if loop.first and system is defined %}"
           "{% set text = '<<SYS>>\n' + system + '\n<</SYS>>\n\n' + text %}{% endif %}"
           "{% if m.role == 'user' %}{{ bos_token }}[INST] {{ text | trim }} [/INST]"
           "{% else %} {{ text | trim }} {{ eos_token }}{% endif %}{% endfor %}",
     {NULL}},
    {"llama3",
     "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
     "{{ m.content | trim }}<|eot_id|>{% endfor %}"
     "{% if add_generation_prompt %}" LLAMA3_HEADER("assistant") "{% endif %}",
     {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"}},
    {"mistral", MISTRAL("[INST] ", " [/INST]", ""), {NULL}},
    {"mistral-v2", MISTRAL(" [INST] ", " [/INST]", " "), {NULL}},
    {"mistral-v3", MISTRAL("[INST] ", "[/INST]", " "), {NULL}},
    {"zephyr",
     "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{{ eos_token }}\n{% endfor %}"
     "{% if add_generation_prompt %}<|assistant|>\n{% endif %}",
     {NULL}},
};

const NamedTemplate *named_template(const char *name) {
    for (size_t i = 0; i < sizeof TEMPLATES / sizeof *TEMPLATES; i++)
        if (strcmp(name, TEMPLATES[i].name) == 0)
            return &TEMPLATES[i];
    return NULL;
}

const char *named_template_names(void) {
    return "chatml llama2 llama3 mistral mistral-v2 mistral-v3 zephyr";
}

/* Text as a JSON string, whatever is in it: cJSON's own strings end at a NUL, and take bytes that are no UTF-8. */
#ifndef STOWKV_JSON_TEXT_H
#define STOWKV_JSON_TEXT_H

#include "base/string_view.h"

#include <cjson/cJSON.h>

/* Adds the text under `name`: NUL as \u0000, and U+FFFD for each maximal part that is no UTF-8 (tokenizer/utf8.h). NULL
 * out of memory. */
cJSON *json_add_text(cJSON *object, const char *name, StringView text);

/* The same of a string; NULL adds nothing. */
cJSON *json_add_string(cJSON *object, const char *name, const char *text);

#endif

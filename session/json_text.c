/* See json_text.h. */
#include "session/json_text.h"

#include "tokenizer/utf8.h"

#include <stdio.h>
#include <stdlib.h>

#define LONGEST_ESCAPE 6 /* of a byte of UTF-8: \u001f */

/* Writes a byte as a JSON string has it and returns how many characters that took. */
static size_t escape(unsigned char c, char out[LONGEST_ESCAPE + 1]) {
    static const char SHORT[] = "\"\"\\\\\bb\ff\nn\rr\tt"; /* pairs */
    for (size_t i = 0; i + 1 < sizeof SHORT; i += 2)
        if ((unsigned char)SHORT[i] == c) {
            out[0] = '\\';
            out[1] = SHORT[i + 1];
            return 2;
        }
    if (c < 0x20)
        return (size_t)snprintf(out, LONGEST_ESCAPE + 1, "\\u%04x", c);
    out[0] = (char)c;
    return 1;
}

cJSON *json_add_text(cJSON *object, const char *name, StringView text) {
    char *valid = malloc(3 * text.length + 1), *json = NULL;
    size_t length = valid != NULL ? utf8_repair(text, valid) : 0, n = 0;
    if (valid != NULL)
        json = malloc(LONGEST_ESCAPE * length + 3);
    cJSON *item = NULL;
    if (json != NULL) {
        json[n++] = '"';
        for (size_t i = 0; i < length; i++)
            n += escape((unsigned char)valid[i], json + n);
        json[n++] = '"';
        json[n] = '\0';
        item = cJSON_AddRawToObject(object, name, json);
    }
    free(valid);
    free(json);
    return item;
}

cJSON *json_add_string(cJSON *object, const char *name, const char *text) {
    return text != NULL ? json_add_text(object, name, sv(text)) : NULL;
}

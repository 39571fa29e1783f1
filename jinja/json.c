/* tojson, as Hugging Face has it: Python's json.dumps, with all characters as they are. */
#include "jinja/builtins.h"

static void write_plain(Machine *m, Buffer *out, const char *text) {
    jinja_write(m, out, (Text){text, strlen(text), NULL});
}

static void write_json(Machine *m, Buffer *out, Value value);

static void write_json_text(Machine *m, Buffer *out, Text text) {
    static const char CODES[] = "\b\f\n\r\t\"\\", NAMES[] = "bfnrt\"\\", HEX[] = "0123456789abcdef";
    write_plain(m, out, "\"");
    for (size_t i = 0; i < text.length; i++) {
        unsigned char c = (unsigned char)text.bytes[i];
        const char *code = c != '\0' ? strchr(CODES, c) : NULL;
        char escape[] = {'\\', code != NULL ? NAMES[code - CODES] : 'u', '0', '0', HEX[c >> 4], HEX[c & 15]};
        if (code != NULL || c < 0x20)
            jinja_write(m, out, (Text){escape, code != NULL ? 2 : 6, NULL});
        else
            jinja_write(m, out, jinja_part(text, i, i + 1));
    }
    write_plain(m, out, "\"");
}

static void write_json_items(Machine *m, Buffer *out, Value value) {
    bool mapping = value.kind == JINJA_MAPPING;
    write_plain(m, out, mapping ? "{" : "[");
    for (size_t i = 0; i < value.items->count; i++) {
        bool key = mapping && i % 2 == 0;
        if (i > 0)
            write_plain(m, out, mapping && !key ? ": " : ", ");
        if (key && value.items->at[i].kind != JINJA_TEXT)
            jinja_fail(m, ERROR_UNSUPPORTED, "tojson of keys that are no texts is not supported");
        write_json(m, out, value.items->at[i]);
    }
    write_plain(m, out, mapping ? "}" : "]");
}

static void write_json(Machine *m, Buffer *out, Value value) {
    jinja_enter(m);
    if (value.kind == JINJA_NONE)
        write_plain(m, out, "null");
    else if (value.kind == JINJA_BOOLEAN)
        write_plain(m, out, value.integer ? "true" : "false");
    else if (value.kind == JINJA_INTEGER)
        jinja_write(m, out, jinja_shown(m, value));
    else if (value.kind == JINJA_TEXT)
        write_json_text(m, out, value.text);
    else if (value.kind >= JINJA_LIST && value.kind <= JINJA_MAPPING)
        write_json_items(m, out, value);
    else
        jinja_fail(m, ERROR_FORMAT, "tojson of %s", jinja_kind_name(value));
    m->depth--;
}

Value jinja_to_json(Machine *m, const Row *row, Value self, const Value *p) {
    Buffer out = {0};
    for (int i = 0; i < 4; i++)
        if (jinja_truth(p[i]))
            jinja_fail(m, ERROR_UNSUPPORTED, "%s with ensure_ascii, indent, separators or sort_keys is not supported",
                       row->name);
    write_json(m, &out, self);
    return jinja_text(jinja_written(&out));
}

/* Reading (to check) and writing of ModelProto; see sentencepiece_model.h. */
#include "tokenizer/sentencepiece_model.h"

#include "base/checked.h"
#include "tokenizer/token_table.h"

#include <stdio.h>
#include <stdlib.h>

/* Field numbers of sentencepiece_model.proto. */
enum { MODEL_PIECE = 1, MODEL_TRAINER = 2, MODEL_NORMALIZER = 3 };
enum { PIECE_TEXT = 1, PIECE_SCORE = 2, PIECE_TYPE = 3 };
enum { TRAINER_MODEL_TYPE = 3, TRAINER_BYTE_FALLBACK = 35 };
enum {
    NORMALIZER_NAME = 1,
    NORMALIZER_RULES = 2,
    NORMALIZER_DUMMY_PREFIX = 3,
    NORMALIZER_REMOVE_SPACES = 4,
    NORMALIZER_ESCAPE_SPACES = 5
};
enum { MODEL_TYPE_UNIGRAM = 1, MODEL_TYPE_BPE = 2, MODEL_TYPE_CHAR = 4 };
enum { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };

typedef struct Field {
    uint64_t number, wire;
    uint64_t value;   /* of a varint */
    StringView bytes; /* of the other types */
} Field;

/* A proto that is being read: `rest` shrinks. */
typedef struct Reader {
    StringView rest;
} Reader;

static bool read_varint(Reader *reader, uint64_t *value) {
    *value = 0;
    for (size_t i = 0; i < 10 && i < reader->rest.length; i++) {
        uint64_t byte = (unsigned char)reader->rest.bytes[i];
        *value |= (byte & 0x7F) << (7 * i);
        if (byte < 0x80) {
            reader->rest = (StringView){reader->rest.bytes + i + 1, reader->rest.length - i - 1};
            return true;
        }
    }
    return false;
}

static bool read_bytes(Reader *reader, uint64_t length, StringView *bytes) {
    if (length > reader->rest.length)
        return false;
    *bytes = (StringView){reader->rest.bytes, (size_t)length};
    reader->rest = (StringView){reader->rest.bytes + length, reader->rest.length - (size_t)length};
    return true;
}

/* Takes one field off; false where the bytes are not one. Groups, which nobody writes any more, count as damage. */
static bool read_field(Reader *reader, Field *field) {
    uint64_t key, length;
    *field = (Field){0};
    if (!read_varint(reader, &key))
        return false;
    field->number = key >> 3;
    field->wire = key & 7;
    if (field->number == 0 || field->number > 0x1FFFFFFF)
        return false;
    switch (field->wire) {
    case WIRE_VARINT:
        return read_varint(reader, &field->value);
    case WIRE_FIXED64:
        return read_bytes(reader, 8, &field->bytes);
    case WIRE_FIXED32:
        return read_bytes(reader, 4, &field->bytes);
    case WIRE_BYTES:
        return read_varint(reader, &length) && read_bytes(reader, length, &field->bytes);
    default:
        return false;
    }
}

static bool check_piece(StringView piece) {
    Reader reader = {piece};
    Field field;
    bool has_text = false;
    while (reader.rest.length > 0) {
        if (!read_field(&reader, &field))
            return false;
        if (field.number == PIECE_TEXT && (field.wire != WIRE_BYTES || field.bytes.length == 0))
            return false;
        if (field.number == PIECE_SCORE && field.wire != WIRE_FIXED32)
            return false;
        if (field.number == PIECE_TYPE &&
            (field.wire != WIRE_VARINT || field.value < TOKEN_NORMAL || field.value > TOKEN_BYTE))
            return false;
        has_text |= field.number == PIECE_TEXT;
    }
    return has_text;
}

static bool check_trainer(StringView trainer) {
    Reader reader = {trainer};
    Field field;
    while (reader.rest.length > 0) {
        if (!read_field(&reader, &field))
            return false;
        if (field.number == TRAINER_MODEL_TYPE &&
            (field.wire != WIRE_VARINT || field.value < MODEL_TYPE_UNIGRAM || field.value > MODEL_TYPE_CHAR))
            return false;
    }
    return true;
}

/* Compiled normalization rules begin with the size of a table of 32-bit units that must lie within them. */
static bool check_rules(StringView rules) {
    if (rules.length == 0)
        return true;
    if (rules.length < 4)
        return false;
    const unsigned char *b = (const unsigned char *)rules.bytes;
    uint32_t size_bytes = b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
    return size_bytes >= 1024 && size_bytes % 4 == 0 && size_bytes < rules.length - 4;
}

static bool check_normalizer(StringView normalizer, SentencePieceFacts *facts) {
    Reader reader = {normalizer};
    Field field;
    while (reader.rest.length > 0) {
        if (!read_field(&reader, &field))
            return false;
        if (field.number == NORMALIZER_RULES && (field.wire != WIRE_BYTES || !check_rules(field.bytes)))
            return false;
        if (field.number == NORMALIZER_DUMMY_PREFIX)
            facts->add_dummy_prefix = field.value != 0;
    }
    return true;
}

int sentencepiece_model_check(StringView proto, const char *name, SentencePieceFacts *facts, Error *error) {
    Reader reader = {proto};
    Field field;
    bool has_trainer = false, has_normalizer = false, ok = true;
    *facts = (SentencePieceFacts){.add_dummy_prefix = true}; /* the proto's default */
    while (ok && reader.rest.length > 0) {
        ok = read_field(&reader, &field);
        bool known = ok && field.number >= MODEL_PIECE && field.number <= MODEL_NORMALIZER;
        if (known && field.wire != WIRE_BYTES) {
            ok = false;
        } else if (known && field.number == MODEL_PIECE) {
            ok = check_piece(field.bytes);
            facts->n_pieces++;
        } else if (known && field.number == MODEL_TRAINER) {
            ok = check_trainer(field.bytes);
            has_trainer = true;
        } else if (known) {
            ok = check_normalizer(field.bytes, facts);
            has_normalizer = true;
        }
    }
    if (!ok || facts->n_pieces == 0 || !has_trainer || !has_normalizer || facts->n_pieces > INT32_MAX / 2)
        return error_set(error, ERROR_FORMAT,
                         "%s: not a whole SentencePiece model (%s); give the tokenizer.model file that came with the "
                         "checkpoint, complete",
                         name,
                         !ok                    ? "its fields cannot be read"
                         : facts->n_pieces == 0 ? "it has no pieces"
                                                : "its end is missing");
    return 0;
}

/* The proto that is being written; sizes are known in advance, so it never grows. */
typedef struct Writer {
    char *bytes;
    size_t n;
} Writer;

static void write_varint(Writer *writer, uint64_t value) {
    for (; value >= 0x80; value >>= 7)
        writer->bytes[writer->n++] = (char)(value | 0x80);
    writer->bytes[writer->n++] = (char)value;
}

static void write_number(Writer *writer, unsigned field, uint64_t value) {
    write_varint(writer, (uint64_t)field << 3 | WIRE_VARINT);
    write_varint(writer, value);
}

static void write_bytes(Writer *writer, unsigned field, StringView bytes) {
    write_varint(writer, (uint64_t)field << 3 | WIRE_BYTES);
    write_varint(writer, bytes.length);
    if (bytes.length > 0)
        memcpy(writer->bytes + writer->n, bytes.bytes, bytes.length);
    writer->n += bytes.length;
}

static void write_float(Writer *writer, unsigned field, float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    write_varint(writer, (uint64_t)field << 3 | WIRE_FIXED32);
    for (int i = 0; i < 4; i++)
        writer->bytes[writer->n++] = (char)(bits >> (8 * i));
}

#define SPACE "\xE2\x96\x81" /* U+2581, which SentencePiece writes for a space in pieces and in texts */

/* A user-defined piece: converters to GGUF write spaces in it as they are, and SentencePiece looks for it in texts
 * whose spaces are written as its sign. Left alone where another token has that spelling. */
static StringView user_defined(const TokenTable *table, StringView text, char *escaped) {
    size_t n = 0;
    for (size_t i = 0; i < text.length; i++) {
        bool is_space = text.bytes[i] == ' ';
        memcpy(escaped + n, is_space ? SPACE : &text.bytes[i], is_space ? strlen(SPACE) : 1);
        n += is_space ? strlen(SPACE) : 1;
    }
    StringView piece = {escaped, n};
    return n > text.length && token_table_find(table, piece) < 0 ? piece : text;
}

/* A piece without text (padding of the embedding matrix) gets a name, which no text can spell: it is control. */
static void write_piece(Writer *writer, Writer *scratch, StringView text, float score, unsigned type, size_t id) {
    char padding[32];
    scratch->n = 0;
    if (text.length == 0) {
        text = (StringView){padding, (size_t)snprintf(padding, sizeof padding, "<empty %zu>", id)};
        type = TOKEN_CONTROL;
    }
    write_bytes(scratch, PIECE_TEXT, text);
    write_float(scratch, PIECE_SCORE, score);
    write_number(scratch, PIECE_TYPE, type);
    write_bytes(writer, MODEL_PIECE, (StringView){scratch->bytes, scratch->n});
}

static int write_pieces(Writer *writer, Writer *scratch, const Vocabulary *vocabulary, const uint8_t *types,
                        char *escaped, Error *error) {
    TokenTable table;
    if (token_table_build(&table, vocabulary->tokens, vocabulary->n_tokens, error) < 0)
        return error->code;
    for (size_t id = 0; id < vocabulary->n_tokens; id++) {
        StringView text = vocabulary->tokens[id];
        if (types[id] == TOKEN_USER_DEFINED)
            text = user_defined(&table, text, escaped);
        write_piece(writer, scratch, text, vocabulary->scores[id], types[id], id);
    }
    token_table_free(&table);
    return 0;
}

static void write_settings(Writer *writer, Writer *scratch, bool byte_fallback, const Vocabulary *vocabulary) {
    scratch->n = 0;
    write_number(scratch, TRAINER_MODEL_TYPE, MODEL_TYPE_BPE);
    write_number(scratch, TRAINER_BYTE_FALLBACK, byte_fallback);
    write_bytes(writer, MODEL_TRAINER, (StringView){scratch->bytes, scratch->n});
    scratch->n = 0;
    write_bytes(scratch, NORMALIZER_NAME, sv("identity"));
    write_number(scratch, NORMALIZER_DUMMY_PREFIX, vocabulary->add_space_prefix != 0);
    write_number(scratch, NORMALIZER_REMOVE_SPACES, vocabulary->remove_extra_spaces != 0);
    write_number(scratch, NORMALIZER_ESCAPE_SPACES, 1);
    write_bytes(writer, MODEL_NORMALIZER, (StringView){scratch->bytes, scratch->n});
}

enum { FIELD_BYTES = 64 }; /* more than the keys, lengths, score and type of one piece, or the name of an empty one */

int sentencepiece_model_build(const Vocabulary *vocabulary, const uint8_t *types, char **out, size_t *size_bytes,
                              Error *error) {
    size_t total = 4 * FIELD_BYTES, longest = 0, n_bytes = 0;
    *out = NULL;
    if (vocabulary->scores == NULL)
        return error_set(error, ERROR_FORMAT,
                         "vocabulary: a SentencePiece vocabulary without scores; convert the checkpoint again");
    for (size_t id = 0; id < vocabulary->n_tokens; id++) {
        size_t length = vocabulary->tokens[id].length;
        if (length > UINT32_MAX / 4 || total > UINT32_MAX / 2)
            return error_set(error, ERROR_FORMAT, "vocabulary: token %zu has %zu bytes; convert the checkpoint again",
                             id, length);
        total += (types[id] == TOKEN_USER_DEFINED ? strlen(SPACE) : 1) * length + FIELD_BYTES;
        longest = at_least(length, longest);
        n_bytes += types[id] == TOKEN_BYTE;
    }
    if (n_bytes != 0 && n_bytes != 256)
        return error_set(error, ERROR_FORMAT,
                         "vocabulary: %zu of the 256 byte tokens <0x00> to <0xFF>; convert the checkpoint again",
                         n_bytes);
    Writer writer = {malloc(total), 0}, scratch = {malloc(strlen(SPACE) * longest + 2 * FIELD_BYTES), 0};
    char *escaped = malloc(strlen(SPACE) * longest + 1);
    int status = writer.bytes == NULL || scratch.bytes == NULL || escaped == NULL
                     ? error_memory(error, "the SentencePiece model", total)
                     : write_pieces(&writer, &scratch, vocabulary, types, escaped, error);
    if (status == 0) {
        write_settings(&writer, &scratch, n_bytes > 0, vocabulary);
        *out = writer.bytes;
        *size_bytes = writer.n;
    } else {
        free(writer.bytes);
    }
    free(scratch.bytes);
    free(escaped);
    return status;
}

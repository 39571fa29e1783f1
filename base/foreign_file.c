/* Tables of first bytes, words of texts, and names; see foreign_file.h. */
#include "base/foreign_file.h"

#include "base/checked.h"

#include <ctype.h>
#include <stdint.h>
#include <stdio.h>

#define UNPACK "unpack it first"
#define OLD    "llama.cpp stopped reading it in 2023; convert the original checkpoint to GGUF again"

typedef struct Magic {
    size_t offset;
    StringView bytes;
    const char *is, *cure;
} Magic;

#define MAGIC(offset, text, is, cure)                                                                                  \
    { offset, {text, sizeof(text) - 1}, is, cure }

static const Magic MAGICS[] = {
    MAGIC(0, "GGUF", "a model in GGUF", "name it with --checkpoint_path"),
    MAGIC(0, "lmgg", "a GGML file of 2023 (ggml)", OLD),
    MAGIC(0, "fmgg", "a GGML file of 2023 (ggmf)", OLD),
    MAGIC(0, "tjgg", "a GGML file of 2023 (ggjt)", OLD),
    MAGIC(0, "algg", "a LoRA adapter for GGML (ggla)", "name the model itself, merged with the adapter"),
    MAGIC(0, "nsgg", "a saved session of llama.cpp (ggsn)", "name the model itself"),
    MAGIC(0, "qsgg", "a saved state of llama.cpp (ggsq)", "name the model itself"),
    MAGIC(0, "\x80\x02\x8a\x0a", "a PyTorch checkpoint as before version 1.6 (a pickle, no zip archive)",
          "load it with PyTorch and save it again"),
    MAGIC(0, "\x89HDF\r\n\x1a\n", "an HDF5 file (Keras)", "use a checkpoint in GGUF"),
    MAGIC(4, "TFL3", "a TensorFlow Lite model", "use a checkpoint in GGUF"),
    MAGIC(0, "\x93NUMPY", "an array of NumPy", "use a checkpoint in GGUF"),
    MAGIC(0, "\x0a\x0e\x0a\x05<unk>", "a SentencePiece tokenizer",
          "name the model itself, and this with --tokenizer_path"),
    MAGIC(0, "MZqFpD", "a llamafile", "name the .gguf file that `unzip` takes out of it"),
    MAGIC(0,
          "\x7f"
          "ELF",
          "a program", "name the model itself"),
    MAGIC(0, "\x1f\x8b\x08", "compressed by gzip", UNPACK),
    MAGIC(0,
          "\xfd"
          "7zXZ",
          "compressed by xz", UNPACK),
    MAGIC(0, "\x28\xb5\x2f\xfd", "compressed by Zstandard", UNPACK),
    MAGIC(0, "BZh", "compressed by bzip2", UNPACK),
    MAGIC(0, "7z\xbc\xaf", "a 7-Zip archive", UNPACK),
    MAGIC(0, "Rar!", "a RAR archive", UNPACK),
    MAGIC(257, "ustar", "a tar archive", UNPACK),
    MAGIC(0, "%PDF-", "a PDF document", "fetch the model itself"),
};

/* The first words of texts, behind white space and without regard to case; then words anywhere in JSON. */
typedef struct Words {
    const char *words, *is, *cure;
} Words;

#define AGAIN "fetch the file itself again, with a login where the site asks for one"

static const Words BEGINNINGS[] = {
    {"<!doctype html", "a web page", "fetch the file itself: Hugging Face has it under /resolve/, not /blob/"},
    {"<html", "a web page", "fetch the file itself: Hugging Face has it under /resolve/, not /blob/"},
    {"<head", "a web page", "fetch the file itself"},
    {"<!--", "a web page", "fetch the file itself"},
    {"<script", "a web page", "fetch the file itself"},
    {"<?xml", "an XML document, as servers send for errors", AGAIN},
    {"<error", "an XML document, as servers send for errors", AGAIN},
    {"iq== 0", "a tiktoken vocabulary, as Llama 3 has one", "name the model itself, and this with --tokenizer_path"},
    {"from ", "a Modelfile of Ollama", "name the model that its line FROM names"},
};

#define FOLDER "name the folder that has all of its files with --checkpoint_path"

static const Words JSON_WORDS[] = {
    {"\"weight_map\"", "the index of a Hugging Face checkpoint", FOLDER},
    {"\"architectures\"", "the configuration of a Hugging Face checkpoint", FOLDER},
    {"\"added_tokens\"", "the tokenizer of a Hugging Face checkpoint", FOLDER},
    {"\"mediaType\"", "the manifest of a container image", "name the model that it lists"},
};

enum { TEXT_BYTES = 65536, SHOWN_BYTES = 60 };

static int refuse(const char *path, const char *is, const char *expected, const char *cure, Error *error) {
    return error_set(error, ERROR_UNSUPPORTED, "%s: is %s, not %s; %s", path, is, expected, cure);
}

static bool holds(StringView text, const char *words) {
    return sv_find(text, sv(words), 0) < text.length;
}

static bool begins_with(StringView text, const char *words) {
    size_t i = 0;
    while (i < text.length && words[i] != '\0' && tolower((unsigned char)text.bytes[i]) == words[i])
        i++;
    return words[i] == '\0';
}

static bool is_text(StringView text) {
    for (size_t i = 0; i < text.length && i < 1024; i++) {
        unsigned char c = (unsigned char)text.bytes[i];
        if (c < ' ' && c != '\n' && c != '\r' && c != '\t' && c != '\f')
            return false;
    }
    return true;
}

/* Without a byte order mark and white space in front. */
static StringView stripped(StringView text) {
    size_t i = sv_starts_with(text, sv("\xef\xbb\xbf")) ? 3 : 0;
    while (i < text.length && isspace((unsigned char)text.bytes[i]))
        i++;
    return (StringView){text.bytes + i, text.length - i};
}

/* "oid" and "size" are lines of the pointer. */
static int refuse_lfs_pointer(StringView text, const char *path, Error *error) {
    size_t at = sv_find(text, sv("\nsize "), 0) + strlen("\nsize ");
    unsigned long long size_bytes = 0;
    for (; at < text.length && isdigit((unsigned char)text.bytes[at]) && size_bytes < 1ull << 59; at++)
        size_bytes = 10 * size_bytes + (unsigned)(text.bytes[at] - '0');
    return error_set(
        error, ERROR_UNSUPPORTED,
        "%s: is a Git LFS pointer, not the file itself, which has %llu bytes; run `git lfs pull` in its folder, or "
        "download the file itself",
        path, size_bytes);
}

/* Ollama keeps models as blobs, which are GGUF files; the manifest names them by their hashes. */
static int refuse_ollama_manifest(StringView text, size_t at, const char *path, Error *error) {
    size_t digest = sv_find(text, sv("sha256:"), at) + strlen("sha256:"), length = 0;
    while (digest + length < text.length && isxdigit((unsigned char)text.bytes[digest + length]))
        length++;
    return error_set(
        error, ERROR_UNSUPPORTED,
        "%s: is a manifest of Ollama, not the model; name the file blobs/sha256-%.*s in Ollama's folder of "
        "models",
        path, length == 64 ? 64 : 1, length == 64 ? text.bytes + digest : "*");
}

static int refuse_json(StringView text, const char *path, const char *expected, Error *error) {
    size_t at = sv_find(text, sv("application/vnd.ollama.image.model"), 0);
    if (at < text.length)
        return refuse_ollama_manifest(text, at, path, error);
    for (size_t i = 0; i < sizeof JSON_WORDS / sizeof *JSON_WORDS; i++)
        if (holds(text, JSON_WORDS[i].words))
            return refuse(path, JSON_WORDS[i].is, expected, JSON_WORDS[i].cure, error);
    return 0;
}

/* What a server said instead of sending the model is best shown. */
static int refuse_text(StringView all, const char *path, const char *expected, Error *error) {
    StringView text = stripped(all);
    if (sv_starts_with(text, sv("version https://")) && holds(text, "\noid "))
        return refuse_lfs_pointer(text, path, error);
    for (size_t i = 0; i < sizeof BEGINNINGS / sizeof *BEGINNINGS; i++)
        if (begins_with(text, BEGINNINGS[i].words))
            return refuse(path, BEGINNINGS[i].is, expected, BEGINNINGS[i].cure, error);
    bool is_json = text.length > 0 && (text.bytes[0] == '{' || text.bytes[0] == '[');
    if (is_json && refuse_json(text, path, expected, error) < 0)
        return error->code;
    if (text.length == 0)
        return 0;
    size_t shown = at_most(sv_find(text, sv("\n"), 0), SHOWN_BYTES);
    while (shown > 0 && shown < text.length && ((unsigned char)text.bytes[shown] & 0xC0) == 0x80)
        shown--;
    return error_set(error, ERROR_UNSUPPORTED, "%s: is %s that begins '%.*s', not %s; " AGAIN, path,
                     is_json ? "a JSON document" : "a text", (int)shown, text.bytes, expected);
}

/* A safetensors file is the length of its header, then the header in JSON. */
static bool is_safetensors(StringView data) {
    uint64_t length;
    if (data.length < 16)
        return false;
    memcpy(&length, data.bytes, sizeof length);
    return length <= data.length - 8 && data.bytes[8] == '{';
}

static int refuse_zip(StringView data, const char *path, const char *expected, Error *error) {
    StringView head = {data.bytes, at_most(data.length, TEXT_BYTES)};
    bool pytorch = holds(head, "data.pkl") || holds(head, "/version") || holds(head, "/byteorder");
    return refuse(path, pytorch ? "a PyTorch checkpoint" : "a ZIP archive", expected,
                  pytorch ? "name it with --checkpoint_path" : UNPACK, error);
}

static bool begins_with_zeros(StringView data) {
    size_t n = at_most(data.length, 4096), i = 0;
    while (i < n && data.bytes[i] == 0)
        i++;
    return i == n;
}

int foreign_file_refuse(StringView data, const char *path, const char *expected, Error *error) {
    for (size_t i = 0; i < sizeof MAGICS / sizeof *MAGICS; i++) {
        const Magic *magic = &MAGICS[i];
        if (range_within(magic->offset, magic->bytes.length, data.length) &&
            memcmp(data.bytes + magic->offset, magic->bytes.bytes, magic->bytes.length) == 0)
            return refuse(path, magic->is, expected, magic->cure, error);
    }
    if (sv_starts_with(data, sv("PK\x03\x04")) || sv_starts_with(data, sv("PK\x05\x06")))
        return refuse_zip(data, path, expected, error);
    if (is_safetensors(data))
        return refuse(path, "a safetensors file", expected, "name it with --checkpoint_path", error);
    if (begins_with_zeros(data))
        return refuse(path, "empty at its beginning (zeros), as unfinished downloads are", expected, "fetch it again",
                      error);
    if (is_text(data))
        return refuse_text((StringView){data.bytes, at_most(data.length, TEXT_BYTES)}, path, expected, error);
    return 0;
}

/* ---- Names */

typedef enum Place { ANYWHERE, AT_END, BEFORE_DIGIT } Place;

#define JOIN   "it is a piece of a file that was cut: join all pieces in order with `cat`, and name the result"
#define FINISH "it is an unfinished download: finish it"

/* The cure for files whose names hold a word, behind the last slash. */
static const struct {
    const char *word;
    Place place;
    const char *cure;
} NAMES[] = {
    {"-split-", ANYWHERE, JOIN},
    {".part", BEFORE_DIGIT, JOIN},
    {"-part", BEFORE_DIGIT, JOIN},
    {".gguf.0", BEFORE_DIGIT, JOIN},
    {".gguf.parta", ANYWHERE, JOIN},
    {".gguf-part", ANYWHERE, JOIN},
    {".part", AT_END, FINISH},
    {".partial", AT_END, FINISH},
    {"-partial", AT_END, FINISH},
    {".crdownload", AT_END, FINISH},
    {".download", AT_END, FINISH},
    {".incomplete", AT_END, FINISH},
    {".aria2", AT_END, FINISH ", and name the file without .aria2"},
    {"mmproj", ANYWHERE, "it is the part of a model that reads images: name the language model itself"},
};

static bool stands_there(const char *name, size_t row) {
    const char *found = strstr(name, NAMES[row].word);
    if (found == NULL)
        return false;
    char behind = found[strlen(NAMES[row].word)];
    return NAMES[row].place == ANYWHERE ||
           (NAMES[row].place == AT_END ? behind == '\0' : isdigit((unsigned char)behind));
}

void foreign_name_hint(const char *path, Error *error) {
    const char *slash = strrchr(path, '/'), *name = slash != NULL ? slash + 1 : path;
    const char *end = strrchr(error->message, ';');
    for (size_t i = 0; end != NULL && i < sizeof NAMES / sizeof *NAMES; i++)
        if (stands_there(name, i)) {
            char cause[sizeof error->message];
            snprintf(cause, sizeof cause, "%.*s", (int)(end - error->message), error->message);
            error_set(error, error->code, "%s; %s", cause, NAMES[i].cure);
            return;
        }
}

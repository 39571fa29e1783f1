/* See file_claims.h. */
#include "session/file_claims.h"

#include "base/file_identity.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_OUTPUTS 8 /* flags of a program that name one */

typedef struct Output {
    const char *flag, *path;
    bool known; /* a file, which `identity` tells */
    FileIdentity identity;
} Output;

typedef struct Claims {
    Output outputs[MAX_OUTPUTS];
    size_t count;
    const char *reads_stdin; /* the flag, or NULL */
} Claims;

static bool is_dash(const char *path) {
    return strcmp(path, "-") == 0;
}

/* /dev/stdout and its like: what stdout writes to is meant. */
static bool names_descriptor(const char *path) {
    return strncmp(path, "/dev/", 5) == 0 || strncmp(path, "/proc/", 6) == 0;
}

static int claim_output(Claims *claims, const Option *option, Error *error) {
    Output output = {option->name, *(const char *const *)option->target, false, {0}};
    output.known = !is_dash(output.path) && file_identify(output.path, &output.identity);
    for (size_t i = 0; i < claims->count; i++) {
        const Output *other = &claims->outputs[i];
        if (is_dash(output.path) && is_dash(other->path))
            return error_set(error, ERROR_USAGE, "--%s - and --%s - both want stdout; name a file for one", other->flag,
                             output.flag);
        if (output.known && other->known && file_is_same(&output.identity, &other->identity))
            return error_set(error, ERROR_USAGE, "--%s %s: is the file of --%s too; name another for one", output.flag,
                             output.path, other->flag);
    }
    if (claims->count < MAX_OUTPUTS)
        claims->outputs[claims->count++] = output;
    return 0;
}

/* `what` says whose file an output may not be. */
static int check_input(const Claims *claims, const FileIdentity *input, const char *what, Error *error) {
    for (size_t i = 0; i < claims->count; i++)
        if (claims->outputs[i].known && file_is_same(&claims->outputs[i].identity, input))
            return error_set(error, ERROR_USAGE, "--%s %s: would overwrite %s; name another file",
                             claims->outputs[i].flag, claims->outputs[i].path, what);
    return 0;
}

/* What is appended to an input stands behind what has been read of it: `generate --prompt_file a >>a` goes on with a.
 */
static int check_redirection(int descriptor, const FileIdentity *input, const Option *option, Error *error) {
    FileIdentity redirected;
    if ((fcntl(descriptor, F_GETFL) & O_APPEND) != 0 || !file_identify_descriptor(descriptor, &redirected) ||
        !file_is_same(&redirected, input))
        return 0;
    return error_set(error, ERROR_USAGE, "--%s %s: %s overwrites it; send that elsewhere", option->name,
                     *(const char *const *)option->target, descriptor == STDOUT_FILENO ? "stdout" : "stderr");
}

static int claim_input(Claims *claims, const Option *option, Error *error) {
    const char *path = *(const char *const *)option->target, *other = claims->reads_stdin;
    FileIdentity identity;
    char what[128];
    if (is_dash(path)) {
        claims->reads_stdin = option->name;
        return other == NULL ? 0
                             : error_set(error, ERROR_USAGE, "--%s - and --%s - both want stdin; name a file for one",
                                         other, option->name);
    }
    if (!file_identify(path, &identity))
        return 0;
    snprintf(what, sizeof what, "the file of --%s, which this run reads", option->name);
    if (check_input(claims, &identity, what, error) < 0 ||
        check_redirection(STDOUT_FILENO, &identity, option, error) < 0)
        return error->code;
    return check_redirection(STDERR_FILENO, &identity, option, error);
}

static int check_standard_streams(const Claims *claims, Error *error) {
    FileIdentity stream;
    if (file_identify_descriptor(STDIN_FILENO, &stream) && check_input(claims, &stream, "what stdin reads", error) < 0)
        return error->code;
    for (int descriptor = STDOUT_FILENO; descriptor <= STDERR_FILENO; descriptor++)
        for (size_t i = 0; i < claims->count && file_identify_descriptor(descriptor, &stream); i++) {
            const Output *output = &claims->outputs[i];
            if (output->known && !names_descriptor(output->path) && file_is_same(&output->identity, &stream))
                return error_set(error, ERROR_USAGE, "--%s %s: is what %s writes to; name another file for one",
                                 output->flag, output->path, descriptor == STDOUT_FILENO ? "stdout" : "stderr");
        }
    return 0;
}

/* The name without the numbers of NAME-00001-of-00003.gguf: how much of it parts have in common; 0: no such name. */
static size_t part_stem(const char *name) {
    static const char FORM[] = "-00000-of-00000.gguf";
    size_t length = strlen(name), form = sizeof FORM - 1;
    if (length <= form)
        return 0;
    for (size_t i = 0; i < form; i++) {
        char c = name[length - form + i];
        if (FORM[i] == '0' ? c < '0' || c > '9' : c != FORM[i])
            return 0;
    }
    return length - form;
}

static bool ends_with(const char *name, const char *ending) {
    size_t length = strlen(name), n = strlen(ending);
    return length >= n && strcmp(name + length - n, ending) == 0;
}

/* What a checkpoint of several files may consist of. */
static bool is_of_folder(const char *name) {
    static const char *const ENDINGS[] = {".safetensors",
                                          ".index.json",
                                          "config.json",
                                          "params.json",
                                          "tokenizer.json",
                                          ".jinja",
                                          ".pth",
                                          "generation_config.json",
                                          "tokenizer_config.json",
                                          "chat_template.json"};
    for (size_t i = 0; i < sizeof ENDINGS / sizeof *ENDINGS; i++)
        if (ends_with(name, ENDINGS[i]))
            return true;
    return strncmp(name, "pytorch_model", strlen("pytorch_model")) == 0;
}

/* What a tokenizer may consist of, or be beside a checkpoint. */
static bool is_of_tokenizer(const char *name) {
    static const char *const NAMES[] = {"tokenizer.json",         "tokenizer_config.json", "special_tokens_map.json",
                                        "generation_config.json", "chat_template.jinja",   "config.json"};
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++)
        if (strcmp(name, NAMES[i]) == 0)
            return true;
    return strncmp(name, "tok", 3) == 0 && ends_with(name, ".model");
}

/* Whether opening the checkpoint called `name`, empty where it is the folder, may open its neighbour too. */
static bool comes_along(const char *name, const char *neighbour, bool with_tokenizers) {
    size_t stem = part_stem(name);
    if (stem > 0 && part_stem(neighbour) == stem && strncmp(name, neighbour, stem) == 0)
        return true;
    if ((name[0] == '\0' || is_of_folder(name)) && is_of_folder(neighbour))
        return true;
    return with_tokenizers && is_of_tokenizer(neighbour);
}

static int check_neighbour(const Claims *claims, const char *folder, const char *name, Error *error) {
    size_t size = strlen(folder) + strlen(name) + 2;
    char *path = malloc(size);
    if (path == NULL)
        return error_memory(error, "a file name", size);
    FileIdentity identity;
    snprintf(path, size, "%s/%s", folder, name);
    int status = file_identify(path, &identity)
                     ? check_input(claims, &identity, "a file that the checkpoint brings along", error)
                     : 0;
    free(path);
    return status;
}

/* What lies beside `path`, a checkpoint's or else a tokenizer's. */
static int check_neighbours(const Claims *claims, const char *path, bool is_checkpoint, bool with_tokenizers,
                            Error *error) {
    size_t length = path == NULL ? 0 : path_is_folder(path) ? strlen(path) : path_folder_length(path);
    char *folder = path == NULL ? NULL : length == 0 ? strdup(".") : strndup(path, length);
    DIR *entries = folder == NULL ? NULL : opendir(folder);
    int status = 0;
    for (struct dirent *entry; status == 0 && entries != NULL && (entry = readdir(entries)) != NULL;)
        if (is_checkpoint ? comes_along(path + length, entry->d_name, with_tokenizers) : is_of_tokenizer(entry->d_name))
            status = check_neighbour(claims, folder, entry->d_name, error);
    if (entries != NULL)
        closedir(entries);
    free(folder);
    return status;
}

static bool is_given(const Option *option, OptionKind kind) {
    return option->kind == kind && *(const char *const *)option->target != NULL;
}

static int claim_pair(Claims *claims, const Option *option, Error *error) {
    Option file = *option;
    for (int i = 0; i < 2; i++) {
        file.target = (const char **)option->target + i;
        if (claim_input(claims, &file, error) < 0)
            return error->code;
    }
    return 0;
}

int file_claims_check(const Option *options, const SessionOptions *session, Error *error) {
    Claims claims = {0};
    for (const Option *option = options; option->name != NULL; option++)
        if (is_given(option, OPTION_OUTPUT) && claim_output(&claims, option, error) < 0)
            return error->code;
    for (const Option *option = options; option->name != NULL; option++)
        if ((is_given(option, OPTION_INPUT) && claim_input(&claims, option, error) < 0) ||
            (is_given(option, OPTION_PAIR) && claim_pair(&claims, option, error) < 0))
            return error->code;
    if (claims.count == 0)
        return 0;
    const char *tokenizer = session->tokenizer_path;
    if (check_standard_streams(&claims, error) < 0 ||
        check_neighbours(&claims, session->checkpoint_path, true, tokenizer == NULL, error) < 0)
        return error->code;
    return check_neighbours(&claims, tokenizer, false, true, error);
}

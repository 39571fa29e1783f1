/* See results.h. */
#include "eval/rouge/results.h"

#include "base/array.h"
#include "base/mapped_file.h"
#include "session/jsonl.h"

#include <stdbool.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

/* Whether all that is there is the beginning of our own first line: the program was killed as it wrote it. */
static bool is_torn_header(FILE *stream, off_t size, const char *header) {
    char *there = malloc((size_t)size);
    bool torn = there != NULL && (size_t)size <= strlen(header) &&
                pread(fileno(stream), there, (size_t)size, 0) == size && memcmp(there, header, (size_t)size) == 0;
    free(there);
    return torn;
}

static int not_ours(const RougeResults *results, Error *error) {
    return error_set(error, ERROR_FORMAT,
                     "%s: was not written by this program, and stays as it is; " JSONL_OUTPUT_ELSEWHERE,
                     results->output.path);
}

static void print_value(const cJSON *value, char *out, size_t size) {
    char *text = value == NULL ? NULL : cJSON_PrintUnformatted(value);
    snprintf(out, size, "%s", text == NULL ? "not there" : text);
    free(text);
}

static int compare_headers(const RougeResults *results, const cJSON *ours, const cJSON *theirs, Error *error) {
    if (jsonl_field(theirs, ours->child->string) == NULL)
        return not_ours(results, error);
    for (const cJSON *field = ours->child; field != NULL; field = field->next) {
        const cJSON *other = jsonl_field(theirs, field->string);
        if (other != NULL && cJSON_Compare(field, other, true))
            continue;
        char a[200], b[200];
        print_value(other, a, sizeof a);
        print_value(field, b, sizeof b);
        return error_set(error, ERROR_ARGUMENT,
                         "%s: was made with %s %s, and this run has %s; run it alike or " JSONL_OUTPUT_ELSEWHERE,
                         results->output.path, field->string, a, b);
    }
    return 0;
}

static int keep_record(RougeResults *results, JsonlReader *reader, Error *error) {
    RougeRecord record;
    const char *field = rouge_record_read(&record, reader->object);
    if (field != NULL) {
        jsonl_fault(reader, error, "the record's \"%s\" is missing or of another kind, or out of range", field);
        return jsonl_settle(reader, error);
    }
    RougeResult *items = array_for_one_more(results->items, results->count, sizeof *items, "earlier results", error);
    if (items == NULL)
        return ERROR_MEMORY;
    results->items = items;
    results->items[results->count++] = (RougeResult){record.line, record.policy, reader->object};
    reader->object = NULL;
    return 0;
}

static int by_policy_and_line(const void *a, const void *b) {
    const RougeResult *x = a, *y = b;
    int order = strcmp(x->policy, y->policy);
    return order != 0 ? order : (x->line > y->line) - (x->line < y->line);
}

/* Reads the whole lines; nothing is changed yet. */
static int read_lines(RougeResults *results, off_t end, const cJSON *header, Error *error) {
    JsonlReader reader;
    int status;
    if (jsonl_open(&reader, results->output.path, error) < 0)
        return error->code;
    reader.cure = "remove that line or " JSONL_OUTPUT_ELSEWHERE;
    status = jsonl_next(&reader, error);
    if (status == 0 || status == ERROR_FORMAT)
        status = not_ours(results, error);
    else if (status > 0)
        status = compare_headers(results, header, reader.object, error);
    while (status == 0 && ftello(reader.stream) < end && (status = jsonl_next(&reader, error)) > 0)
        status = keep_record(results, &reader, error);
    jsonl_close(&reader);
    if (results->count > 0)
        qsort(results->items, results->count, sizeof *results->items, by_policy_and_line);
    return status;
}

static int open_results(RougeResults *results, const char *path, const char *header_text, const cJSON *header,
                        Error *error) {
    JsonlOutput *output = &results->output;
    if (jsonl_output_open(output, path, error) < 0)
        return error->code;
    if (output->end == 0 && output->size > 0 && !is_torn_header(output->stream, output->size, header_text))
        return not_ours(results, error);
    if ((output->end > 0 && read_lines(results, output->end, header, error) < 0) || jsonl_output_cut(output, error) < 0)
        return error->code;
    return output->end == 0 ? jsonl_output_add_text(output, header_text, error) : 0;
}

int rouge_results_open(RougeResults *results, const char *path, const cJSON *header, Error *error) {
    *results = (RougeResults){0};
    char *text = cJSON_PrintUnformatted(header);
    int status =
        text == NULL ? error_memory(error, "the results' header", 0) : open_results(results, path, text, header, error);
    free(text);
    if (status < 0)
        rouge_results_close(results);
    return status;
}

void rouge_results_close(RougeResults *results) {
    jsonl_output_close(&results->output);
    for (size_t i = 0; i < results->count; i++)
        cJSON_Delete(results->items[i].object);
    free(results->items);
    *results = (RougeResults){0};
}

bool rouge_results_find(const RougeResults *results, const char *policy, size_t line, RougeRecord *out) {
    RougeResult wanted = {line, policy, NULL};
    if (results->count == 0)
        return false;
    const RougeResult *found =
        bsearch(&wanted, results->items, results->count, sizeof *results->items, by_policy_and_line);
    return found != NULL && rouge_record_read(out, found->object) == NULL;
}

int rouge_results_add(RougeResults *results, const RougeRecord *record, const cJSON *reference, Error *error) {
    cJSON *object = rouge_record_json(record, reference);
    int status = jsonl_output_add(&results->output, object, error);
    cJSON_Delete(object);
    return status;
}

void rouge_hash(const void *data, size_t size, char out[ROUGE_HASH_TEXT]) {
    snprintf(out, ROUGE_HASH_TEXT, "%016llx", (unsigned long long)XXH3_64bits(data, size));
}

int rouge_results_identify(cJSON *header, const char *name, const char *path, Error *error) {
    char key[64], hash[ROUGE_HASH_TEXT];
    struct stat status;
    MappedFile file;
    const char *slash = strrchr(path, '/');
    cJSON_AddStringToObject(header, name, slash == NULL ? path : slash + 1);
    if (stat(path, &status) != 0 || !S_ISREG(status.st_mode))
        return 0;
    if (mapped_file_open(&file, path, error) < 0)
        return error->code;
    snprintf(key, sizeof key, "%s_bytes", name);
    cJSON_AddNumberToObject(header, key, (double)file.size);
    snprintf(key, sizeof key, "%s_xxh3", name);
    rouge_hash(file.data, file.size, hash);
    cJSON_AddStringToObject(header, key, hash);
    mapped_file_close(&file);
    return 0;
}

/* See base_logits.h. Layout, all little-endian:
 *
 *     header   "STOWKVB1", the four U64 of the key, XXH3 of all that
 *     row      XXH3 of what follows, F64 nll, F32 largest log-probability, F32 step, (n_vocab) U16 steps below it;
 *              padded to 8 bytes */
#include "eval/perplexity/base_logits.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define STEPS 65535.0

typedef struct Header {
    char magic[8];
    BaseLogitsKey key;
    uint64_t checksum;
} Header;

typedef struct Row {
    uint64_t checksum;
    double nll;
    float top, step;
    uint16_t codes[];
} Row;

static const char MAGIC[8] = {'S', 'T', 'O', 'W', 'K', 'V', 'B', '1'};

static Header header_of(const BaseLogitsKey *key) {
    Header header = {.key = *key};
    memcpy(header.magic, MAGIC, sizeof MAGIC);
    header.checksum = XXH3_64bits(&header, offsetof(Header, checksum));
    return header;
}

static size_t row_size(const BaseLogitsKey *key) {
    return (sizeof(Row) + key->n_vocab * sizeof(uint16_t) + 7) / 8 * 8;
}

size_t base_logits_size(const BaseLogitsKey *key) {
    return sizeof(Header) + key->n_rows * row_size(key);
}

static uint64_t row_checksum(const Row *row, size_t row_bytes) {
    return XXH3_64bits((const uint8_t *)row + sizeof row->checksum, row_bytes - sizeof row->checksum);
}

static int prepare(BaseLogits *file, const char *path, const BaseLogitsKey *key, Error *error) {
    *file = (BaseLogits){.key = *key, .path = path, .row_bytes = row_size(key)};
    file->row = calloc(1, file->row_bytes);
    return file->row != NULL ? 0 : error_memory(error, "a row of base logits", file->row_bytes);
}

int base_logits_create(BaseLogits *file, const char *path, const BaseLogitsKey *key, Error *error) {
    Header header = header_of(key);
    int status = prepare(file, path, key, error);
    if (status == 0)
        status = output_file_open(&file->out, path, error);
    if (status == 0 && fwrite(&header, sizeof header, 1, file->out.stream) != 1)
        status = error_set(error, ERROR_IO, "%s: %s; free some space", path, strerror(errno));
    if (status < 0)
        base_logits_close(file);
    return status;
}

static int check_header(const BaseLogits *file, Error *error) {
    const char *path = file->path;
    Header header, expected = header_of(&file->key);
    if (file->in.size < sizeof header || memcmp(file->in.data, MAGIC, sizeof MAGIC) != 0)
        return error_set(error, ERROR_FORMAT, "%s: no base logits; make them with --save_base_logits", path);
    memcpy(&header, file->in.data, sizeof header);
    if (header.checksum != XXH3_64bits(&header, offsetof(Header, checksum)))
        return error_set(error, ERROR_FORMAT, "%s: the header is damaged; save the base logits again", path);
    if (header.key.model != expected.key.model || header.key.n_vocab != expected.key.n_vocab)
        return error_set(error, ERROR_ARGUMENT,
                         "%s: base logits of another model; save them again with this --checkpoint_path", path);
    if (header.key.tokens != expected.key.tokens || header.key.n_rows != expected.key.n_rows)
        return error_set(error, ERROR_ARGUMENT,
                         "%s: base logits of another text, --context, --stride, --chunks or --ppl_mode; give the same, "
                         "or save them again",
                         path);
    if (file->in.size != base_logits_size(&file->key))
        return error_set(error, ERROR_FORMAT, "%s: %zu bytes, expected %zu; the file is cut, save it again", path,
                         file->in.size, base_logits_size(&file->key));
    return 0;
}

int base_logits_open(BaseLogits *file, const char *path, const BaseLogitsKey *key, Error *error) {
    int status = prepare(file, path, key, error);
    if (status == 0)
        status = mapped_file_open(&file->in, path, error);
    if (status == 0)
        status = check_header(file, error);
    if (status < 0)
        base_logits_close(file);
    return status;
}

/* Logits to steps below the largest log-probability. */
static void encode_row(const float *logits, size_t n_vocab, double nll, Row *row) {
    double max = -INFINITY, min = INFINITY, sum = 0;
    for (size_t v = 0; v < n_vocab; v++) {
        max = fmax(max, (double)logits[v]);
        min = fmin(min, (double)logits[v]);
    }
    for (size_t v = 0; v < n_vocab; v++)
        sum += exp((double)logits[v] - max);
    row->nll = nll;
    row->top = (float)-log(sum);
    row->step = (float)((max - min) / STEPS);
    for (size_t v = 0; v < n_vocab; v++) {
        double steps = row->step > 0 ? (max - (double)logits[v]) / (double)row->step : 0;
        row->codes[v] = (uint16_t)lrint(fmin(steps, STEPS));
    }
}

int base_logits_write(BaseLogits *file, const float *logits, const double *nll, size_t n_rows, Error *error) {
    Row *row = (Row *)(void *)file->row;
    size_t n_vocab = file->key.n_vocab;
    for (size_t i = 0; i < n_rows; i++) {
        encode_row(logits + i * n_vocab, n_vocab, nll[i], row);
        row->checksum = row_checksum(row, file->row_bytes);
        if (fwrite(row, file->row_bytes, 1, file->out.stream) != 1)
            return error_set(error, ERROR_IO, "%s: %s; base logits of this run take %zu bytes", file->path,
                             strerror(errno), base_logits_size(&file->key));
    }
    file->n_done += n_rows;
    return 0;
}

int base_logits_read(BaseLogits *file, float *logits, double *nll, size_t n_rows, Error *error) {
    Row *row = (Row *)(void *)file->row;
    size_t n_vocab = file->key.n_vocab;
    for (size_t i = 0; i < n_rows; i++, file->n_done++) {
        memcpy(row, file->in.data + sizeof(Header) + file->n_done * file->row_bytes, file->row_bytes);
        if (row->checksum != row_checksum(row, file->row_bytes))
            return error_set(error, ERROR_FORMAT, "%s: position %zu is damaged; save the base logits again", file->path,
                             file->n_done);
        nll[i] = row->nll;
        for (size_t v = 0; v < n_vocab; v++)
            logits[i * n_vocab + v] = row->top - (float)row->codes[v] * row->step;
    }
    return 0;
}

int base_logits_commit(BaseLogits *file, Error *error) {
    return output_file_commit(&file->out, error);
}

void base_logits_close(BaseLogits *file) {
    if (file->out.stream != NULL)
        output_file_discard(&file->out);
    mapped_file_close(&file->in);
    free(file->row);
    *file = (BaseLogits){0};
}

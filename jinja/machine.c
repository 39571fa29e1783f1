/* See machine.h. */
#include "jinja/machine.h"

#include "base/checked.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct Chunk {
    struct Chunk *next;
    size_t used, size;
    max_align_t memory[];
} Chunk;

void *jinja_take(Machine *m, size_t size_bytes) {
    if (size_bytes > JINJA_MAX_BYTES - m->n_bytes)
        jinja_fail(m, ERROR_UNSUPPORTED, "takes more than %d MiB of memory", JINJA_MAX_BYTES >> 20);
    size_bytes = round_up(size_bytes, sizeof(max_align_t));
    if (m->chunks == NULL || size_bytes > m->chunks->size - m->chunks->used) {
        size_t size = at_least(size_bytes, 64 << 10);
        Chunk *chunk = calloc(1, sizeof *chunk + size);
        if (chunk == NULL)
            jinja_fail(m, ERROR_MEMORY, "out of memory");
        *chunk = (Chunk){m->chunks, 0, size};
        m->chunks = chunk;
        m->n_bytes = at_most(m->n_bytes + size, JINJA_MAX_BYTES);
    }
    m->chunks->used += size_bytes;
    return (char *)m->chunks->memory + m->chunks->used - size_bytes;
}

void jinja_machine_free(Machine *m) {
    for (Chunk *chunk = m->chunks, *next; chunk != NULL; chunk = next) {
        next = chunk->next;
        free(chunk);
    }
    m->chunks = NULL;
}

void jinja_step(Machine *m, size_t n_bytes) {
    m->n_steps += 1 + n_bytes / 16;
    if (m->n_steps > m->max_steps)
        jinja_fail(m, ERROR_UNSUPPORTED, "goes on for more than %zu steps", m->max_steps);
}

void jinja_enter(Machine *m) {
    if (++m->depth > JINJA_MAX_DEPTH)
        jinja_fail(m, ERROR_UNSUPPORTED, "is nested deeper than %d levels", JINJA_MAX_DEPTH);
}

void jinja_fail(Machine *m, ErrorCode code, const char *format, ...) {
    char cause[400];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(cause, sizeof cause, format, arguments);
    va_end(arguments);
    const char *cure = code == ERROR_ARGUMENT ? "change the conversation, or "
                       : code == ERROR_FORMAT ? "correct it, or "
                                              : "";
    error_set(m->error, code, "chat template, line %zu: %s; %schoose another with --chat_template", m->line, cause,
              cure);
    longjmp(m->on_failure, 1);
}

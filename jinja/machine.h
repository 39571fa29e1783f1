/* What a template runs on: memory that is freed at once, limits, and failure, which unwinds to the public function that
 * has set `on_failure`: nothing in between owns anything. Internal to this room. */
#ifndef STOWKV_JINJA_MACHINE_H
#define STOWKV_JINJA_MACHINE_H

#include "jinja/jinja.h"

#include <setjmp.h>

enum {
    JINJA_MAX_BYTES = 256 << 20,
    JINJA_MAX_STEPS = 2000000, /* and one for each byte of the messages. A step: a value, or 16 bytes of text */
    JINJA_MAX_DEPTH = 200      /* of expressions, blocks and macros within each other */
};

typedef struct Machine {
    jmp_buf on_failure;
    Error *error;
    struct Chunk *chunks;
    size_t n_bytes, n_steps, max_steps, depth, n_loops;
    size_t line;            /* for messages */
    struct Token *at;       /* what is read next */
    bool skips;             /* what is read is not done: a branch not taken, or behind a break */
    bool breaks, continues; /* the loop, once its body is skipped to the end */
    struct Scope *scope;
    struct Buffer *out;
    const JinjaInput *input;
} Machine;

/* Zeroed memory that lives until jinja_machine_free(). Fails where there is none, or too much is taken. */
void *jinja_take(Machine *m, size_t size_bytes);
void jinja_machine_free(Machine *m);

void jinja_step(Machine *m, size_t n_bytes); /* counts a step, and what n_bytes of text cost */
void jinja_enter(Machine *m);                /* one deeper; `depth` is decreased on the way back */

/* Leaves with "chat template, line N: cause; cure", the cure by `code`. */
_Noreturn void jinja_fail(Machine *m, ErrorCode code, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif

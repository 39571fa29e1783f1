/* Errors as values: a library function returns 0 or a negative ErrorCode and fills an Error with one line,
 * "cause; cure". Nothing below main() prints it or exits.
 *
 *     Error error = {0};
 *     if (model_open(&model, path, &error) < 0) {
 *         fprintf(stderr, "generate: error: %s\n", error.message);
 *         return 1;
 *     }
 */
#ifndef STOWKV_ERROR_H
#define STOWKV_ERROR_H

typedef enum ErrorCode {
    ERROR_IO = -1,          /* the operating system refused a file operation */
    ERROR_FORMAT = -2,      /* a file does not hold what its format promises */
    ERROR_UNSUPPORTED = -3, /* valid input that this program cannot use */
    ERROR_ARGUMENT = -4,    /* a caller's or a user's value is out of range */
    ERROR_MEMORY = -5,      /* an allocation failed */
    ERROR_INTERRUPTED = -6, /* the caller asked to stop */
    ERROR_USAGE = -7        /* a command line that cannot be understood */
} ErrorCode;

typedef struct Error {
    int code;          /* 0, or the ErrorCode of the failure */
    char message[768]; /* one line without a newline: cause; cure */
} Error;

/* Fills `error` (may be NULL) and returns `code`, so that a failure reads `return error_set(error, ...)`.
 * Control characters in the formatted text (names from a damaged file, say) become '?': a message stays one line. */
int error_set(Error *error, ErrorCode code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* The same for an allocation of `size_bytes` for `what` ("logits") that failed. */
int error_memory(Error *error, const char *what, unsigned long long size_bytes);

/* Of several things that are all tried, the first failure counts: takes `next` unless `error` is one already. Returns
 * the code. */
int error_keep_first(Error *error, const Error *next);

#endif

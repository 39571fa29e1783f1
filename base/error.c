/* Formatting of Error; see error.h. */
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>

int error_set(Error *error, ErrorCode code, const char *format, ...) {
    if (error != NULL) {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(error->message, sizeof error->message, format, arguments);
        va_end(arguments);
        for (char *c = error->message; *c != '\0'; c++)
            if ((unsigned char)*c < 0x20 || *c == 0x7f)
                *c = '?';
        error->code = code;
    }
    return code;
}

int error_memory(Error *error, const char *what, unsigned long long size_bytes) {
    return error_set(error, ERROR_MEMORY,
                     "out of memory: %s needs %llu bytes; use a smaller --n_ctx or a smaller checkpoint", what,
                     size_bytes);
}

int error_keep_first(Error *error, const Error *next) {
    if (error->code == 0 && next->code < 0)
        *error = *next;
    return error->code;
}

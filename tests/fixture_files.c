/* See fixture_files.h. */
#include "tests/fixture_files.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <unistd.h>

#include <cmocka.h>

static void skip_loudly(const char *variable, const char *what) {
    fprintf(stderr, "\n*** SKIPPED: %s is not there; %s says where it should be ***\n\n", what, variable);
    skip();
}

const char *fixture_file(const char *variable) {
    const char *path = getenv(variable);
    if (path == NULL || path[0] == '\0' || access(path, R_OK) != 0)
        skip_loudly(variable, path == NULL || path[0] == '\0' ? "the file" : path);
    return path;
}

const char *fixture_path(const char *variable, const char *name) {
    static char path[4096];
    const char *folder = getenv(variable);
    snprintf(path, sizeof path, "%s/%s", folder == NULL ? "" : folder, name);
    if (folder == NULL || access(path, R_OK) != 0)
        skip_loudly(variable, name);
    return path;
}

void *fixture_load(const char *path, size_t *size_bytes) {
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    *size_bytes = (size_t)ftell(file);
    rewind(file);
    void *data = malloc(*size_bytes > 0 ? *size_bytes : 1);
    assert_non_null(data);
    assert_int_equal(fread(data, 1, *size_bytes, file), *size_bytes);
    fclose(file);
    return data;
}

void fixture_hangs_after(int seconds) {
    const struct itimerval timer = {.it_value = {.tv_sec = seconds}};
    setitimer(ITIMER_PROF, &timer, NULL);
}

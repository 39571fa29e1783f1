/* See file_identity.h. */
#include "base/file_identity.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_LINKS 40 /* as Linux follows */

size_t path_folder_length(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash == NULL ? 0 : (size_t)(slash - path) + 1;
}

bool path_is_folder(const char *path) {
    struct stat status;
    return stat(path, &status) == 0 && S_ISDIR(status.st_mode);
}

bool path_beside(const char *path, const char *name, char *out, size_t size) {
    bool folder = path_is_folder(path);
    size_t length = folder ? strlen(path) : path_folder_length(path);
    int written = snprintf(out, size, "%.*s%s%s", (int)length, path, folder ? "/" : "", name);
    return written > 0 && (size_t)written < size && access(out, F_OK) == 0;
}

/* What the link at `path` points at, as a path from here; NULL where it is no link, or without memory. */
static char *link_target(const char *path) {
    char target[PATH_MAX];
    ssize_t length = readlink(path, target, sizeof target - 1);
    if (length < 0)
        return NULL;
    target[length] = '\0';
    size_t folder = target[0] == '/' ? 0 : path_folder_length(path), size = folder + (size_t)length + 1;
    char *out = malloc(size);
    if (out != NULL)
        snprintf(out, size, "%.*s%s", (int)folder, path, target);
    return out;
}

char *path_behind_links(const char *path) {
    char *here = strdup(path), *next = NULL;
    for (int i = 0; i < MAX_LINKS && here != NULL && (next = link_target(here)) != NULL; i++) {
        free(here);
        here = next;
    }
    return here;
}

static bool identify_status(const struct stat *status, FileIdentity *out) {
    *out = (FileIdentity){.device = status->st_dev, .inode = status->st_ino};
    return S_ISREG(status->st_mode);
}

bool file_identify_descriptor(int descriptor, FileIdentity *out) {
    struct stat status;
    return fstat(descriptor, &status) == 0 && identify_status(&status, out);
}

/* A name in a folder that exists, which is not there itself. */
static bool identify_missing(char *path, FileIdentity *out) {
    struct stat folder;
    size_t length = path_folder_length(path);
    const char *name = path + length;
    if (name[0] == '\0' || strlen(name) > NAME_MAX)
        return false;
    char name_copy[NAME_MAX + 1];
    snprintf(name_copy, sizeof name_copy, "%s", name);
    path[length] = '\0';
    if (stat(length > 0 ? path : ".", &folder) != 0)
        return false;
    *out = (FileIdentity){.device = folder.st_dev, .inode = folder.st_ino};
    memcpy(out->name, name_copy, sizeof out->name);
    return true;
}

bool file_identify(const char *path, FileIdentity *out) {
    struct stat status;
    if (stat(path, &status) == 0)
        return identify_status(&status, out);
    char *end = path_behind_links(path);
    bool known = end != NULL && identify_missing(end, out);
    free(end);
    return known;
}

bool file_is_same(const FileIdentity *a, const FileIdentity *b) {
    return a->device == b->device && a->inode == b->inode && strcmp(a->name, b->name) == 0;
}

/* Result files are whole or not there, however the program ends: what a folder holds, and how the kernel says a process
 * ended, are the oracles. Everything runs twice: with files that have no name while they are written, and as on a file
 * system without them. */
#include "base/output_file.h"
#include "base/unnamed_file.h"
#include "session/signals.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <dirent.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static bool without_unnamed; /* as on a file system that has none */

int __real_unnamed_file_open(const char *folder, const char *trial);
int __wrap_unnamed_file_open(const char *folder, const char *trial);

int __wrap_unnamed_file_open(const char *folder, const char *trial) {
    return without_unnamed ? -1 : __real_unnamed_file_open(folder, trial);
}

static int enter_folder(void **state) {
    static char folder[256];
    const char *parent = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/stowkv-test-XXXXXX", parent != NULL ? parent : "/tmp");
    *state = folder;
    return mkdtemp(folder) == NULL || chdir(folder) != 0;
}

static int remove_folder(void **state) {
    return chdir("/") != 0 || rmdir(*state) != 0;
}

/* The names in the folder, each with a space behind it; few enough that their order does not matter. */
static const char *names(void) {
    static char all[1024];
    DIR *folder = opendir(".");
    assert_non_null(folder);
    all[0] = '\0';
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;)
        if (entry->d_name[0] != '.')
            snprintf(all + strlen(all), sizeof all - strlen(all), "%s ", entry->d_name);
    closedir(folder);
    return all;
}

static const char *contents(const char *path) {
    static char text[256];
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    fclose(file);
    return text;
}

static OutputFile open_output(const char *path) {
    OutputFile file;
    Error error = {0};
    if (output_file_open(&file, path, &error) < 0)
        fail_msg("%s", error.message);
    return file;
}

static void write_output(const char *path, const char *text) {
    OutputFile file = open_output(path);
    Error error = {0};
    fputs(text, file.stream);
    if (output_file_commit(&file, &error) < 0)
        fail_msg("%s", error.message);
}

static void test_whole_or_not_there(void **state) {
    (void)state;
    mode_t mask = umask(027);
    OutputFile file = open_output("a");
    fputs("first", file.stream);
    fflush(file.stream);
    if (!without_unnamed)
        assert_string_equal(names(), "");
    assert_int_not_equal(access("a", F_OK), 0);
    Error error = {0};
    assert_int_equal(output_file_commit(&file, &error), 0);
    assert_string_equal(names(), "a ");
    assert_string_equal(contents("a"), "first");
    struct stat status;
    assert_int_equal(stat("a", &status), 0);
    assert_int_equal(status.st_mode & 0777, 0640);
    umask(mask);
    file = open_output("a");
    fputs("second", file.stream);
    fflush(file.stream);
    assert_string_equal(contents("a"), "first");
    output_file_discard(&file);
    output_file_discard(&file);
    assert_string_equal(contents("a"), "first");
    write_output("./a", "third");
    assert_string_equal(names(), "a ");
    assert_string_equal(contents("a"), "third");
    unlink("a");
}

static void test_links(void **state) {
    (void)state;
    assert_int_equal(mkdir("folder", 0755), 0);
    assert_int_equal(symlink("folder/second", "first"), 0);
    assert_int_equal(symlink("a", "folder/second"), 0);
    for (int i = 0; i < 2; i++) { /* to a file that is not there, and to one that is */
        write_output("first", i == 0 ? "once" : "again");
        struct stat status;
        assert_int_equal(lstat("first", &status), 0);
        assert_true(S_ISLNK(status.st_mode));
        assert_int_equal(lstat("folder/a", &status), 0);
        assert_true(S_ISREG(status.st_mode));
        assert_string_equal(contents("first"), i == 0 ? "once" : "again");
    }
    unlink("first");
    unlink("folder/second");
    unlink("folder/a");
    assert_int_equal(rmdir("folder"), 0);
}

static void test_longest_name(void **state) {
    (void)state;
    char name[256];
    memset(name, 'n', 255);
    name[255] = '\0';
    write_output(name, "new");
    write_output(name, "replaced");
    assert_string_equal(contents(name), "replaced");
    unlink(name);
}

static void test_refused(void **state) {
    (void)state;
    const char *const paths[] = {"", ".", "missing/a", "missing/"};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        OutputFile file;
        Error error = {0};
        assert_int_equal(output_file_open(&file, paths[i], &error), ERROR_IO);
        assert_non_null(strstr(error.message, "cannot be written"));
    }
    assert_string_equal(names(), "");
}

static void test_pipe(void **state) {
    (void)state;
    assert_int_equal(mkfifo("pipe", 0600), 0);
    int reader = open("pipe", O_RDWR);
    char text[8] = "";
    write_output("pipe", "through");
    assert_int_equal(read(reader, text, sizeof text), 7);
    assert_string_equal(text, "through");
    close(reader);
    write_output("/dev/null", "nowhere");
    assert_string_equal(names(), "pipe ");
    unlink("pipe");
}

/* What a child process does, and how it ends. */
static int end_of(void (*child)(int argument), int argument) {
    int status;
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
        child(argument);
        _exit(99);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

/* The text and a file that is where the text goes, one behind the other. */
static void print_to_stdout_twice(int argument) {
    (void)argument;
    int descriptor = open("text", O_CREAT | O_TRUNC | O_WRONLY, 0600);
    dup2(descriptor, STDOUT_FILENO);
    OutputFile file;
    Error error = {0};
    if (output_file_open(&file, "/dev/stdout", &error) < 0 || write(STDOUT_FILENO, "text, ", 6) != 6)
        _exit(1);
    fputs("result", file.stream);
    _exit(output_file_commit(&file, &error) < 0);
}

static void test_stdout_by_name(void **state) {
    (void)state;
    assert_int_equal(end_of(print_to_stdout_twice, 0), 0);
    assert_string_equal(contents("text"), "text, result");
    assert_string_equal(names(), "text ");
    unlink("text");
}

/* Two files half written, one of them in place of another, and then a signal. */
static void end_by_signal(int signal_number) {
    signal(signal_number, SIG_DFL);
    signals_catch();
    OutputFile first, second;
    Error error = {0};
    if (output_file_open(&first, "old", &error) < 0 || output_file_open(&second, "new", &error) < 0)
        _exit(1);
    fputs("half", first.stream);
    fflush(first.stream);
    raise(signal_number);
    if (signal_number == SIGINT && program_interrupted)
        raise(signal_number); /* the first only asks */
}

static void test_signals(void **state) {
    (void)state;
    static const int SIGNALS[] = {SIGINT, SIGTERM, SIGHUP, SIGPIPE, SIGQUIT, SIGXCPU, SIGBUS, SIGABRT};
    write_output("old", "whole");
    for (size_t i = 0; i < sizeof SIGNALS / sizeof *SIGNALS; i++) {
        int status = end_of(end_by_signal, SIGNALS[i]);
        if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGNALS[i])
            fail_msg("signal %d: wait status %d", SIGNALS[i], status);
        if (strcmp(names(), "old ") != 0)
            fail_msg("signal %d leaves %s", SIGNALS[i], names());
    }
    if (!without_unnamed) {
        int status = end_of(end_by_signal, SIGKILL);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        assert_string_equal(names(), "old ");
    }
    assert_string_equal(contents("old"), "whole");
    unlink("old");
}

/* Ignored before the program began, as nohup does. */
static void ignore_hangup(int argument) {
    (void)argument;
    signal(SIGHUP, SIG_IGN);
    signals_catch();
    raise(SIGHUP);
    _exit(0);
}

static void test_nohup(void **state) {
    (void)state;
    assert_int_equal(end_of(ignore_hangup, 0), 0);
}

/* The disk is full, as `ulimit -f` has it. */
static void fill_up(int argument) {
    (void)argument;
    signals_catch();
    setrlimit(RLIMIT_FSIZE, &(struct rlimit){4096, 4096});
    OutputFile file;
    Error error = {0};
    if (output_file_open(&file, "large", &error) < 0)
        _exit(1);
    for (int i = 0; i < 10000; i++)
        fputc('x', file.stream);
    _exit(output_file_commit(&file, &error) == ERROR_IO && strstr(error.message, "large: cannot be written") != NULL
              ? 0
              : 2);
}

static void test_full_disk(void **state) {
    (void)state;
    assert_int_equal(end_of(fill_up, 0), 0);
    assert_string_equal(names(), "");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole_or_not_there),
        cmocka_unit_test(test_links),
        cmocka_unit_test(test_longest_name),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_pipe),
        cmocka_unit_test(test_stdout_by_name),
        cmocka_unit_test(test_signals),
        cmocka_unit_test(test_nohup),
        cmocka_unit_test(test_full_disk),
    };
    int n_failed = cmocka_run_group_tests_name("files without a name", tests, enter_folder, remove_folder);
    without_unnamed = true;
    return n_failed + cmocka_run_group_tests_name("files with a temporary name", tests, enter_folder, remove_folder);
}

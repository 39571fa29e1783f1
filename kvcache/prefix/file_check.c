/* See file_check.h. */
#include "kvcache/prefix/file_check.h"

#include "kvcache/prefix/tables.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MOST_SECONDS = 60, DAMAGED = 255 }; /* what a child exits with is an errno, or this */

static int is_whole(MDB_env *env, const char *path) {
    MDB_envinfo info;
    MDB_stat page;
    struct stat file;
    bool whole = mdb_env_info(env, &info) == 0 && mdb_env_stat(env, &page) == 0 && stat(path, &file) == 0 &&
                 (size_t)file.st_size / page.ms_psize > info.me_last_pgno;
    return whole ? 0 : MDB_CORRUPTED;
}

static void give_up_waiting(int signal_number) {
    (void)signal_number;
    _exit(EBUSY);
}

/* Waits for who writes, but not for ever. */
static int begin_writing(MDB_env *env, MDB_txn **txn) {
    alarm(MOST_SECONDS);
    int status = mdb_txn_begin(env, NULL, 0, txn);
    alarm(0);
    return status;
}

static int open_waiting(MDB_env **env, PrefixTables *tables, const char *path, size_t map_bytes) {
    alarm(MOST_SECONDS);
    int status = tables_open(env, tables, path, map_bytes, false);
    alarm(0);
    return status;
}

static int check_reading(MDB_env *env, const PrefixTables *tables) {
    MDB_txn *txn;
    int status = mdb_txn_begin(env, NULL, MDB_RDONLY, &txn);
    if (status != 0)
        return status;
    status = tables_check_free(env, txn, tables);
    mdb_txn_abort(txn);
    return status;
}

static int check_writing(MDB_env *env, const PrefixTables *tables) {
    MDB_txn *txn;
    int status = begin_writing(env, &txn);
    if (status != 0)
        return status;
    status = tables_check(txn, tables);
    mdb_txn_abort(txn);
    return status;
}

/* The first commits, which change LMDB's list of free pages, are better made here. */
static int check_commits(MDB_env *env, const PrefixTables *tables) {
    MDB_txn *txn;
    int status = 0;
    for (int i = 0; i < 4 && status == 0; i++) {
        status = begin_writing(env, &txn);
        if (status != 0)
            return status;
        status = tables_tick(txn, tables);
        if (status == 0)
            status = mdb_txn_commit(txn);
        else
            mdb_txn_abort(txn);
    }
    return status;
}

static int walk(const char *path, size_t map_bytes) {
    MDB_env *env;
    PrefixTables tables;
    int status = open_waiting(&env, &tables, path, map_bytes);
    if (status != 0)
        return status;
    status = is_whole(env, path);
    if (status == 0)
        status = check_reading(env, &tables);
    if (status == 0)
        status = check_writing(env, &tables);
    if (status == 0)
        status = check_commits(env, &tables);
    mdb_env_close(env);
    return status;
}

/* What a disk or its owner say: LMDB gives EIO where a write was cut short. Damaged pages lead to others, too, such as
 * ENOMEM for a map of the size that they claim. */
static bool is_no_damage(int status) {
    static const int STATUSES[] = {ENOSPC, EDQUOT, EFBIG, EIO, EROFS, EACCES};
    for (size_t i = 0; i < sizeof STATUSES / sizeof *STATUSES; i++)
        if (status == STATUSES[i])
            return true;
    return false;
}

/* No core, no message of LMDB's, and no handler of the program's. Damaged pages may lead in a circle, so the time that
 * it computes is bounded. */
static void walk_alone(const char *path, size_t map_bytes) {
    static const int SIGNALS[] = {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL, SIGXCPU};
    int nowhere = open("/dev/null", O_WRONLY);
    for (size_t i = 0; i < sizeof SIGNALS / sizeof *SIGNALS; i++)
        signal(SIGNALS[i], SIG_DFL);
    signal(SIGXFSZ, SIG_IGN);
    signal(SIGALRM, give_up_waiting);
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    setrlimit(RLIMIT_CPU, &(struct rlimit){MOST_SECONDS, MOST_SECONDS});
    if (nowhere >= 0)
        dup2(nowhere, STDERR_FILENO);
    int status = walk(path, map_bytes);
    _exit(status == 0 || is_no_damage(status) ? status : DAMAGED);
}

int prefix_file_check(const char *path, size_t map_bytes) {
    int status;
    if (access(path, F_OK) != 0)
        return 0;
    pid_t child = fork();
    if (child == 0)
        walk_alone(path, map_bytes);
    if (child < 0)
        return 0; /* cannot be told; most files are sound */
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            return MDB_CORRUPTED;
    return WIFEXITED(status) && WEXITSTATUS(status) != DAMAGED ? WEXITSTATUS(status) : MDB_CORRUPTED;
}

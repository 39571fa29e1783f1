/* See file_check.h. */
#include "kvcache/prefix/file_check.h"

#include "kvcache/prefix/tables.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MOST_SECONDS = 60 }; /* of a walk: damaged pages may lead in a circle */

static bool is_whole(MDB_env *env, const char *path) {
    MDB_envinfo info;
    MDB_stat page;
    struct stat file;
    return mdb_env_info(env, &info) == 0 && mdb_env_stat(env, &page) == 0 && stat(path, &file) == 0 &&
           (size_t)file.st_size / page.ms_psize > info.me_last_pgno;
}

static bool reads_well(MDB_env *env, const PrefixTables *tables) {
    MDB_txn *txn;
    if (mdb_txn_begin(env, NULL, MDB_RDONLY, &txn) != 0)
        return false;
    int status = tables_check_free(env, txn, tables);
    mdb_txn_abort(txn);
    return status == 0;
}

static bool writes_well(MDB_env *env, const PrefixTables *tables) {
    MDB_txn *txn;
    if (mdb_txn_begin(env, NULL, 0, &txn) != 0)
        return false;
    int status = tables_check(txn, tables);
    mdb_txn_abort(txn);
    return status == 0;
}

/* The first commits, which change LMDB's list of free pages, are better made here. */
static bool commits_well(MDB_env *env, const PrefixTables *tables) {
    MDB_txn *txn;
    for (int i = 0; i < 4; i++) {
        if (mdb_txn_begin(env, NULL, 0, &txn) != 0)
            return false;
        if (tables_tick(txn, tables) != 0) {
            mdb_txn_abort(txn);
            return false;
        }
        if (mdb_txn_commit(txn) != 0)
            return false;
    }
    return true;
}

static bool walk(const char *path, size_t map_bytes) {
    MDB_env *env;
    PrefixTables tables;
    if (tables_open(&env, &tables, path, map_bytes, false) != 0)
        return false;
    bool sound =
        is_whole(env, path) && reads_well(env, &tables) && writes_well(env, &tables) && commits_well(env, &tables);
    mdb_env_close(env);
    return sound;
}

/* No core, no message of LMDB's, and no handler of the program's. */
static void walk_alone(const char *path, size_t map_bytes) {
    static const int SIGNALS[] = {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL, SIGALRM};
    int nowhere = open("/dev/null", O_WRONLY);
    for (size_t i = 0; i < sizeof SIGNALS / sizeof *SIGNALS; i++)
        signal(SIGNALS[i], SIG_DFL);
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    if (nowhere >= 0)
        dup2(nowhere, STDERR_FILENO);
    alarm(MOST_SECONDS);
    _exit(walk(path, map_bytes) ? 0 : 1);
}

bool prefix_file_is_sound(const char *path, size_t map_bytes) {
    int status;
    if (access(path, F_OK) != 0)
        return true;
    pid_t child = fork();
    if (child == 0)
        walk_alone(path, map_bytes);
    if (child < 0)
        return true; /* cannot be told; most files are */
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            return false;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* The store of prefixes: time to live, least recently used, caps, against a model that is a plain list; files that were
 * damaged, cut or written by processes that were killed; several processes at once; a disk without room. An entry's
 * bytes follow from its key, so that anything else is seen at once. The clock is the test's. */
#include "base/random.h"
#include "kvcache/prefix/store.h"
#include "kvcache/prefix/tables.h"

#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { TTL = 1000, MAX_BYTES = 40000 };

static char folder[64];
static uint64_t fake_now, random_state = 1;
static size_t n_notes;
static char last_note[512];

static uint64_t now(void *user) {
    (void)user;
    return fake_now;
}

static void take_note(void *user, const char *line) {
    (void)user;
    n_notes++;
    snprintf(last_note, sizeof last_note, "%s", line);
}

static const char *file_path(void) {
    static char path[128];
    snprintf(path, sizeof path, "%s/stowkv-prefixes-1.mdb", folder);
    return path;
}

static void remove_files(void) {
    char lock[160];
    snprintf(lock, sizeof lock, "%s-lock", file_path());
    unlink(lock);
    unlink(file_path());
}

static PrefixStoreOptions options_of(size_t disk_bytes, size_t memory_bytes) {
    return (PrefixStoreOptions){.folder = disk_bytes > 0 ? folder : NULL,
                                .disk_bytes = disk_bytes,
                                .memory_bytes = memory_bytes,
                                .ttl_ms = TTL,
                                .now = now,
                                .note = take_note};
}

static PrefixStore *open_store(size_t disk_bytes, size_t memory_bytes) {
    PrefixStoreOptions options = options_of(disk_bytes, memory_bytes);
    PrefixStore *store;
    Error error = {0};
    if (prefix_store_open(&store, &options, &error) < 0)
        fail_msg("%s", error.message);
    return store;
}

static PrefixKey key_of(uint64_t id) {
    uint64_t state = id;
    uint64_t a = random_next(&state), b = random_next(&state);
    return (PrefixKey){{a, b}};
}

static size_t size_of(uint64_t id) {
    uint64_t state = id + 1000000;
    return id % 5 == 0 ? random_below(&state, 300) : random_below(&state, MAX_BYTES);
}

static const uint8_t *bytes_of(uint64_t id) {
    static uint8_t bytes[MAX_BYTES];
    uint64_t state = id + 2000000;
    for (size_t i = 0; i < size_of(id); i++)
        bytes[i] = (uint8_t)random_next(&state);
    return bytes;
}

static bool put(PrefixStore *store, uint64_t id) {
    PrefixItem item = {key_of(id), bytes_of(id), size_of(id)};
    return prefix_store_put(store, &item, 1);
}

/* Whether it is a hit; with other bytes than the entry's the test fails. */
static PrefixFound get(PrefixStore *store, uint64_t id) {
    PrefixKey key = key_of(id);
    const uint8_t *bytes;
    size_t size_bytes;
    PrefixFound found = prefix_store_get(store, &key, &bytes, &size_bytes);
    if (found == PREFIX_HIT &&
        (size_bytes != size_of(id) || (size_bytes > 0 && memcmp(bytes, bytes_of(id), size_bytes) != 0)))
        fail_msg("entry %llu has other bytes than were stored", (unsigned long long)id);
    return found;
}

static size_t file_size(void) {
    struct stat file;
    return stat(file_path(), &file) == 0 ? (size_t)file.st_size : 0;
}

/* ---- The model: entries in the order of their last use, the oldest first */

enum { N_IDS = 64 };

typedef struct Model {
    struct {
        uint64_t id, created;
    } entries[N_IDS];
    size_t count, used, cap;
    size_t (*cost)(size_t size_bytes);
} Model;

static size_t disk_cost(size_t size_bytes) { /* of docs/prefix_cache.md */
    return 256 + (size_bytes <= 1900 ? size_bytes : (size_bytes + 32 + 4095) / 4096 * 4096);
}

static size_t memory_cost(size_t size_bytes) {
    return sizeof(MemoryEntry) + size_bytes;
}

static size_t model_find(const Model *model, uint64_t id) {
    size_t i = 0;
    while (i < model->count && model->entries[i].id != id)
        i++;
    return i;
}

static void model_remove(Model *model, size_t i) {
    model->used -= model->cost(size_of(model->entries[i].id));
    memmove(&model->entries[i], &model->entries[i + 1], (--model->count - i) * sizeof *model->entries);
}

static void model_add(Model *model, uint64_t id, uint64_t created) {
    model->used += model->cost(size_of(id));
    model->entries[model->count].id = id;
    model->entries[model->count++].created = created;
}

static bool model_is_fresh(const Model *model, size_t i) {
    return i < model->count && fake_now - model->entries[i].created < TTL;
}

static void model_put(Model *model, uint64_t id) {
    for (size_t i = model->count; i-- > 0;)
        if (!model_is_fresh(model, i))
            model_remove(model, i);
    size_t i = model_find(model, id);
    if (model->cost == memory_cost && i < model->count)
        model_remove(model, i); /* replaced before room is made */
    while (model->used + model->cost(size_of(id)) > model->cap)
        model_remove(model, 0);
    i = model_find(model, id);
    if (i < model->count)
        model_remove(model, i);
    model_add(model, id, fake_now);
}

static bool model_get(Model *model, uint64_t id) {
    size_t i = model_find(model, id);
    if (!model_is_fresh(model, i))
        return false;
    uint64_t created = model->entries[i].created;
    model_remove(model, i);
    model_add(model, id, created);
    return true;
}

/* Where the file's free pages lay apart, more had to go than the sizes say: the oldest. */
static void squeeze_model(PrefixStore *store, Model *model, size_t *n_squeezed) {
    PrefixStoreStats stats;
    prefix_store_stats(store, &stats);
    bool squeezed = stats.disk.n_squeezed > *n_squeezed;
    *n_squeezed = stats.disk.n_squeezed;
    while (squeezed && model->count > stats.disk.n_entries)
        model_remove(model, 0);
}

static void check_against_model(PrefixStore *store, const Model *model, size_t cap) {
    PrefixStoreStats stats;
    for (uint64_t id = 0; id < N_IDS; id++) {
        uint64_t checksum;
        PrefixKey key = key_of(id);
        bool fresh = model_is_fresh(model, model_find(model, id));
        if ((prefix_store_peek(store, &key, &checksum) == PREFIX_HIT) != fresh)
            fail_msg("entry %llu is %s", (unsigned long long)id, fresh ? "missing" : "there, and should not be");
    }
    prefix_store_stats(store, &stats);
    assert_true(stats.memory_bytes <= cap && stats.disk.used_bytes <= model->cap && file_size() <= cap);
}

static void check_random_operations(size_t disk_bytes, size_t memory_bytes, Model *model) {
    remove_files();
    PrefixStore *store = open_store(disk_bytes, memory_bytes);
    PrefixStoreStats stats;
    size_t n_squeezed = 0;
    prefix_store_stats(store, &stats);
    model->cap = disk_bytes > 0 ? stats.disk.budget_bytes : memory_bytes;
    for (size_t step = 0; step < 1500; step++) {
        uint64_t id = random_below(&random_state, N_IDS), what = random_below(&random_state, 10);
        if (what < 5) {
            assert_true(put(store, id));
            model_put(model, id);
            squeeze_model(store, model, &n_squeezed);
        } else if (what < 9) {
            assert_int_equal(get(store, id) == PREFIX_HIT, model_get(model, id));
        } else {
            fake_now += random_below(&random_state, TTL / 4);
        }
        if (disk_bytes > 0 && random_below(&random_state, 100) == 0) {
            prefix_store_close(store);
            store = open_store(disk_bytes, memory_bytes);
            n_squeezed = 0;
        }
        check_against_model(store, model, disk_bytes > 0 ? disk_bytes : memory_bytes);
    }
    prefix_store_stats(store, &stats);
    printf("evicted from memory %zu, from disk %zu since it was opened; expired %zu\n", stats.memory_evicted,
           stats.disk.n_evicted, stats.expired);
    prefix_store_close(store);
}

static void test_memory_is_the_model(void **state) {
    (void)state;
    Model model = {.cost = memory_cost};
    check_random_operations(0, 300000, &model);
}

static void test_disk_is_the_model(void **state) {
    (void)state;
    Model model = {.cost = disk_cost};
    check_random_operations(1 << 20, 0, &model);
}

/* ---- Both tiers */

static void test_memory_survives_nothing_and_disk_does(void **state) {
    (void)state;
    remove_files();
    PrefixStore *store = open_store(4 << 20, 1 << 20);
    PrefixStoreStats stats;
    for (uint64_t id = 0; id < 8; id++)
        assert_true(put(store, id));
    for (uint64_t id = 0; id < 8; id++)
        assert_int_equal(get(store, id), PREFIX_HIT);
    prefix_store_stats(store, &stats);
    assert_int_equal(stats.from_memory, 8);
    prefix_store_close(store);
    store = open_store(4 << 20, 1 << 20);
    for (int round = 0; round < 2; round++)
        for (uint64_t id = 0; id < 8; id++)
            assert_int_equal(get(store, id), PREFIX_HIT);
    prefix_store_stats(store, &stats);
    assert_int_equal(stats.from_memory, 8);
    assert_int_equal(get(store, 9), PREFIX_ABSENT);
    fake_now += TTL;
    assert_int_equal(get(store, 1), PREFIX_EXPIRED);
    prefix_store_sweep(store);
    prefix_store_stats(store, &stats);
    assert_int_equal(stats.disk.n_entries, 0);
    assert_int_equal(stats.memory_entries, 0);
    prefix_store_close(store);
}

static void test_refusals_and_rights(void **state) {
    (void)state;
    remove_files();
    static uint8_t large[2 << 20];
    struct stat file;
    PrefixStore *store = open_store(1 << 20, 1 << 18);
    PrefixItem item = {key_of(1), large, sizeof large};
    n_notes = 0;
    assert_true(put(store, 2));
    assert_false(prefix_store_put(store, &item, 1));
    assert_int_equal(n_notes, 1);
    assert_non_null(strstr(last_note, "is not kept"));
    assert_int_equal(get(store, 1), PREFIX_ABSENT);
    assert_int_equal(get(store, 2), PREFIX_HIT); /* it made no room */
    assert_int_equal(stat(file_path(), &file), 0);
    assert_int_equal(file.st_mode & 0777, 0600);
    assert_int_equal(stat(folder, &file), 0);
    prefix_store_close(store);

    store = open_store(8 << 20, 0); /* a file that grows beyond 1 MB */
    for (uint64_t id = 0; id < N_IDS; id++)
        put(store, id);
    prefix_store_close(store);
    assert_true(file_size() > 1 << 20);
    store = open_store(1 << 20, 0);
    assert_non_null(strstr(last_note, "more than allowed"));
    assert_true(file_size() <= 1 << 20);
    prefix_store_close(store);

    Error error = {0};
    PrefixStoreOptions options = options_of(1 << 20, 0);
    options.folder = "/dev/null/x";
    assert_int_equal(prefix_store_open(&store, &options, &error), ERROR_IO);
    assert_non_null(strstr(error.message, "/dev/null/x: "));
}

/* ---- Damage */

static size_t fill(void) {
    remove_files();
    PrefixStore *store = open_store(2 << 20, 0);
    for (uint64_t id = 0; id < 24; id++)
        put(store, id);
    prefix_store_close(store);
    return file_size();
}

/* After anything that happened to the file: right bytes or a miss, and no crash. */
static size_t check_survives(void) {
    size_t n_hits = 0;
    PrefixStore *store = open_store(2 << 20, 0);
    for (uint64_t id = 0; id < 24; id++)
        n_hits += get(store, id) == PREFIX_HIT;
    if (put(store, 30)) /* or the file is given up */
        assert_int_equal(get(store, 30), PREFIX_HIT);
    prefix_store_close(store);
    return n_hits;
}

static void write_file(const uint8_t *bytes, size_t size) {
    remove_files();
    FILE *file = fopen(file_path(), "wb");
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    fclose(file);
}

/* A byte of each page's head and pointers, where LMDB's structure is, and others anywhere. */
static void test_damaged_files(void **state) {
    (void)state;
    size_t size = fill(), n_whole = 0, n_partly = 0, n_emptied = 0;
    uint8_t *good = malloc(size), *bad = malloc(size);
    FILE *file = fopen(file_path(), "rb");
    assert_int_equal(fread(good, 1, size, file), size);
    fclose(file);
    for (size_t page = 0; page < size; page += 4096)
        for (int i = 0; i < 3; i++) {
            size_t at = page + random_below(&random_state, i == 0 ? 32 : 4096);
            memcpy(bad, good, size);
            if (i == 2)
                memset(bad + at, (int)random_below(&random_state, 256), page + 4096 - at);
            else
                bad[at] ^= (uint8_t)(1 + random_below(&random_state, 255));
            write_file(bad, size);
            size_t n_hits = check_survives();
            *(n_hits == 24 ? &n_whole : n_hits > 0 ? &n_partly : &n_emptied) += 1;
        }
    printf("of %zu damaged files %zu gave all entries, %zu some, %zu none\n", n_whole + n_partly + n_emptied, n_whole,
           n_partly, n_emptied);
    assert_true(n_partly > 0 && n_emptied > 0);
    for (size_t cut = 0; cut < size; cut += 4096 * 5 + 77) {
        write_file(good, cut);
        check_survives();
    }
    write_file((const uint8_t *)"no such file", 12);
    assert_int_equal(check_survives(), 0);
    free(good);
    free(bad);
}

/* ---- Processes */

/* Puts and gets until it is killed or has done n; tells of each through the pipe. */
static void work(int pipe_end, uint64_t seed, size_t n) {
    uint64_t random = seed;
    PrefixStore *store = open_store(1 << 20, seed % 2 == 0 ? 0 : 100000);
    for (size_t i = 0; i < n; i++) {
        uint64_t id = random_below(&random, N_IDS);
        if (random_below(&random, 2) == 0)
            put(store, id);
        else
            get(store, id);
        (void)!write(pipe_end, "", 1);
    }
    prefix_store_close(store);
    _exit(0);
}

static pid_t start(int *pipe_end, uint64_t seed, size_t n) {
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0)
        work(ends[1], seed, n);
    close(ends[1]);
    *pipe_end = ends[0];
    return child;
}

/* What a failed assertion of a child's would be. */
static void wait_for(pid_t child, bool killed) {
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (killed)
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    else
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void check_processes(int n_processes) {
    pid_t children[4];
    int pipes[4];
    remove_files();
    n_notes = 0;
    for (int i = 0; i < n_processes; i++)
        children[i] = start(&pipes[i], (uint64_t)(i + 1), 150);
    for (int i = 0; i < n_processes; i++) {
        char byte[64];
        while (read(pipes[i], byte, sizeof byte) > 0)
            assert_true(file_size() <= 1 << 20);
        close(pipes[i]);
        wait_for(children[i], false);
    }
    size_t n_hits = 0;
    PrefixStore *store = open_store(1 << 20, 0);
    assert_int_equal(n_notes, 0);
    for (uint64_t id = 0; id < N_IDS; id++)
        n_hits += get(store, id) == PREFIX_HIT;
    assert_true(n_hits > 10);
    prefix_store_close(store);
}

static void test_processes(void **state) {
    (void)state;
    check_processes(2);
    check_processes(4);
}

/* Killed as it comes, after so many operations, that is somewhere in the next one. */
static void test_killed_processes(void **state) {
    (void)state;
    remove_files();
    n_notes = 0;
    for (size_t i = 0; i < 20; i++) {
        int end;
        char byte;
        pid_t child = start(&end, i + 1, SIZE_MAX);
        for (uint64_t n = random_below(&random_state, 60) + 1; n > 0; n--)
            assert_int_equal(read(end, &byte, 1), 1);
        kill(child, SIGKILL);
        wait_for(child, true);
        close(end);
        PrefixStore *store = open_store(1 << 20, 0);
        for (uint64_t id = 0; id < N_IDS; id++)
            get(store, id);
        prefix_store_close(store);
    }
    assert_int_equal(n_notes, 0); /* no file was damaged */
}

/* ---- Items without bytes */

static bool put_behind(PrefixStore *store, uint64_t there, uint64_t id) {
    PrefixItem items[] = {{key_of(there), NULL, 0}, {key_of(id), bytes_of(id), size_of(id)}};
    return prefix_store_put(store, items, 2);
}

/* What a put goes on from is not evicted for it, though nothing was used longer ago. */
static void test_put_evicts_none_of_its_own(void **state) {
    (void)state;
    PrefixStoreStats stats;
    uint64_t first = 1, id = first;
    remove_files();
    PrefixStore *store = open_store(1 << 20, 0);
    do {
        assert_true(put(store, id++));
        prefix_store_stats(store, &stats);
    } while (stats.disk.used_bytes + disk_cost(size_of(id)) <= stats.disk.budget_bytes);
    assert_int_equal(stats.disk.n_evicted, 0);
    assert_true(put_behind(store, first, id));
    prefix_store_stats(store, &stats);
    assert_true(stats.disk.n_evicted > 0);
    assert_int_equal(get(store, first), PREFIX_HIT);
    assert_int_equal(get(store, id), PREFIX_HIT);
    prefix_store_close(store);
}

/* Another process has removed from the file what this one still has in memory: nothing that goes on from it comes into
 * the file without it. */
static void test_put_behind_what_is_gone(void **state) {
    (void)state;
    enum { GONE = 1, NEXT = 2 };
    const PrefixKey key = key_of(GONE);
    uint64_t checksum;
    remove_files();
    n_notes = 0;
    PrefixStore *store = open_store(1 << 20, 1 << 20);
    assert_true(put(store, GONE));
    assert_true(prefix_store_keeps(store, &key, &checksum));
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        prefix_store_remove(open_store(1 << 20, 0), &key);
        _exit(0);
    }
    wait_for(child, false);
    assert_int_equal(prefix_store_peek(store, &key, &checksum), PREFIX_HIT);
    assert_false(prefix_store_keeps(store, &key, &checksum));
    assert_false(put_behind(store, GONE, NEXT));
    assert_true(n_notes == 1 && strstr(last_note, "has just gone") != NULL);
    prefix_store_close(store);
    store = open_store(1 << 20, 0);
    assert_int_equal(get(store, NEXT), PREFIX_ABSENT);
    prefix_store_close(store);
}

/* ---- A full disk: files may not grow beyond a limit */

static void fill_the_disk(void) {
    signal(SIGXFSZ, SIG_IGN);
    PrefixStore *store = open_store(4 << 20, 1 << 20);
    setrlimit(RLIMIT_FSIZE, &(struct rlimit){600000, 600000});
    for (uint64_t id = 0; id < N_IDS; id++)
        put(store, id);
    bool told = n_notes == 1 && strstr(last_note, "memory alone") != NULL;
    bool kept = get(store, N_IDS - 1) == PREFIX_HIT;
    prefix_store_close(store);
    _exit(told && kept ? 0 : 1);
}

static void test_full_disk(void **state) {
    (void)state;
    remove_files();
    n_notes = 0;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0)
        fill_the_disk();
    wait_for(child, false);
    size_t n_hits = 0;
    PrefixStore *store = open_store(4 << 20, 0);
    for (uint64_t id = 0; id < N_IDS; id++)
        n_hits += get(store, id) == PREFIX_HIT;
    printf("entries that a full disk has kept: %zu\n", n_hits);
    assert_true(n_hits > 5 && n_notes == 0);
    prefix_store_close(store);
}

/* A file that cannot be checked since the disk is full: it stays, and its entries with it. */
static void open_on_a_full_disk(void) {
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &(struct rlimit){4096, 4096});
    PrefixStore *store = open_store(2 << 20, 1 << 20);
    bool told = n_notes == 1 && strstr(last_note, "File too large; prefixes are kept in memory alone") != NULL;
    put(store, 30);
    bool kept = get(store, 30) == PREFIX_HIT && get(store, 1) == PREFIX_ABSENT;
    prefix_store_close(store);
    _exit(told && kept ? 0 : 1);
}

static size_t count_hits(void) {
    size_t n_hits = 0;
    PrefixStore *store = open_store(2 << 20, 0);
    for (uint64_t id = 0; id < 24; id++)
        n_hits += get(store, id) == PREFIX_HIT;
    prefix_store_close(store);
    return n_hits;
}

static void test_full_disk_from_the_start(void **state) {
    (void)state;
    fill();
    n_notes = 0;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0)
        open_on_a_full_disk();
    wait_for(child, false);
    assert_int_equal(count_hits(), 24);
    assert_int_equal(n_notes, 0);
}

/* ---- A lock that is not let go: whoever waits for it has an alarm, which goes off at once */

static bool lock_is_kept;

unsigned __real_alarm(unsigned seconds);
unsigned __wrap_alarm(unsigned seconds);

unsigned __wrap_alarm(unsigned seconds) {
    if (lock_is_kept && seconds > 0)
        raise(SIGALRM);
    return __real_alarm(seconds);
}

static void test_kept_lock(void **state) {
    (void)state;
    fill();
    n_notes = 0;
    lock_is_kept = true;
    assert_int_equal(count_hits(), 0);
    lock_is_kept = false;
    assert_true(n_notes == 1 && strstr(last_note, "another process has kept it locked") != NULL);
    assert_int_equal(count_hits(), 24);
    assert_int_equal(n_notes, 1);
}

/* ---- Tables that disagree after they were checked: a record is gone, and other tables have its key */

static void lose_record(uint64_t id) {
    MDB_env *env;
    MDB_txn *txn;
    PrefixTables tables;
    PrefixKey key = key_of(id);
    MDB_val name = {sizeof key, &key};
    bool lost = tables_open(&env, &tables, file_path(), 1 << 20, false) == 0 &&
                mdb_txn_begin(env, NULL, 0, &txn) == 0 && mdb_del(txn, tables.record, &name, NULL) == 0 &&
                mdb_txn_commit(txn) == 0;
    _exit(lost ? 0 : 1);
}

/* Whoever looks for what to remove meets it, and ends: with a bound on what it computes, not on time. */
static void remove_behind_loss(bool expired) {
    PrefixStore *store = open_store(1 << 20, 0);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0)
        lose_record(0);
    wait_for(child, false);
    setrlimit(RLIMIT_CPU, &(struct rlimit){10, 10});
    fake_now += expired ? TTL : 0;
    n_notes = 0;
    for (uint64_t id = 24; id < N_IDS && n_notes == 0; id++)
        put(store, id);
    bool told = n_notes == 1 && strstr(last_note, "memory alone") != NULL;
    prefix_store_close(store);
    _exit(told ? 0 : 1);
}

static void test_tables_disagree(void **state) {
    (void)state;
    for (int expired = 0; expired < 2; expired++) {
        fill();
        fflush(stdout);
        pid_t child = fork();
        if (child == 0)
            remove_behind_loss(expired);
        wait_for(child, false);
        n_notes = 0;
        assert_int_equal(count_hits(), 0); /* the next one to open it finds the damage */
        assert_non_null(strstr(last_note, "is damaged"));
    }
}

static int make_folder(void **state) {
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/stowkv-prefix-XXXXXX");
    fake_now = 1000000;
    return mkdtemp(folder) == NULL;
}

static int remove_folder(void **state) {
    (void)state;
    remove_files();
    return rmdir(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory_is_the_model),
        cmocka_unit_test(test_disk_is_the_model),
        cmocka_unit_test(test_memory_survives_nothing_and_disk_does),
        cmocka_unit_test(test_refusals_and_rights),
        cmocka_unit_test(test_damaged_files),
        cmocka_unit_test(test_processes),
        cmocka_unit_test(test_killed_processes),
        cmocka_unit_test(test_put_evicts_none_of_its_own),
        cmocka_unit_test(test_put_behind_what_is_gone),
        cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_full_disk_from_the_start),
        cmocka_unit_test(test_kept_lock),
        cmocka_unit_test(test_tables_disagree),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}

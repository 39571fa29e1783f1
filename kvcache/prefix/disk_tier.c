/* See disk_tier.h. */
#include "kvcache/prefix/disk_tier.h"

#include "base/checked.h"
#include "kvcache/prefix/file_check.h"
#include "kvcache/prefix/tables.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_NAME "stowkv-prefixes-1.mdb" /* the number is that of the tables' form */

enum {
    PAGE = 4096,
    RESERVE_PAGES = 32, /* of the tables themselves */
    MOST_USES = 4096,   /* of which the file is told together */
    MOST_SQUEEZES = 40  /* attempts at a put where pages lie apart */
};

struct DiskTier {
    MDB_env *env; /* NULL: given up */
    PrefixTables tables;
    MDB_txn *reader; /* reset between calls */
    bool reading;
    DiskTierOptions options;
    char *path;
    PrefixKey *uses; /* (n_uses) since the last put */
    size_t n_uses;
    size_t n_evicted, n_squeezed, n_expired, n_failed;
};

static void note(const DiskTier *tier, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void note(const DiskTier *tier, const char *format, ...) {
    char line[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (tier->options.note != NULL)
        tier->options.note(tier->options.note_user, line);
}

/* LMDB copies pages that it changes, and frees the old ones two commits later: an eighth is for that. */
static size_t budget(const DiskTier *tier) {
    return tier->options.cap_bytes / 8 * 7 - RESERVE_PAGES * PAGE;
}

/* ---- Opening */

static void give_up(DiskTier *tier, const char *what, int status) {
    tier->n_failed++;
    note(tier, "%s: %s: %s; prefixes are kept in memory alone from here on", tier->path, what, mdb_strerror(status));
    if (tier->reader != NULL)
        mdb_txn_abort(tier->reader);
    tier->reader = NULL;
    tier->reading = false;
    mdb_env_close(tier->env);
    tier->env = NULL;
}

static int remove_file(const DiskTier *tier) {
    char lock[4096];
    snprintf(lock, sizeof lock, "%s-lock", tier->path);
    unlink(lock);
    return unlink(tier->path);
}

/* What no LMDB would open, or is larger than the cap now: an empty file takes its place. Returns an errno where it is
 * not the file's fault that it cannot be used now. */
static int replace_unusable(DiskTier *tier) {
    struct stat file;
    int status = 0;
    if (tier->options.clear) {
        remove_file(tier);
    } else if (stat(tier->path, &file) == 0 && (size_t)file.st_size > tier->options.cap_bytes) {
        note(tier, "%s: takes %lld MB, more than allowed; it is emptied", tier->path, (long long)file.st_size >> 20);
        remove_file(tier);
    } else {
        status = prefix_file_check(tier->path, tier->options.cap_bytes);
    }
    if (status == MDB_CORRUPTED) {
        note(tier, "%s: is damaged; it is emptied", tier->path);
        remove_file(tier);
    }
    return status == MDB_CORRUPTED ? 0 : status;
}

static int open_file(DiskTier *tier, Error *error) {
    int status = tables_open(&tier->env, &tier->tables, tier->path, tier->options.cap_bytes, true);
    if (status == 0)
        status = mdb_txn_begin(tier->env, NULL, MDB_RDONLY, &tier->reader);
    if (status == 0) {
        int n_dead;
        mdb_txn_reset(tier->reader);
        mdb_reader_check(tier->env, &n_dead); /* processes that were killed: pages would be kept for them */
        return 0;
    }
    if (tier->env != NULL)
        mdb_env_close(tier->env);
    tier->env = NULL;
    return error_set(error, ERROR_IO, "%s: %s; name another folder with --prefix_cache", tier->path,
                     mdb_strerror(status));
}

/* One process at a time looks whether the file is sound, and replaces it. */
static int open_checked(DiskTier *tier, Error *error) {
    int folder = open(tier->options.folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0)
        return error_set(error, ERROR_IO, "%s: %s; name a folder for prefixes", tier->options.folder, strerror(errno));
    flock(folder, LOCK_EX);
    int unusable = replace_unusable(tier), status = 0;
    if (unusable == 0)
        status = open_file(tier, error);
    else
        give_up(tier, unusable == EBUSY ? "another process has kept it locked for a minute" : "cannot be written",
                unusable);
    close(folder);
    return status;
}

int disk_tier_open(DiskTier **out, const DiskTierOptions *options, Error *error) {
    size_t path_size = strlen(options->folder) + sizeof FILE_NAME + 1;
    DiskTier *tier = calloc(1, sizeof *tier);
    *out = NULL;
    if (tier == NULL)
        return error_memory(error, "the prefix cache", sizeof *tier);
    tier->options = *options;
    tier->options.cap_bytes = at_least(options->cap_bytes, DISK_TIER_LEAST_BYTES) / PAGE * PAGE;
    tier->path = malloc(path_size);
    tier->uses = calloc(MOST_USES, sizeof *tier->uses);
    int status = 0;
    if (tier->path == NULL || tier->uses == NULL)
        status = error_memory(error, "the prefix cache", path_size);
    else if (mkdir(options->folder, 0700) != 0 && errno != EEXIST)
        status =
            error_set(error, ERROR_IO, "%s: %s; name a folder whose parent is there", options->folder, strerror(errno));
    if (status == 0) {
        snprintf(tier->path, path_size, "%s/%s", options->folder, FILE_NAME);
        status = open_checked(tier, error);
    }
    if (status == 0)
        *out = tier;
    else
        disk_tier_close(tier);
    return status;
}

bool disk_tier_works(const DiskTier *tier) {
    return tier->env != NULL;
}

/* ---- Writing */

/* A step within a transaction of its own. */
typedef int WriteStep(DiskTier *tier, MDB_txn *txn, const void *argument);

/* Another process may have let the file grow beyond what this one maps. */
static int begin(DiskTier *tier, unsigned flags, MDB_txn **txn) {
    int status = mdb_txn_begin(tier->env, NULL, flags, txn);
    if (status == MDB_MAP_RESIZED && mdb_env_set_mapsize(tier->env, 0) == 0)
        status = mdb_txn_begin(tier->env, NULL, flags, txn);
    return status;
}

static int write_step(DiskTier *tier, WriteStep *step, const void *argument) {
    MDB_txn *txn;
    int status = begin(tier, 0, &txn);
    if (status != 0)
        return status;
    status = step(tier, txn, argument);
    if (status == 0)
        return mdb_txn_commit(txn);
    mdb_txn_abort(txn);
    return status;
}

static int tell_uses(DiskTier *tier, MDB_txn *txn, const void *argument) {
    int status = 0;
    (void)argument;
    for (size_t i = 0; i < tier->n_uses && status == 0; i++) {
        status = tables_touch(txn, &tier->tables, &tier->uses[i], 0);
        status = status == MDB_NOTFOUND ? 0 : status;
    }
    return status;
}

/* Where that fails they are lost: what goes first is then not quite what was used least recently. */
static int flush_uses(DiskTier *tier) {
    int status = tier->n_uses > 0 ? write_step(tier, tell_uses, NULL) : 0;
    tier->n_uses = 0;
    return status;
}

/* Not while an entry is read: a writer may have to map the file anew. */
static void flush_many_uses(DiskTier *tier) {
    if (tier->n_uses == MOST_USES && !tier->reading && tier->env != NULL)
        flush_uses(tier);
}

static int sweep_step(DiskTier *tier, MDB_txn *txn, const void *now) {
    PrefixKey key;
    uint64_t created;
    int status;
    while ((status = tables_oldest(txn, &tier->tables, &key, &created)) == 0 &&
           prefix_expired(created, *(const uint64_t *)now, tier->options.ttl_ms)) {
        status = tables_must_have(tables_remove(txn, &tier->tables, &key));
        if (status != 0)
            return status;
        tier->n_expired++;
    }
    return status == MDB_NOTFOUND ? 0 : status;
}

/* Evicts until the total is at most *most. */
static int evict_step(DiskTier *tier, MDB_txn *txn, const void *most) {
    PrefixKey key;
    uint64_t total;
    int status = tables_total(txn, &tier->tables, &total);
    while (status == 0 && total > *(const size_t *)most) {
        status = tables_least_used(txn, &tier->tables, &key);
        if (status == 0)
            status = tables_must_have(tables_remove(txn, &tier->tables, &key));
        if (status == 0) {
            tier->n_evicted++;
            status = tables_total(txn, &tier->tables, &total);
        }
    }
    return status == MDB_NOTFOUND ? 0 : status;
}

static int tick_step(DiskTier *tier, MDB_txn *txn, const void *argument) {
    (void)argument;
    return tables_tick(txn, &tier->tables);
}

static int total_now(DiskTier *tier, uint64_t *total) {
    MDB_txn *txn;
    int status = begin(tier, MDB_RDONLY, &txn);
    if (status != 0)
        return status;
    status = tables_total(txn, &tier->tables, total);
    mdb_txn_abort(txn);
    return status;
}

/* Before the insertion, in commits of its own: the pages of what went are free then. */
static int make_room(DiskTier *tier, size_t most) {
    uint64_t total;
    int status = total_now(tier, &total);
    if (status != 0 || total <= most)
        return status;
    status = write_step(tier, evict_step, &most);
    if (status == 0)
        status = write_step(tier, tick_step, NULL);
    return status == 0 ? write_step(tier, tick_step, NULL) : status;
}

typedef struct Insertion {
    const PrefixItem *items;
    size_t n_items;
    uint64_t now;
} Insertion;

static int insert_step(DiskTier *tier, MDB_txn *txn, const void *argument) {
    const Insertion *insertion = argument;
    int status = 0;
    for (size_t i = 0; i < insertion->n_items && status == 0; i++) {
        const PrefixItem *item = &insertion->items[i];
        status = item->bytes != NULL ? tables_add(txn, &tier->tables, item, insertion->now)
                                     : tables_touch(txn, &tier->tables, &item->key, insertion->now);
    }
    return status;
}

static size_t cost_of(const PrefixItem *items, size_t n_items) {
    size_t cost = 0;
    for (size_t i = 0; i < n_items; i++)
        cost += items[i].bytes != NULL ? tables_cost(items[i].size_bytes) : 0;
    return cost;
}

/* Where pages are free but too scattered for an entry, further entries go. */
static int insert(DiskTier *tier, const Insertion *insertion, size_t cost) {
    size_t most = budget(tier) - cost;
    for (int attempt = 0;; attempt++) {
        int status = make_room(tier, most);
        if (status == 0)
            status = write_step(tier, insert_step, insertion);
        uint64_t total = 0;
        if (status != MDB_MAP_FULL || attempt == MOST_SQUEEZES || total_now(tier, &total) != 0 || total == 0)
            return status;
        tier->n_squeezed++;
        most = (size_t)total - at_most((size_t)total, at_least(cost, (size_t)total / 8));
    }
}

bool disk_tier_put(DiskTier *tier, const PrefixItem *items, size_t n_items, uint64_t now) {
    size_t cost = cost_of(items, n_items);
    if (tier->env == NULL)
        return false;
    if (cost > budget(tier)) {
        note(tier, "%s: a prefix of %.1f MB is not kept, there is room for %.1f MB; use a larger --prefix_cache_mb",
             tier->path, (double)cost / 1e6, (double)budget(tier) / 1e6);
        return false;
    }
    Insertion insertion = {items, n_items, now};
    for (size_t i = 0; i < n_items; i++) /* what is there already must not go to make room for the others */
        if (items[i].bytes == NULL)
            disk_tier_used(tier, &items[i].key);
    int status = flush_uses(tier);
    if (status == 0)
        status = write_step(tier, sweep_step, &now);
    if (status == 0)
        status = insert(tier, &insertion, cost);
    if (status == MDB_MAP_FULL || status == MDB_NOTFOUND) {
        tier->n_failed++;
        note(tier, "%s: a prefix of %.1f MB %s; it is not kept", tier->path, (double)cost / 1e6,
             status == MDB_MAP_FULL ? "found no place" : "goes on from what has just gone");
    } else if (status != 0) {
        give_up(tier, "cannot be written", status);
    }
    return status == 0;
}

static int remove_step(DiskTier *tier, MDB_txn *txn, const void *key) {
    int status = tables_remove(txn, &tier->tables, key);
    return status == MDB_NOTFOUND ? 0 : status;
}

void disk_tier_remove(DiskTier *tier, const PrefixKey *key) {
    int status = tier->env == NULL ? 0 : write_step(tier, remove_step, key);
    if (status != 0)
        give_up(tier, "cannot be written", status);
}

void disk_tier_sweep(DiskTier *tier, uint64_t now) {
    int status = tier->env == NULL ? 0 : write_step(tier, sweep_step, &now);
    if (status != 0)
        give_up(tier, "cannot be written", status);
}

void disk_tier_close(DiskTier *tier) {
    if (tier == NULL)
        return;
    if (tier->env != NULL) {
        int status = flush_uses(tier);
        if (tier->reader != NULL)
            mdb_txn_abort(tier->reader);
        if (status == 0)
            mdb_env_sync(tier->env, 1);
        mdb_env_close(tier->env);
    }
    free(tier->path);
    free(tier->uses);
    free(tier);
}

/* ---- Reading */

static int start_reading(DiskTier *tier) {
    if (tier->reading)
        return 0;
    int status = mdb_txn_renew(tier->reader);
    if (status == MDB_MAP_RESIZED && mdb_env_set_mapsize(tier->env, 0) == 0)
        status = mdb_txn_renew(tier->reader);
    tier->reading = status == 0;
    return status;
}

void disk_tier_release(DiskTier *tier) {
    if (tier->reading)
        mdb_txn_reset(tier->reader);
    tier->reading = false;
    flush_many_uses(tier);
}

void disk_tier_used(DiskTier *tier, const PrefixKey *key) {
    flush_many_uses(tier);
    if (tier->n_uses < MOST_USES)
        tier->uses[tier->n_uses++] = *key;
}

/* 0, with the record, where the entry is there; *found otherwise. */
static int find_record(DiskTier *tier, const PrefixKey *key, uint64_t now, EntryRecord *record, DiskFound *found) {
    *found = DISK_ABSENT;
    if (tier->env == NULL)
        return MDB_NOTFOUND;
    int status = start_reading(tier);
    if (status == 0)
        status = tables_record(tier->reader, &tier->tables, key, record);
    if (status == 0)
        *found = prefix_expired(record->created, now, tier->options.ttl_ms) ? DISK_EXPIRED : DISK_FOUND;
    else if (status != MDB_NOTFOUND)
        give_up(tier, "cannot be read", status);
    return status;
}

static size_t file_bytes(DiskTier *tier, const MDB_envinfo *info) {
    MDB_stat stat;
    return mdb_env_stat(tier->env, &stat) == 0 ? (info->me_last_pgno + 1) * stat.ms_psize : 0;
}

/* The entry as it lies in the map. */
static DiskFound find(DiskTier *tier, const PrefixKey *key, uint64_t now, EntryRecord *record, MDB_val *value) {
    DiskFound found;
    if (find_record(tier, key, now, record, &found) != 0 || found != DISK_FOUND)
        return found;
    if (tables_find(tier->reader, &tier->tables, key, value) != 0 ||
        value->mv_size != sizeof(uint64_t) + record->size_bytes || value->mv_size > tier->options.cap_bytes)
        return DISK_TRUNCATED;
    return DISK_FOUND;
}

DiskFound disk_tier_find(DiskTier *tier, const PrefixKey *key, uint64_t now, const uint8_t **bytes, size_t *size_bytes,
                         uint64_t *checksum, uint64_t *created) {
    EntryRecord record;
    MDB_val value;
    DiskFound found = find(tier, key, now, &record, &value);
    if (found != DISK_FOUND)
        return found;
    memcpy(checksum, value.mv_data, sizeof *checksum);
    *bytes = (const uint8_t *)value.mv_data + sizeof *checksum;
    *size_bytes = (size_t)record.size_bytes;
    *created = record.created;
    disk_tier_used(tier, key);
    return DISK_FOUND;
}

DiskFound disk_tier_peek(DiskTier *tier, const PrefixKey *key, uint64_t now, uint64_t *checksum) {
    EntryRecord record;
    MDB_val value;
    DiskFound found = find(tier, key, now, &record, &value);
    if (found == DISK_FOUND)
        memcpy(checksum, value.mv_data, sizeof *checksum);
    disk_tier_release(tier);
    return found;
}

void disk_tier_stats(DiskTier *tier, DiskTierStats *out) {
    MDB_envinfo info;
    MDB_stat stat;
    uint64_t total = 0;
    *out = (DiskTierStats){.budget_bytes = budget(tier),
                           .n_evicted = tier->n_evicted,
                           .n_squeezed = tier->n_squeezed,
                           .n_expired = tier->n_expired,
                           .n_failed = tier->n_failed};
    if (tier->env == NULL || start_reading(tier) != 0)
        return;
    if (tables_total(tier->reader, &tier->tables, &total) == 0 &&
        mdb_stat(tier->reader, tier->tables.record, &stat) == 0 && mdb_env_info(tier->env, &info) == 0) {
        out->n_entries = stat.ms_entries;
        out->used_bytes = (size_t)total;
        out->file_bytes = file_bytes(tier, &info);
    }
    disk_tier_release(tier);
}

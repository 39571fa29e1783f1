/* The tables of the file of disk_tier.h, and the steps on them within one of LMDB's transactions. Functions return
 * LMDB's status. */
#ifndef STOWKV_PREFIX_TABLES_H
#define STOWKV_PREFIX_TABLES_H

#include "kvcache/prefix/entry.h"

#include <lmdb.h>

typedef struct PrefixTables {
    MDB_dbi data;   /* key: checksum, bytes */
    MDB_dbi record; /* key: EntryRecord */
    MDB_dbi used;   /* last use, big-endian: key */
    MDB_dbi age;    /* when stored, big-endian, key: nothing */
    MDB_dbi info;   /* "total": cost of all entries; "turn": of the last use */
} PrefixTables;

typedef struct EntryRecord {
    uint64_t created;    /* ms */
    uint64_t turn;       /* uses are numbered */
    uint64_t size_bytes; /* without the checksum */
} EntryRecord;

/* What an entry of this size takes of the file, a little more than LMDB needs for it. */
size_t tables_cost(size_t size_bytes);

/* Opens an environment with all tables, which are made where `create`. What a loss of power leaves is not cared for. */
int tables_open(MDB_env **env, PrefixTables *tables, const char *path, size_t map_bytes, bool create);

int tables_record(MDB_txn *txn, const PrefixTables *tables, const PrefixKey *key, EntryRecord *out);
int tables_find(MDB_txn *txn, const PrefixTables *tables, const PrefixKey *key, MDB_val *out); /* data */
int tables_total(MDB_txn *txn, const PrefixTables *tables, uint64_t *out);

int tables_add(MDB_txn *txn, const PrefixTables *tables, const PrefixItem *item, uint64_t now);

/* MDB_NOTFOUND where it is not there, MDB_CORRUPTED where a part of it is not. */
int tables_remove(MDB_txn *txn, const PrefixTables *tables, const PrefixKey *key);

/* The status for a row that another table says is there. */
static inline int tables_must_have(int status) {
    return status == MDB_NOTFOUND ? MDB_CORRUPTED : status;
}

/* The entry was used; `created` not 0: and is as good as stored then. MDB_NOTFOUND where it is not there. */
int tables_touch(MDB_txn *txn, const PrefixTables *tables, const PrefixKey *key, uint64_t created);

/* A commit that changes nothing else: LMDB gives the pages of an earlier one free to the next but one. */
int tables_tick(MDB_txn *txn, const PrefixTables *tables);

/* The key that was used least recently, or stored first; MDB_NOTFOUND. */
int tables_least_used(MDB_txn *txn, const PrefixTables *tables, PrefixKey *out);
int tables_oldest(MDB_txn *txn, const PrefixTables *tables, PrefixKey *out, uint64_t *created);

/* Whether LMDB's list of free pages can be one: each once, in order, and as many as no table has. */
int tables_check_free(MDB_env *env, MDB_txn *reader, const PrefixTables *tables);

/* Whether the tables agree with each other: 0, or MDB_CORRUPTED. Reads the first and the last byte of each entry, and
 * goes through all that LMDB would change, in a transaction that must be aborted. */
int tables_check(MDB_txn *txn, const PrefixTables *tables);

#endif

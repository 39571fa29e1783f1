/* See tables.h. */
#include "kvcache/prefix/tables.h"

#include "base/checked.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    PAGE = 4096,
    SMALL = 1900,         /* bytes that LMDB keeps in a page with others */
    ENTRY_OVERHEAD = 256, /* bytes of an entry in the tables */
};

size_t tables_cost(size_t size_bytes) {
    return ENTRY_OVERHEAD + (size_bytes <= SMALL ? size_bytes : round_up(size_bytes + 32, PAGE));
}

static MDB_val value_of(const void *data, size_t size_bytes) {
    return (MDB_val){size_bytes, (void *)data};
}

static void store_big_endian(uint8_t out[8], uint64_t x) {
    for (int i = 0; i < 8; i++)
        out[i] = (uint8_t)(x >> (56 - 8 * i));
}

static uint64_t load_big_endian(const uint8_t in[8]) {
    uint64_t x = 0;
    for (int i = 0; i < 8; i++)
        x = x << 8 | in[i];
    return x;
}

typedef struct AgeKey {
    uint8_t bytes[8 + sizeof(PrefixKey)];
} AgeKey;

static AgeKey age_key(uint64_t created, const PrefixKey *key) {
    AgeKey out;
    store_big_endian(out.bytes, created);
    memcpy(out.bytes + 8, key, sizeof *key);
    return out;
}

static int open_tables(MDB_env *env, PrefixTables *tables, bool create) {
    MDB_txn *txn;
    struct {
        const char *name;
        MDB_dbi *table;
    } named[] = {{"data", &tables->data},
                 {"record", &tables->record},
                 {"used", &tables->used},
                 {"age", &tables->age},
                 {"info", &tables->info}};
    int status = mdb_txn_begin(env, NULL, 0, &txn);
    if (status != 0)
        return status;
    for (size_t i = 0; i < sizeof named / sizeof *named && status == 0; i++) {
        unsigned flags = 0;
        status = mdb_dbi_open(txn, named[i].name, create ? MDB_CREATE : 0, named[i].table);
        if (status == 0)
            status = mdb_dbi_flags(txn, *named[i].table, &flags);
        if (status == 0 && flags != 0)
            status = MDB_CORRUPTED;
    }
    if (status == 0)
        return mdb_txn_commit(txn);
    mdb_txn_abort(txn);
    return status;
}

int tables_open(MDB_env **env, PrefixTables *tables, const char *path, size_t map_bytes, bool create) {
    int status = mdb_env_create(env);
    if (status != 0)
        return status;
    status = mdb_env_set_maxdbs(*env, 8);
    if (status == 0)
        status = mdb_env_set_mapsize(*env, map_bytes);
    if (status == 0)
        status = mdb_env_open(*env, path, MDB_NOSUBDIR | MDB_NOTLS | MDB_NORDAHEAD | MDB_NOSYNC, 0600);
    if (status == 0)
        status = open_tables(*env, tables, create);
    if (status != 0) {
        mdb_env_close(*env);
        *env = NULL;
    }
    return status;
}

/* ---- Parts */

static int read_number(MDB_txn *txn, const PrefixTables *tables, const char *name, uint64_t *out) {
    MDB_val key = value_of(name, strlen(name)), value;
    int status = mdb_get(txn, tables->info, &key, &value);
    *out = 0;
    if (status == 0 && value.mv_size == sizeof *out)
        memcpy(out, value.mv_data, sizeof *out);
    return status == MDB_NOTFOUND ? 0 : status;
}

static int write_number(MDB_txn *txn, const PrefixTables *tables, const char *name, uint64_t x) {
    MDB_val key = value_of(name, strlen(name)), value = value_of(&x, sizeof x);
    return mdb_put(txn, tables->info, &key, &value, 0);
}

static int add_to_total(MDB_txn *txn, const PrefixTables *tables, int sign, size_t size_bytes) {
    uint64_t total, cost = tables_cost(size_bytes);
    int status = read_number(txn, tables, "total", &total);
    if (status != 0)
        return status;
    return write_number(txn, tables, "total", sign > 0 ? total + cost : total - (cost < total ? cost : total));
}

static int put_record(MDB_txn *txn, const PrefixTables *tables, const PrefixKey *key, const EntryRecord *record) {
    MDB_val id = value_of(key, sizeof *key), value = value_of(record, sizeof *record), nothing = value_of("", 0);
    uint8_t turn[8];
    AgeKey age = age_key(record->created, key);
    MDB_val turn_key = value_of(turn, sizeof turn), old = value_of(&age, sizeof age);
    store_big_endian(turn, record->turn);
    int status = mdb_put(txn, tables->record, &id, &value, 0);
    if (status == 0)
        status = mdb_put(txn, tables->used, &turn_key, &id, 0);
    return status == 0 ? mdb_put(txn, tables->age, &old, &nothing, 0) : status;
}

static int drop_record(MDB_txn *txn, const PrefixTables *tables, const PrefixKey *key, const EntryRecord *record) {
    uint8_t turn[8];
    AgeKey age = age_key(record->created, key);
    MDB_val id = value_of(key, sizeof *key), turn_key = value_of(turn, sizeof turn), old = value_of(&age, sizeof age);
    store_big_endian(turn, record->turn);
    int status = mdb_del(txn, tables->record, &id, NULL);
    if (status == 0)
        status = mdb_del(txn, tables->used, &turn_key, NULL);
    if (status == 0)
        status = mdb_del(txn, tables->age, &old, NULL);
    return tables_must_have(status);
}

static int next_turn(MDB_txn *txn, const PrefixTables *tables, uint64_t *out) {
    int status = read_number(txn, tables, "turn", out);
    return status == 0 ? write_number(txn, tables, "turn", ++*out) : status;
}

/* ---- Steps */

int tables_record(MDB_txn *txn, const PrefixTables *tables, const PrefixKey *key, EntryRecord *out) {
    MDB_val id = value_of(key, sizeof *key), value;
    int status = mdb_get(txn, tables->record, &id, &value);
    if (status == 0 && value.mv_size != sizeof *out)
        return MDB_CORRUPTED;
    if (status == 0)
        memcpy(out, value.mv_data, sizeof *out);
    return status;
}

int tables_find(MDB_txn *txn, const PrefixTables *tables, const PrefixKey *key, MDB_val *out) {
    MDB_val id = value_of(key, sizeof *key);
    return mdb_get(txn, tables->data, &id, out);
}

int tables_total(MDB_txn *txn, const PrefixTables *tables, uint64_t *out) {
    return read_number(txn, tables, "total", out);
}

int tables_remove(MDB_txn *txn, const PrefixTables *tables, const PrefixKey *key) {
    EntryRecord record;
    MDB_val id = value_of(key, sizeof *key);
    int status = tables_record(txn, tables, key, &record);
    if (status != 0)
        return status;
    status = drop_record(txn, tables, key, &record);
    if (status == 0)
        status = tables_must_have(mdb_del(txn, tables->data, &id, NULL));
    return status == 0 ? add_to_total(txn, tables, -1, record.size_bytes) : status;
}

int tables_add(MDB_txn *txn, const PrefixTables *tables, const PrefixItem *item, uint64_t now) {
    MDB_val id = value_of(&item->key, sizeof item->key);
    MDB_val place = {sizeof(uint64_t) + item->size_bytes, NULL};
    EntryRecord record = {now, 0, item->size_bytes};
    uint64_t checksum = prefix_checksum(&item->key, item->bytes, item->size_bytes);
    int status = tables_remove(txn, tables, &item->key);
    if (status == 0 || status == MDB_NOTFOUND)
        status = mdb_put(txn, tables->data, &id, &place, MDB_RESERVE);
    if (status != 0)
        return status;
    memcpy(place.mv_data, &checksum, sizeof checksum);
    if (item->size_bytes > 0)
        memcpy((uint8_t *)place.mv_data + sizeof checksum, item->bytes, item->size_bytes);
    status = next_turn(txn, tables, &record.turn);
    if (status == 0)
        status = put_record(txn, tables, &item->key, &record);
    return status == 0 ? add_to_total(txn, tables, 1, item->size_bytes) : status;
}

int tables_touch(MDB_txn *txn, const PrefixTables *tables, const PrefixKey *key, uint64_t created) {
    EntryRecord record;
    int status = tables_record(txn, tables, key, &record);
    if (status == 0)
        status = drop_record(txn, tables, key, &record);
    if (status == 0)
        status = next_turn(txn, tables, &record.turn);
    record.created = created != 0 ? created : record.created;
    return status == 0 ? put_record(txn, tables, key, &record) : status;
}

int tables_tick(MDB_txn *txn, const PrefixTables *tables) {
    uint64_t turn;
    return next_turn(txn, tables, &turn);
}

static int first_of(MDB_txn *txn, MDB_dbi table, MDB_val *key, MDB_val *value) {
    MDB_cursor *cursor;
    int status = mdb_cursor_open(txn, table, &cursor);
    if (status != 0)
        return status;
    status = mdb_cursor_get(cursor, key, value, MDB_FIRST);
    mdb_cursor_close(cursor);
    return status;
}

int tables_least_used(MDB_txn *txn, const PrefixTables *tables, PrefixKey *out) {
    MDB_val turn, key;
    int status = first_of(txn, tables->used, &turn, &key);
    if (status == 0 && key.mv_size != sizeof *out)
        return MDB_CORRUPTED;
    if (status == 0)
        memcpy(out, key.mv_data, sizeof *out);
    return status;
}

int tables_oldest(MDB_txn *txn, const PrefixTables *tables, PrefixKey *out, uint64_t *created) {
    MDB_val age, nothing;
    int status = first_of(txn, tables->age, &age, &nothing);
    if (status == 0 && age.mv_size != sizeof(AgeKey))
        return MDB_CORRUPTED;
    if (status == 0) {
        *created = load_big_endian(age.mv_data);
        memcpy(out, (const uint8_t *)age.mv_data + 8, sizeof *out);
    }
    return status;
}

/* ---- Checking */

static bool entry_agrees(MDB_txn *txn, const PrefixTables *tables, const PrefixKey *key, const EntryRecord *record) {
    uint8_t turn[8];
    AgeKey age = age_key(record->created, key);
    MDB_val turn_key = value_of(turn, sizeof turn), old = value_of(&age, sizeof age), value;
    store_big_endian(turn, record->turn);
    if (tables_find(txn, tables, key, &value) != 0 || value.mv_size != sizeof(uint64_t) + record->size_bytes)
        return false;
    const volatile uint8_t *bytes = value.mv_data;
    (void)(bytes[0] + bytes[value.mv_size - 1]);
    return mdb_get(txn, tables->used, &turn_key, &value) == 0 && value.mv_size == sizeof *key &&
           memcmp(value.mv_data, key, sizeof *key) == 0 && mdb_get(txn, tables->age, &old, &value) == 0;
}

/* Goes through a whole table. */
static int count_entries(MDB_txn *txn, MDB_dbi table, size_t *n) {
    MDB_cursor *cursor;
    MDB_val key, value;
    int status = mdb_cursor_open(txn, table, &cursor);
    *n = 0;
    if (status != 0)
        return status;
    while ((status = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == 0)
        ++*n;
    mdb_cursor_close(cursor);
    return status == MDB_NOTFOUND ? 0 : status;
}

/* An array of page numbers behind their count, the largest first. */
static bool check_free_pages(const MDB_val *list, uint8_t *seen, size_t n_pages, size_t *n_free) {
    const size_t *ids = list->mv_data;
    if (list->mv_size < sizeof *ids || ids[0] > list->mv_size / sizeof *ids - 1)
        return false;
    for (size_t i = 1; i <= ids[0]; i++) {
        if (ids[i] < 2 || ids[i] >= n_pages || (i > 1 && ids[i] >= ids[i - 1]) || seen[ids[i]])
            return false;
        seen[ids[i]] = 1;
    }
    *n_free += ids[0];
    return true;
}

static int check_free_lists(MDB_txn *reader, uint8_t *seen, size_t n_pages, size_t *n_free) {
    MDB_cursor *cursor;
    MDB_val id, list;
    int status = mdb_cursor_open(reader, 0, &cursor);
    if (status != 0)
        return status;
    while ((status = mdb_cursor_get(cursor, &id, &list, MDB_NEXT)) == 0)
        if (id.mv_size != sizeof(size_t) || !check_free_pages(&list, seen, n_pages, n_free))
            break;
    mdb_cursor_close(cursor);
    return status == MDB_NOTFOUND ? 0 : MDB_CORRUPTED;
}

int tables_check_free(MDB_env *env, MDB_txn *reader, const PrefixTables *tables) {
    const MDB_dbi all[] = {0, 1, tables->data, tables->record, tables->used, tables->age, tables->info};
    MDB_envinfo info;
    MDB_stat stat;
    int status = mdb_env_info(env, &info);
    size_t n_pages = info.me_last_pgno + 1, n_used = 2, n_free = 0; /* two that say where all begins */
    uint8_t *seen = status == 0 ? calloc(n_pages, 1) : NULL;
    if (seen == NULL)
        return status == 0 ? ENOMEM : status;
    status = check_free_lists(reader, seen, n_pages, &n_free);
    free(seen);
    for (size_t i = 0; i < sizeof all / sizeof *all && status == 0; i++) {
        status = mdb_stat(reader, all[i], &stat);
        n_used += stat.ms_branch_pages + stat.ms_leaf_pages + stat.ms_overflow_pages;
    }
    return status != 0 ? status : n_used + n_free == n_pages ? 0 : MDB_CORRUPTED;
}

/* As if all entries were removed and others stored: LMDB goes through its trees, and the list of pages that are free.
 */
static int rehearse(MDB_txn *txn, const PrefixTables *tables) {
    const MDB_dbi all[] = {tables->data, tables->record, tables->used, tables->age};
    int status = 0;
    for (size_t i = 0; i < sizeof all / sizeof *all && status == 0; i++)
        status = mdb_drop(txn, all[i], 0);
    for (uint64_t id = 0; id < 40 && status == 0; id++) {
        const PrefixItem item = {{{id, id}}, (const uint8_t *)"", 0};
        status = tables_add(txn, tables, &item, 1);
    }
    return status == MDB_MAP_FULL ? 0 : status;
}

static int check_entries(MDB_txn *txn, const PrefixTables *tables, MDB_cursor *cursor, size_t *n, uint64_t *total) {
    MDB_val id, value;
    int status;
    while ((status = mdb_cursor_get(cursor, &id, &value, MDB_NEXT)) == 0) {
        PrefixKey key;
        EntryRecord record;
        if (id.mv_size != sizeof key || value.mv_size != sizeof record)
            return MDB_CORRUPTED;
        memcpy(&key, id.mv_data, sizeof key);
        memcpy(&record, value.mv_data, sizeof record);
        if (!entry_agrees(txn, tables, &key, &record))
            return MDB_CORRUPTED;
        *n += 1;
        *total += tables_cost(record.size_bytes);
    }
    return status == MDB_NOTFOUND ? 0 : status;
}

int tables_check(MDB_txn *txn, const PrefixTables *tables) {
    const MDB_dbi parallel[] = {tables->data, tables->record, tables->used, tables->age};
    MDB_cursor *cursor;
    size_t n = 0, other;
    uint64_t sum = 0, total;
    int status = mdb_cursor_open(txn, tables->record, &cursor);
    if (status != 0)
        return status;
    status = check_entries(txn, tables, cursor, &n, &sum);
    mdb_cursor_close(cursor);
    for (size_t i = 0; i < 4 && status == 0; i++) {
        status = count_entries(txn, parallel[i], &other);
        if (status == 0 && other != n)
            status = MDB_CORRUPTED;
    }
    if (status == 0)
        status = tables_total(txn, tables, &total);
    if (status != 0)
        return status;
    return total == sum ? rehearse(txn, tables) : MDB_CORRUPTED;
}

/* Entries in one file, an LMDB environment that several processes may have open: what a process was writing when it was
 * killed is not there, all else is. LMDB's map is as large as the cap, so the file never is larger. Tables: an entry's
 * bytes, its record (when it was stored, last used, how large it is), and the keys by last use and by age.
 *
 * A file that is not as LMDB left it, whatever happened to it, is told from a good one by a child process that walks
 * through all of it: should LMDB run into a fault there, the child dies. Such a file is replaced by an empty one. One
 * that cannot be used for another reason, a full disk or a lock that is kept, stays as it is. After that, bytes are
 * checked by whoever gets them. */
#ifndef STOWKV_PREFIX_DISK_TIER_H
#define STOWKV_PREFIX_DISK_TIER_H

#include "base/error.h"
#include "kvcache/prefix/entry.h"

typedef struct DiskTier DiskTier;

#define DISK_TIER_LEAST_BYTES ((size_t)1 << 20) /* of a cap */

/* A further line for the user: the store is never a reason to fail. */
typedef void PrefixNote(void *user, const char *line);

typedef struct DiskTierOptions {
    const char *folder; /* made where it is not there; its parent must be */
    size_t cap_bytes;   /* of the file */
    uint64_t ttl_ms;
    bool clear; /* begin with an empty file */
    PrefixNote *note;
    void *note_user;
} DiskTierOptions;

typedef struct DiskTierStats {
    size_t n_entries, used_bytes; /* of entries, in whole pages */
    size_t file_bytes, budget_bytes;
    size_t n_evicted, n_expired, n_failed; /* by this process; writes that failed */
    size_t n_squeezed;                     /* how often more had to go, since free pages lay apart */
} DiskTierStats;

/* Errors: a folder that cannot be used. */
int disk_tier_open(DiskTier **out, const DiskTierOptions *options, Error *error);
void disk_tier_close(DiskTier *tier); /* NULL is fine */

/* False from when it could not be read or written: it takes and has nothing then. */
bool disk_tier_works(const DiskTier *tier);

typedef enum DiskFound { DISK_ABSENT, DISK_EXPIRED, DISK_FOUND, DISK_TRUNCATED } DiskFound;

/* Where the entry lies in the map, valid until disk_tier_release(); it may be damaged. Its last use is now. */
DiskFound disk_tier_find(DiskTier *tier, const PrefixKey *key, uint64_t now, const uint8_t **bytes, size_t *size_bytes,
                         uint64_t *checksum, uint64_t *created);
void disk_tier_release(DiskTier *tier);

/* Whether it is there, which is no use of it; and a use of it, if it is. */
DiskFound disk_tier_peek(DiskTier *tier, const PrefixKey *key, uint64_t now, uint64_t *checksum);
void disk_tier_used(DiskTier *tier, const PrefixKey *key);

/* All of the items become visible, or none; where `bytes` is NULL, the entry must be there, and is as good as new. The
 * least recently used of the others are evicted before. False: nothing was stored, and a note says why. */
bool disk_tier_put(DiskTier *tier, const PrefixItem *items, size_t n_items, uint64_t now);
void disk_tier_remove(DiskTier *tier, const PrefixKey *key);
void disk_tier_sweep(DiskTier *tier, uint64_t now); /* removes what has expired */
void disk_tier_stats(DiskTier *tier, DiskTierStats *out);

#endif

/*
 * keyspace.h: where the values are: keys of up to FSW_MAX_KEY bytes to values in a donor's image.
 *
 * What set has put there is there after a kill -9 at any later moment, and what del took is not;
 * of a set that the kill came into there is all or nothing. Nothing is ever dropped but by del,
 * forget and clear: at the limit, set refuses. One thread. Nothing here blocks but open.
 */
#ifndef FSW_SERVER_KEYSPACE_H
#define FSW_SERVER_KEYSPACE_H

#include <stddef.h>
#include <stdint.h>

#include "farswap/error.h"
#include "server/devices.h"
#include "server/image.h"
#include "server/value.h"
#include "server/vault.h"

struct fsw_keyspace;

/* What open found. */
struct fsw_keyspace_found {
    uint64_t values;  /* there again */
    uint64_t stale;   /* overwritten, by a process that was killed before it could free them */
    uint64_t damaged; /* not trusted, and dropped */
};

/* All that the image holds, which stays the caller's. limit: bytes that image, table and everything
 * else that is charged to the vault may take. 0 or -ENOMEM. */
int fsw_keyspace_open(struct fsw_donor_image *image, uint64_t limit,
                      struct fsw_keyspace **ret_keyspace);
/* Lets go of it; the values stay in the image. No value may be held by anybody else. */
void fsw_keyspace_close(struct fsw_keyspace *keyspace);

/* Puts value under key, instead of what was there: the value itself if it lies in a slot, else its
 * bytes. -ENOMEM: the limit, or the vault is shut; nothing has changed. -ENAMETOOLONG: the key. */
int fsw_keyspace_set(struct fsw_keyspace *keyspace, const char *key, size_t key_length,
                     struct fsw_value *value);

/* Lent until the next call that changes the keyspace; hold it to keep it. NULL: not there. */
struct fsw_value *fsw_keyspace_get(struct fsw_keyspace *keyspace, const char *key,
                                   size_t key_length);

/* 1: was there; 0: was not. */
int fsw_keyspace_del(struct fsw_keyspace *keyspace, const char *key, size_t key_length);

/* Dels all of a device, or all there is; how many. Some ten nanoseconds for each value there is. */
uint64_t fsw_keyspace_forget(struct fsw_keyspace *keyspace, unsigned device);
uint64_t fsw_keyspace_clear(struct fsw_keyspace *keyspace);

/* Shows a few keys to `each` and returns the cursor to go on with; 0 begins, 0 ends. A key that is
 * there from the first call to the last is shown exactly once, whatever else is set, deleted,
 * grown or shrunk in between. Any cursor is safe. `each` must not change the keyspace. */
uint64_t fsw_keyspace_scan(struct fsw_keyspace *keyspace, uint64_t cursor,
                           void (*each)(const char *key, size_t key_length, void *opaque),
                           void *opaque);

uint64_t fsw_keyspace_count(const struct fsw_keyspace *keyspace);
/* Of all values together. */
uint64_t fsw_keyspace_value_bytes(const struct fsw_keyspace *keyspace);
struct fsw_vault *fsw_keyspace_vault(struct fsw_keyspace *keyspace);
struct fsw_devices *fsw_keyspace_devices(struct fsw_keyspace *keyspace);
const struct fsw_keyspace_found *fsw_keyspace_found(const struct fsw_keyspace *keyspace);

/* Walks everything and proves the invariants numbered in keyspace.c, and the vault's. 0, or
 * -EUCLEAN with the first that is broken. */
int fsw_keyspace_check(const struct fsw_keyspace *keyspace, struct fsw_error *err);

#endif

/*
 * keyspace.h: where the values are: keys of up to FSW_MAX_KEY bytes to values.
 *
 * Nothing is ever dropped but by del: at the limit, set refuses. This header is all that the rest
 * of the room knows of storage, so that its memory can become an image that outlives the process.
 * One thread. Nothing here blocks; set and del may allocate.
 */
#ifndef FSW_SERVER_KEYSPACE_H
#define FSW_SERVER_KEYSPACE_H

#include <stddef.h>
#include <stdint.h>

#include "farswap/error.h"
#include "server/value.h"

struct fsw_keyspace;

/* limit: bytes that values, their descriptors and the table may cost together. 0 or -ENOMEM. */
int fsw_keyspace_new(uint64_t limit, struct fsw_keyspace **ret_keyspace);
void fsw_keyspace_free(struct fsw_keyspace *keyspace);

/* Puts value under key, instead of what was there; holds the value itself.
 * -ENOMEM: the limit; nothing has changed. -ENAMETOOLONG: the key. */
int fsw_keyspace_set(struct fsw_keyspace *keyspace, const char *key, size_t key_length,
                     struct fsw_value *value);

/* Lent until the next call that changes the keyspace; hold it to keep it. NULL: not there. */
struct fsw_value *fsw_keyspace_get(struct fsw_keyspace *keyspace, const char *key,
                                   size_t key_length);

/* 1: was there; 0: was not. */
int fsw_keyspace_del(struct fsw_keyspace *keyspace, const char *key, size_t key_length);

/* Shows a few keys to `each` and returns the cursor to go on with; 0 begins, 0 ends. A key that is
 * there from the first call to the last is shown exactly once, whatever else is set, deleted,
 * grown or shrunk in between. Any cursor is safe. `each` must not change the keyspace. */
uint64_t fsw_keyspace_scan(struct fsw_keyspace *keyspace, uint64_t cursor,
                           void (*each)(const char *key, size_t key_length, void *opaque),
                           void *opaque);

uint64_t fsw_keyspace_count(const struct fsw_keyspace *keyspace);
/* What counts against the limit: all values of the process (also those that are still an argument
 * or on their way to a client), descriptors and table. */
uint64_t fsw_keyspace_bytes(const struct fsw_keyspace *keyspace);
uint64_t fsw_keyspace_limit(const struct fsw_keyspace *keyspace);

/* Walks everything and proves the invariants numbered in keyspace.c. 0, or -EUCLEAN with the
 * first that is broken. */
int fsw_keyspace_check(const struct fsw_keyspace *keyspace, struct fsw_error *err);

#endif

/*
 * crypt.h: a store around a store: what goes there is encrypted, what comes back is proved.
 *
 *     submit(PUT) ── seal in place ──▶ lower          lower's done(GET) ── open in place ──▶ done()
 *
 * It has no thread, no lists and no memory of its own for requests: it encrypts a put's bytes where
 * they are, on the thread that submits, and stands in front of a get's done(), on the thread that
 * answers. (A segment takes about 25 µs, an object of 1300 bytes 1 µs.)
 *
 * The key is the device's, and only in its image: whoever has the store's bytes has nothing when the
 * image is gone. It says CORRUPT where a store lied, and never hands on what it could not prove.
 */
#ifndef FSW_STORE_CRYPT_H
#define FSW_STORE_CRYPT_H

#include "farswap/store.h"

/* Takes `lower` over: close() closes it. -ENOMEM, and lower stays the caller's. */
int crypt_store_new(struct fsw_store *lower, struct fsw_store **ret_store);

#endif

/*
 * store_open.h: from a URI to a store.
 */
#ifndef FSW_STORE_OPEN_H
#define FSW_STORE_OPEN_H

#include "farswap/store.h"

struct fsw_store_options {
    const char *uri;      /* resp://HOST[:PORT] (default port 6390), resp+unix:///PATH, file:PATH */
    const char *password; /* NULL: none. Copied, wiped at close */
    int plaintext; /* 1: what leaves this host may do so unencrypted (overflow-plaintext=yes) */
};

/* Parses, resolves a host's name (that may block) and checks; connects to nothing. -EINVAL with one
 * line for a URI it can't serve, or for one that is neither loopback nor a Unix socket when
 * options->plaintext is 0; -ENOENT for a name that nobody knows. The caller calls
 * (*ret)->ops->close() in the end. Allocates. */
int fsw_store_open(const struct fsw_store_options *options, struct fsw_store **ret_store,
                   struct fsw_error *err);

#endif

/*
 * store_open.h: from a URI to a store.
 */
#ifndef FSW_STORE_OPEN_H
#define FSW_STORE_OPEN_H

#include "farswap/store.h"

struct fsw_store_options {
    /* resp://HOST[:PORT] (default port 6390), resp+unix:///PATH, file:PATH; or crypt+ and one of them.
     * Two, with a space between, are a mirror. */
    const char *uri;
    const char *password; /* of all; NULL: none. Copied, wiped at close */
    int plaintext; /* 1: what leaves this host does so unencrypted (overflow-plaintext=yes) */
    /* 1: for a device that was there before. Nothing waits for a resolver: names are resolved by the
     * store's thread, for as long as that takes. Until then `encrypted` says what was found of them
     * when the device was made; what stayed on this host unencrypted goes nowhere else. */
    int later, encrypted;
};

/* Parses, resolves a host's name (that may block) and checks; connects to nothing. What leaves this
 * host is encrypted, unless options->plaintext; what stays is not, unless the URI begins with crypt+.
 * Leaving is: an address that is neither loopback nor a Unix socket, a file on a file system that is
 * another host's. Of a mirror both are encrypted if one is to be. The store's `seal` tells. -EINVAL with one line for a URI it can't serve; -ENOENT
 * for a name that nobody knows. The caller calls (*ret)->ops->close() in the end. Allocates. */
int fsw_store_open(const struct fsw_store_options *options, struct fsw_store **ret_store,
                   struct fsw_error *err);

#endif

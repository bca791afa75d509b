/*
 * listen.h: sockets that clients come to: a Unix socket, TCP addresses.
 *
 * NBD has neither passwords nor encryption: a Unix socket is its owner's alone (0600), and an
 * address that is not loopback is warned of.
 */
#ifndef FSW_NBD_LISTEN_H
#define FSW_NBD_LISTEN_H

#include <sys/socket.h>

#include "farswap/error.h"

#define FSW_LISTEN_PORT_DEFAULT 10809

struct fsw_listener {
    int fd; /* listens, does not block, closed at exec */
    const char *unix_path;
    char text[80]; /* where, for people */
};

/* "ADDR", "ADDR:PORT", "[V6]:PORT"; numeric. -EINVAL with one line. */
int fsw_listen_parse(const char *text, struct sockaddr_storage *ret_address, struct fsw_error *err);

int fsw_listen_is_loopback(const struct sockaddr_storage *address);

/* Listens. A socket that a dead server left at the path is replaced. */
int fsw_listen_unix(const char *path, struct fsw_listener *ret_listener, struct fsw_error *err);
int fsw_listen_tcp(const struct sockaddr_storage *address, struct fsw_listener *ret_listener,
                   struct fsw_error *err);

#endif

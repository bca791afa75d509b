/*
 * address.h: where a store is: from the text of a URI to addresses a socket can be connected to.
 *
 * A name is resolved once, when the store is opened, and never again: a resolver that has to be
 * read back from swap can't stand in the way of the swap device itself, and what was judged to be
 * loopback stays what is connected to. Who can't wait for a resolver when he opens (a server that
 * comes up again) resolves later, also once.
 */
#ifndef FSW_STORE_ADDRESS_H
#define FSW_STORE_ADDRESS_H

#include <netdb.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "farswap/error.h"

#define FSW_DEFAULT_PORT "6390"
#define FSW_ADDRESS_MOST 8

/* One place to connect to. */
union fsw_sockaddr {
    struct sockaddr any;
    struct sockaddr_storage storage;
    struct sockaddr_un path;
};

/* A store's address: by value, nothing to free. */
struct fsw_address {
    char text[300]; /* as people know it: "10.0.0.2:6390", "[::1]:6390", "/run/farswapd.sock" */
    unsigned
        count; /* of places; all are the same store, tried in turn. 0: a name, not resolved yet */
    unsigned local; /* 1: nothing that is sent there leaves this host */
    unsigned stays; /* 1: only places on this host are kept when the name is resolved */
    union fsw_sockaddr places[FSW_ADDRESS_MOST];
};

struct fsw_host_port {
    char host[256];
    char port[8];
};

/* rest is what follows "resp://" : HOST[:PORT], an IPv6 address in brackets. Blocks while the name
 * is resolved, unless `later`: then a name leaves count 0. 0, -EINVAL (not an address), -ENOENT (name
 * unknown); one line in err. */
int fsw_address_parse_tcp(struct fsw_address *address, const char *rest, int later,
                          struct fsw_error *err);

/* Of one that was left for later: what is asked of a resolver, and where its answer goes. -ENOENT:
 * none of the places may be used. */
void fsw_address_question(const struct fsw_address *address, struct fsw_host_port *ret_where);
int fsw_address_keep(struct fsw_address *address, const struct addrinfo *list,
                     struct fsw_error *err);

/* Both at once. Blocks. */
int fsw_address_resolve(struct fsw_address *address, struct fsw_error *err);

/* rest is what follows "resp+unix://": an absolute path. 0 or -EINVAL with one line in err. */
int fsw_address_parse_unix(struct fsw_address *address, const char *rest, struct fsw_error *err);

/* A place as numbers for hiredis and for messages; text holds the host without brackets.
 * Not for Unix sockets. */
#define FSW_HOST_TEXT 64
void fsw_place_text(const union fsw_sockaddr *place, char text[FSW_HOST_TEXT], int *ret_port);

#endif

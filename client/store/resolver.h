/*
 * resolver.h: the places behind a name (address.h), asked for beside a thread that must not wait.
 *
 *      begin ─> look, look, ... ─> 0 or an error       glibc asks, on a thread of its own
 *
 * One thread uses it. What it was begun with stays where it is until its end.
 */
#ifndef FSW_STORE_RESOLVER_H
#define FSW_STORE_RESOLVER_H

#include "client/store/address.h"

struct resolver {
    int asking;
    struct fsw_host_port where;
    struct addrinfo hints;
    struct gaicb question;
};

/* Asks for an address that was left for later; harmless while it is asking. 0 or -EAGAIN: no memory, or
 * no thread. Allocates. */
int resolver_begin(struct resolver *resolver, const struct fsw_address *address);

/* -EINPROGRESS; 0: the address has its places; or as fsw_address_resolve(), and it may be begun anew. Never blocks. */
int resolver_look(struct resolver *resolver, struct fsw_address *address, struct fsw_error *err);

/* Blocks for as long as a question that has begun takes. */
void resolver_end(struct resolver *resolver);

#endif

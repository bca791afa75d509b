/*
 * dial.h: a device that is served on another host. TCP, and the handshake by libnbd.
 *
 * libnbd brings 45 MiB of other libraries along, which only this form of farswap-attach shall load:
 * by dlopen, in fsw_dial_init.
 */
#ifndef FSW_ATTACH_DIAL_H
#define FSW_ATTACH_DIAL_H

#include <netinet/in.h>
#include <stdint.h>
#include <sys/socket.h>

#include "client/attach/kernel.h"
#include "client/attach/options.h"

#define FSW_DIAL_DESCRIPTION 64

struct fsw_dial {
    struct sockaddr_storage address;
    socklen_t address_length;
    const char *where, *export_name;
    uint64_t timeout;
    int old; /* a descriptor to be aborted before the next connection, or -1 */

    /* of the last job */
    int fd; /* in transmission; -1: `text` says why not */
    uint64_t size, flags;
    char description[FSW_DIAL_DESCRIPTION + 1]; /* that the server gave its export */
    char text[512];
};

/* Looks the address up and loads libnbd. */
int fsw_dial_init(struct fsw_dial *dial, const struct fsw_attach_options *options,
                  struct fsw_error *err);

/* Backend identifiers of such devices begin with this, and end with what the server called it. */
void fsw_dial_prefix(const char *name, char backend[FSW_BACKEND_MAX]);
void fsw_dial_backend(const struct fsw_dial *dial, const char *name, char backend[FSW_BACKEND_MAX]);

/* A job of a worker: one connection, handshake done, within the request timeout. */
void fsw_dial_job(void *dial);

/* Takes a descriptor of a connection that is to end without anything of it being sent any more: a
 * write that still stands in its buffer would come late. Done by the next job. */
void fsw_dial_abort(struct fsw_dial *dial, int fd);

#endif

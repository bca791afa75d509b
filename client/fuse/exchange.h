/*
 * exchange.h: one request of the kernel's and its answer, in a buffer that its thread keeps.
 *
 *      a page │ up to FSW_FUSE_DATA_MAX bytes
 *      ... HHHAAAA│WWWWWWWWWWWWWWW...     a WRITE: header, arguments, data (on whole pages)
 *      ........ hh│RRRRRRRRRRRRRRR...     the answer of a READ: header, data
 *
 * Nothing here allocates but fsw_exchange_init.
 */
#ifndef FSW_FUSE_EXCHANGE_H
#define FSW_FUSE_EXCHANGE_H

#include <stddef.h>

#include "client/fuse/seats.h"
#include "farswap/device.h"

struct fsw_exchange {
    struct fsw_device *device;
    struct fsw_seats *seats;
    int fd;                   /* where the request came from, and its answer must go */
    int seated;               /* 0: the seat was left */
    struct fuse_in_header in; /* a copy */
    char *request;            /* as it was read */
    const char *argument;     /* what follows its header */
    size_t argument_bytes;
    char *data; /* page-aligned, FSW_FUSE_DATA_MAX bytes, overlaps the request */
};

/* Maps and touches the buffer. -ENOMEM. */
int fsw_exchange_init(struct fsw_exchange *exchange, struct fsw_device *device,
                      struct fsw_seats *seats);
void fsw_exchange_deinit(struct fsw_exchange *exchange);

/* Waits for the next request. -ENODEV: the mount is gone. */
int fsw_exchange_read(struct fsw_exchange *exchange);

/* Copies the argument's struct; what an older kernel does not send is zero. */
void fsw_exchange_argument(const struct fsw_exchange *exchange, void *into, size_t bytes);
#define FSW_ARGUMENT(exchange, into) fsw_exchange_argument(exchange, &(into), sizeof(into))

/* Call before anything that may wait. */
void fsw_exchange_may_wait(struct fsw_exchange *exchange);

/* One of these for each request but those that want none. An answer that comes too late (the
 * request was given up, the mount is gone) is dropped by the kernel, and nobody minds. */
void fsw_answer(struct fsw_exchange *exchange, int error); /* 0 or -errno */
void fsw_answer_with(struct fsw_exchange *exchange, const void *bytes, size_t length);
void fsw_answer_data(struct fsw_exchange *exchange, size_t length); /* of exchange->data */

#endif

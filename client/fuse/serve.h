/*
 * serve.h: threads that answer the kernel, until the mount is gone.
 */
#ifndef FSW_FUSE_SERVE_H
#define FSW_FUSE_SERVE_H

#include "client/fuse/exchange.h"
#include "client/fuse/mount.h"

/* Threads besides those on seats: so many requests may wait for the store, or for space, before
 * others have to wait, too. A loop device has 128 requests; each thread keeps a buffer of 132 KiB. */
#define FSW_FUSE_WAITING 64u
#define FSW_FUSE_THREADS_MAX (FSW_FUSE_FDS_MAX + FSW_FUSE_WAITING)

struct fsw_server {
    struct fsw_device *device;
    struct fsw_seats seats;
    struct fsw_exchange exchanges[FSW_FUSE_THREADS_MAX];
    pthread_t threads[FSW_FUSE_THREADS_MAX];
    unsigned prepared, started;
};

/* Buffers of all threads. Before the device is opened, so that a server that waits to take over has
 * them. -ENOMEM. */
int fsw_server_prepare(struct fsw_server *server, const struct fsw_mount *mount);

/* Starts the threads on a device that was started. */
int fsw_server_start(struct fsw_server *server, struct fsw_device *device, struct fsw_error *err);

/* Returns when the mount is gone and every request was answered. */
void fsw_server_wait(struct fsw_server *server);

#endif

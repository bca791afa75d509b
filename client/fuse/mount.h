/*
 * mount.h: a FUSE mount and the descriptors that speak for it.
 *
 * The mount lives as long as any process holds its first descriptor. Requests that a server has
 * read and not answered belong to the descriptor they were read from: whoever holds all of them can
 * start another server, which asks for those requests once more.
 */
#ifndef FSW_FUSE_MOUNT_H
#define FSW_FUSE_MOUNT_H

#include <limits.h>

#include "client/fuse/wire.h"
#include "farswap/error.h"

struct fsw_mount {
    char path[PATH_MAX]; /* absolute; "" where another process has made the mount */
    int fds[FSW_FUSE_FDS_MAX];
    unsigned count;
    int can_resend; /* the kernel knows FUSE_NOTIFY_RESEND */
};

/* Mounts on an existing directory (in /proc/mounts it is "farswap:NAME", by which the farswap
 * command finds it), answers the kernel's INIT, and opens `count` descriptors. Blocks
 * for as long as the kernel takes. */
int fsw_mount_open(struct fsw_mount *mount, const char *path, const char *name, unsigned count,
                   struct fsw_error *err);

/* The kernel puts every request that was read and not answered in front of the queue again, with
 * another number. The caller knows that whoever read them is gone. -ENODEV: the mount is gone;
 * -EINVAL: the kernel does not know it. */
int fsw_mount_resend(const struct fsw_mount *mount);

/* Takes it off the tree. -EBUSY: something uses it, and it stays. */
int fsw_mount_close(struct fsw_mount *mount);

#endif

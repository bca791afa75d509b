/*
 * adopt.h: a server whose supervisor died, or that never had one, is given another.
 *
 * The mount lives in the server's descriptors of /dev/fuse. pidfd_getfd(2) (Linux 5.6) gives us the
 * same open files: the server notices nothing, and a spare that has them can take over from it.
 */
#ifndef FSW_FUSE_ADOPT_H
#define FSW_FUSE_ADOPT_H

#include <sys/types.h>

#include "client/fuse/mount.h"

struct fsw_adopted {
    pid_t pid;
    int pidfd; /* readable once it has ended; the caller closes it */
};

/* 1: a farswap-fuse serves the device at that mount point, and nobody watches it; mount has its
 * descriptors. 0: nobody serves it there. -EBUSY: it has a supervisor, or another program serves it;
 * -EPERM: it may not be looked into. */
int fsw_adopt(const char *mountpoint, const char *name, struct fsw_mount *mount,
              struct fsw_adopted *ret_adopted, struct fsw_error *err);

/* Ends the spares that the dead supervisor left: those of the device that are nobody's. The caller
 * has a spare of its own by now, so the mount is in good hands even if one of them has just begun to
 * serve. */
void fsw_adopt_end_spares(const char *mountpoint, const char *name, pid_t server);

#endif

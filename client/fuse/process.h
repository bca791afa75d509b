/*
 * process.h: the process that serves: from its parameters to the end of the mount.
 */
#ifndef FSW_FUSE_PROCESS_H
#define FSW_FUSE_PROCESS_H

#include "client/door/door.h"
#include "client/fuse/mount.h"

struct fsw_process {
    struct fsw_door door; /* its parameters are set and checked */
    const char *mountpoint;
    /* A supervised server gets its mount, and a socket to tell how it is; another makes its own. */
    int inherited;
    struct fsw_mount mount;
    int control; /* -1: nobody is told */
};

/* Returns the exit status: 0 once the mount is gone, 1 if it could not start (and says why). */
int fsw_process_run(struct fsw_process *process);

/* The mount that farswap-fuse makes: a descriptor for each CPU. */
int fsw_process_mount(const char *mountpoint, const char *name, struct fsw_mount *mount,
                      struct fsw_error *err);

/* SIGTERM, SIGINT: unmounts, unless the mount is in use; then it says so and stays. */
void fsw_process_stop(struct fsw_mount *mount);

#endif

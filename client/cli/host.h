/*
 * host.h: what the kernel has of a device: the block devices that are its doors, swap on them, and
 * the memory that swapoff would need. Read from /proc and /sys anew at each call; nothing is kept.
 */
#ifndef FSW_CLI_HOST_H
#define FSW_CLI_HOST_H

#include <limits.h>
#include <stddef.h>
#include <stdint.h>

#include "core/registry.h"

#define HOST_BLOCK 64 /* "/dev/loop7" */
#define HOST_PRIORITY_MAX 32767

struct host_swap {
    char path[256]; /* as in /proc/swaps */
    uint64_t size, used;
    int priority;
};

/* Calls each for every swap of the host, for as long as it returns 0; returns what it returned. */
int host_each_swap(int (*each)(const struct host_swap *swap, void *opaque), void *opaque);

/* 1 and the swap on that block device. */
int host_swap_on(const char *device, struct host_swap *ret_swap);

/* 1 and the swap on any door of the device. */
int host_swap_of(const struct fsw_record *record, struct host_swap *ret_swap);

/* Bytes free on all other swaps. */
uint64_t host_swap_elsewhere(const char *device);

/* One above the highest priority in use, at most HOST_PRIORITY_MAX. */
int host_swap_priority(void);

/* 1 and the folder that farswap-fuse serves the device in; room for 512 bytes. */
int host_mount_of(const char *name, char mountpoint[512]);

/* 1 and a loop device over MOUNTPOINT/disk. */
int host_loop_over(const char *mountpoint, char device[HOST_BLOCK]);

/* 1 and a "Name:   123 kB" field of /proc/meminfo or another file of that form, in bytes. */
int host_field(const char *path, const char *name, uint64_t *ret_bytes);

/* A capability of ours is effective. */
int host_may(int capability);

/* $FARSWAP_RUNDIR/NAME.what */
void host_run_path(const char *name, const char *what, char path[PATH_MAX]);

#endif

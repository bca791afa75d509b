/*
 * kernel.h: the kernel's nbd, by generic netlink (libnl-genl).
 *
 * Calls wait for the kernel's answer, at most FSW_KERNEL_WAIT_S. Memory comes from the heap, which
 * the program has touched before (harden.c). One thread.
 */
#ifndef FSW_ATTACH_KERNEL_H
#define FSW_ATTACH_KERNEL_H

#include <stdint.h>

#include "farswap/error.h"

#define FSW_KERNEL_WAIT_S 20
#define FSW_BACKEND_MAX 192

struct fsw_kernel {
    struct nl_sock *commands, *events;
    int family;
    int events_fd; /* polls as readable when there is an event */
    int answer;    /* of the call that runs: 1 none yet, 0 done, or a negative errno */
    int index;     /* what the answer told */
    int connected;
    int dead; /* events seen for `watched` */
    int watched;
};

/* What a device is configured with. */
struct fsw_kernel_config {
    uint64_t size;
    uint64_t flags;                 /* NBD_FLAG_* */
    uint64_t timeout, dead_timeout; /* seconds */
    char backend[FSW_BACKEND_MAX];
};

/* -ENOENT with a line that says what to do when nbd isn't loaded, or isn't of this namespace. */
int fsw_kernel_open(struct fsw_kernel *kernel, struct fsw_error *err);

/* Makes /dev/nbdINDEX (-1: any free one) a device with one connection, fd. The kernel keeps fd's
 * file; the caller's descriptor stays the caller's. -EBUSY: not free. */
int fsw_kernel_connect(struct fsw_kernel *kernel, int index, const struct fsw_kernel_config *config,
                       int fd, int *ret_index);

/* Gives it another socket. 1: taken; 0: not, since its present one is not dead (yet). -EINVAL: the
 * device isn't configured, or is another backend's. */
int fsw_kernel_reconfigure(struct fsw_kernel *kernel, int index,
                           const struct fsw_kernel_config *config, int fd);

/* Takes the device away. Requests in flight fail. */
int fsw_kernel_disconnect(struct fsw_kernel *kernel, int index);

/* 1: the device is configured (its socket may be dead nevertheless), 0: it isn't. */
int fsw_kernel_connected(struct fsw_kernel *kernel, int index);

/* Reads all events there are; 1 if one said that a link of the device is dead, or if events were
 * lost. Does not block. */
int fsw_kernel_link_died(struct fsw_kernel *kernel, int index);

#endif

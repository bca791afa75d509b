/*
 * wire.h: the kernel's FUSE protocol, as far as farswap speaks it, and the sizes that it chose.
 *
 * The raw protocol, without libfuse: a swap device needs a descriptor that outlives its server,
 * buffers that exist before the first request, and requests that are asked for once more; libfuse
 * allocates for each request and wants to make the mount itself.
 */
#ifndef FSW_FUSE_WIRE_H
#define FSW_FUSE_WIRE_H

#include <linux/fuse.h>

/* The oldest protocol whose structs are those below (Linux 5.4), and the newest looked at. */
#define FSW_FUSE_MINOR_LEAST 31
#define FSW_FUSE_MINOR_MOST 38

/* Linux 6.9, later than Debian 12's header. */
#define FSW_FUSE_HAS_RESEND (1ull << 39)
#define FSW_FUSE_NOTIFY_RESEND 7

/* Most bytes of one READ or WRITE. Reclaim writes at most 32 pages at once; what is larger comes in
 * several requests, which several threads take. */
#define FSW_FUSE_DATA_MAX (128u << 10)

/* A WRITE's data follows this; so a buffer whose data lies on pages begins here before a page. */
#define FSW_FUSE_WRITE_HEAD (sizeof(struct fuse_in_header) + sizeof(struct fuse_write_in))
#define FSW_FUSE_REQUEST_MAX (FSW_FUSE_WRITE_HEAD + FSW_FUSE_DATA_MAX)

/* Requests that the kernel keeps out at a time. A loop device has 128. */
#define FSW_FUSE_BACKGROUND 512u
#define FSW_FUSE_CONGESTION 384u

/* Descriptors of one mount: one a CPU, so that their queues don't meet. */
#define FSW_FUSE_FDS_MAX 16u

#endif

/*
 * hidden.h: what a mount would hide. A server that opens a file in its own mount asks itself, and
 * waits for ever; so would the next one, which must read the image's record.
 */
#ifndef FSW_FUSE_HIDDEN_H
#define FSW_FUSE_HIDDEN_H

#include "farswap/params.h"

/* -EINVAL: a folder or file that servers of the device open lies in the mount point. */
int fsw_hidden_check(const char *mountpoint, const struct fsw_params *params,
                     struct fsw_error *err);

#endif

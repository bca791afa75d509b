/*
 * doors.h: from a device's name to a block device of it, and back to nothing.
 *
 *      nbd     farswap-attach ── farswap-nbd ── /dev/nbdN
 *      fuse    farswap-fuse --supervise ── RUNDIR/NAME.mnt/disk ── /dev/loopN
 *
 * Each step looks first whether it was done before: a call that was killed half-way is gone on
 * with. What is started outlives us; its output is in RUNDIR/NAME.log. One call a device at a time:
 * the caller holds RUNDIR/NAME.steer.
 */
#ifndef FSW_CLI_DOORS_H
#define FSW_CLI_DOORS_H

#include "client/cli/config.h"
#include "client/cli/host.h"

struct door {
    const char *name;
    /* Makes the block device, or finds it. Blocks for as long as a start takes, a minute at most. */
    int (*up)(const char *device, const struct config *config, char block[HOST_BLOCK],
              struct fsw_error *err);
    /* Ends server and block device, which is not swap any more; the image stays. 1: done, 0: there
     * was nothing. Negative: something stays, and err says what. */
    int (*down)(const char *device, struct fsw_error *err);
};

extern const struct door door_nbd, door_fuse;

/* Of a device that is up through FUSE: starts another supervisor where that of its server is gone, or
 * never was. 0 also where none is missing. */
int door_fuse_watch(const char *device, struct fsw_error *err);

/* One line of progress: "NAME: text". */
void door_say(const char *device, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif

/*
 * knobs.h: the small files: statistics and settings under the names that zram's have in sysfs, in
 * zram's formats, so that scripts made for zram keep working.
 */
#ifndef FSW_FUSE_KNOBS_H
#define FSW_FUSE_KNOBS_H

#include "client/fuse/exchange.h"

/* A knob is at most this long, as in sysfs. */
#define FSW_KNOB_BYTES 4096u

struct fsw_knob {
    const char *name;
    uint32_t mode;
    const char *meaning; /* for --help and the man page */
    /* Writes text with its newline, and returns its length, or -errno. NULL: can't be read. */
    int (*show)(struct fsw_device *device, char *text, size_t room);
    /* text: without its newline. 0 or -errno. May wait. NULL: can't be written. */
    int (*store)(struct fsw_device *device, const char *text);
};

extern const struct fsw_knob fsw_knobs[];
extern const unsigned fsw_knob_count;

/* Requests for node FSW_NODE_KNOBS + number. open: -EACCES for what the knob can't do. */
int fsw_knob_open(unsigned number, uint32_t flags);
void fsw_knob_read(struct fsw_exchange *exchange, unsigned number);
void fsw_knob_write(struct fsw_exchange *exchange, unsigned number);

#endif

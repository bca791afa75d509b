/*
 * steer.h: what people change while a device lives.
 *
 * Nothing here is done at once: it is asked for by a word in the image, and the device's keeper
 * follows within a tenth of a second. So a front door and a command do the same, and the data path
 * never waits for either.
 */
#ifndef FARSWAP_STEER_H
#define FARSWAP_STEER_H

#include <stddef.h>
#include <stdint.h>

#include "farswap/device.h"

/* memory=, codec=, prefetch=, fetch_timeout=, watermarks=, write_wait=, read_age=, huge= or
 * overflow_limit=, with the values of the same parameters. overflow-lost=N: the N-th store of overflow= has lost for good all that was put there, as somebody knows; if it is the only one that
 * had a page, that page is -EIO from now on, and counted. (A store that answers and has lost nothing
 * is left alone; one that was emptied and answers keeps what it has.) -EINVAL, -ENOSPC (memory= below what
 * is in use, and there is no store) or -ENOMEM, with a line that says what is allowed. Reads files
 * of the kernel's. */
int fsw_device_set(struct fsw_device *device, const char *key, const char *value,
                   struct fsw_error *err);

/* Asks for compaction and waits for its end: -ETIMEDOUT after wait_ns; it goes on then. */
int fsw_device_compact(struct fsw_device *device, uint64_t wait_ns);

/* Pages and bytes of segments that left for the store. */
struct fsw_overflowed {
    uint64_t pages, bytes;
};

/* Asks that every page leave that was neither written nor read for so many seconds (0: every page),
 * whatever room there is, and waits for the end: -ETIMEDOUT after wait_ns; it goes on then. Time is
 * told to a tenth of a second while the device rests, to a minute while it is used (or to a tick of the
 * age clock, where those come faster), and back to 127 ticks: what is younger, or can't be told to be
 * older, stays. What read_age= makes of reads holds here, too.
 * -ENOTSUP: there is no store. -EIO, -ENOSPC: the store took no more; -EDQUOT: no more may leave
 * (overflow_limit=); *ret says what went. Who asks
 * while another waits gets one answer with it, to the wider of the two requests.
 * With FSW_OVERFLOW_HUGE among the seconds only pages leave that did not compress: they cost most RAM,
 * and gain least. */
#define FSW_OVERFLOW_HUGE (1u << 31)
/* Instead of seconds: what was not used since fsw_device_mark(); nothing, if no server that lives was
 * told to. */
#define FSW_OVERFLOW_MARKED (FSW_OVERFLOW_HUGE - 1)
int fsw_device_overflow_idle(struct fsw_device *device, uint32_t seconds, uint64_t wait_ns,
                             struct fsw_overflowed *ret);

/* Every page is idle from now on, until it is used. */
void fsw_device_mark(struct fsw_device *device);

/* As zram's writeback_limit and writeback_limit_enable. So many bytes may leave from now on, until
 * somebody sets it anew, or overflow_limit=; what is left of it; whether it counts. */
void fsw_device_set_overflow_budget(struct fsw_device *device, uint64_t bytes);
uint64_t fsw_device_overflow_budget(const struct fsw_device *device);
void fsw_device_limit_overflow(struct fsw_device *device, int on);
int fsw_device_overflow_is_limited(const struct fsw_device *device);

/* From now on mem_used_max tells the most since now, as zram's file of that name does. */
void fsw_device_forget_mem_used_max(struct fsw_device *device);

/* "raw [lz4:4] zstd": every codec, the one that is in use in brackets. Returns text. */
char *fsw_device_codecs(const struct fsw_device *device, char *text, size_t room);

/* Percent of memory= in use at which overflow starts, and at which it stops; what watermarks=auto comes
 * to, too. */
void fsw_device_watermarks(const struct fsw_device *device, unsigned *ret_start,
                           unsigned *ret_stop);

/* The store's URI; "" without one. */
const char *fsw_device_overflow(const struct fsw_device *device);

#endif

/*
 * steer.h: the same for who has the image and no device (farswap/steer.h).
 */
#ifndef FSW_STEER_H
#define FSW_STEER_H

#include "core/image.h"
#include "farswap/steer.h"

int fsw_image_set(const struct fsw_image *image, const char *key, const char *value,
                  struct fsw_error *err);
/* The two halves of it: the number of the request; -ETIMEDOUT. */

/* overflow-lost= was set: waits until the server has followed. -ETIMEDOUT: not yet, it will; -EEXIST:
 * (one of) the stores that were named answers and has lost nothing, so nothing was done to it. */
int fsw_image_await_lost(const struct fsw_image *image, uint64_t wait_ns);

uint64_t fsw_image_ask_compact(const struct fsw_image *image);
int fsw_image_await_compact(const struct fsw_image *image, uint64_t asked, uint64_t wait_ns);

/* Of fsw_device_overflow_idle: the number of the request, or 0 if there is no store. */
uint64_t fsw_image_ask_overflow(const struct fsw_image *image, uint32_t seconds);
int fsw_image_await_overflow(const struct fsw_image *image, uint64_t asked, uint64_t wait_ns,
                             struct fsw_overflowed *ret);

#endif

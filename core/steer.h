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
uint64_t fsw_image_ask_compact(const struct fsw_image *image);
int fsw_image_await_compact(const struct fsw_image *image, uint64_t asked, uint64_t wait_ns);

#endif

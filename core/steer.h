/*
 * steer.h: the same for who has the image and no device (farswap/steer.h).
 */
#ifndef FSW_STEER_H
#define FSW_STEER_H

#include "core/image.h"
#include "farswap/steer.h"

int fsw_image_set(const struct fsw_image *image, const char *key, const char *value,
                  struct fsw_error *err);
int fsw_image_compact(const struct fsw_image *image, uint64_t wait_ns);

#endif

/*
 * devices.h: whose values there are, how much of it, and when each was last heard of.
 *
 * A device's keys begin with "farswap:" and the 32 hexadecimal digits of its id
 * (client/store/keys.h); what has another name is counted under device 0. Sums are derived; when a
 * device was last here, and from where, is kept in the image: an admin who looks for the dead must
 * not be fooled by a restart. Nothing depends on it. One thread.
 */
#ifndef FSW_SERVER_DEVICES_H
#define FSW_SERVER_DEVICES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/image.h"

#define FSW_DEVICE_TEXT 33

struct fsw_device_use {
    uint64_t keys, bytes; /* bytes of values */
};

struct fsw_devices {
    struct fsw_contact *contacts; /* [FSW_MAX_DEVICES] */
    struct fsw_device_use use[FSW_MAX_DEVICES];
    unsigned last; /* the one that was asked for last */
    char last_digits[FSW_DEVICE_TEXT - 1];
    uint64_t unnoticed; /* devices for which there was no place */
};

/* Makes what an earlier process left there safe to show. */
void fsw_devices_init(struct fsw_devices *devices, struct fsw_contact *contacts);

/* Which device a key belongs to. 0: none, or (make) there was no place for it. Only make enters one
 * that is not there, in the place of one that has no values if need be. */
unsigned fsw_devices_of_key(struct fsw_devices *devices, const char *key, size_t length, bool make);
/* The one with these 32 digits, or 0. */
unsigned fsw_devices_find(const struct fsw_devices *devices, const char *digits, size_t length);

/* It was heard of now. 0 is ignored. */
void fsw_devices_contact(struct fsw_devices *devices, unsigned device, const char *peer);
/* Its place is free, if it has no values. */
void fsw_devices_forget(struct fsw_devices *devices, unsigned device);

static inline bool fsw_devices_there(const struct fsw_devices *devices, unsigned device)
{
    return device > 0 && devices->contacts[device].last != 0;
}

void fsw_devices_text(const struct fsw_devices *devices, unsigned device,
                      char text[FSW_DEVICE_TEXT]);
/* Seconds since it was last heard of. */
uint64_t fsw_devices_idle(const struct fsw_devices *devices, unsigned device);

#endif

/*
 * keys.h: what a device's things are called at a store that has names.
 *
 *     farswap:<32 hex: device id>:<16 hex: segment id>     a segment
 *     farswap:<32 hex: device id>:sentinel                 the device's sentinel
 *
 * Pure functions; nothing blocks or allocates.
 */
#ifndef FSW_STORE_KEYS_H
#define FSW_STORE_KEYS_H

#include <stddef.h>
#include <stdint.h>

#include "farswap/store.h"

/* The longest key, with its NUL: "farswap:" 32 ':' 16. The sentinel's and the pattern are shorter.
 */
#define FSW_KEY_TEXT 58

void fsw_device_id_text(const struct fsw_device_id *device, char text[FSW_DEVICE_ID_TEXT]);

/* Each fills key and returns its length without the NUL. */
size_t fsw_key_segment(char key[FSW_KEY_TEXT], const struct fsw_device_id *device, uint64_t id);
size_t fsw_key_sentinel(char key[FSW_KEY_TEXT], const struct fsw_device_id *device);
/* The glob that matches every key of a device. */
size_t fsw_key_pattern(char key[FSW_KEY_TEXT], const struct fsw_device_id *device);

/* The segment id in a key: 0, or -EINVAL if it is not the key of a segment of that device. */
int fsw_key_parse(const char *key, size_t length, const struct fsw_device_id *device,
                  uint64_t *ret_id);

#endif

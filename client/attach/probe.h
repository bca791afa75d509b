/*
 * probe.h: calls to the device that wait for it, as jobs of a worker.
 */
#ifndef FSW_ATTACH_PROBE_H
#define FSW_ATTACH_PROBE_H

#include <stdint.h>

#include "client/attach/sight.h"

struct fsw_probe {
    int index;
    uint64_t size; /* that the device must have */
    int result;    /* 0 or descriptor, or negative errno */
    char text[FSW_USE_TEXT];
};

/* Can the device be used? Opens it, compares its size, reads its first page past all caches; then sees
 * to it that the kernel does not sort its requests. */
void fsw_probe_first_read(void *probe);

/* fsw_sight_claim. */
void fsw_probe_claim(void *probe);

#endif

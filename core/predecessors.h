/*
 * predecessors.h: devices of the same name that are gone, whose pages are still at their stores.
 *
 *      /var/lib/farswap/NAME       the device of that name, and its stores (registry.h)
 *      /var/lib/farswap/NAME@ID    one before it, which no store was made to forget yet
 *
 * A reboot takes the image and leaves the segments. So when a new image of a name is made, what the
 * state file said before stays under another name, until its stores have forgotten that device.
 */
#ifndef FSW_PREDECESSORS_H
#define FSW_PREDECESSORS_H

#include "core/registry.h"

/* `record` is about to become NAME's: what is there of another device with a store is kept. Blocks. */
int fsw_predecessors_keep(const struct fsw_record *record, struct fsw_error *err);

/* The first few of a name, into records; returns how many. One whose image is still somewhere in
 * memory (an orphan) is none. Reads files. */
unsigned fsw_predecessors_list(const char *name, struct fsw_record *records, unsigned room);

/* Its stores have forgotten it. */
void fsw_predecessors_forgotten(const struct fsw_record *record);

#endif

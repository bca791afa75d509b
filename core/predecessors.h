/*
 * predecessors.h: devices of the same name that are gone, whose pages are still at their stores
 * (farswap/record.h), as the engine sees them.
 */
#ifndef FSW_PREDECESSORS_H
#define FSW_PREDECESSORS_H

#include "core/registry.h"

/* `record` is about to become NAME's: what is there of another device with a store is kept. Blocks. */
int fsw_predecessors_keep(const struct fsw_record *record, struct fsw_error *err);

/* There is no image of that name any more, and none is being made: what its file says is a predecessor
 * from now on. 0, also if there was no file. The caller holds the lock. Blocks. */
int fsw_predecessors_retire(const char *name, struct fsw_error *err);

/* Ids of those that have something at one of these stores (as overflow= is written down). Returns how
 * many; if there are more, the oldest are left out: a place for one device is the newest one's. */
unsigned fsw_predecessors_at(const char *name, const char *overflow, struct fsw_device_id *ids,
                             unsigned room);

#endif

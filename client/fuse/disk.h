/*
 * disk.h: the file `disk`: requests of the kernel's as verbs of the engine's.
 */
#ifndef FSW_FUSE_DISK_H
#define FSW_FUSE_DISK_H

#include "client/fuse/exchange.h"

void fsw_disk_read(struct fsw_exchange *exchange);
void fsw_disk_write(struct fsw_exchange *exchange);
/* Punched holes are discards; ranges of zeroes are zeroes; there is nothing to allocate. */
void fsw_disk_fallocate(struct fsw_exchange *exchange);

#endif

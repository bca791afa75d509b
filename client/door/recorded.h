/*
 * recorded.h: the store of a device, as its record names it (farswap/record.h).
 */
#ifndef FSW_RECORDED_H
#define FSW_RECORDED_H

#include "farswap/record.h"

/* Opens it: reads the file with its password, resolves names, connects to nothing. The caller closes it.
 * 0, or as fsw_store_open(), or the password's file can't be read; one line in err. Blocks. Allocates. */
int fsw_recorded_store_open(const struct fsw_record *record, struct fsw_store **ret_store,
                            struct fsw_error *err);

/* Opens it, makes it forget the device, closes it. *ret_count: segments that were there. As the two. Blocks. */
int fsw_recorded_store_forget(const struct fsw_record *record, uint64_t *ret_count,
                              struct fsw_error *err);

#endif

/*
 * swap.h: swap on a block device, and off.
 */
#ifndef FSW_CLI_SWAP_H
#define FSW_CLI_SWAP_H

#include "client/cli/host.h"

/* mkswap, unless what is there can't be swap's: *stored* says that the device holds pages, and
 * without swap's mark they are somebody's data. -EEXIST: so it is. */
int swap_make(const char *device, int stored, struct fsw_error *err);

/* With discard, on top of what is free and once for all; priority as in swapon(8). */
int swap_on(const char *device, int priority, struct fsw_error *err);

/* Moves every page back to RAM, or to other swap, and shows on a terminal how far it is. Unless
 * forced, does not begin what can't end; what turns out to be so is stopped before RAM runs out:
 * -ENOMEM with how much is missing. Other errors, too, leave it on. */
int swap_off(const struct host_swap *swap, int force, struct fsw_error *err);

#endif

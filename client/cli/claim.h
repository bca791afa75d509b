/*
 * claim.h: one `farswap up` or `down` of a device at a time.
 */
#ifndef FSW_CLI_CLAIM_H
#define FSW_CLI_CLAIM_H

#include "farswap/error.h"

/* Takes RUNDIR/NAME.steer, making the folder; returns a descriptor. Waits a few
 * seconds for another call to end, then -EBUSY. */
int claim_take(const char *name, struct fsw_error *err);

/* Gives it back, and removes it. */
void claim_drop(const char *name, int claim);

#endif

/*
 * harden.h: what a process that holds other machines' memory owes them and its host.
 */
#ifndef FSW_SERVER_HARDEN_H
#define FSW_SERVER_HARDEN_H

#include <stdint.h>

#include "farswap/error.h"

/* No core dump and no debugger of the same user sees the values; SIGPIPE is ignored. */
void fsw_harden(void);

/* Locks all memory, what comes later too, as it is touched. wanted: bytes that will be needed; with
 * a right to lock less than that nothing is locked, since later allocations would fail. Negative
 * errno with one line that says what is at risk; the program may go on. */
int fsw_lock_memory(uint64_t wanted, struct fsw_error *err);

/* -ENOMEM with one line when this host has less memory available than we promise to hold. */
int fsw_check_memory(uint64_t wanted, struct fsw_error *err);

/* Raises the soft limit of open files, as far as the hard one lets us. */
void fsw_raise_open_files(unsigned wanted);

#endif

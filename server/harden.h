/*
 * harden.h: what a process that holds other machines' memory owes them and its host.
 */
#ifndef FSW_SERVER_HARDEN_H
#define FSW_SERVER_HARDEN_H

#include <stdint.h>

#include "farswap/error.h"

/* No core dump and no debugger of the same user sees the values; SIGPIPE is ignored; large
 * allocations go back to the system when they are freed. */
void fsw_harden(void);

/* Locks the process's memory, what comes later too, as it is touched. Without CAP_IPC_LOCK or an
 * endless limit nothing is locked, since later allocations would fail. Negative errno. */
int fsw_lock_memory(void);

/* Bytes of memory that are ours alone now. */
uint64_t fsw_own_memory(void);

/* -ENOMEM with one line when this host has less memory available than we promise to hold. */
int fsw_check_memory(uint64_t wanted, struct fsw_error *err);

/* Raises the soft limit of open files, as far as the hard one lets us. */
void fsw_raise_open_files(unsigned wanted);

#endif

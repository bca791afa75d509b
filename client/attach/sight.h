/*
 * sight.h: what /sys and /proc tell of devices, their users, and the holder of an image's lock.
 *
 * Nothing here is needed to give a device its server back, but for a supervisor that takes over
 * and ends the server before its own. All of it may block and allocate kernel memory.
 */
#ifndef FSW_ATTACH_SIGHT_H
#define FSW_ATTACH_SIGHT_H

#include <limits.h>
#include <stdint.h>
#include <sys/types.h>

#include "client/attach/kernel.h"

#define FSW_USE_TEXT 256

/* RUNDIR/NAME.SUFFIX */
void fsw_run_path(const char *name, const char *suffix, char path[PATH_MAX]);

/* The nbd device whose backend identifier is `backend`, or begins with it when it ends in ':'; -1
 * if there is none. ret_backend (may be NULL) is the whole identifier. */
int fsw_sight_device(const char *backend, char ret_backend[FSW_BACKEND_MAX]);

/* Bytes of /dev/nbdINDEX; 0 if it isn't configured. */
uint64_t fsw_sight_size(int index);

/* 1 if /dev/nbdINDEX, or a part of it, is in /proc/swaps. */
int fsw_sight_is_swap(int index);

/* Claims the device for the caller alone, so that it can't become swap or be mounted until the
 * returned descriptor is closed. -EBUSY with the reason in `use`: swap, mounted, open. Waits for the
 * device where it has to. */
int fsw_sight_claim(int index, char use[FSW_USE_TEXT]);

/* The process that holds the lock of NAME's image; 0 if nobody does. `but` (or 0) is not counted. */
pid_t fsw_sight_holder(const char *name, pid_t but);

/* Kills that process, if it still holds the lock: 1 if it was killed, 0 if nobody holds it. */
int fsw_sight_kill_holder(const char *name, pid_t but);

/* A process's executable or its first argument, for messages. */
void fsw_sight_program(pid_t pid, char text[PATH_MAX]);

#endif

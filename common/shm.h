/*
 * shm.h: SysV shared memory that outlives its processes, used a page at a time.
 *
 * Sparse: a size is address space; a page costs memory from its first touch on, and *reading an
 * untouched page touches it*. No core dump has it, and no huge page touches what nobody named.
 * Any thread; all of it may block for the kernel.
 */
#ifndef FSW_SHM_H
#define FSW_SHM_H

#include <stddef.h>
#include <stdint.h>

#include "farswap/error.h"

#define FSW_SHM_PAGE 4096u

/* Refuses hosts that destroy or hide shared memory when its last process ends: -EPERM with the
 * reason. */
int fsw_shm_check_host(struct fsw_error *err);

/* New memory, all zero, nothing of it touched, for this user only. Its id, or negative errno. */
int fsw_shm_create(uint64_t bytes, struct fsw_error *err);
/* It goes when its last process does. 0, or negative errno. */
int fsw_shm_unlink(int shmid);

/* Negative errno: no such memory (-EINVAL, -EIDRM), not ours, no room. Not locked into the process,
 * whatever mlockall said: that is what lock() is for, and give_back() could not work. */
int fsw_shm_map(int shmid, int writable, void **ret_base, uint64_t *ret_bytes,
                struct fsw_error *err);
void fsw_shm_unmap(void *base);

/* How often it is mapped now, by whichever processes. Who maps it and then reads 1 has it alone, and
 * whoever comes later reads more: no two can both read 1. Negative errno as of map(). */
int fsw_shm_attached(int shmid);

/* Keeps what is touched in RAM, also while no process maps it. Negative errno: not allowed, and
 * whoever made it did not do so either. */
int fsw_shm_lock(int shmid);

/* Both round outwards to pages. -ENOMEM, never a SIGBUS. */
int fsw_shm_touch(void *at, size_t bytes);
/* Page-aligned. The system has the memory back; what is read there afterwards is zero. */
int fsw_shm_give_back(void *at, size_t bytes);

/* Bytes of the segment that are in RAM, by /proc/sysvipc/shm; 0: unknown. */
uint64_t fsw_shm_resident(int shmid);

/* Zeroes what is in RAM of a range, and touches no more. */
void fsw_shm_wipe(void *at, uint64_t bytes);

/* Calls each for the private segments of this user, with the processes that have it mapped, until
 * one returns not 0, which is returned. */
int fsw_shm_each(int (*each)(int shmid, uint64_t bytes, unsigned attached, void *opaque),
                 void *opaque);

#endif

/*
 * claim.h: from a donor's name to its image, and who may serve it.
 *
 *      /run/farswap/NAME.donor     the id of its shared memory; its flock is the right to serve it
 *
 * FARSWAP_RUNDIR names another folder. A flock ends when the last thread of its process is gone:
 * unlike a pid file it can't lie.
 */
#ifndef FSW_SERVER_CLAIM_H
#define FSW_SERVER_CLAIM_H

#include "farswap/error.h"

/* 0, and the descriptor that is the lock. -EBUSY: somebody had it for all of `seconds`. Others: the
 * file can't be made. */
int fsw_claim_lock(const char *name, unsigned seconds, int *ret_fd, struct fsw_error *err);

/* The id that the file names; -1: none yet. */
int fsw_claim_read(int fd);
int fsw_claim_write(const char *name, int fd, int shmid, struct fsw_error *err);
/* The caller holds the lock. */
void fsw_claim_remove(const char *name);

#endif

/*
 * claim.h: from a donor's name to its image, and who may serve it.
 *
 *      /run/farswap/NAME.donor     the id of its shared memory, and its home; its flock is the right
 *                                  to serve it
 *
 * FARSWAP_RUNDIR names another folder. A flock ends when the last thread of its process is gone:
 * unlike a pid file it can't lie.
 *
 * A name belongs to its folder: donors of one name in two folders are two donors. So an image bears
 * its home, the folder's path as a number, and is found without its file from there only. The path
 * counts, not the folder: it may have been cleaned away and made anew.
 */
#ifndef FSW_SERVER_CLAIM_H
#define FSW_SERVER_CLAIM_H

#include <stdint.h>

#include "farswap/error.h"

struct fsw_claim {
    int shmid;     /* -1: none yet */
    uint32_t home; /* that its image bears; 0: not known */
};

/* 0, and the descriptor that is the lock. -EBUSY: somebody had it for all of `seconds`. Others: the
 * file can't be made. */
int fsw_claim_lock(const char *name, unsigned seconds, int *ret_fd, struct fsw_error *err);

/* The number of the folder's path, without links in it; never 0. The folder is there. Negative errno:
 * it can't be told. Allocates. */
int fsw_claim_home(uint32_t *ret_home, struct fsw_error *err);

/* What the file says. */
struct fsw_claim fsw_claim_read(int fd);
int fsw_claim_write(const char *name, int fd, const struct fsw_claim *claim, struct fsw_error *err);
/* The caller holds the lock. */
void fsw_claim_remove(const char *name);

#endif

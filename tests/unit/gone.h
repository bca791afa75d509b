/*
 * gone.h: shared memory that nobody comes back to. Whoever lists images, in another test for one, maps
 * each for a moment, and so long it lives on after its end.
 */
#ifndef FSW_TEST_GONE_H
#define FSW_TEST_GONE_H

#include <stdbool.h>
#include <sys/shm.h>

static inline bool shm_is_gone(int shmid)
{
    struct shmid_ds segment;

    return shmctl(shmid, IPC_STAT, &segment) < 0 || segment.shm_perm.mode & SHM_DEST;
}

#endif

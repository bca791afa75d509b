/*
 * seats.h: who may read from the kernel now.
 *
 * There are as many seats as descriptors, about one a CPU, and more threads than seats. A thread
 * sits on a seat for as long as it answers at once; before it waits (for a store, for space) it
 * leaves the seat to a thread that stands by. So waiting requests hold up nobody, and no more
 * threads compete for the CPUs than there are CPUs.
 */
#ifndef FSW_FUSE_SEATS_H
#define FSW_FUSE_SEATS_H

#include <pthread.h>

#include "client/fuse/wire.h"

struct fsw_seats {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int fds[FSW_FUSE_FDS_MAX]; /* of the free seats */
    unsigned free;
    int ended;
};

void fsw_seats_init(struct fsw_seats *seats, const int *fds, unsigned count);

/* The seat's descriptor, once one is free; -1: there is nothing to read any more. */
int fsw_seat_take(struct fsw_seats *seats);
void fsw_seat_leave(struct fsw_seats *seats, int fd);

/* The mount is gone: nobody sits any more. */
void fsw_seats_end(struct fsw_seats *seats);

#endif

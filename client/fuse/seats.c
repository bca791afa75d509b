/*
 * seats.c: a stack of free descriptors. The lock is taken only by threads that change seats.
 */
#include "client/fuse/seats.h"

#include "common/cleanup.h"

void fsw_seats_init(struct fsw_seats *seats, const int *fds, unsigned count)
{
    *seats = (struct fsw_seats){.free = count};
    pthread_mutex_init(&seats->lock, NULL);
    pthread_cond_init(&seats->changed, NULL);
    for (unsigned i = 0; i < count; i++)
        seats->fds[i] = fds[i];
}

int fsw_seat_take(struct fsw_seats *seats)
{
    FSW_LOCK_SCOPE(&seats->lock);

    while (seats->free == 0 && !seats->ended)
        pthread_cond_wait(&seats->changed, &seats->lock);
    return seats->ended ? -1 : seats->fds[--seats->free];
}

void fsw_seat_leave(struct fsw_seats *seats, int fd)
{
    FSW_LOCK_SCOPE(&seats->lock);

    seats->fds[seats->free++] = fd;
    pthread_cond_signal(&seats->changed);
}

void fsw_seats_end(struct fsw_seats *seats)
{
    FSW_LOCK_SCOPE(&seats->lock);

    seats->ended = 1;
    pthread_cond_broadcast(&seats->changed);
}

/*
 * worker.c: a thread with two eventfds, one to set it to work and one that tells the end.
 */
#include "client/attach/worker.h"

#include <errno.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* Locked in memory as a whole: small. posix_spawn and libnbd are what runs on it. */
#define STACK (256u << 10)

static int ring(int fd)
{
    const uint64_t one = 1;
    return write(fd, &one, sizeof one) == sizeof one;
}

static int answer(int fd)
{
    uint64_t count;
    ssize_t n;

    do
        n = read(fd, &count, sizeof count);
    while (n < 0 && errno == EINTR);
    return n == sizeof count;
}

static void *work(void *opaque)
{
    struct fsw_worker *worker = opaque;

    while (answer(worker->wake)) {
        worker->job(worker->argument);
        if (!ring(worker->done))
            break;
    }
    return NULL;
}

int fsw_worker_init(struct fsw_worker *worker)
{
    pthread_attr_t attributes;

    worker->busy = 0;
    worker->wake = eventfd(0, EFD_CLOEXEC);
    worker->done = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (worker->wake < 0 || worker->done < 0)
        return -errno;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK);
    int r = pthread_create(&worker->thread, &attributes, work, worker);
    pthread_attr_destroy(&attributes);
    return -r;
}

int fsw_worker_give(struct fsw_worker *worker, void (*job)(void *argument), void *argument)
{
    if (worker->busy)
        return -EBUSY;
    worker->busy = 1;
    worker->job = job;
    worker->argument = argument;
    return ring(worker->wake) ? 0 : -errno;
}

int fsw_worker_take(struct fsw_worker *worker)
{
    if (!worker->busy || !answer(worker->done))
        return 0;
    worker->busy = 0;
    return 1;
}

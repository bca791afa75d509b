/*
 * worker.h: a thread for calls that may wait, so that the one that heals never does.
 *
 * One job at a time. What the job's argument points to belongs to the worker from give() until
 * take() has returned 1.
 */
#ifndef FSW_ATTACH_WORKER_H
#define FSW_ATTACH_WORKER_H

#include <pthread.h>

struct fsw_worker {
    pthread_t thread;
    int wake, done; /* eventfds; `done` polls as readable when the job has ended */
    void (*job)(void *argument);
    void *argument;
    int busy;
};

/* Starts the thread: 0 or negative errno. It lives as long as the process. */
int fsw_worker_init(struct fsw_worker *worker);

/* 0, or -EBUSY while the last job's end was not taken. Neither blocks nor allocates. */
int fsw_worker_give(struct fsw_worker *worker, void (*job)(void *argument), void *argument);

/* 1 once after a job's end, else 0. Does not block. */
int fsw_worker_take(struct fsw_worker *worker);

#endif

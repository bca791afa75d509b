/*
 * progress.h: a line on the terminal while long work goes on: what, how long, how far. Nothing where
 * standard output is no terminal.
 */
#ifndef FSW_CLI_PROGRESS_H
#define FSW_CLI_PROGRESS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

/* What the line is taken away by. */
#define PROGRESS_CLEAR "\r\033[K"

struct progress {
    char what[200];
    const _Atomic uint64_t *done; /* of `all`; NULL: nobody knows how far it is */
    uint64_t all, began;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t over;
    int running, ended, shown;
};

/* A thread shows it from half a second on. `done` may change while it does. */
void progress_begin(struct progress *progress, const _Atomic uint64_t *done, uint64_t all,
                    const char *format, ...) __attribute__((format(printf, 4, 5)));

/* The line is gone when it returns. */
void progress_end(struct progress *progress);

#endif

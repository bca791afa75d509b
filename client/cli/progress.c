/*
 * progress.c: a thread that writes one line over and over, so that the work need not know of it.
 */
#include "client/cli/progress.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/clock.h"

#define FIRST_NS (500 * FSW_NS_PER_MS)
#define EVERY_NS (200 * FSW_NS_PER_MS)

static void show(struct progress *progress)
{
    unsigned long long seconds = (fsw_now_ns() - progress->began) / FSW_NS_PER_S;

    printf(PROGRESS_CLEAR "%s: ", progress->what);
    if (progress->done != NULL && progress->all > 0) {
        uint64_t done = atomic_load_explicit(progress->done, memory_order_relaxed);
        printf("%llu %%, ", (unsigned long long)((done < progress->all ? done : progress->all) *
                                                 100 / progress->all));
    }
    printf("%llu s", seconds);
    fflush(stdout);
    progress->shown = 1;
}

static void *show_until_ended(void *opaque)
{
    struct progress *progress = opaque;
    uint64_t next = progress->began + FIRST_NS;
    FSW_LOCK_SCOPE(&progress->lock);

    while (!progress->ended) {
        struct timespec until = fsw_timespec(next);
        pthread_cond_timedwait(&progress->over, &progress->lock, &until);
        if (!progress->ended && fsw_now_ns() >= next) {
            show(progress);
            next += EVERY_NS;
        }
    }
    return NULL;
}

void progress_begin(struct progress *progress, const _Atomic uint64_t *done, uint64_t all,
                    const char *format, ...)
{
    pthread_condattr_t monotonic;
    va_list args;

    *progress = (struct progress){.done = done, .all = all, .began = fsw_now_ns()};
    if (!isatty(STDOUT_FILENO))
        return;
    va_start(args, format);
    vsnprintf(progress->what, sizeof progress->what, format, args);
    va_end(args);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&progress->lock, NULL);
    pthread_cond_init(&progress->over, &monotonic);
    pthread_condattr_destroy(&monotonic);
    progress->running = pthread_create(&progress->thread, NULL, show_until_ended, progress) == 0;
}

void progress_end(struct progress *progress)
{
    if (!progress->running)
        return;
    pthread_mutex_lock(&progress->lock);
    progress->ended = 1;
    pthread_cond_signal(&progress->over);
    pthread_mutex_unlock(&progress->lock);
    pthread_join(progress->thread, NULL);
    progress->running = 0;
    if (progress->shown) {
        printf(PROGRESS_CLEAR);
        fflush(stdout);
    }
}

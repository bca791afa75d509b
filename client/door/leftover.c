/*
 * leftover.c: rounds over the predecessors that the engine does not care for.
 */
#include "client/door/leftover.h"

#include <stdio.h>
#include <string.h>

#include "client/door/recorded.h"
#include "common/cleanup.h"
#include "common/clock.h"

#define PAUSE_FIRST_NS (5 * FSW_NS_PER_S)
#define PAUSE_MOST_NS (600 * FSW_NS_PER_S)

void fsw_leftover_init(struct fsw_leftover *leftover, const char *name, const char *overflow,
                       void (*warn)(const char *line))
{
    pthread_condattr_t monotonic;

    *leftover = (struct fsw_leftover){.warn = warn};
    snprintf(leftover->name, sizeof leftover->name, "%s", name);
    snprintf(leftover->overflow, sizeof leftover->overflow, "%s", overflow);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&leftover->lock, NULL);
    pthread_cond_init(&leftover->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

static int is_ours(const struct fsw_leftover *leftover, const struct fsw_record *record)
{
    return leftover->overflow[0] == '\0' || !fsw_predecessor_is_within(record, leftover->overflow);
}

struct sight {
    const struct fsw_leftover *leftover;
    int seen;
};

static int see(const struct fsw_record *record, void *opaque)
{
    struct sight *sight = opaque;

    return sight->seen = is_ours(sight->leftover, record);
}

int fsw_leftover_is_there(const struct fsw_leftover *leftover)
{
    struct sight sight = {.leftover = leftover};

    fsw_predecessors_each(leftover->name, see, &sight);
    return sight.seen;
}

/* ---- rounds ---- */

static int is_stopped(struct fsw_leftover *leftover)
{
    FSW_LOCK_SCOPE(&leftover->lock);

    return leftover->stop;
}

static int forget(const struct fsw_record *record, void *opaque)
{
    struct fsw_leftover *leftover = opaque;
    struct fsw_error err = {""};
    char line[sizeof err.text + sizeof record->overflow + 256];
    uint64_t segments;

    if (is_stopped(leftover))
        return 1;
    if (!is_ours(leftover, record))
        return 0;
    if (fsw_recorded_store_forget(record, &segments, &err) == 0) {
        fsw_predecessors_forgotten(record);
        return 0;
    }
    leftover->left++;
    if (leftover->round > 0)
        return 0;
    snprintf(
        line, sizeof line,
        "%s still holds pages of an earlier device %s, and is asked again to forget them until "
        "it does: %s (`farswap destroy %s` asks, too; with --local it is not asked any more)",
        record->overflow, record->name, err.text, record->name);
    leftover->warn(line);
    return 0;
}

static void rest(struct fsw_leftover *leftover, uint64_t pause)
{
    struct timespec until = fsw_timespec(fsw_now_ns() + pause);
    FSW_LOCK_SCOPE(&leftover->lock);

    while (!leftover->stop && pthread_cond_timedwait(&leftover->wake, &leftover->lock, &until) == 0)
        ;
}

void fsw_leftover_run(struct fsw_leftover *leftover)
{
    uint64_t pause = PAUSE_FIRST_NS;

    for (leftover->round = 0; !is_stopped(leftover); leftover->round++) {
        leftover->left = 0;
        fsw_predecessors_each(leftover->name, forget, leftover);
        if (leftover->left == 0)
            return;
        rest(leftover, pause);
        pause = pause * 2 < PAUSE_MOST_NS ? pause * 2 : PAUSE_MOST_NS;
    }
}

void fsw_leftover_stop(struct fsw_leftover *leftover)
{
    FSW_LOCK_SCOPE(&leftover->lock);

    leftover->stop = 1;
    pthread_cond_signal(&leftover->wake);
}

/*
 * points.c: the other end of fsw_crash_point().
 */
#include "points.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "core/crash.h"

/* The linker's: the engine's points list themselves in this section. */
extern const struct fsw_crash_point *const __start_fsw_crash_points[];
extern const struct fsw_crash_point *const __stop_fsw_crash_points[];

static struct points *_Atomic armed;

unsigned points_count(void)
{
    return (unsigned)(__stop_fsw_crash_points - __start_fsw_crash_points);
}

const char *points_text(unsigned index)
{
    return index < points_count() ? __start_fsw_crash_points[index]->text : "nowhere";
}

unsigned points_index(const char *text)
{
    for (unsigned i = 0; i < points_count(); i++)
        if (strcmp(points_text(i), text) == 0)
            return i;
    fprintf(stderr, "there is no crash point '%s'\n", text);
    exit(1);
}

static unsigned index_of(const struct fsw_crash_point *point)
{
    unsigned i = 0;

    while (i < points_count() && __start_fsw_crash_points[i] != point)
        i++;
    return i;
}

void points_arm(struct points *points, uint64_t die_at)
{
    atomic_store(&points->reached, 0);
    points->die_at = die_at;
    atomic_store(&armed, points);
}

void points_disarm(void)
{
    atomic_store(&armed, NULL);
}

/* No exit handler, no flush, no other thread's last words: as kill -9 does it. */
static void __attribute__((noreturn)) die(struct points *points, unsigned index)
{
    atomic_store(&points->last, index);
    prctl(PR_GET_NAME, points->thread);
    atomic_fetch_add(&points->died[index], 1);
    for (;;)
        syscall(SYS_exit_group, POINTS_DIED);
}

void fsw_crash_reached(const struct fsw_crash_point *point)
{
    struct points *points = atomic_load(&armed);

    if (points == NULL)
        return;
    unsigned index = index_of(point);
    uint64_t n = atomic_fetch_add(&points->reached, 1) + 1;
    if (n == points->die_at || index + 1 == points->target)
        die(points, index);
    while (points->die_at != 0 && n > points->die_at)
        pause(); /* another thread is dead already, and so are we */
    atomic_fetch_add_explicit(&points->passed[index], 1, memory_order_relaxed);
    if (points->linger && n * 0x9e3779b97f4a7c15ull >> 60 == 0)
        nanosleep(&(struct timespec){.tv_nsec = 20 * 1000}, NULL);
}

unsigned points_report(const struct points *points, int all)
{
    unsigned never = 0;

    for (unsigned i = 0; i < points_count(); i++) {
        unsigned died = atomic_load(&points->died[i]), passed = atomic_load(&points->passed[i]);
        never += died == 0;
        if (all || died == 0)
            printf("%6u died, %8u passed  %s\n", died, passed, points_text(i));
    }
    return never;
}

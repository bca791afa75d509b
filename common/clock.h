/*
 * clock.h: monotonic nanoseconds, the only clock that deadlines are made of.
 */
#ifndef FSW_CLOCK_H
#define FSW_CLOCK_H

#include <stdint.h>
#include <time.h>

#define FSW_NS_PER_S 1000000000ull
#define FSW_NS_PER_MS 1000000ull

static inline uint64_t fsw_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * FSW_NS_PER_S + (uint64_t)now.tv_nsec;
}

/* Since the host booted, also while it slept. */
static inline uint64_t fsw_boot_seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec;
}

/* As of the last tick (1 to 10 ms ago): a fifth of the cost, for what is looked at with every page.
 */
static inline uint64_t fsw_now_coarse_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (uint64_t)now.tv_sec * FSW_NS_PER_S + (uint64_t)now.tv_nsec;
}

static inline struct timespec fsw_timespec(uint64_t ns)
{
    return (struct timespec){.tv_sec = (time_t)(ns / FSW_NS_PER_S),
                             .tv_nsec = (long)(ns % FSW_NS_PER_S)};
}

#endif

/*
 * crash.h: places where a test ends the process (tests/crash).
 *
 * A crash point stands between two changes of the image (or of the store) that a process could die
 * between: before and after every publish, inside the copy of an object, between the steps of a
 * row. What is left there must be something that recovery makes whole: that is what the order of
 * writes is for.
 *
 *      fsw_crash_point("page: published, what it named before is not retired");
 *
 * The engine is compiled twice, once for people, where a point is nothing at all, and once with
 * FSW_CRASH_POINTS for the harness, to which each point, in whatever thread, is a call. Points list
 * themselves, so that the harness can say which it never died at.
 */
#ifndef FSW_CRASH_H
#define FSW_CRASH_H

#include <stddef.h>

#ifdef FSW_CRASH_POINTS

struct fsw_crash_point {
    const char *text, *file;
    int line;
};

/* The harness's. May not return. Called with locks held, from any thread. */
void fsw_crash_reached(const struct fsw_crash_point *point);

#define fsw_crash_point(what)                                                                      \
    do {                                                                                           \
        static const struct fsw_crash_point fsw_here = {what, __FILE__, __LINE__};                 \
        static const struct fsw_crash_point *const fsw_listed                                      \
            __attribute__((section("fsw_crash_points"), used)) = &fsw_here;                        \
        fsw_crash_reached(fsw_listed);                                                             \
    } while (0)

/* How much of so many bytes is copied before the point inside the copy. */
static inline size_t fsw_crash_half(size_t bytes)
{
    return bytes / 2;
}

#else

#define fsw_crash_point(what) ((void)0)

static inline size_t fsw_crash_half(size_t bytes)
{
    return 0;
}

#endif

#endif

/*
 * late.c: the rest of farswap-nbd-late, whose publishes are held up when a test asks for it.
 *
 * Linked with the engine that has crash points. /run/late.written holds up the next write that has
 * its object and has not locked its entry yet, /run/late.locked the next that has locked it; whoever
 * takes the file away is the one. It goes on after HOLD_S, which is three request timeouts of the
 * test: by then its connection is long gone, and newer versions of its page are there.
 */
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/crash.h"

#define HOLD_S 3

static const struct {
    const char *point, *file;
} held[] = {
    {"page: object written, not published", "/run/late.written"},
    {"page: locked to be published", "/run/late.locked"},
};

void fsw_crash_reached(const struct fsw_crash_point *point)
{
    for (unsigned i = 0; i < sizeof held / sizeof held[0]; i++)
        if (strcmp(point->text, held[i].point) == 0 && unlink(held[i].file) == 0)
            nanosleep(&(struct timespec){.tv_sec = HOLD_S}, NULL);
}

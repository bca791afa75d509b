/*
 * beat: when the guest itself did not run.
 *
 *     beat EVERY_MS LATE_MS
 *
 * Sleeps for EVERY_MS, over and over, until SIGTERM, and then tells of each time that it was woken
 * LATE_MS or more too late, with the uptime at which it should have been: "late at 12.34 s for 567 ms".
 * It is locked in memory, asks the kernel for none meanwhile, and has a real-time priority above
 * everybody's, servers and supervisor included: so what held it up is neither swap nor they, but the
 * machine that the guest runs on.
 */
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "common/clock.h"

#define LATES 16384

static struct {
    uint64_t due, late_ns;
} lates[LATES];

/* Returns how many there are in lates[]. */
static unsigned beat_until_told(uint64_t every, uint64_t least, const sigset_t *term)
{
    const struct timespec pause = fsw_timespec(every);
    unsigned count = 0;
    uint64_t due, now;

    for (due = fsw_now_ns() + every; sigtimedwait(term, NULL, &pause) < 0; due = now + every) {
        now = fsw_now_ns();
        if (now >= due + least && count < LATES) {
            lates[count].due = due;
            lates[count++].late_ns = now - due;
        }
    }
    return count;
}

int main(int argc, char **argv)
{
    const struct sched_param above = {.sched_priority = sched_get_priority_max(SCHED_FIFO)};
    sigset_t term;

    if (argc != 3) {
        fputs("usage: beat EVERY_MS LATE_MS\n", stderr);
        return 2;
    }
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    sigprocmask(SIG_BLOCK, &term, NULL);
    if (mlockall(MCL_CURRENT | MCL_FUTURE) < 0 || sched_setscheduler(0, SCHED_FIFO, &above) < 0) {
        perror("beat");
        return 1;
    }
    unsigned count = beat_until_told(strtoull(argv[1], NULL, 0) * FSW_NS_PER_MS,
                                     strtoull(argv[2], NULL, 0) * FSW_NS_PER_MS, &term);
    for (unsigned i = 0; i < count; i++)
        printf("late at %.2f s for %" PRIu64 " ms\n", (double)lates[i].due / 1e9,
               (uint64_t)(lates[i].late_ns / FSW_NS_PER_MS));
    return 0;
}

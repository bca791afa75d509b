/*
 * lives.h: one run, from an image's making to its end, through the processes that die on the way.
 *
 *      begin       a new device, work, death at the n-th point
 *      recover     another process opens what is left, and dies at a point of its recovery
 *      go on       a third one recovers, everything is compared with the model, work goes on, death
 *      end         the fourth recovers, compares, proves, empties the device, and lives
 *
 * What must hold after each death, before anybody repairs anything: the image's invariants
 * (core/check.h). After each recovery: acknowledged requests are there, those under way happened page by
 * page or did not; all that can be counted adds up (rig_prove); the store has one segment a LIVE row.
 * The store holds the engine to its contract across the deaths (shelf.h); every other run it has two
 * copies. At the end: nobody has forgotten an image.
 */
#ifndef LIVES_H
#define LIVES_H

#include <sys/types.h>
#include <time.h>

#include "model.h"
#include "points.h"
#include "shelf.h"

enum stage { BEGIN, RECOVER, GO_ON, END, STAGES };

/* What is done to the device until it dies. */
struct plan {
    uint64_t seed;
    unsigned workers, steps; /* of each worker, if it lived */
};

/* What the processes of a run share, in memory that outlives them. One run at a time. */
struct lane {
    struct plan plan;
    struct points points;
    struct model model;
    struct shelf shelf;
    unsigned number;
    uint64_t recovery_points; /* of the last recovery that lived */
    uint64_t runs, deaths[STAGES];
    pid_t pids[STAGES];
    uint64_t image_bytes;
    time_t started;    /* this run */
    unsigned nameless; /* images of this run whose maker died before it named them */
    _Atomic int failed;
};

/* One run. 1: it died at n and came through; 0: the work has no n-th point, and came through; -1: it
 * failed, and said so. */
int lives_run(struct lane *lane, uint64_t n);

/* Another number for each pair, all following from the seed. */
uint64_t lives_mix(const struct lane *lane, uint64_t a, uint64_t b);

#endif

/*
 * points.h: at which crash point a process dies, and which ones any has died at.
 *
 * The plan lies in shared memory, so that who waits for the process learns where it died.
 */
#ifndef POINTS_H
#define POINTS_H

#include <stdatomic.h>
#include <stdint.h>

/* What a process that died at its point leaves as its status. */
#define POINTS_DIED 86

#define POINTS_MAX 256

struct points {
    _Atomic uint64_t reached; /* points since points_arm, by all threads */
    uint64_t die_at;          /* the how manieth is the last; 0: none */
    int linger;               /* now and then, so that other threads get between two steps */
    unsigned target;          /* die at this one, counted from 1, when it comes; 0: none */
    _Atomic unsigned last;    /* index of the point that it died at */
    char thread[16];          /* the thread that reached it */
    _Atomic uint32_t passed[POINTS_MAX], died[POINTS_MAX];
};

/* From here on this process counts, and dies at the die_at-th point. */
void points_arm(struct points *points, uint64_t die_at);
/* From here on it goes on for ever. */
void points_disarm(void);

unsigned points_count(void);
const char *points_text(unsigned index);
/* The index of the point of that text; there must be one, or the process ends with a line. */
unsigned points_index(const char *text);

/* Prints how often a process died at each point; returns how many points it never died at. */
unsigned points_report(const struct points *points, int all);

#endif

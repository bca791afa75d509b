/*
 * pace.h: whether to wait for a moment between two rounds, before what the first one answered is sent and
 * the socket is read again.
 *
 * A client with many small requests under way sends on meanwhile. Who goes on at once finds one or two of
 * them, pays a send, a read and a look at the peer for these, and takes the socket's lock out of the
 * client's hands each time; who waits for some microseconds finds ten, and reads them while the client is
 * busy with the answers. But a client with few under way waits as well then, for nothing. Which one this
 * is, is measured: now and then both ways take turns, and the one that takes less time a request is kept.
 * (What adaptive interrupt coalescing is to network cards: ethtool -C, adaptive-rx.)
 */
#ifndef FSW_NBD_PACE_H
#define FSW_NBD_PACE_H

#include <stdint.h>

/* How long to wait. */
#define FSW_PACE_NS 16000u
/* After a round of so many requests nobody waits; and a client that never had so many under way is left
 * alone: not even a trial disturbs it. */
#define FSW_PACE_MANY 16u
/* A round after a wait that has fewer is lean: so many of them in a row, and nobody waits any more. */
#define FSW_PACE_FEW 6u
#define FSW_PACE_LEAN_MOST 16u

struct fsw_pace {
    int waits;         /* what is kept */
    int waited;        /* before the round that comes next */
    unsigned round;    /* requests in the last round that had any */
    unsigned most;     /* in a round, since the last trial */
    unsigned lean;     /* rounds, in a row */
    unsigned trial;    /* slices left of the trial that runs; 0: none does */
    unsigned wins;     /* pairs of slices in it of which the one that waited was quicker */
    unsigned requests; /* in this slice, or since the trial */
    unsigned rest;     /* requests from a trial to the next */
    uint64_t began;    /* the slice */
    uint64_t other;    /* ns a request of the pair's first slice, times 1024 */
};

void fsw_pace_init(struct fsw_pace *pace);

/* A round of so many requests, whose bytes came at `now` (ns). 0: what was read ends no request. */
void fsw_pace_note(struct fsw_pace *pace, unsigned requests, uint64_t now);

/* 1: the caller waits FSW_PACE_NS before it goes on. */
int fsw_pace_wait(struct fsw_pace *pace);

#endif

/*
 * shelf.h: a store whose segments outlive the process, as a donor's do.
 *
 * The segments lie in shared memory; the store that the engine sees, with its thread, is one
 * process's. A request of a process that died may have been carried out, may be yet (its bytes are
 * on the wire), or never will be; each by chance.
 *
 * Like tests/unit/teststore.c it holds the engine to the store's contract, but across processes:
 *
 *   S1  an id is put once, ever; and never one that an earlier process had taken. To a copy that was not
 *       acknowledged it is put again, the same bytes
 *   S2  a row belongs to one segment from its put to the answered drop, whoever is served by then
 *   S3  a get names a segment that was acknowledged and not dropped, its own row, and a range in it
 *   S4  a drop names a segment that has ended, and no get of it is in flight, nor another put; one that was
 *       never put, or is dropped already, only if an earlier process had taken its id
 *   S5  a device has one sentinel for good
 *
 * What breaks one ends the process with a line.
 *
 * It may be one of two copies: then a put reaches either or both, by chance, and a get is answered by a
 * copy that was asked and has it. They share the bytes.
 */
#ifndef SHELF_H
#define SHELF_H

#include <stdatomic.h>
#include <stdint.h>

#include "farswap/store.h"

#define SHELF_SEGMENTS 16384u /* ids of one run */
#define SHELF_ROWS 2048u
#define SHELF_PLACES 512u /* segments that can be stored at once */

struct shelf_segment {
    uint32_t row, length, checksum, gets;
    uint16_t place; /* 0: not stored */
    uint8_t life, acknowledged;
    uint8_t on_the_wire; /* by a process that died: lands sooner or later */
    uint8_t copies;      /* that have acknowledged it */
    uint8_t again;       /* it is being put to a copy that lacked it */
};

struct shelf {
    uint64_t earlier; /* ids below were taken by processes that died */
    uint64_t random;
    _Atomic unsigned fail_in_thousand; /* puts and drops */
    unsigned copies;                   /* 1 or 2 */
    struct shelf_segment segments[SHELF_SEGMENTS];
    uint64_t owner[SHELF_ROWS];
    uint64_t sentinel;
    uint8_t place_taken[SHELF_PLACES];
    char places[SHELF_PLACES][FSW_SEGMENT_BYTES];
};

void shelf_reset(struct shelf *shelf, uint64_t seed, unsigned copies);

/* The process that used it is dead. next_segment: of its image. */
void shelf_process_died(struct shelf *shelf, uint64_t next_segment);

/* A store for this process, not started; the engine closes it. One at a time. */
struct fsw_store *shelf_open(struct shelf *shelf);

/* Segments that are stored and that the engine should know, and those that landed after their drop. For
 * when no request is in flight. */
unsigned shelf_known(const struct shelf *shelf);
unsigned shelf_strays(const struct shelf *shelf);

#endif

/*
 * teststore_segments.h: the segments that a test's store has, and what the engine may do with them.
 *
 * It knows each segment from its put to its drop, and ends the program with a line when the engine
 * breaks one of the rules S1 to S6 (teststore.h). When a request is answered, and how, is the
 * store's; so is the lock under which all of this is called.
 */
#ifndef TESTSTORE_SEGMENTS_H
#define TESTSTORE_SEGMENTS_H

#include "farswap/store.h"

struct segment {
    char *bytes; /* NULL: not stored */
    uint32_t length, row, checksum, gets;
    uint8_t life, acknowledged, damaged;
};

struct segments {
    struct segment *all; /* by id */
    uint64_t room;
    uint64_t *row_owner; /* 0: none */
    uint32_t row_room;
    unsigned stored; /* those with bytes */
    int seals;       /* the store wants them: S6 */
};

/* Of any id. Good until the next one is asked for. */
struct segment *segments_at(struct segments *segments, uint64_t id);
void segments_forget(struct segments *segments, struct segment *segment);
void segments_free(struct segments *segments);

/* A request has come in. */
void segments_asked(struct segments *segments, struct fsw_store_request *request);
/* It ends in request->result, which is GONE for a get of nothing: what that means for the segment.
 * lands: of a put, its bytes are stored. */
void segments_answered(struct segments *segments, struct fsw_store_request *request, int lands);

#endif

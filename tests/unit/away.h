/*
 * away.h: pages that are in the store, and threads that read them, for tests of what happens then.
 */
#ifndef AWAY_H
#define AWAY_H

#include <pthread.h>

#include "rig.h"

/* What a device with a store is opened with: prefetch=auto, and off. */
extern const struct rig_options away_automatic, away_switched_off;

/* Pages 0..count-1 in the store, neighbours in their segments: RIG_TEXT with their number. */
void away_open(struct rig *rig, const struct rig_options *options, unsigned count);

/* One page: the result. */
int away_read(struct rig *rig, uint64_t page, void *bytes);

/* ---- threads that read ---- */

struct reading {
    struct rig *rig;
    pthread_t thread;
    uint64_t page, count;
    int result;
    char bytes[FSW_FETCH_BATCH * FSW_PAGE_SIZE];
};

void reading_begin(struct reading *reading, struct rig *rig, uint64_t page, uint64_t count);
/* Waits for it. With result 0 the pages must be what away_open() wrote. */
void reading_end(struct reading *reading, int result);

/* The windows' users: readers that have found theirs. */
unsigned away_users(struct rig *rig);
/* For rig_wait(): so many, an unsigned. */
int away_has_users(struct rig *rig, void *opaque);

#endif

/*
 * handover.h: images that go from one server to the next, for tests of recovery.
 *
 * A device with known pages is left behind by its server (which was this process, or a child that is
 * killed), and taken over. Its store, if it has one, outlives both.
 */
#ifndef HANDOVER_H
#define HANDOVER_H

#include "core/check.h"
#include "rig.h"

#define HANDOVER_PAGES 1100u /* two leaves and a part of a third */
#define MIB(n) ((uint64_t)(n) << 20)

/* ---- a store that outlives its servers, and answers at once; there is one ---- */

#define KEEP_IDS 4096u

struct keep {
    struct fsw_store base;
    char *bytes[KEEP_IDS];
    uint32_t length[KEEP_IDS];
    unsigned stored, drops, starts;
    uint64_t sentinel; /* as the last start had it */
    int planted;
};
extern struct keep keep;

/* Empty again. An id that comes twice ends the program. */
struct fsw_store *keep_new(void);

/* ---- devices ---- */

struct fsw_params handover_params(const char *name, uint64_t pages, uint64_t memory);

void handover_must(int r, const struct fsw_error *err);

/* A new device of HANDOVER_PAGES pages, served by this process: page N has kind N % RIG_KINDS and seed N.
 * With a store, the first half of them is there. */
void handover_leave(struct rig *rig, const struct fsw_params *params, struct fsw_store *store);
/* Every page is that. */
void handover_expect(struct rig *rig);

/* Stops serving. */
void handover_let_go(struct rig *rig);
/* Goes on with an image, in this process. */
void handover_take(struct rig *rig, const struct fsw_params *params, struct fsw_store *store);

/* What a check says of the image of that name, which nobody serves. Fails the test if it finds a problem. */
struct fsw_check_report handover_check(const char *name);
void handover_problem(const char *line,
                      void *opaque); /* for fsw_image_check: *(unsigned *)opaque counts */

/* The image of that name, mapped for writing, to be damaged. */
struct fsw_image handover_image(const char *name);

void handover_destroy(const char *name);

#endif

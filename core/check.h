/*
 * check.h: walks an image and proves its invariants (`farswap check`).
 */
#ifndef FSW_CHECK_H
#define FSW_CHECK_H

#include "core/image.h"

struct fsw_check_report {
    _Atomic uint64_t leaves; /* looked at so far, of super->leaves: another thread may look */
    uint64_t pages_pool, pages_same, pages_store; /* entries found */
    uint64_t opened;    /* objects in the pool whose checksum was proven */
    uint64_t changed;   /* entries that a server changed while we looked: proven next time */
    uint64_t problems;  /* what `problem` was called for */
    uint64_t leftovers; /* nothing wrong: what a killed server left, and recovery clears */
};

/* Looks at everything the image names and calls problem with one line for each invariant that does
 * not hold. served 1: a server works on it meanwhile; then only what can be proven of a moving
 * image is (each page opens); the layout is proven when nobody serves it. Allocates; reads nothing
 * that is not named. 0, or -ENOMEM. Pages in the store are counted, not fetched. */
int fsw_image_check(const struct fsw_image *image, int served,
                    void (*problem)(const char *line, void *opaque), void *opaque,
                    struct fsw_check_report *ret_report);

#endif

/*
 * budget.h: how much may leave for the store, so that one on flash lasts.
 *
 * Either so many bytes a day (overflow_limit=): a day begins with the first segment that leaves in it.
 * Or, as zram's writeback_limit, so many bytes until somebody says anew how many. It is of whole
 * segments: cleaning's count, copies that are repaired do not, for they were charged when they left.
 *
 * The words are in the superblock, so that a server that is started anew goes on with them.
 */
#ifndef FSW_BUDGET_H
#define FSW_BUDGET_H

#include <stdint.h>

struct fsw_device;
struct fsw_superblock;

/* ---- for whoever maps the image ---- */

/* So many bytes a day from now on, of which what has left in this one is spent; 0: no limit. */
void fsw_budget_set_day(struct fsw_superblock *super, uint64_t bytes);

/* 1 if there is a limit. What follows tells of it also while it is off. */
int fsw_budget_is_on(const struct fsw_superblock *super);

/* Bytes that may leave. */
uint64_t fsw_budget_left(const struct fsw_superblock *super);

/* Seconds until all of it may leave again; 0: it may. UINT64_MAX: not by itself. */
uint64_t fsw_budget_until_refill(const struct fsw_superblock *super);

/* ---- for the server: they take overflow.lock ---- */

/* 1 if so many segments may go. Takes no lock. Two threads that ask at once may both be told so: then
 * FSW_CLEAN_PUTS segments too many may go. */
int fsw_budget_allows(const struct fsw_device *device, unsigned segments);

/* What goes is charged before it goes, and given back if it did not arrive: a server that is killed in
 * between has charged too much. */
void fsw_budget_charge(struct fsw_device *device, uint32_t bytes);
void fsw_budget_give_back(struct fsw_device *device, uint32_t bytes);

#endif

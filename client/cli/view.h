/*
 * view.h: a device as people want to see it: everything that its image tells, read without asking
 * its server, so it works while that hangs, or is dead.
 */
#ifndef FSW_VIEW_H
#define FSW_VIEW_H

#include "client/cli/cli.h"
#include "client/cli/survival.h"

/* What the server last saw of the store of one copy. */
struct view_copy {
    char uri[sizeof((struct fsw_record *)0)->overflow];
    enum fsw_copy_is is; /* FSW_COPY_UNKNOWN: nobody has looked, or nobody serves the device */
    int64_t since;       /* of that, seconds since 1970 */
    uint64_t sent, received;
    uint32_t lies; /* answers that were not what was put there */
    char error[160];
};

struct view {
    struct fsw_record record;
    int orphan;
    struct fsw_image image; /* mapped for reading */
    char swap[64];          /* the block device that it is swap on; "" none */
    int priority;           /* of that */
    enum survival survival; /* of a crash */
    /* as it was at the last look */
    uint64_t at; /* CLOCK_MONOTONIC ns */
    uint64_t values[FSW_STAT_COUNT];
    uint64_t times[FSW_LATENCY_COUNT][FSW_LATENCY_BUCKETS];
    int store_connected;
    int64_t store_since; /* seconds since 1970; 0: nobody has looked */
    char store_error[160];
    unsigned copies; /* stores that overflow= names */
    struct view_copy copy[FSW_COPIES_MAX];
};

/* What happened between two looks. */
struct view_rate {
    double seconds;
    double values[FSW_STAT_COUNT]; /* of counters, a second */
    uint64_t times[FSW_LATENCY_COUNT][FSW_LATENCY_BUCKETS];
};

/* Maps the image and takes a first look. */
int view_open(struct view *view, const struct fsw_record *record, int orphan,
              struct fsw_error *err);
void view_close(struct view *view);

/* Looks again; ret_rate may be NULL. */
void view_look(struct view *view, struct view_rate *ret_rate);

/* "served", "stopped", "orphan". */
const char *view_state(const struct view *view);

/* RAM that the device costs: what it uses and its reserve. */
uint64_t view_cost(const struct view *view);

/* Bytes of pages that are held in RAM, as they were before compression. */
uint64_t view_local(const struct view *view);

/* "12 us" for people; text has FSW_SIZE_TEXT bytes. 0 is "-". */
char *view_time(uint64_t ns, char *text);

#endif

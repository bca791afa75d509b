/*
 * latency.h: how long requests took, as histograms in the image: who asks needs no server, and what
 * a server did before it was replaced still counts.
 *
 * A bucket is a quarter of an octave wide, from 256 ns to 18 minutes, so a percentile read from it
 * is at most a quarter too high and never too low. (HdrHistogram has the same shape.)
 */
#ifndef FARSWAP_LATENCY_H
#define FARSWAP_LATENCY_H

#include <stdatomic.h>
#include <stdint.h>

/* X(NAME, name, meaning) */
#define FSW_LATENCIES(X)                                                                           \
    X(READ, read, "read requests, from their arrival to their answer")                             \
    X(WRITE, write, "write requests")                                                              \
    X(DISCARD, discard, "discard and write-zeroes requests")                                       \
    X(FETCH, fetch, "pages asked from the store")                                                  \
    X(OVERFLOW, overflow, "segments put to the store")

enum fsw_latency {
#define X(NAME, name, meaning) FSW_LATENCY_##NAME,
    FSW_LATENCIES(X)
#undef X
        FSW_LATENCY_COUNT
};

#define FSW_LATENCY_BUCKETS 128u
#define FSW_LATENCY_STRIPES 4u

/* One stripe. Written by adding, read by summing all. */
struct fsw_latencies {
    _Atomic uint64_t bucket[FSW_LATENCY_COUNT][FSW_LATENCY_BUCKETS];
};

struct fsw_latency_info {
    const char *name, *meaning;
};
extern const struct fsw_latency_info fsw_latency_table[FSW_LATENCY_COUNT];

static inline unsigned fsw_latency_bucket(uint64_t ns)
{
    if (ns < 256)
        return 0;
    unsigned octave = 63 - (unsigned)__builtin_clzll(ns);
    unsigned bucket = (octave - 8) * 4 + (unsigned)(ns >> (octave - 2) & 3);

    return bucket < FSW_LATENCY_BUCKETS ? bucket : FSW_LATENCY_BUCKETS - 1;
}

/* The first ns that is too long for a bucket. */
static inline uint64_t fsw_latency_limit(unsigned bucket)
{
    return (5ull + bucket % 4) << (bucket / 4 + 6);
}

/* The time within which `part` (0 to 1) of all were done, in ns; 0 where there was none. */
uint64_t fsw_latency_percentile(const uint64_t buckets[FSW_LATENCY_BUCKETS], double part);

#endif

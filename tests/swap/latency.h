/*
 * latency.h: a histogram of times that costs 15 KiB however many it counts.
 *
 * Buckets grow with the value: 32 a power of two, so a percentile is right to 3 %. The maximum is
 * exact. Not for several threads at once.
 */
#ifndef FSW_TESTS_LATENCY_H
#define FSW_TESTS_LATENCY_H

#include <stdint.h>

#define FSW_LATENCY_STEPS 32u
#define FSW_LATENCY_BUCKETS (60u * FSW_LATENCY_STEPS)

struct fsw_latency {
    uint64_t count, max; /* ns */
    uint64_t buckets[FSW_LATENCY_BUCKETS];
};

void fsw_latency_add(struct fsw_latency *latency, uint64_t ns);

/* The value, in ns, that `share` (0..1) of all counted values do not exceed; 0 if none was counted.
 */
uint64_t fsw_latency_percentile(const struct fsw_latency *latency, double share);

#endif

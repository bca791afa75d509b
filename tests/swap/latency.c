/*
 * latency.c: values below 32 have a bucket each; above, a bucket is the power of two and the five
 * bits below the leading one.
 */
#include "latency.h"

#define STEPS FSW_LATENCY_STEPS
#define STEP_BITS 5

static unsigned bucket_of(uint64_t ns)
{
    unsigned power;

    if (ns < STEPS)
        return ns;
    power = 63 - __builtin_clzll(ns);
    return (power - STEP_BITS + 1) * STEPS + ((ns >> (power - STEP_BITS)) & (STEPS - 1));
}

/* The largest value of a bucket. */
static uint64_t bucket_end(unsigned bucket)
{
    unsigned shift;

    if (bucket < STEPS)
        return bucket;
    shift = bucket / STEPS - 1;
    return ((uint64_t)(STEPS + bucket % STEPS + 1) << shift) - 1;
}

void fsw_latency_add(struct fsw_latency *latency, uint64_t ns)
{
    latency->buckets[bucket_of(ns)]++;
    latency->count++;
    if (ns > latency->max)
        latency->max = ns;
}

uint64_t fsw_latency_percentile(const struct fsw_latency *latency, double share)
{
    uint64_t seen = 0, wanted = (uint64_t)(share * (double)latency->count + 0.5);

    for (unsigned i = 0; i < FSW_LATENCY_BUCKETS; i++) {
        seen += latency->buckets[i];
        if (seen >= wanted && seen > 0)
            return bucket_end(i) < latency->max ? bucket_end(i) : latency->max;
    }
    return latency->max;
}

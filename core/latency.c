/*
 * latency.c: histograms of times, in stripes as the counters are.
 */
#include "core/image.h"

const struct fsw_latency_info fsw_latency_table[FSW_LATENCY_COUNT] = {
#define X(NAME, name, meaning) {#name, meaning},
    FSW_LATENCIES(X)
#undef X
};

void fsw_latency_read(const struct fsw_image *image, enum fsw_latency kind,
                      uint64_t buckets[FSW_LATENCY_BUCKETS])
{
    for (unsigned i = 0; i < FSW_LATENCY_BUCKETS; i++) {
        buckets[i] = 0;
        for (unsigned stripe = 0; stripe < FSW_LATENCY_STRIPES; stripe++)
            buckets[i] += atomic_load_explicit(&image->latencies[stripe].bucket[kind][i],
                                               memory_order_relaxed);
    }
}

uint64_t fsw_latency_percentile(const uint64_t buckets[FSW_LATENCY_BUCKETS], double part)
{
    uint64_t all = 0, seen = 0;

    for (unsigned i = 0; i < FSW_LATENCY_BUCKETS; i++)
        all += buckets[i];
    for (unsigned i = 0; i < FSW_LATENCY_BUCKETS; i++) {
        seen += buckets[i];
        if (seen > 0 && (double)seen >= part * (double)all)
            return fsw_latency_limit(i);
    }
    return 0;
}

/*
 * test_latency.c: buckets and percentiles of times.
 */
#include "tests/unit/rig.h"
#include "farswap/latency.h"

static void a_bucket_holds_what_is_shorter_than_its_limit(void **state)
{
    for (unsigned bucket = 0; bucket < FSW_LATENCY_BUCKETS - 1; bucket++) {
        uint64_t limit = fsw_latency_limit(bucket);
        assert_int_equal(fsw_latency_bucket(limit - 1), bucket);
        assert_int_equal(fsw_latency_bucket(limit), bucket + 1);
    }
    assert_int_equal(fsw_latency_bucket(0), 0);
    assert_int_equal(fsw_latency_bucket(UINT64_MAX), FSW_LATENCY_BUCKETS - 1);
}

static void a_percentile_is_never_too_low_nor_a_quarter_too_high(void **state)
{
    uint64_t buckets[FSW_LATENCY_BUCKETS] = {0};
    const double parts[] = {0.01, 0.5, 0.9, 0.99, 0.999, 1};

    assert_int_equal(fsw_latency_percentile(buckets, 0.5), 0);
    for (uint64_t ns = 1000; ns <= 1000000; ns++) /* evenly: the answer is known */
        buckets[fsw_latency_bucket(ns)]++;
    for (unsigned i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        double exact = 1000 + parts[i] * 999000,
               told = (double)fsw_latency_percentile(buckets, parts[i]);
        assert_true(told >= exact && told <= exact * 1.26);
    }
}

RIG_MAIN(cmocka_unit_test(a_bucket_holds_what_is_shorter_than_its_limit),
         cmocka_unit_test(a_percentile_is_never_too_low_nor_a_quarter_too_high))

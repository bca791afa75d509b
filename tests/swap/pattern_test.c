/*
 * pattern_test: whatever can go wrong with a page of the demonstration is seen, and named.
 *
 * hoard's verdict is worth what fsw_pattern_matches() catches, so every kind of page is spoilt in
 * every way a swap device could spoil it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "latency.h"
#include "pattern.h"

#define PAGE FSW_PATTERN_PAGE
#define SEED 4711u
#define NUMBERS 500u /* enough to meet every kind of page many times */

static _Alignas(8) unsigned char page[PAGE], other[PAGE], scratch[PAGE];

static void assert_caught(uint32_t number, uint32_t version, const char *wanted)
{
    char text[FSW_PATTERN_TEXT], expected[64];

    assert_false(fsw_pattern_matches(page, scratch, SEED, number, version));
    fsw_pattern_explain(text, page, scratch, SEED, number, version);
    snprintf(expected, sizeof(expected), "expected page %u version %u", number, version);
    if (!strstr(text, expected) || !strstr(text, wanted))
        fail_msg("no '%s' and '%s' in: %s", expected, wanted, text);
}

static void test_a_right_page_matches(void **state)
{
    for (uint32_t number = 0; number < NUMBERS; number++) {
        fsw_pattern_fill(page, SEED, number, 7);
        assert_true(fsw_pattern_matches(page, scratch, SEED, number, 7));
    }
}

static void test_a_stale_page_is_named(void **state)
{
    char wanted[64];

    for (uint32_t number = 0; number < NUMBERS; number++) {
        fsw_pattern_fill(page, SEED, number, 6);
        snprintf(wanted, sizeof(wanted), "found page %u version 6", number);
        assert_caught(number, 7, wanted);
    }
}

static void test_another_page_is_named(void **state)
{
    char wanted[64];

    for (uint32_t number = 0; number < NUMBERS; number++) {
        fsw_pattern_fill(page, SEED, number + 1, 7);
        snprintf(wanted, sizeof(wanted), "found page %u version 7", number + 1);
        assert_caught(number, 7, wanted);
    }
}

static void test_a_torn_page_is_caught_at_every_sector(void **state)
{
    for (uint32_t number = 0; number < NUMBERS; number++) {
        fsw_pattern_fill(page, SEED, number, 8);
        fsw_pattern_fill(other, SEED, number, 7);
        memcpy(page, other, 512 * (1 + number % 7));
        assert_caught(number, 8, "found ");
    }
}

static void test_a_lost_page_is_named(void **state)
{
    for (uint32_t number = 0; number < NUMBERS; number++) {
        memset(page, 0, PAGE);
        assert_caught(number, 1, "found zeroes");
    }
}

static void test_a_page_of_another_run_is_caught(void **state)
{
    for (uint32_t number = 0; number < NUMBERS; number++) {
        fsw_pattern_fill(page, SEED + 1, number, 1);
        assert_caught(number, 1, "found ");
    }
}

static void test_any_flipped_bit_is_caught(void **state)
{
    for (uint32_t bit = 0; bit < PAGE * 8; bit++) {
        uint32_t number = bit % NUMBERS;
        fsw_pattern_fill(page, SEED, number, 1);
        page[bit / 8] ^= 1u << bit % 8;
        assert_false(fsw_pattern_matches(page, scratch, SEED, number, 1));
    }
}

static void test_few_pages_are_same_filled(void **state)
{
    unsigned same = 0, pages = 100000;

    for (uint32_t number = 0; number < pages; number++) {
        fsw_pattern_fill(page, SEED, number, 1);
        same += memcmp(page, page + 8, PAGE - 8) == 0;
    }
    assert_in_range(same, pages / 100, pages * 5 / 100);
}

#define SPARSE 75u

/* Nothing is lost of what tells pages apart: main() has all tests once more with sparse ones. */
static void test_sparse_pages_are_zeroes_for_the_most_part(void **state)
{
    for (uint32_t number = 0; number < NUMBERS; number++) {
        unsigned zeroes = 0;
        fsw_pattern_fill(page, SEED, number, 1);
        for (unsigned i = 0; i < PAGE; i++)
            zeroes += page[i] == 0;
        if (memcmp(page, page + 8, PAGE - 8) != 0)
            assert_in_range(zeroes, PAGE * (SPARSE - 1) / 100, PAGE * 99 / 100);
    }
}

static void test_percentiles_are_within_a_bucket(void **state)
{
    static struct fsw_latency latency;

    assert_int_equal(fsw_latency_percentile(&latency, 0.5), 0);
    for (uint64_t ns = 1; ns <= 1000000; ns++)
        fsw_latency_add(&latency, ns);
    assert_in_range(fsw_latency_percentile(&latency, 0.5), 500000, 500000 + 500000 / 32);
    assert_in_range(fsw_latency_percentile(&latency, 0.99), 990000, 1000000);
    assert_int_equal(fsw_latency_percentile(&latency, 1), 1000000);
    fsw_latency_add(&latency, UINT64_MAX / 2);
    assert_int_equal(latency.max, UINT64_MAX / 2);
}

int main(void)
{
    const struct CMUnitTest pages[] = {
        cmocka_unit_test(test_a_right_page_matches),
        cmocka_unit_test(test_a_stale_page_is_named),
        cmocka_unit_test(test_another_page_is_named),
        cmocka_unit_test(test_a_torn_page_is_caught_at_every_sector),
        cmocka_unit_test(test_a_lost_page_is_named),
        cmocka_unit_test(test_a_page_of_another_run_is_caught),
        cmocka_unit_test(test_any_flipped_bit_is_caught),
        cmocka_unit_test(test_few_pages_are_same_filled),
    };
    const struct CMUnitTest others[] = {
        cmocka_unit_test(test_sparse_pages_are_zeroes_for_the_most_part),
        cmocka_unit_test(test_percentiles_are_within_a_bucket),
    };
    int failed = cmocka_run_group_tests(pages, NULL, NULL);

    fsw_pattern_sparse(SPARSE);
    failed += cmocka_run_group_tests_name("sparse pages", pages, NULL, NULL);
    return failed + cmocka_run_group_tests(others, NULL, NULL);
}

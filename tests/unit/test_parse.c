/* test_parse.c: sizes, numbers, words as people type them; errors as people read them. */
#include "rig.h"

#include <errno.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

#include "common/checksum.h"
#include "common/parse.h"

static void sizes_with_and_without_unit(void **state)
{
    static const struct {
        const char *text;
        uint64_t value;
    } good[] = {{"0", 0},           {"4096", 4096},       {"5b", 5},
                {"64k", 65536},     {"64K", 65536},       {"64KiB", 65536},
                {"2kb", 2048},      {"16M", 16ull << 20}, {"4G", 4ull << 30},
                {"1T", 1ull << 40}, {"15E", 15ull << 60}, {"18446744073709551615", UINT64_MAX}};
    for (unsigned i = 0; i < sizeof good / sizeof good[0]; i++) {
        uint64_t value = 1;
        assert_int_equal(fsw_parse_size(good[i].text, &value), 0);
        assert_true(value == good[i].value);
    }
}

static void what_is_no_size_is_refused_and_leaves_the_value(void **state)
{
    static const char *const bad[] = {"",    "k",   "-1",   "+1",   " 1",  "1 ",    "1x",
                                      "1kk", "1 k", "0x10", "1.5G", "1ki", "1kibi", "1bb"};
    uint64_t value = 77;

    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(fsw_parse_size(bad[i], &value), -EINVAL);
    assert_int_equal(fsw_parse_size("18446744073709551616", &value), -ERANGE);
    assert_int_equal(fsw_parse_size("16E", &value), -ERANGE);
    assert_int_equal(fsw_parse_size("99999999999999999999999", &value), -ERANGE);
    assert_int_equal(value, 77);
}

static void numbers_within_bounds(void **state)
{
    uint64_t u = 7;
    int64_t i = 7;

    assert_int_equal(fsw_parse_u64("12", 1, 12, &u), 0);
    assert_int_equal(u, 12);
    assert_int_equal(fsw_parse_u64("13", 1, 12, &u), -ERANGE);
    assert_int_equal(fsw_parse_u64("0", 1, 12, &u), -ERANGE);
    assert_int_equal(fsw_parse_u64("-1", 0, 12, &u), -EINVAL);
    assert_int_equal(fsw_parse_u64("1k", 0, 12, &u), -EINVAL);
    assert_int_equal(fsw_parse_i64("-3", -5, 5, &i), 0);
    assert_int_equal(i, -3);
    assert_int_equal(fsw_parse_i64("-6", -5, 5, &i), -ERANGE);
    assert_int_equal(fsw_parse_i64("--3", -5, 5, &i), -EINVAL);
    assert_int_equal(fsw_parse_i64("-", -5, 5, &i), -EINVAL);
    assert_int_equal(fsw_parse_i64("9223372036854775808", 0, INT64_MAX, &i), -ERANGE);
}

static void yes_and_no(void **state)
{
    static const char *const yes[] = {"yes", "True", "ON", "1"}, *const no[] = {"no", "false",
                                                                                "Off", "0"};
    int value;

    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(fsw_parse_bool(yes[i], &value), 0);
        assert_int_equal(value, 1);
        assert_int_equal(fsw_parse_bool(no[i], &value), 0);
        assert_int_equal(value, 0);
    }
    assert_int_equal(fsw_parse_bool("y", &value), -EINVAL);
    assert_int_equal(fsw_parse_bool("", &value), -EINVAL);
}

static void sizes_for_people(void **state)
{
    char text[FSW_SIZE_TEXT];

    assert_string_equal(fsw_format_size(0, text), "0 B");
    assert_string_equal(fsw_format_size(1023, text), "1023 B");
    assert_string_equal(fsw_format_size(1536, text), "1.5 KiB");
    assert_string_equal(fsw_format_size(4ull << 30, text), "4 GiB");
    assert_string_equal(fsw_format_size(UINT64_MAX, text), "16 EiB");
}

static void an_error_is_one_line_and_its_code(void **state)
{
    struct fsw_error err = {""};

    assert_int_equal(fsw_error(&err, -EIO, "%s=%d", "a", 5), -EIO);
    assert_string_equal(err.text, "a=5");
    fsw_error_add(&err, "b=%d", 6);
    assert_string_equal(err.text, "a=5; b=6");
    err.text[0] = '\0';
    fsw_error_add(&err, "c");
    assert_string_equal(err.text, "c");
    fsw_error_add(NULL, "nobody listens");
    assert_int_equal(fsw_error(NULL, -EIO, "nobody listens"), -EIO);
    assert_int_equal(fsw_error(&err, -1, "%2000s", "x"), -1);
    assert_int_equal(strlen(err.text), sizeof err.text - 1);
}

#if defined(__x86_64__)
/* XINUSE: which parts of the registers the processor would have to save (XGETBV 1). */
__attribute__((target("xsave"))) static uint64_t registers_in_use(void)
{
    return _xgetbv(1);
}

#define UPPER_HALVES (1u << 2 | 1u << 6) /* of YMM0 to 15, of ZMM0 to 15 */

static int can_tell(void)
{
    unsigned a, b, c, d;

    return __get_cpuid_count(1, 0, &a, &b, &c, &d) && (c & bit_OSXSAVE) &&
           __get_cpuid_count(13, 1, &a, &b, &c, &d) && (a & 1u << 2);
}

static void a_checksum_leaves_no_upper_half_in_use(void **state)
{
    char page[FSW_PAGE_SIZE] = {1};

    if (!can_tell())
        skip(); /* this CPU has no XGETBV 1 */
    fsw_checksum(page, sizeof page, 1);
    assert_int_equal(registers_in_use() & UPPER_HALVES, 0);
}
#else
static void a_checksum_leaves_no_upper_half_in_use(void **state)
{
    skip(); /* a matter of x86 */
}
#endif

static void a_checksum_depends_on_each_bit_and_the_seed(void **state)
{
    char page[FSW_PAGE_SIZE] = {0};
    uint32_t sum = fsw_checksum(page, sizeof page, 1);

    assert_int_not_equal(sum, fsw_checksum(page, sizeof page, 2));
    assert_int_not_equal(sum, fsw_checksum(page, sizeof page - 1, 1));
    for (unsigned bit = 0; bit < 8 * sizeof page; bit += 37) {
        page[bit / 8] ^= (char)(1 << bit % 8);
        assert_int_not_equal(sum, fsw_checksum(page, sizeof page, 1));
        page[bit / 8] ^= (char)(1 << bit % 8);
    }
}

RIG_MAIN(cmocka_unit_test(sizes_with_and_without_unit),
         cmocka_unit_test(what_is_no_size_is_refused_and_leaves_the_value),
         cmocka_unit_test(numbers_within_bounds), cmocka_unit_test(yes_and_no),
         cmocka_unit_test(sizes_for_people), cmocka_unit_test(an_error_is_one_line_and_its_code),
         cmocka_unit_test(a_checksum_depends_on_each_bit_and_the_seed),
         cmocka_unit_test(a_checksum_leaves_no_upper_half_in_use))

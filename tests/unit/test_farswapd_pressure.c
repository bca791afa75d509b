/*
 * test_farswapd_pressure.c: when a donor takes new values, by what its host says of itself.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/clock.h"
#include "server/pressure.h"

#define GIB (1ull << 30)

static uint64_t now = 1000 * FSW_NS_PER_S, stalls = 1;

/* One second later. stalled: microseconds of it. */
static bool second(struct fsw_pressure *pressure, uint64_t available, uint64_t stalled)
{
    now += FSW_NS_PER_S;
    stalls += stalled;
    fsw_pressure_step(pressure, now, available, stalls, false);
    return pressure->short_of;
}

static void test_little_available_is_short_until_it_is_calm(void **unused)
{
    struct fsw_pressure pressure = {.keep = GIB};

    assert_false(second(&pressure, 2 * GIB, 0));
    assert_false(second(&pressure, GIB, 0));
    assert_true(second(&pressure, GIB - 1, 0));
    assert_int_equal(pressure.times, 1);
    for (unsigned i = 0; i < 20; i++) /* above the mark, below a quarter more */
        assert_true(second(&pressure, GIB + GIB / 8, 0));
    for (unsigned i = 0; i < FSW_CALM_SECONDS; i++)
        assert_true(second(&pressure, 2 * GIB, 0));
    assert_true(second(&pressure, GIB + GIB / 8, 0)); /* and from the begin again */
    for (unsigned i = 0; i < FSW_CALM_SECONDS; i++)
        assert_true(second(&pressure, 2 * GIB, 0));
    assert_false(second(&pressure, 2 * GIB, 0));
    assert_int_equal(pressure.times, 1);
}

static void test_stalls_count_only_on_a_host_that_has_not_plenty(void **unused)
{
    struct fsw_pressure pressure = {.keep = GIB};

    assert_false(second(&pressure, 3 * GIB, 0));
    assert_false(second(&pressure, 3 * GIB, 62000)); /* a sixteenth is 62,500 */
    assert_false(second(&pressure, 4 * GIB, 900000));
    assert_true(second(&pressure, 4 * GIB - 4, 62500));
    for (unsigned i = 0; i < FSW_CALM_SECONDS; i++)
        assert_true(second(&pressure, 3 * GIB, 0));
    assert_false(second(&pressure, 3 * GIB, 0));
    fsw_pressure_step(&pressure, now + 1, 3 * GIB, stalls, true); /* the trigger */
    assert_true(pressure.short_of);
    assert_int_equal(pressure.triggers, 1);
}

static void test_what_is_not_known_does_not_count(void **unused)
{
    struct fsw_pressure pressure = {.keep = GIB}, never = {.keep = 0};

    assert_false(second(&pressure, UINT64_MAX, 900000));
    assert_false(second(&never, 0, 900000));
    fsw_pressure_step(&pressure, now + 1, 3 * GIB, 0, false);
    assert_false(pressure.short_of); /* PSI's total went away: no stall */
}

static void write_file(const char *folder, const char *name, const char *text)
{
    char path[128];
    FILE *file;

    snprintf(path, sizeof path, "%s/%s", folder, name);
    file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void test_proc_is_read(void **unused)
{
    char folder[] = "/tmp/farswapd-pressure-XXXXXX", path[64];
    struct fsw_pressure pressure = {.keep = GIB};

    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/pressure", folder);
    assert_int_equal(mkdir(path, 0700), 0);
    setenv("FARSWAPD_PROC", folder, 1);
    assert_true(fsw_meminfo("MemAvailable") == UINT64_MAX);
    assert_int_equal(fsw_pressure_keep_default(), 0);
    write_file(folder, "meminfo",
               "MemTotal:        8388608 kB\nMemFree: 1 kB\nMemAvailable:    3145728 kB\n");
    write_file(folder, "pressure/memory",
               "some avg10=0.00 avg60=1.00 avg300=2.00 total=12345\nfull avg10=0.00 total=1\n");
    assert_true(fsw_meminfo("MemAvailable") == 3 * GIB);
    assert_true(fsw_pressure_keep_default() == 8 * GIB / 20);
    fsw_pressure_look(&pressure, false);
    assert_false(pressure.short_of);
    assert_int_equal(pressure.stall_us, 12345);
    write_file(folder, "meminfo", "MemAvailable:    1048575 kB\n");
    fsw_pressure_look(&pressure, false);
    assert_true(pressure.short_of);
    snprintf(path, sizeof path, "rm -rf %s", folder);
    assert_int_equal(system(path), 0);
    unsetenv("FARSWAPD_PROC");
}

/* The real ones: figures that can be, and the kernel takes our trigger where it takes any. */
static void test_this_host_answers(void **unused)
{
    uint64_t available = fsw_meminfo("MemAvailable"), total = fsw_meminfo("MemTotal");
    int fd;

    assert_true(available <= total && total != UINT64_MAX);
    assert_true(fsw_pressure_keep_default() > 0 && fsw_pressure_keep_default() <= GIB);
    if (access("/proc/pressure/memory", W_OK) < 0)
        skip();
    fd = fsw_pressure_trigger();
    assert_true(fd >= 0);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_little_available_is_short_until_it_is_calm),
        cmocka_unit_test(test_stalls_count_only_on_a_host_that_has_not_plenty),
        cmocka_unit_test(test_what_is_not_known_does_not_count),
        cmocka_unit_test(test_proc_is_read),
        cmocka_unit_test(test_this_host_answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

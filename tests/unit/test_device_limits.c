/*
 * test_device_limits.c: memory=, sizes, and what a device costs.
 */
#include "rig.h"

#include <errno.h>
#include <stdio.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <time.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/clock.h"

#define MIB(n) ((uint64_t)(n) << 20)

static uint64_t page_at(struct rig *rig, uint64_t page, const void *bytes)
{
    return (uint64_t)fsw_device_write(rig->device, bytes, page * FSW_PAGE_SIZE, FSW_PAGE_SIZE);
}

static void expect_bounded(struct rig *rig)
{
    assert_in_range(rig_resident(&rig->device->image), 1,
                    (uint64_t)rig->device->pool.frames.limit * FSW_FRAME_SIZE);
}

static void without_store_a_full_device_says_enospc_at_once(void **state)
{
    struct rig rig;
    uint64_t page = 0, start, least = UINT64_MAX;
    int r;

    rig_open(&rig, &(struct rig_options){.size = MIB(32), .memory = MIB(4)});
    do {
        r = rig_write_page(&rig, page, (enum rig_kind)(RIG_TEXT + page % 4), page);
        if (page % 16 == 0)
            expect_bounded(&rig);
    } while (r == 0 && ++page < 8192);
    assert_int_equal(r, -ENOSPC);
    /* Each of these would wait, and a machine that stands still does so for some. */
    for (unsigned i = 0; i < 10; i++) {
        start = fsw_now_ns();
        assert_int_equal(rig_write_page(&rig, page, (enum rig_kind)(RIG_TEXT + page % 4), page),
                         -ENOSPC);
        least = fsw_now_ns() - start < least ? fsw_now_ns() - start : least;
    }
    assert_true(least < FSW_WRITE_WAIT_NS / 2);
    /* Failed writes of all kinds leave the old page. */
    char noise[FSW_PAGE_SIZE];
    rig_fill(noise, RIG_NOISE, 999);
    for (uint64_t i = 0; i < page; i += 7) {
        if (page_at(&rig, i, noise) == 0)
            assert_int_equal(rig_write_page(&rig, i, (enum rig_kind)(RIG_TEXT + i % 4), i), 0);
        rig_expect_page(&rig, i, (enum rig_kind)(RIG_TEXT + i % 4), i);
    }
    rig_prove(&rig);
    /* Freed memory is memory again. */
    assert_int_equal(fsw_device_discard(rig.device, 0, 64 * FSW_PAGE_SIZE), 0);
    assert_int_equal(rig_write_page(&rig, 0, RIG_NOISE, 1), 0);
    rig_expect_page(&rig, 0, RIG_NOISE, 1);
    rig_close(&rig);
}

static int is_small(struct rig *rig, void *opaque)
{
    return rig_resident(&rig->device->image) <= *(uint64_t *)opaque;
}

static void discarding_gives_memory_back(void **state)
{
    struct rig rig;

    rig_open(&rig, &(struct rig_options){.size = MIB(32), .memory = MIB(40)});
    for (uint64_t page = 0; page < MIB(32) / FSW_PAGE_SIZE; page++)
        assert_int_equal(rig_write_page(&rig, page, RIG_NOISE, page), 0);
    assert_true(rig_resident(&rig.device->image) > MIB(32));
    assert_int_equal(fsw_device_discard(rig.device, 0, MIB(32)), 0);
    /* base, 16 leaves, and a reserve and a half of 2 MiB */
    uint64_t enough = MIB(3) + MIB(1) / 2;
    rig_wait(&rig, is_small, &enough);
    rig_close(&rig);
}

static void the_filler_refills_the_reserve(void **state)
{
    struct rig rig;

    rig_open(&rig, &(struct rig_options){.size = MIB(32), .memory = MIB(40)});
    struct fsw_frames *frames = &rig.device->pool.frames;
    uint64_t deadline = fsw_now_ns() + 60 * FSW_NS_PER_S;
    for (unsigned round = 0; round < 3; round++) {
        for (uint64_t page = 0; page < 400; page++)
            assert_int_equal(rig_write_page(&rig, round * 400 + page, RIG_NOISE, page), 0);
        while (atomic_load(&frames->nready) < frames->target && fsw_now_ns() < deadline)
            usleep(500);
        assert_true(atomic_load(&frames->nready) >= frames->target);
    }
    rig_close(&rig);
}

/* CPU time that the filler has had. */
static uint64_t filler_ns(struct rig *rig)
{
    struct timespec spent;
    clockid_t clock;

    assert_int_equal(pthread_getcpuclockid(rig->device->pool.frames.filler, &clock), 0);
    assert_int_equal(clock_gettime(clock, &spent), 0);
    return (uint64_t)spent.tv_sec * FSW_NS_PER_S + (uint64_t)spent.tv_nsec;
}

static uint64_t filler_looks(struct rig *rig)
{
    struct fsw_frames *frames = &rig->device->pool.frames;
    FSW_LOCK_SCOPE(&frames->lock);

    return frames->looks;
}

/* There is nothing to fill from, and trying again at once would cost a CPU. It looks ten times a second. */
static void the_filler_of_a_full_device_sleeps(void **state)
{
    struct rig rig;
    uint64_t page = 0, least = UINT64_MAX;

    rig_open(&rig, &(struct rig_options){.size = MIB(32), .memory = MIB(4)});
    while (rig_write_page(&rig, page, RIG_NOISE, page) == 0)
        page++;
    assert_int_equal(atomic_load(&rig.device->pool.frames.nready), 0);
    /* What a machine that stands still adds to its time it does not add each time. */
    for (unsigned i = 0; i < 20 && least > 30 * FSW_NS_PER_MS; i++) {
        uint64_t start = fsw_now_ns(), looks = filler_looks(&rig), before = filler_ns(&rig);
        while (fsw_now_ns() < start + 300 * FSW_NS_PER_MS)
            usleep(10000);
        looks = filler_looks(&rig) - looks;
        assert_in_range(looks, 0, (fsw_now_ns() - start) / (100 * FSW_NS_PER_MS) + 3);
        least = filler_ns(&rig) - before < least ? filler_ns(&rig) - before : least;
    }
    assert_in_range(least, 0, 30 * FSW_NS_PER_MS);
    rig_close(&rig);
}

static void memory_bounds_what_overflows(void **state)
{
    struct rig rig;

    rig_open(&rig, &(struct rig_options){.size = MIB(32), .memory = MIB(3), .with_store = 1});
    for (uint64_t page = 0; page < 4000; page++) {
        assert_int_equal(rig_write_page(&rig, page, (enum rig_kind)(RIG_TEXT + page % 4), page), 0);
        if (page % 8 == 0)
            expect_bounded(&rig);
    }
    for (uint64_t page = 0; page < 4000; page += 3)
        rig_expect_page(&rig, page, (enum rig_kind)(RIG_TEXT + page % 4), page);
    rig_close(&rig);
}

static int is_within_the_limit(struct rig *rig, void *opaque)
{
    return rig_resident(&rig->device->image) <= *(uint64_t *)opaque;
}

/* Without a single write more, and with more segments than there were rows for. */
static void lowered_memory_is_given_back(void **state)
{
    struct rig rig;
    uint64_t lower[] = {MIB(20), MIB(3)};

    rig_open(&rig, &(struct rig_options){.size = MIB(64), .memory = MIB(40), .with_store = 1});
    for (uint64_t page = 0; page < MIB(64) / FSW_PAGE_SIZE; page++)
        assert_int_equal(rig_write_page(&rig, page, RIG_NOISE, page), 0);
    for (unsigned i = 0; i < 2; i++) {
        atomic_store(&rig.device->image.super->memory_limit, lower[i]);
        rig_wait(&rig, is_within_the_limit, &lower[i]);
        assert_int_equal(rig_write_page(&rig, i, RIG_NOISE, i), 0);
    }
    for (uint64_t page = 0; page < MIB(64) / FSW_PAGE_SIZE; page += 61)
        rig_expect_page(&rig, page, RIG_NOISE, page);
    rig_close(&rig);
}

static void odd_sizes_work_to_the_last_byte(void **state)
{
    static const uint64_t sizes[] = {MIB(4), MIB(4) + FSW_PAGE_SIZE, MIB(4) + 3 * FSW_PAGE_SIZE,
                                     MIB(6) - FSW_PAGE_SIZE};
    char bytes[3] = "ab", zero[3] = {0}, got[3];

    for (unsigned i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct rig rig;
        rig_open(&rig, &(struct rig_options){.size = sizes[i], .memory = MIB(3)});
        uint64_t last = sizes[i] / FSW_PAGE_SIZE - 1, end = sizes[i];
        assert_int_equal(fsw_device_size(rig.device), end);
        assert_int_equal(rig_write_page(&rig, last, RIG_TEXT, 5), 0);
        assert_int_equal(fsw_device_write(rig.device, bytes, end - 2, 2), 0);
        assert_int_equal(fsw_device_read(rig.device, got, end - 2, 2), 0);
        assert_memory_equal(got, bytes, 2);
        assert_int_equal(fsw_device_write(rig.device, bytes, end - 1, 2), -EINVAL);
        assert_int_equal(fsw_device_read(rig.device, got, end, 1), -EINVAL);
        assert_int_equal(fsw_device_discard(rig.device, UINT64_MAX - 4095, 4096), -EINVAL);
        assert_int_equal(fsw_device_zero(rig.device, 0, end + 1), -EINVAL);
        assert_int_equal(fsw_device_read(rig.device, got, end, 0), 0);
        assert_int_equal(fsw_device_zero(rig.device, end - 2, 2), 0);
        assert_int_equal(fsw_device_read(rig.device, got, end - 2, 2), 0);
        assert_memory_equal(got, zero, 2);
        assert_int_equal(fsw_device_discard(rig.device, 0, end), 0);
        rig_close(&rig);
    }
}

/* The whole of a huge device read, discarded, its ends written: costs its directory and no more. */
static void costs_little(uint64_t size, uint64_t memory, uint64_t bound)
{
    struct rig rig;
    static char bytes[1 << 20];
    uint64_t last = size / FSW_PAGE_SIZE - 1;

    rig_open(&rig, &(struct rig_options){.size = size, .memory = memory});
    assert_int_equal(rig_write_page(&rig, 0, RIG_NOISE, 1), 0);
    assert_int_equal(rig_write_page(&rig, last, RIG_TEXT, 2), 0);
    for (uint64_t at = 0; at < size; at += size / 64)
        assert_int_equal(fsw_device_read(rig.device, bytes, at, sizeof bytes), 0);
    rig_expect_page(&rig, 0, RIG_NOISE, 1);
    rig_expect_page(&rig, last, RIG_TEXT, 2);
    assert_int_equal(fsw_device_zero(rig.device, FSW_PAGE_SIZE, size - 2 * FSW_PAGE_SIZE), 0);
    assert_int_equal(fsw_device_discard(rig.device, 0, size), 0);
    rig_expect_page(&rig, last, RIG_ZERO, 0);
    assert_in_range(rig_resident(&rig.device->image), 1, bound);
    rig_close(&rig);
}

static void one_tebibyte_idle_costs_megabytes(void **state)
{
    costs_little(MIB(1) << 20, MIB(64), MIB(8));
}

static void sixteen_tebibytes_idle_cost_megabytes(void **state)
{
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
    skip(); /* its shadow has no room for that much address space */
#endif
#endif
    uint64_t start = fsw_now_ns();
    costs_little(MIB(16) << 20, MIB(128), MIB(72));
    assert_true(fsw_now_ns() - start < 60 * FSW_NS_PER_S);
}

static void requests_are_counted(void **state)
{
    struct rig rig;
    static char bytes[3 * FSW_PAGE_SIZE];

    rig_open(&rig, &(struct rig_options){.size = MIB(4), .memory = MIB(3)});
    fsw_device_write(rig.device, bytes, 0, 5000);
    fsw_device_read(rig.device, bytes, 1, 7000);
    fsw_device_read(rig.device, bytes, MIB(4), 1);
    fsw_device_discard(rig.device, 0, 8192);
    fsw_device_zero(rig.device, 5, 6);
    fsw_device_write(rig.device, bytes, MIB(4), 1);
    fsw_device_zero(rig.device, MIB(4) - 1, 2);
    fsw_device_do(rig.device, &(struct fsw_io){.verb = FSW_FLUSH + 1});
    fsw_device_flush(rig.device);
    static const struct {
        enum fsw_stat stat;
        uint64_t value;
    } expected[] = {{FSW_STAT_WRITES, 1},       {FSW_STAT_WRITE_BYTES, 5000},
                    {FSW_STAT_READS, 1},        {FSW_STAT_READ_BYTES, 7000},
                    {FSW_STAT_DISCARDS, 1},     {FSW_STAT_DISCARD_BYTES, 8192 + 6},
                    {FSW_STAT_ZEROES, 1},       {FSW_STAT_FLUSHES, 1},
                    {FSW_STAT_FAILED_READS, 0}, {FSW_STAT_FAILED_WRITES, 0},
                    {FSW_STAT_INVALID_IO, 4}};
    for (unsigned i = 0; i < sizeof expected / sizeof expected[0]; i++)
        assert_int_equal(rig_stat(&rig, expected[i].stat), expected[i].value);
    rig_close(&rig);
}

/* Lays an empty file over the image from `at` on: the system has no memory for it. */
static void take_memory_away(struct rig *rig, char *at)
{
    int fd = memfd_create("empty", 0);
    size_t bytes = rig->device->image.bytes - (size_t)(at - (char *)rig->device->image.super);

    assert_true(mmap(at, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == at);
    close(fd);
}

static void memory_that_the_system_refuses_is_enospc_and_no_loss(void **state)
{
    struct rig rig;
    uint64_t page = 0;

    rig_open(&rig, &(struct rig_options){.size = MIB(8), .memory = MIB(16)});
    struct fsw_image *image = &rig.device->image;
    uint32_t top = 600; /* frames that exist; the reserve never lies above */
    take_memory_away(&rig, fsw_image_frame(image, top));
    /* More than once, since the filler has frames in its hands at times. */
    for (unsigned failed = 0; page < 2048 && failed < 30;)
        if (rig_write_page(&rig, page, RIG_NOISE, page) == 0)
            page++;
        else if (failed++ < 30)
            usleep(1000);
    assert_in_range(page, top / 2, top);
    for (uint64_t i = 0; i < page; i++)
        rig_expect_page(&rig, i, RIG_NOISE, i);
    assert_int_equal(rig_write_page(&rig, 0, RIG_NOISE, 7777), -ENOSPC);
    rig_expect_page(&rig, 0, RIG_NOISE, 0);
    assert_true(shmat(image->shmid, image->super, SHM_REMAP) == image->super);
    assert_int_equal(rig_write_page(&rig, 0, RIG_NOISE, 7777), 0);
    for (; page < 2048; page++)
        assert_int_equal(rig_write_page(&rig, page, RIG_NOISE, page), 0);
    rig_expect_page(&rig, 0, RIG_NOISE, 7777);
    rig_close(&rig);
}

RIG_MAIN(cmocka_unit_test(without_store_a_full_device_says_enospc_at_once),
         cmocka_unit_test(discarding_gives_memory_back),
         cmocka_unit_test(the_filler_refills_the_reserve),
         cmocka_unit_test(the_filler_of_a_full_device_sleeps),
         cmocka_unit_test(memory_bounds_what_overflows),
         cmocka_unit_test(lowered_memory_is_given_back),
         cmocka_unit_test(odd_sizes_work_to_the_last_byte),
         cmocka_unit_test(one_tebibyte_idle_costs_megabytes),
         cmocka_unit_test(sixteen_tebibytes_idle_cost_megabytes),
         cmocka_unit_test(requests_are_counted),
         cmocka_unit_test(memory_that_the_system_refuses_is_enospc_and_no_loss))

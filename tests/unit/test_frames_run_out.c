/*
 * test_frames_run_out.c: the n-th frame that an operation asks for is not there, for every n until
 * it succeeds. What failed says ENOSPC, every page is old or new, nothing is lost or leaked, and
 * with room the same operation succeeds.
 */
#include "rig.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/check.h"

#define MIB(n) ((uint64_t)(n) << 20)
#define OLD 60u /* pages that are there before */

struct scene {
    struct rig rig;
    uint64_t memory;
};

/* None is huge: the first that is takes two frames at once. */
static enum rig_kind kind_of(uint64_t page)
{
    return (enum rig_kind)(page % RIG_NEARLY_RAW);
}

/* No frame is ready, and `more` may be had: the first ones serve only charges. */
static void leave(struct scene *scene, uint32_t more)
{
    struct fsw_frames *frames = &scene->rig.device->pool.frames;
    static uint32_t held[4096];
    uint32_t n = 0;

    scene->memory = (uint64_t)atomic_load(&frames->limit) * FSW_FRAME_SIZE;
    fsw_frames_stop(frames);
    atomic_store(&frames->limit, 0);
    while (n < 4096 && (held[n] = fsw_frames_take(frames)) != 0)
        n++;
    while (n > 0) /* above the limit: to the system */
        fsw_frames_give(frames, held[--n]);
    assert_int_equal(atomic_load(&frames->nready), 0);
    atomic_store(&frames->limit,
                 atomic_load(&frames->used) + atomic_load(&frames->overhead) + more);
}

static void make_room(struct scene *scene)
{
    struct fsw_frames *frames = &scene->rig.device->pool.frames;

    fsw_frames_set_limit(frames, scene->memory);
    assert_int_equal(fsw_frames_start(frames), 0);
}

static void open_scene(struct scene *scene, uint32_t more)
{
    rig_open(&scene->rig, &(struct rig_options){.size = MIB(8), .memory = MIB(8)});
    fsw_keeper_stop(scene->rig.device);
    for (uint64_t page = 0; page < OLD; page++)
        assert_int_equal(rig_write_page(&scene->rig, page, kind_of(page), page), 0);
    leave(scene, more);
}

static void print_problem(const char *line, void *opaque)
{
    fprintf(stderr, "check: %s\n", line);
}

/* But for what the operation was about. */
static void expect_old_pages(struct scene *scene, uint64_t from, uint64_t to)
{
    struct fsw_check_report report;
    struct fsw_error err = {""};

    for (uint64_t page = 0; page < OLD; page++)
        if (page < from || page >= to)
            rig_expect_page(&scene->rig, page, kind_of(page), page);
    if (fsw_pool_check(&scene->rig.device->pool, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(fsw_image_check(&scene->rig.device->image, 0, print_problem, NULL, &report),
                     0);
    assert_int_equal(report.problems, 0);
    assert_int_equal(report.leftovers, 0);
}

/* ---- operations ---- */

struct operation {
    const char *name;
    uint64_t from, to; /* pages that it changes */
    int (*run)(struct rig *rig);
    unsigned least; /* frames that it takes, at least; 0: a slot may be free in one that is there */
};

static char bytes[32 * FSW_PAGE_SIZE];

/* A leaf, a zspage, a frame. */
static int write_in_a_new_leaf(struct rig *rig)
{
    return rig_write_page(rig, 1000, RIG_TEXT, 1);
}

static int write_huge(struct rig *rig)
{
    for (uint64_t page = 0; page < 20; page++) /* in one of which a frame is full */
        if (rig_write_page(rig, 600 + page, RIG_NOISE, page) < 0)
            return -ENOSPC;
    return 0;
}

static int overwrite(struct rig *rig)
{
    return fsw_device_write(rig->device, bytes, 8 * FSW_PAGE_SIZE, 16 * FSW_PAGE_SIZE);
}

/* Compresses to another size, so it is another class. */
static int write_part(struct rig *rig)
{
    return fsw_device_write(rig->device, bytes, 4 * FSW_PAGE_SIZE + 100, 2000);
}

static int write_part_in_a_new_leaf(struct rig *rig)
{
    return fsw_device_write(rig->device, bytes, 1500 * FSW_PAGE_SIZE + 7, 900);
}

/* A page that took no object takes one. */
static int zero_part(struct rig *rig)
{
    return fsw_device_zero(rig->device, 1 * FSW_PAGE_SIZE + 100, 1000);
}

/* More classes than zspage ids are made at once: their map grows. */
static int write_many_classes(struct rig *rig)
{
    for (unsigned i = 0; i < 40; i++) {
        char page[FSW_PAGE_SIZE] = {0};
        memcpy(page, bytes, 64 + i * 80);
        int r = fsw_device_write(rig->device, page, (700 + i) * FSW_PAGE_SIZE, FSW_PAGE_SIZE);
        if (r < 0)
            return r;
    }
    return 0;
}

static const struct operation operations[] = {
    {"write in a new leaf", 1000, 1001, write_in_a_new_leaf, 2},
    {"write huge pages", 600, 620, write_huge, 20},
    {"overwrite", 8, 24, overwrite, 2},
    {"write of a part", 4, 5, write_part, 1},
    {"write of a part in a new leaf", 1500, 1501, write_part_in_a_new_leaf, 2},
    {"zero a part", 1, 2, zero_part, 0},
    {"new classes", 700, 740, write_many_classes, 20},
};

static void run_out(const struct operation *operation)
{
    unsigned more = 0;
    int r;

    do {
        struct scene scene;
        open_scene(&scene, more);
        r = operation->run(&scene.rig);
        if (r != 0 && r != -ENOSPC)
            fail_msg("%s with %u frames: %d", operation->name, more, r);
        if (r == 0 && more < operation->least)
            fail_msg("%s: done with %u frames", operation->name, more);
        expect_old_pages(&scene, operation->from, operation->to);
        if (r == -ENOSPC)
            assert_true(rig_stat(&scene.rig, FSW_STAT_NO_SPACE) > 0);
        make_room(&scene);
        assert_int_equal(operation->run(&scene.rig), 0);
        expect_old_pages(&scene, operation->from, operation->to);
        assert_int_equal(fsw_device_discard(scene.rig.device, 0, MIB(8)), 0);
        rig_close(&scene.rig);
        more++;
    } while (r != 0 && more < 200);
    assert_int_equal(r, 0);
}

static void whatever_frame_is_missing_a_failed_operation_changes_nothing(void **state)
{
    rig_fill(bytes, RIG_NOISE, 1);
    for (unsigned i = 1; i < 32; i++)
        rig_fill(bytes + i * FSW_PAGE_SIZE, RIG_NOISE, i);
    for (unsigned i = 0; i < sizeof operations / sizeof operations[0]; i++)
        run_out(&operations[i]);
}

/* The failed write of a single page leaves that page. */
static void the_page_itself_stays(void **state)
{
    for (uint32_t more = 0; more < FSW_HEADROOM_FRAMES; more++) {
        struct scene scene;
        open_scene(&scene, more);
        for (uint64_t page = 0; page < OLD; page++) {
            char noise[FSW_PAGE_SIZE];
            rig_fill(noise, RIG_NOISE, page + 99);
            uint64_t before = *rig_entry(&scene.rig, page);
            int r = fsw_device_write(scene.rig.device, noise, page * FSW_PAGE_SIZE, FSW_PAGE_SIZE);
            if (r < 0)
                assert_true(fsw_entry_same_place(*rig_entry(&scene.rig, page), before));
            if (r == 0) /* an old frame came free: put it back as it was */
                assert_int_equal(rig_write_page(&scene.rig, page, kind_of(page), page), 0);
        }
        expect_old_pages(&scene, 0, 0);
        make_room(&scene);
        rig_close(&scene.rig);
    }
}

static void compaction_with_no_frame_to_be_had_loses_nothing(void **state)
{
    for (uint32_t more = 0; more < 10; more++) {
        struct scene scene;
        rig_open(&scene.rig, &(struct rig_options){.size = MIB(8), .memory = MIB(8)});
        fsw_keeper_stop(scene.rig.device);
        for (uint64_t page = 0; page < 1500; page++)
            assert_int_equal(rig_write_page(&scene.rig, page, kind_of(page), page), 0);
        for (uint64_t page = 0; page < 1500; page++)
            if (page % 5)
                fsw_device_discard(scene.rig.device, page * FSW_PAGE_SIZE, FSW_PAGE_SIZE);
        leave(&scene, more);
        while (fsw_compact_step(scene.rig.device) > 0)
            ;
        assert_true(rig_stat(&scene.rig, FSW_STAT_COMPACT_MOVED) > 20);
        assert_true(rig_stat(&scene.rig, FSW_STAT_PAGES_COMPACTED) > 20);
        for (uint64_t page = 0; page < 1500; page += 5)
            rig_expect_page(&scene.rig, page, kind_of(page), page);
        make_room(&scene);
        rig_close(&scene.rig);
    }
}

static void rows_that_cannot_grow_are_refused_and_then_taken(void **state)
{
    for (uint32_t more = 0; more < 4; more++) {
        struct scene scene;
        static uint32_t taken[4096];
        uint64_t id;
        uint32_t n = 0, row;

        open_scene(&scene, more);
        struct fsw_rows *rows = &scene.rig.device->rows;
        while (n < 4096 && (row = fsw_row_take(rows, &id)) != 0)
            taken[n++] = row;
        /* a frame of rows is there from the start, and one for each that may be charged */
        assert_in_range(n, (more + 1) * FSW_FRAME_SIZE / sizeof(struct fsw_row) - 1,
                        (more + 1) * FSW_FRAME_SIZE / sizeof(struct fsw_row));
        for (uint32_t i = 0; i < n; i++)
            fsw_row_free(rows, taken[i]);
        expect_old_pages(&scene, 0, 0);
        make_room(&scene);
        for (uint32_t i = 0; i < n; i++)
            assert_int_not_equal(taken[i] = fsw_row_take(rows, &id), 0);
        for (uint32_t i = 0; i < n; i++)
            fsw_row_free(rows, taken[i]);
        rig_close(&scene.rig);
    }
}

RIG_MAIN(cmocka_unit_test(whatever_frame_is_missing_a_failed_operation_changes_nothing),
         cmocka_unit_test(the_page_itself_stays),
         cmocka_unit_test(compaction_with_no_frame_to_be_had_loses_nothing),
         cmocka_unit_test(rows_that_cannot_grow_are_refused_and_then_taken))

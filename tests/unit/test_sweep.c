/*
 * test_sweep.c: what a store has and should not is dropped; what it should have is not (core/sweep.c).
 * And ten reboots: images that go, and leave what they had at the store.
 *     test_sweep PLACE        (see test_store_place.h)
 */
#include "handover.h"
#include "test_store_place.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "core/predecessors.h"

static struct place chosen;

#define PAGES 1000u
#define STRANGERS 200u
#define ELSEWHERE (FSW_GONE_MOST + 4) /* more than a store is told of */
#define STRANGE (1ull << 40)          /* ids that no row will have */

struct fixture {
    struct place place;
    struct rig rig;
    struct fsw_store *store;
    struct fsw_params params;
};

static struct fsw_store *open_store(struct fixture *f)
{
    struct fsw_device_id none = {{0}};

    return place_open(&f->place, &none);
}

static void open_device(struct fixture *f, enum fsw_open how)
{
    struct fsw_error err = {""};

    f->store = open_store(f);
    handover_must(fsw_device_open(&f->params, how, 0, f->store, &f->rig.device, &err), &err);
    rig_be_patient(f->rig.device);
    handover_must(fsw_device_start(f->rig.device, &err), &err);
    f->rig.high = f->rig.device->reclaim.high;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);

    *state = f;
    f->place = chosen;
    place_start(&f->place);
    f->params = handover_params("sweep", 4096, MIB(16));
    strcpy(f->params.overflow, "there");
    open_device(f, FSW_OPEN_NEW);
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    handover_let_go(&f->rig);
    handover_destroy("sweep");
    place_stop(&f->place);
    free(f);
    return 0;
}

/* ---- what is there ---- */

static int count_one(uint32_t row, uint64_t id, void *opaque)
{
    ++*(unsigned *)opaque;
    return 0;
}

/* Of a device, each copy counted. */
static unsigned there(struct fixture *f, const struct fsw_device_id *device)
{
    struct fsw_error err = {""};
    unsigned n;

    handover_must(PATIENTLY((n = 0, f->store->ops->list(f->store, device, count_one, &n, &err))),
                  &err);
    return n;
}

static unsigned rows(struct fixture *f)
{
    const struct fsw_image *image = &f->rig.device->image;
    unsigned n = 0;

    for (uint32_t row = 1; row < atomic_load(&image->super->rows_top); row++)
        n += fsw_row_state(image, row) != FSW_ROW_FREE;
    return n;
}

static int only_ours(struct rig *rig, void *opaque)
{
    struct fixture *f = opaque;

    return there(f, fsw_device_id(rig->device)) == rows(f) * f->store->copies;
}

/* One of two copies that was slow keeps what it should have dropped, until it is looked at again: a minute
 * later, or when somebody wants it. */
static void wait_only_ours(struct fixture *f)
{
    uint64_t end = fsw_now_ns() + PATIENCE_NS, soon = fsw_now_ns() + PATIENCE_NS / 3;

    for (; !only_ours(&f->rig, f); usleep(20000)) {
        assert_true(fsw_now_ns() < end);
        if (f->store->copies > 1 && fsw_now_ns() > soon)
            fsw_sweep_want(f->rig.device);
    }
}

/* Of two copies some may be swept at one after the other. */
static int all_are_swept(struct rig *rig, void *opaque)
{
    struct fixture *f = opaque;
    uint64_t swept = rig_stat(rig, FSW_STAT_SEGMENTS_SWEPT);

    return f->store->copies > 1 ? swept >= STRANGERS : swept == STRANGERS;
}

static void write_pages(struct fixture *f)
{
    for (unsigned page = 0; page < PAGES; page++)
        assert_int_equal(rig_write_page(&f->rig, page, RIG_HALF, page), 0);
    rig_evict_all(&f->rig);
}

static void expect_pages(struct fixture *f)
{
    for (unsigned page = 0; page < PAGES; page++)
        rig_expect_page(&f->rig, page, RIG_HALF, page);
}

/* Segments as of puts that were given up and landed after their drop. Rows far from the device's. */
static void put_strangers(struct fixture *f)
{
    uint8_t bytes[PLACE_OBJECT];
    struct call call;

    uint64_t end = fsw_now_ns() + PATIENCE_NS;

    for (unsigned i = 0; i < STRANGERS; i++)
        do { /* until all copies have it, also one that is slow just now */
            assert_true(fsw_now_ns() < end);
            segment_fill(f->store, bytes, sizeof bytes, i);
            call_prepare(&call, FSW_STORE_PUT, STRANGE + 2000 + i, bytes, 0, sizeof bytes, LONG_MS);
            call_submit(f->store, &call);
            assert_int_equal(call_wait(&call), FSW_STORE_OK);
        } while (call.request.copies != (1u << f->store->copies) - 1);
}

/* ---- sweeping ---- */

static void strangers_are_dropped_and_nothing_else(void **state)
{
    struct fixture *f = *state;

    write_pages(f);
    rig_wait(&f->rig, only_ours, f); /* a copy that was slow has got what it lacked */
    unsigned ours = there(f, fsw_device_id(f->rig.device));
    put_strangers(f);
    assert_int_equal(there(f, fsw_device_id(f->rig.device)), ours + STRANGERS * f->store->copies);
    fsw_sweep_want(f->rig.device);
    wait_only_ours(f);
    rig_wait(&f->rig, all_are_swept, f);
    expect_pages(f);
}

/* A server that goes on with an image looks by itself. */
static void the_next_server_sweeps(void **state)
{
    struct fixture *f = *state;

    write_pages(f);
    put_strangers(f);
    handover_let_go(&f->rig);
    open_device(f, FSW_OPEN_EXISTING);
    wait_only_ours(f);
    expect_pages(f);
}

/* A store that was away is looked at when it is back. */
static void a_new_connection_is_a_reason(void **state)
{
    struct fixture *f = *state;

    if (f->place.is_file)
        skip();
    write_pages(f);
    fsw_sweep_want(f->rig.device);
    rig_wait(&f->rig, only_ours, f);
    put_strangers(f);
    for (unsigned copy = 0; copy < f->place.copies; copy++)
        server_ask(&f->place.servers[copy], "CLIENT KILL TYPE normal");
    wait_only_ours(f);
    expect_pages(f);
}

/* Puts that are on their way while it looks stay. */
static void what_is_being_put_is_not_swept(void **state)
{
    struct fixture *f = *state;
    uint64_t until = fsw_now_ns() + FSW_NS_PER_S;

    rig_evict(&f->rig, 1);
    for (unsigned round = 1; fsw_now_ns() < until; round++) {
        fsw_sweep_want(f->rig.device);
        for (unsigned page = 0; page < 100; page++)
            assert_int_equal(rig_write_page(&f->rig, page, RIG_HALF, round * 1000 + page), 0);
        for (unsigned page = 0; page < 100; page++)
            rig_expect_page(&f->rig, page, RIG_HALF, round * 1000 + page);
    }
    rig_evict(&f->rig, 0);
    assert_int_equal(rig_stat(&f->rig, FSW_STAT_STORE_LOST_PAGES), 0);
    wait_only_ours(f);
}

/* ---- reboots ---- */

/* The host is gone, with its memory and /run; the disk and the donors are not. */
static void reboot(struct fixture *f)
{
    char path[PATH_MAX];
    struct fsw_record record;

    assert_int_equal(fsw_registry_read("sweep", -1, &record, NULL), 0);
    handover_let_go(&f->rig);
    struct fsw_image image = handover_image("sweep");
    fsw_image_wipe(&image, NULL);
    snprintf(path, sizeof path, "%s/sweep.image", getenv("FARSWAP_RUNDIR"));
    assert_int_equal(unlink(path), 0);
}

static int count_record(const struct fsw_record *record, void *opaque)
{
    ++*(unsigned *)opaque;
    return 0;
}

static unsigned predecessors(void)
{
    unsigned n = 0;

    fsw_predecessors_each("sweep", count_record, &n);
    return n;
}

struct forgotten {
    struct fixture *f;
    const struct fsw_device_id *device;
};

static int is_forgotten(struct rig *rig, void *opaque)
{
    struct forgotten *forgotten = opaque;

    return there(forgotten->f, forgotten->device) == 0 && predecessors() <= ELSEWHERE;
}

static int no_predecessors(struct rig *rig, void *opaque)
{
    return predecessors() == 0;
}

static void ten_reboots_leave_nothing_behind(void **state)
{
    struct fixture *f = *state;
    struct fsw_device_id earlier[10];

    for (unsigned i = 0; i < 10; i++) {
        write_pages(f);
        earlier[i] = *fsw_device_id(f->rig.device);
        assert_true(there(f, &earlier[i]) > 0);
        reboot(f);
        open_device(f, FSW_OPEN_NEW);
        rig_wait(&f->rig, no_predecessors, f);
        for (unsigned j = 0; j <= i; j++)
            assert_int_equal(there(f, &earlier[j]), 0);
    }
    write_pages(f);
    expect_pages(f);
    rig_wait(&f->rig, only_ours, f);
}

static void write_elsewhere(unsigned number, int there)
{
    char path[PATH_MAX], id[FSW_DEVICE_ID_TEXT];
    struct fsw_device_id device = {.bytes = {(uint8_t)number, 0xee}};

    snprintf(path, sizeof path, "%s/sweep@%s", getenv("FARSWAP_STATEDIR"),
             fsw_device_id_format(&device, id));
    if (!there) {
        assert_int_equal(unlink(path), 0);
        return;
    }
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fprintf(file, "device=%s\noverflow=there elsewhere\n", id);
    assert_int_equal(fclose(file), 0);
    /* before all that the test makes */
    assert_int_equal(utimensat(AT_FDCWD, path, (struct timespec[]){{1}, {(time_t)number}}, 0), 0);
}

/* A device that goes on with the stores of the one before it, and one more, in another order, makes them
 * forget that, and not those that had another store, too. */
static void only_who_was_here_is_forgotten(void **state)
{
    struct fixture *f = *state;
    struct fsw_device_id before;

    write_pages(f);
    before = *fsw_device_id(f->rig.device);
    reboot(f);
    for (unsigned i = 0; i < ELSEWHERE; i++)
        write_elsewhere(i, 1);
    strcpy(f->params.overflow, "another crypt+there");
    open_device(f, FSW_OPEN_NEW);
    rig_wait(&f->rig, is_forgotten, &(struct forgotten){f, &before});
    write_pages(f);
    expect_pages(f);
    assert_int_equal(predecessors(), ELSEWHERE);
    for (unsigned i = 0; i < ELSEWHERE; i++)
        write_elsewhere(i, 0);
}

/* A store that is away at the boot is told when it is back, also of several. */
static void a_store_that_is_away_is_told_later(void **state)
{
    struct fixture *f = *state;
    struct fsw_device_id first, second;

    if (f->place.is_file)
        skip();
    write_pages(f);
    first = *fsw_device_id(f->rig.device);
    reboot(f);
    for (unsigned copy = 0; copy < f->place.copies; copy++)
        server_freeze(&f->place.servers[copy]);
    open_device(f, FSW_OPEN_NEW);
    second = *fsw_device_id(f->rig.device);
    assert_int_equal(predecessors(), 1);
    reboot(f);
    open_device(f, FSW_OPEN_NEW);
    assert_true(memcmp(&first, &second, sizeof first) != 0);
    assert_int_equal(predecessors(), 2);
    for (unsigned copy = 0; copy < f->place.copies; copy++)
        server_thaw(&f->place.servers[copy]);
    rig_wait(&f->rig, no_predecessors, f);
    assert_int_equal(there(f, &first), 0);
}

/* Registered in another run directory; of another version, damaged, or being made. */
static void expect_alive_elsewhere(struct fsw_superblock *super)
{
    char here[PATH_MAX / 2], elsewhere[PATH_MAX];

    snprintf(here, sizeof here, "%s/sweep.image", getenv("FARSWAP_RUNDIR"));
    snprintf(elsewhere, sizeof elsewhere, "%s.elsewhere", here);
    assert_int_equal(rename(here, elsewhere), 0);
    unsigned as_it_is = predecessors();
    super->layout++;
    unsigned newer = predecessors();
    super->layout--;
    super->created++;
    unsigned damaged = predecessors();
    super->created--;
    memset(super->magic, 0, sizeof super->magic);
    unsigned unfinished = predecessors();
    memcpy(super->magic, FSW_IMAGE_MAGIC, sizeof FSW_IMAGE_MAGIC);
    assert_int_equal(rename(elsewhere, here), 0);
    assert_int_equal(as_it_is + newer + damaged + unfinished, 0);
}

/* Whose image is in memory still is not gone, whatever the files say. */
static void an_orphan_is_no_predecessor(void **state)
{
    struct fixture *f = *state;
    char path[PATH_MAX / 2], kept[PATH_MAX];
    struct fsw_record mine;

    write_pages(f);
    unsigned segments = there(f, fsw_device_id(f->rig.device));
    assert_int_equal(fsw_registry_read_state("sweep", &mine), 0);
    mine.device.bytes[0] ^= 1; /* a new image of that name */
    assert_int_equal(fsw_predecessors_keep(&mine, NULL), 0);
    snprintf(path, sizeof path, "%s/sweep", getenv("FARSWAP_STATEDIR"));
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(predecessors(), 0);
    expect_alive_elsewhere(f->rig.device->image.super);
    fsw_sweep_want(f->rig.device);
    rig_wait(&f->rig, only_ours, f);
    assert_true(there(f, fsw_device_id(f->rig.device)) >=
                segments); /* more: a slow copy has them now */
    char id[FSW_DEVICE_ID_TEXT];
    snprintf(kept, sizeof kept, "%s@%s", path,
             fsw_device_id_format(fsw_device_id(f->rig.device), id));
    assert_int_equal(rename(kept, path), 0);
}

static int run_all(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest all[] = {
        TEST(strangers_are_dropped_and_nothing_else), TEST(the_next_server_sweeps),
        TEST(a_new_connection_is_a_reason),           TEST(what_is_being_put_is_not_swept),
        TEST(ten_reboots_leave_nothing_behind),       TEST(only_who_was_here_is_forgotten),
        TEST(a_store_that_is_away_is_told_later),     TEST(an_orphan_is_no_predecessor),
    };

    return cmocka_run_group_tests(all, NULL, NULL);
}

int main(int argc, char **argv)
{
    place_choose(&chosen, argc, argv);
    return rig_main(run_all);
}

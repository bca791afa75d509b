/*
 * test_repair.c: segments that lost a copy, or never had it, get it again; then one copy is enough.
 *     test_repair [crypt] redis BINARY [unix]
 */
#include "handover.h"
#include "test_store_place.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "client/store/keys.h"
#include "common/clock.h"
#include "core/steer.h"

static struct place chosen;
static int arguments;
static char **argument;

#define PAGES 1000u

struct fixture {
    struct place place;
    struct server *servers;
    struct rig rig;
    struct fsw_store *store;
    struct fsw_params params;
};

/* Where it looks at its stores, the repair thread can be held: it comes, and goes on when it is let. */
static struct {
    struct fsw_store_ops ops;
    void (*health)(struct fsw_store *store, struct fsw_store_health *ret_health);
    pthread_t thread;
    sem_t came, go;
    _Atomic int holds;
} looks;

static void health_held(struct fsw_store *store, struct fsw_store_health *ret_health)
{
    if (atomic_load(&looks.holds) && pthread_equal(pthread_self(), looks.thread)) {
        sem_post(&looks.came);
        while (sem_wait(&looks.go) < 0) /* EINTR */
            ;
    }
    looks.health(store, ret_health);
}

static struct fsw_store *open_store(struct fixture *f)
{
    struct fsw_device_id none = {{0}};
    struct fsw_store *store = place_open(&f->place, &none);

    looks.ops = *store->ops;
    looks.health = looks.ops.health;
    looks.ops.health = health_held;
    store->ops = &looks.ops;
    return store;
}

static void hold_looks(struct fixture *f)
{
    sem_init(&looks.came, 0, 0);
    sem_init(&looks.go, 0, 0);
    looks.thread = f->rig.device->repair.thread;
    atomic_store(&looks.holds, 1);
}

static void next_look(void)
{
    while (sem_wait(&looks.came) < 0)
        ;
}

static void look_on(void)
{
    sem_post(&looks.go);
}

static void let_looks_go(void)
{
    if (atomic_exchange(&looks.holds, 0))
        look_on();
}

/* A put that was answered can be held before its row is LIVE. */
static struct {
    sem_t came, go;
    _Atomic int holds;
    uint32_t losses; /* then */
} held_put;

static void hold_put(enum fsw_hook at, void *opaque)
{
    if (at != FSW_HOOK_ANSWERED || !atomic_load(&held_put.holds))
        return;
    sem_post(&held_put.came);
    while (sem_wait(&held_put.go) < 0) /* EINTR */
        ;
}

static void let_put_go(void)
{
    if (atomic_exchange(&held_put.holds, 0))
        sem_post(&held_put.go);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    struct fsw_error err = {""};

    *state = f;
    f->place = chosen;
    f->place.copies = 2;
    f->servers = f->place.servers;
    place_start(&f->place);
    f->params = handover_params("repair", 4096, MIB(16));
    strcpy(f->params.overflow, "two");
    f->store = open_store(f);
    handover_must(fsw_device_open(&f->params, FSW_OPEN_NEW, 0, f->store, &f->rig.device, &err),
                  &err);
    rig_be_patient(f->rig.device);
    handover_must(fsw_device_start(f->rig.device, &err), &err);
    f->rig.high = f->rig.device->reclaim.high;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    let_looks_go();
    let_put_go();
    for (unsigned copy = 0; copy < 2; copy++)
        if (f->servers[copy].pid > 0)
            server_thaw(&f->servers[copy]);
    handover_let_go(&f->rig);
    handover_destroy("repair");
    place_stop(&f->place);
    free(f);
    return 0;
}

/* ---- what is where ---- */

/* Of LIVE rows: how many have exactly these copies. */
static unsigned rows_with(struct fixture *f, uint32_t copies)
{
    const struct fsw_image *image = &f->rig.device->image;
    unsigned n = 0;

    for (uint32_t row = 1; row < atomic_load(&image->super->rows_top); row++)
        n += fsw_row_state(image, row) == FSW_ROW_LIVE &&
             atomic_load(&image->rows[row].copies) == copies;
    return n;
}

static int has_both(struct rig *rig, void *opaque)
{
    struct fixture *f = opaque;

    return rows_with(f, 1) + rows_with(f, 2) == 0 && rows_with(f, 3) > 0;
}

static struct fsw_store_health health_of(struct fixture *f)
{
    struct fsw_store_health health;

    f->store->ops->health(f->store, &health);
    return health;
}

static int is_up(struct rig *rig, void *opaque)
{
    return health_of(opaque).up == 3;
}

static int is_half_up(struct rig *rig, void *opaque)
{
    return !is_up(rig, opaque);
}

static int is_told(struct rig *rig, void *opaque)
{
    return rig_stat(rig, FSW_STAT_SEGMENTS_LACKING) == 0;
}

static void write_pages(struct fixture *f, unsigned from, unsigned to)
{
    for (unsigned page = from; page < to; page++)
        assert_int_equal(rig_write_page(&f->rig, page, RIG_HALF, page), 0);
    rig_evict_all(&f->rig);
}

static void expect_pages(struct fixture *f, unsigned to)
{
    for (unsigned page = 0; page < to; page++)
        rig_expect_page(&f->rig, page, RIG_HALF, page);
}

static void wait_whole(struct fixture *f)
{
    rig_wait(&f->rig, has_both, f);
    rig_wait(&f->rig, is_told, f);
}

/* ---- */

static void test_what_was_put_to_one_gets_the_other(void **state)
{
    struct fixture *f = *state;

    rig_wait(&f->rig, is_up, f);
    write_pages(f, 0, PAGES / 2);
    wait_whole(f);
    server_freeze(&f->servers[0]);
    write_pages(f, PAGES / 2, PAGES);
    assert_true(rows_with(f, 2) > 5);
    assert_false(is_told(&f->rig, f)); /* at once: whoever takes a donor away relies on it */
    server_thaw(&f->servers[0]);
    wait_whole(f);
    assert_true(rig_stat(&f->rig, FSW_STAT_COPIES_REPAIRED) > 5);
    server_kill(&f->servers[1]);
    expect_pages(f, PAGES);
    assert_int_equal(rig_stat(&f->rig, FSW_STAT_CORRUPT_PAGES), 0);
}

static int is_one_like_any_other(struct rig *rig, void *opaque)
{
    return health_of(opaque).emptied == 0;
}

/* Really, whatever the rows say. */
static int second_has_all(struct rig *rig, void *opaque)
{
    struct fixture *f = opaque;

    return server_ask(&f->servers[1], "DBSIZE") > (long long)rig_stat(rig, FSW_STAT_SEGMENTS);
}

static void expect_all_at_the_second(struct fixture *f)
{
    rig_wait(&f->rig, second_has_all, f);
    wait_whole(f);
    server_kill(&f->servers[0]);
    expect_pages(f, PAGES);
}

/* One donor is replaced by an empty one, and then the other is lost for good. The next server relies
 * on it, too: it does not begin by forgetting what was put there. */
static void test_an_emptied_one_gets_everything(void **state)
{
    struct fixture *f = *state;

    rig_wait(&f->rig, is_up, f);
    write_pages(f, 0, PAGES);
    wait_whole(f);
    server_kill(&f->servers[1]);
    server_restart(&f->servers[1]);
    rig_wait(&f->rig, is_up, f);
    rig_wait(&f->rig, second_has_all, f);
    wait_whole(f);
    rig_wait(&f->rig, is_one_like_any_other, f);
    assert_true(rig_stat(&f->rig, FSW_STAT_COPIES_REPAIRED) >=
                rig_stat(&f->rig, FSW_STAT_SEGMENTS));
    handover_let_go(&f->rig);
    server_kill(&f->servers[0]);
    f->store = open_store(f);
    handover_take(&f->rig, &f->params, f->store);
    expect_pages(f, PAGES);
    assert_int_equal(rows_with(f, 2) + rows_with(f, 1), 0);
}

static int second_was_emptied(struct rig *rig, void *opaque)
{
    return health_of(opaque).emptied == 2;
}

/* One that alone had something is waited for, until nobody needs that any more. */
static void test_an_emptied_one_is_waited_for_as_long_as_needed(void **state)
{
    struct fixture *f = *state;

    rig_wait(&f->rig, is_up, f);
    server_freeze(&f->servers[0]);
    write_pages(f, 0, PAGES);
    assert_true(rows_with(f, 2) > 5);
    server_kill(&f->servers[1]);
    server_restart(&f->servers[1]);
    server_thaw(&f->servers[0]);
    rig_wait(&f->rig, is_up, f);
    rig_wait(&f->rig, second_was_emptied, f);
    usleep(1500000); /* repair looks once a second */
    assert_true(second_was_emptied(&f->rig, f));
    assert_int_equal(fsw_device_discard(f->rig.device, 0, 4096 * FSW_PAGE_SIZE), 0);
    rig_wait(&f->rig, is_one_like_any_other, f);
    write_pages(f, 0, PAGES);
    wait_whole(f);
    server_kill(&f->servers[0]);
    expect_pages(f, PAGES);
}

static int is_at_the_other(struct rig *rig, void *opaque)
{
    return rows_with(opaque, 3) > 5;
}

/* What a Redis has saved, it has again when it is started; or it is put aside. */
static void move_saved(const struct server *server, int aside)
{
    char saved[128], kept[128];

    snprintf(saved, sizeof saved, "%s/dump.rdb", server->dir);
    snprintf(kept, sizeof kept, "%s/kept.rdb", server->dir);
    assert_int_equal(aside ? rename(saved, kept) : rename(kept, saved), 0);
}

/* Segments that only the second has; it is replaced by an empty one, and more are put. */
static void put_while_the_second_is_another(struct fixture *f)
{
    rig_wait(&f->rig, is_up, f);
    server_freeze(&f->servers[0]);
    write_pages(f, 0, PAGES / 2);
    assert_true(rows_with(f, 2) > 5);
    freeReplyObject(server_command(&f->servers[1], "SAVE"));
    server_kill(&f->servers[1]);
    server_thaw(&f->servers[0]);
    move_saved(&f->servers[1], 1);
    server_restart(&f->servers[1]);
    rig_wait(&f->rig, second_was_emptied, f);
    rig_wait(&f->rig, is_up, f);
    write_pages(f, PAGES / 2, PAGES);
    rig_wait(&f->rig, is_at_the_other, f);
}

static void bring_the_second_back(struct fixture *f)
{
    server_kill(&f->servers[1]);
    move_saved(&f->servers[1], 0);
    server_restart(&f->servers[1]);
}

/* It comes back with what it had, and so without what the other one got. */
static void test_one_that_returns_gets_what_it_missed(void **state)
{
    struct fixture *f = *state;

    put_while_the_second_is_another(f);
    bring_the_second_back(f);
    expect_all_at_the_second(f);
}

/* The same while nobody serves. */
static void test_one_that_returned_unseen_gets_what_it_missed(void **state)
{
    struct fixture *f = *state;

    put_while_the_second_is_another(f);
    handover_let_go(&f->rig);
    bring_the_second_back(f);
    f->store = open_store(f);
    handover_take(&f->rig, &f->params, f->store);
    expect_all_at_the_second(f);
}

/* One goes while nothing is written, and somebody says that it will not come back. Another takes its place. */
static void test_one_that_was_declared_lost_gets_everything(void **state)
{
    struct fixture *f = *state;
    struct fsw_image *image = &f->rig.device->image;

    rig_wait(&f->rig, is_up, f);
    write_pages(f, 0, PAGES);
    wait_whole(f);
    server_kill(&f->servers[1]);
    rig_wait(&f->rig, is_half_up, f);
    atomic_fetch_or(&image->super->lost_asked, 2);
    assert_int_equal(fsw_image_await_lost(image, 60 * FSW_NS_PER_S), 0);
    assert_int_equal(rows_with(f, 3), 0);
    assert_false(is_told(&f->rig, f)); /* at once: now the other is the last */
    server_restart(&f->servers[1]);
    wait_whole(f);
    server_kill(&f->servers[0]);
    expect_pages(f, PAGES);
}

/* What a row says outlives its server, and so does what is to be done. */
static void test_the_next_server_goes_on(void **state)
{
    struct fixture *f = *state;

    rig_wait(&f->rig, is_up, f);
    server_freeze(&f->servers[1]);
    write_pages(f, 0, PAGES);
    assert_true(rows_with(f, 1) > 5);
    handover_let_go(&f->rig);
    server_thaw(&f->servers[1]);
    f->store = open_store(f);
    handover_take(&f->rig, &f->params, f->store);
    wait_whole(f);
    server_kill(&f->servers[0]);
    expect_pages(f, PAGES);
}

/* In rows that were not there before: nobody says that all have both. */
static void test_what_comes_as_a_lap_begins_is_not_missed(void **state)
{
    struct fixture *f = *state;

    rig_wait(&f->rig, is_up, f);
    write_pages(f, 0, PAGES / 2);
    wait_whole(f);
    server_kill(&f->servers[1]);
    rig_wait(&f->rig, is_half_up, f);
    hold_looks(f);
    next_look();
    fsw_repair_want(f->rig.device);
    look_on();
    next_look(); /* the lap's */
    write_pages(f, PAGES / 2, PAGES);
    assert_true(rows_with(f, 1) > 5);
    look_on();
    next_look(); /* the lap has ended */
    assert_int_equal(rig_stat(&f->rig, FSW_STAT_SEGMENTS_LACKING), rows_with(f, 1));
    let_looks_go();
}

static int is_emptied(struct rig *rig, void *opaque)
{
    return !is_one_like_any_other(rig, opaque);
}

static void empty_one(struct fixture *f)
{
    server_kill(&f->servers[1]);
    server_restart(&f->servers[1]);
    rig_wait(&f->rig, is_emptied, f);
}

/* Between two looks a store is emptied, taken as it is, given something, and emptied again. */
static void test_one_that_is_emptied_twice_gets_everything(void **state)
{
    struct fixture *f = *state;

    rig_wait(&f->rig, is_up, f);
    write_pages(f, 0, PAGES / 2);
    wait_whole(f);
    hold_looks(f);
    next_look();
    empty_one(f);
    look_on();
    next_look();
    rig_wait(&f->rig, is_one_like_any_other, f);
    do { /* it is planted on a connection of its own */
        rig_wait(&f->rig, is_up, f);
        write_pages(f, PAGES / 2, PAGES);
    } while (rows_with(f, 3) <= 5);
    empty_one(f);
    let_looks_go();
    expect_all_at_the_second(f);
}

static int is_adopted(struct rig *rig, void *opaque)
{
    return atomic_load(&rig->device->losses) != held_put.losses;
}

/* It acknowledged a put and was emptied, and only then the put's row is LIVE. */
static void test_what_an_emptied_one_acknowledged_is_put_again(void **state)
{
    struct fixture *f = *state;
    struct fsw_device *device = f->rig.device;

    rig_wait(&f->rig, is_up, f);
    for (unsigned page = 0; page < PAGES; page++)
        assert_int_equal(rig_write_page(&f->rig, page, RIG_HALF, page), 0);
    sem_init(&held_put.came, 0, 0);
    sem_init(&held_put.go, 0, 0);
    held_put.losses = atomic_load(&device->losses);
    atomic_store(&held_put.holds, 1);
    device->hook = hold_put; /* seen by who evicts from now on */
    rig_evict(&f->rig, 1);
    while (sem_wait(&held_put.came) < 0)
        ;
    server_kill(&f->servers[1]);
    server_restart(&f->servers[1]);
    rig_wait(&f->rig, is_adopted, f);
    let_put_go();
    rig_evict_all(&f->rig);
    expect_all_at_the_second(f);
}

static uint64_t gets_before;

static uint64_t looks_of(struct fixture *f)
{
    struct fsw_store_health health;

    f->store->ops->health(f->store, &health);
    return health.gets;
}

static int has_looked_thrice(struct rig *rig, void *opaque)
{
    return looks_of(opaque) >= gets_before + 3;
}

/* A copy that is damaged is not multiplied. */
static void test_a_damaged_segment_is_not_copied(void **state)
{
    struct fixture *f = *state;
    const struct fsw_device_id *device = fsw_device_id(f->rig.device);
    uint8_t bytes[FSW_SEGMENT_BYTES];
    char key[FSW_KEY_TEXT];

    rig_wait(&f->rig, is_up, f);
    server_kill(&f->servers[1]);
    rig_wait(&f->rig, is_half_up, f); /* or the put would still be waiting for it */
    write_pages(f, 0, 20);
    assert_int_equal(rows_with(f, 1), 1);
    uint64_t id = fsw_row_id(&f->rig.device->image, fsw_entry_row(*rig_entry(&f->rig, 0)));
    uint32_t length = place_look(&f->place, 0, device, id, bytes);
    bytes[length - 100] ^= 1;
    place_forge(&f->place, 0, device, id, bytes, length);
    server_restart(&f->servers[1]);
    rig_wait(&f->rig, is_up, f);
    gets_before = looks_of(f);
    rig_wait(&f->rig, has_looked_thrice, f);
    fsw_key_segment(key, device, id);
    assert_int_equal(server_ask(&f->servers[1], "EXISTS %s", key), 0);
    assert_int_equal(rows_with(f, 1), 1);
    bytes[length - 100] ^= 1;
    place_forge(&f->place, 0, device, id, bytes, length);
    wait_whole(f);
    expect_pages(f, 20);
}

/* Of two donors one lies, and nothing is encrypted: the object's checksum tells, the other is asked. */
static void test_a_page_that_one_has_damaged(void **state)
{
    struct fixture *f = *state;
    const struct fsw_device_id *device = fsw_device_id(f->rig.device);
    uint8_t bytes[FSW_SEGMENT_BYTES];

    rig_wait(&f->rig, is_up, f);
    write_pages(f, 0, PAGES);
    wait_whole(f);
    for (uint32_t row = 1; row < atomic_load(&f->rig.device->image.super->rows_top); row++) {
        uint64_t id = fsw_row_id(&f->rig.device->image, row);
        if (fsw_row_state(&f->rig.device->image, row) != FSW_ROW_LIVE)
            continue;
        uint32_t length = place_look(&f->place, row % 2, device, id, bytes);
        for (uint32_t i = 0; i < length; i += 64)
            bytes[i] ^= 0x40;
        place_forge(&f->place, row % 2, device, id, bytes, length);
    }
    expect_pages(f, PAGES);
    assert_int_equal(rig_stat(&f->rig, FSW_STAT_FAILED_READS), 0);
}

static int run_all(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_what_was_put_to_one_gets_the_other, setup, teardown),
        cmocka_unit_test_setup_teardown(test_an_emptied_one_gets_everything, setup, teardown),
        cmocka_unit_test_setup_teardown(test_one_that_returns_gets_what_it_missed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_one_that_returned_unseen_gets_what_it_missed, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_an_emptied_one_is_waited_for_as_long_as_needed, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_one_that_was_declared_lost_gets_everything, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_the_next_server_goes_on, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_comes_as_a_lap_begins_is_not_missed, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_one_that_is_emptied_twice_gets_everything, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_what_an_emptied_one_acknowledged_is_put_again, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_damaged_segment_is_not_copied, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_page_that_one_has_damaged, setup, teardown),
    };

    place_choose(&chosen, arguments, argument);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(int argc, char **argv)
{
    arguments = argc;
    argument = argv;
    return rig_main(run_all);
}

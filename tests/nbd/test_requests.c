/*
 * test_requests.c: requests as front doors with a socket of their own make them: those that may not
 * wait, that are begun and left, that wait in batches, and whose client may be gone.
 */
#include "rig.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"

#define MIB(n) ((uint64_t)(n) << 20)
#define PAGE FSW_PAGE_SIZE

static char page_bytes[PAGE], expected[PAGE];

static struct fsw_io page_io(enum fsw_verb verb, uint64_t page, void *bytes)
{
    return (struct fsw_io){
        .verb = verb, .result = 1, .bytes = bytes, .offset = page * PAGE, .length = PAGE};
}

static int run(struct rig *rig, struct fsw_io io)
{
    fsw_device_do(rig->device, &io);
    return io.result;
}

/* ---- may not wait ---- */

static void who_may_not_wait_for_the_store_does_not(void **state)
{
    struct rig rig;

    rig_open(&rig, &(struct rig_options){.size = MIB(4), .memory = MIB(8), .with_store = 1});
    assert_int_equal(rig_write_page(&rig, 3, RIG_TEXT, 3), 0);
    rig_evict_all(&rig);
    rig_evict(&rig, 0);
    assert_int_equal(rig_write_page(&rig, 4, RIG_TEXT, 4), 0);
    teststore_hold(rig.store, TESTSTORE_GETS);

    struct fsw_io io = page_io(FSW_READ, 3, page_bytes);
    io.flags = FSW_IO_NOWAIT;
    assert_int_equal(run(&rig, io), -EAGAIN);
    io.length = 100;
    assert_int_equal(run(&rig, io), -EAGAIN);
    io.verb = FSW_WRITE;
    assert_int_equal(run(&rig, io), -EAGAIN);
    io.verb = FSW_ZERO;
    assert_int_equal(run(&rig, io), -EAGAIN);
    io = page_io(FSW_READ, 4, page_bytes);
    io.flags = FSW_IO_NOWAIT;
    assert_int_equal(run(&rig, io), 0);
    rig_fill(expected, RIG_TEXT, 4);
    assert_memory_equal(page_bytes, expected, PAGE);
    assert_int_equal(rig_stat(&rig, FSW_STAT_READS), 1); /* those that were put off don't count */
    assert_int_equal(rig_stat(&rig, FSW_STAT_FAILED_READS), 0);
    assert_int_equal(teststore_gets(rig.store), 0);

    teststore_release(rig.store, TESTSTORE_GETS);
    rig_expect_page(&rig, 3, RIG_TEXT, 3);
    rig_close(&rig);
}

/* Fills the pool with noise until a page finds no room. */
static uint64_t fill_up(struct rig *rig, unsigned flags, int *ret_result)
{
    for (uint64_t page = 0;; page++) {
        rig_fill(page_bytes, RIG_NOISE, page);
        struct fsw_io io = page_io(FSW_WRITE, page, page_bytes);
        io.flags = flags;
        fsw_device_do(rig->device, &io);
        if (io.result != 0) {
            *ret_result = io.result;
            return page;
        }
    }
}

static void who_may_not_wait_for_space_does_not(void **state)
{
    struct rig rig;
    int r;

    rig_open(&rig, &(struct rig_options){.size = MIB(16), .memory = MIB(2), .with_store = 1});
    teststore_hold(rig.store, TESTSTORE_PUTS);
    uint64_t page = fill_up(&rig, FSW_IO_NOWAIT, &r);
    assert_int_equal(r, -EAGAIN);
    assert_int_equal(rig_stat(&rig, FSW_STAT_WRITE_STALLS), 0);
    assert_int_equal(rig_stat(&rig, FSW_STAT_NO_SPACE), 0);
    assert_int_equal(rig_stat(&rig, FSW_STAT_WRITES), page);

    /* With a deadline, it waits until then; a busy machine may miss that a few times. */
    uint64_t least = UINT64_MAX, end = fsw_now_ns() + 60 * FSW_NS_PER_S;
    while (least > FSW_WRITE_WAIT_NS / 2 && fsw_now_ns() < end) {
        struct fsw_io io = page_io(FSW_WRITE, page, page_bytes);
        uint64_t start = fsw_now_ns();
        io.deadline = start + FSW_WRITE_WAIT_NS / 5;
        assert_int_equal(run(&rig, io), -ENOSPC);
        uint64_t took = fsw_now_ns() - start;
        assert_true(took >= FSW_WRITE_WAIT_NS / 6);
        least = took < least ? took : least;
    }
    assert_true(least <= FSW_WRITE_WAIT_NS / 2);
    teststore_release(rig.store, TESTSTORE_PUTS);
    rig_close(&rig);
}

/* ---- begun and left ---- */

#define BEGUN 8u
#define EACH MIB(1)

static _Atomic unsigned ended;

static void count_ended(struct fsw_io *io)
{
    atomic_fetch_add(&ended, 1);
}

/* Eight large requests at once; the thread that began them helps, or not. */
static void begin_all(struct rig *rig, struct fsw_io *ios, enum fsw_verb verb, char *bytes,
                      int helps)
{
    atomic_store(&ended, 0);
    for (unsigned i = 0; i < BEGUN; i++) {
        ios[i] = (struct fsw_io){.verb = verb,
                                 .result = 1,
                                 .bytes = bytes + i * EACH,
                                 .offset = i * EACH + 100,
                                 .length = EACH - 37,
                                 .done = count_ended};
        assert_true(fsw_device_is_large(&ios[i]) || verb == FSW_DISCARD);
        fsw_device_begin(rig->device, &ios[i]);
    }
    uint64_t deadline = fsw_now_ns() + 60 * FSW_NS_PER_S;
    while (atomic_load(&ended) < BEGUN) {
        for (unsigned i = 0; helps && i < BEGUN; i++)
            fsw_device_help(rig->device, &ios[i]);
        assert_true(fsw_now_ns() < deadline);
        sched_yield();
    }
    for (unsigned i = 0; i < BEGUN; i++) {
        assert_int_equal(ios[i].result, 0);
        assert_int_equal(fsw_device_help(rig->device, &ios[i]), 0); /* it has ended */
    }
}

static void begun_requests_end_once_and_are_right(void **state)
{
    static const unsigned members[] = {0, 1, 5};
    char *bytes = malloc(BEGUN * EACH), *got = malloc(BEGUN * EACH);
    struct fsw_io ios[BEGUN];

    for (unsigned i = 0; i < BEGUN * EACH / PAGE; i++)
        rig_fill(bytes + i * PAGE, RIG_TEXT, i);
    for (unsigned i = 0; i < 3; i++) {
        struct rig rig;
        rig_open(&rig, &(struct rig_options){.size = MIB(16), .memory = MIB(24)});
        fsw_keeper_stop(rig.device); /* it would have as many work as there are CPUs */
        fsw_crew_stop(&rig.device->crew);
        memset(&rig.device->crew, 0, sizeof rig.device->crew);
        assert_int_equal(fsw_crew_start(&rig.device->crew, members[i]), 0);
        begin_all(&rig, ios, FSW_WRITE, bytes, 1);
        memset(got, 0, BEGUN * EACH);
        begin_all(&rig, ios, FSW_READ, got, members[i] == 0);
        for (unsigned k = 0; k < BEGUN; k++)
            assert_memory_equal(got + k * EACH, bytes + k * EACH, EACH - 37);
        assert_int_equal(rig_stat(&rig, FSW_STAT_WRITES), BEGUN);
        assert_int_equal(rig_stat(&rig, FSW_STAT_READS), BEGUN);
        rig_close(&rig);
    }
    free(bytes);
    free(got);
}

static void a_begun_request_that_is_wrong_ends_as_well(void **state)
{
    struct rig rig;
    struct fsw_io io = {.verb = FSW_READ, .offset = MIB(4), .length = MIB(1), .done = count_ended};

    rig_open(&rig, &(struct rig_options){.size = MIB(4), .memory = MIB(4)});
    atomic_store(&ended, 0);
    fsw_device_begin(rig.device, &io);
    assert_int_equal(atomic_load(&ended), 1);
    assert_int_equal(io.result, -EINVAL);
    rig_close(&rig);
}

/* ---- reads that wait together ---- */

static char many[FSW_FETCH_BATCH * PAGE];
static struct fsw_io waiting[4];

static void *read_waiting(void *opaque)
{
    struct rig *rig = opaque;

    for (unsigned i = 0; i < 4; i++)
        waiting[i] = (struct fsw_io){.verb = FSW_READ,
                                     .result = 1,
                                     .bytes = many + 4 * i * PAGE,
                                     .offset = 4 * i * PAGE,
                                     .length = 4 * PAGE};
    fsw_device_read_pages(rig->device, waiting, 4);
    return NULL;
}

/* Even pages are in the store, odd ones local. Each page is a get of its own. */
static void open_mixed(struct rig *rig)
{
    rig_open(rig,
             &(struct rig_options){
                 .size = MIB(4), .memory = MIB(8), .with_store = 1, .prefetch = FSW_PREFETCH_OFF});
    for (uint64_t page = 0; page < 16; page += 2)
        assert_int_equal(rig_write_page(rig, page, RIG_TEXT, page), 0);
    rig_evict_all(rig);
    rig_evict(rig, 0);
    for (uint64_t page = 1; page < 16; page += 2)
        assert_int_equal(rig_write_page(rig, page, RIG_TEXT, page), 0);
}

static void reads_that_wait_are_one_batch_and_as_new_as_its_end(void **state)
{
    struct rig rig;
    pthread_t reader;

    open_mixed(&rig);
    teststore_hold(rig.store, TESTSTORE_GETS);
    pthread_create(&reader, NULL, read_waiting, &rig);
    teststore_wait_held(rig.store, TESTSTORE_GETS, 8);
    assert_int_equal(rig_write_page(&rig, 2, RIG_HALF, 102), 0); /* its fetch is on its way */
    assert_int_equal(rig_write_page(&rig, 5, RIG_HALF, 105), 0); /* was read before the wait */
    teststore_release(rig.store, TESTSTORE_GETS);
    pthread_join(reader, NULL);
    for (uint64_t page = 0; page < 16; page++) {
        int changed = page == 2 || page == 5;
        rig_fill(expected, changed ? RIG_HALF : RIG_TEXT, changed ? 100 + page : page);
        assert_memory_equal(many + page * PAGE, expected, PAGE);
    }
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(waiting[i].result, 0);
        assert_true(waiting[i].flags & FSW_IO_FRESH);
    }
    rig_close(&rig);
}

static int in_store(struct rig *rig, void *opaque)
{
    return fsw_entry_state(fsw_entry_load(rig_entry(rig, *(uint64_t *)opaque))) == FSW_STORE;
}

static void a_page_that_leaves_during_the_wait_is_not_called_fresh(void **state)
{
    struct rig rig;
    pthread_t reader;
    uint64_t seven = 7;

    open_mixed(&rig);
    teststore_hold(rig.store, TESTSTORE_GETS);
    pthread_create(&reader, NULL, read_waiting, &rig);
    teststore_wait_held(rig.store, TESTSTORE_GETS, 8);
    rig_evict(&rig, 1);
    rig_wait(&rig, in_store, &seven);
    teststore_release(rig.store, TESTSTORE_GETS);
    pthread_join(reader, NULL);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(waiting[i].result, 0);
    assert_false(waiting[1].flags & FSW_IO_FRESH);
    for (uint64_t page = 0; page < 16; page++) {
        rig_fill(expected, RIG_TEXT, page);
        assert_memory_equal(many + page * PAGE, expected, PAGE);
    }
    rig_close(&rig);
}

static void a_lost_page_fails_its_own_request_only(void **state)
{
    struct rig rig;

    open_mixed(&rig);
    teststore_answer(rig.store, TESTSTORE_GETS, FSW_STORE_GONE, 1, 0);
    read_waiting(&rig);
    unsigned failed = 0;
    for (unsigned i = 0; i < 4; i++)
        failed += waiting[i].result == -EIO;
    assert_int_equal(failed, 1);
    rig_close(&rig);
}

/* ---- clients that are gone ---- */

struct client {
    struct fsw_peer peer;
    int hung_up; /* what a look would find */
    unsigned looks;
};

static int look(struct fsw_peer *peer)
{
    struct client *client = (struct client *)peer;

    client->looks++;
    return client->hung_up;
}

static struct client client_new(void)
{
    return (struct client){.peer = {.looked_at = fsw_now_coarse_ns(), .is_gone = look}};
}

/* What happens while a mutation of the old client stands at a hook. */
struct stall {
    struct rig *rig;
    enum fsw_hook at;
    struct client *old;
    enum how { FENCED, HUNG_UP } how;
    int rewrites; /* a newer client writes the page before that */
    int done;
};

static void stalled(enum fsw_hook at, void *opaque)
{
    struct stall *stall = opaque;

    if (at != stall->at || stall->done)
        return;
    stall->done = 1;
    if (stall->rewrites) {
        struct client newer = client_new();
        char bytes[PAGE];
        rig_fill(bytes, RIG_HALF, 999);
        struct fsw_io io = page_io(FSW_WRITE, 5, bytes);
        io.peer = &newer.peer;
        assert_int_equal(run(stall->rig, io), 0);
    }
    if (stall->how == FENCED) {
        atomic_store(&stall->old->peer.gone, 1);
    } else {
        stall->old->hung_up = 1;
        atomic_store(&stall->old->peer.looked_at, 0); /* as if 250 ms had passed */
    }
}

/* A mutation of page 5 is held up at `at`; meanwhile its client goes. Nothing of it may be seen. */
static void held_up(enum fsw_hook at, enum how how, struct fsw_io late)
{
    struct rig rig;
    struct client old = client_new();
    struct stall stall = {
        .rig = &rig, .at = at, .old = &old, .how = how, .rewrites = at == FSW_HOOK_PUBLISH};

    rig_open(&rig, &(struct rig_options){.size = MIB(4), .memory = MIB(8)});
    assert_int_equal(rig_write_page(&rig, 5, RIG_TEXT, 5), 0);
    rig.device->hook_opaque = &stall;
    rig.device->hook = stalled;
    late.peer = &old.peer;
    assert_int_equal(run(&rig, late), -ECANCELED);
    assert_true(stall.done);
    rig.device->hook = NULL;
    assert_int_equal(rig_stat(&rig, FSW_STAT_LATE_WRITES), 1);
    assert_int_equal(atomic_load(&old.peer.gone), 1);
    if (stall.rewrites)
        rig_expect_page(&rig, 5, RIG_HALF, 999);
    else
        rig_expect_page(&rig, 5, RIG_TEXT, 5);
    assert_int_equal(run(&rig, late), -ECANCELED); /* and for good */
    rig_close(&rig);
}

static void a_late_mutation_undoes_nothing(void **state)
{
    char bytes[PAGE];
    rig_fill(bytes, RIG_TEXT, 77);
    struct fsw_io part = page_io(FSW_WRITE, 5, bytes), zero = page_io(FSW_ZERO, 5, NULL);

    part.offset += 100;
    part.length = 50;
    for (int how = FENCED; how <= HUNG_UP; how++)
        for (int at = FSW_HOOK_PUBLISH; at <= FSW_HOOK_LOCKED; at++) {
            held_up((enum fsw_hook)at, (enum how)how, page_io(FSW_WRITE, 5, bytes));
            held_up((enum fsw_hook)at, (enum how)how, page_io(FSW_DISCARD, 5, NULL));
            held_up((enum fsw_hook)at, (enum how)how, zero);
            if (at == FSW_HOOK_LOCKED)
                held_up((enum fsw_hook)at, (enum how)how, part);
        }
}

/* Writes twice, the last look being so old: how many looks that took. Again, if it took so long that there
 * had to be more. */
static unsigned looks_of_two_writes(struct rig *rig, struct client *client, unsigned ms_old)
{
    uint64_t start;
    char bytes[PAGE];

    rig_fill(bytes, RIG_TEXT, 1);
    struct fsw_io io = page_io(FSW_WRITE, 1, bytes);
    io.peer = &client->peer;
    do {
        start = fsw_now_ns();
        client->looks = 0;
        atomic_store(&client->peer.looked_at, fsw_now_coarse_ns() - ms_old * FSW_NS_PER_MS);
        assert_int_equal(run(rig, io), 0);
        assert_int_equal(run(rig, io), 0);
    } while (fsw_now_ns() - start > 200 * FSW_NS_PER_MS);
    return client->looks;
}

static void a_client_is_looked_at_when_the_last_look_is_old(void **state)
{
    struct rig rig;
    struct client client = client_new();
    char bytes[PAGE];
    uint64_t start;
    int r;

    rig_fill(bytes, RIG_TEXT, 1);
    struct fsw_io io = page_io(FSW_WRITE, 1, bytes);
    io.peer = &client.peer;
    rig_open(&rig, &(struct rig_options){.size = MIB(4), .memory = MIB(8)});
    assert_int_equal(looks_of_two_writes(&rig, &client, 0), 0);
    assert_int_equal(looks_of_two_writes(&rig, &client, 300), 1);
    do { /* what no look has found is not known */
        client = client_new();
        client.hung_up = 1;
        start = fsw_now_ns();
        r = run(&rig, io);
    } while (r == -ECANCELED && fsw_now_ns() - start > 200 * FSW_NS_PER_MS);
    assert_int_equal(r, 0);
    atomic_store(&client.peer.looked_at, 0);
    assert_int_equal(run(&rig, io), -ECANCELED);
    rig_close(&rig);
}

/* ---- a look in the other direction: nothing newer comes between look and publish ---- */

#define WRITERS 4u
#define TURNS 2000u

struct turn {
    struct rig *rig;
    _Atomic uint64_t fence; /* clients below this number are fenced */
    struct client clients[TURNS];
    _Atomic int wrong;
};

static struct turn turn;

/* Writes its number with client after client, each of which may be fenced meanwhile. */
static void *write_late(void *opaque)
{
    char bytes[PAGE];

    rig_fill(bytes, RIG_TEXT, 1);
    for (uint64_t i = 0; i < TURNS; i++) {
        memcpy(bytes, &i, sizeof i);
        struct fsw_io io = page_io(FSW_WRITE, 9, bytes);
        io.peer = &turn.clients[i].peer;
        fsw_device_do(turn.rig->device, &io);
        if (io.result != 0 && io.result != -ECANCELED)
            atomic_store(&turn.wrong, 1);
    }
    return NULL;
}

/* Fences clients in order; once one is, its number must not appear any more. */
static void *fence_and_read(void *opaque)
{
    char bytes[PAGE];
    uint64_t number;

    for (uint64_t i = 0; i < TURNS; i++) {
        atomic_store(&turn.clients[i].peer.gone, 1);
        struct fsw_io io = page_io(FSW_WRITE, 9, bytes);
        rig_fill(bytes, RIG_TEXT, 1);
        number = TURNS + i;
        memcpy(bytes, &number, sizeof number);
        fsw_device_do(turn.rig->device, &io); /* nobody's: as if sent again */
        io.verb = FSW_READ;
        fsw_device_do(turn.rig->device, &io);
        memcpy(&number, bytes, sizeof number);
        if (number <= i)
            atomic_store(&turn.wrong, 1);
    }
    return NULL;
}

static void no_write_of_a_fenced_client_comes_after_a_newer_one(void **state)
{
    struct rig rig;
    pthread_t writers[WRITERS], reader;

    rig_open(&rig, &(struct rig_options){.size = MIB(4), .memory = MIB(8)});
    turn.rig = &rig;
    for (unsigned i = 0; i < TURNS; i++)
        turn.clients[i] = client_new();
    for (unsigned i = 0; i < WRITERS; i++)
        pthread_create(&writers[i], NULL, write_late, NULL);
    pthread_create(&reader, NULL, fence_and_read, NULL);
    pthread_join(reader, NULL);
    for (unsigned i = 0; i < WRITERS; i++)
        pthread_join(writers[i], NULL);
    assert_int_equal(turn.wrong, 0);
    rig_close(&rig);
}

/* ---- hints ---- */

/* What could change if a hint were more than that. (The reserve is filled meanwhile.) */
static const enum fsw_stat hinted[] = {
    FSW_STAT_TABLE_LEAVES, FSW_STAT_READS,      FSW_STAT_WRITES,          FSW_STAT_FAILED_READS,
    FSW_STAT_PAGES_POOL,   FSW_STAT_PAGES_SAME, FSW_STAT_PAGES_STORE,     FSW_STAT_CORRUPT_PAGES,
    FSW_STAT_POOL_FRAMES,  FSW_STAT_SEGMENTS,   FSW_STAT_COMPR_DATA_SIZE,
};
static uint64_t stats_before[FSW_STAT_COUNT], stats_after[FSW_STAT_COUNT];

static void a_hint_has_no_effect_that_could_be_seen(void **state)
{
    struct rig rig;

    rig_open(&rig, &(struct rig_options){.size = MIB(64), .memory = MIB(32), .with_store = 1});
    assert_int_equal(rig_write_page(&rig, 3, RIG_TEXT, 3), 0);
    rig_evict_all(&rig);
    rig_evict(&rig, 0);
    assert_int_equal(rig_write_page(&rig, 4, RIG_TEXT, 4), 0);
    assert_int_equal(rig_write_page(&rig, 5, RIG_SAME32, 5), 0);
    fsw_device_stats(rig.device, stats_before);
    for (enum fsw_verb verb = FSW_READ; verb <= FSW_FLUSH; verb++)
        for (uint64_t offset = 0; offset < MIB(65); offset += PAGE / 2) {
            struct fsw_io io = {.verb = verb, .offset = offset};
            fsw_device_expect_later(rig.device, &io);
            fsw_device_expect(rig.device, &io);
        }
    fsw_device_expect(rig.device, &(struct fsw_io){.offset = UINT64_MAX});
    fsw_device_expect_later(rig.device, &(struct fsw_io){.offset = UINT64_MAX});
    fsw_device_stats(rig.device, stats_after);
    assert_int_equal(stats_before[FSW_STAT_TABLE_LEAVES], 1);
    for (unsigned i = 0; i < sizeof hinted / sizeof hinted[0]; i++)
        assert_int_equal(stats_after[hinted[i]], stats_before[hinted[i]]);
    assert_int_equal(teststore_gets(rig.store), 0);
    for (uint64_t page = 3; page <= 5; page++)
        rig_expect_page(&rig, page, page == 5 ? RIG_SAME32 : RIG_TEXT, page);
    rig_close(&rig);
}

RIG_MAIN(cmocka_unit_test(a_hint_has_no_effect_that_could_be_seen),
         cmocka_unit_test(who_may_not_wait_for_the_store_does_not),
         cmocka_unit_test(who_may_not_wait_for_space_does_not),
         cmocka_unit_test(begun_requests_end_once_and_are_right),
         cmocka_unit_test(a_begun_request_that_is_wrong_ends_as_well),
         cmocka_unit_test(reads_that_wait_are_one_batch_and_as_new_as_its_end),
         cmocka_unit_test(a_page_that_leaves_during_the_wait_is_not_called_fresh),
         cmocka_unit_test(a_lost_page_fails_its_own_request_only),
         cmocka_unit_test(a_late_mutation_undoes_nothing),
         cmocka_unit_test(a_client_is_looked_at_when_the_last_look_is_old),
         cmocka_unit_test(no_write_of_a_fenced_client_comes_after_a_newer_one))

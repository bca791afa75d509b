/*
 * test_crew.c: jobs that many threads work on, large requests and batches. Each thread has a region
 * of the device to itself, compared with an array; what a request does to its neighbours shows at
 * the regions' borders.
 */
#include "rig.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CALLERS 4u
#define MIB(n) ((uint64_t)(n) << 20)

/* ---- the CPUs, as sysconf() tells the engine ---- */

static _Atomic long cpus_possible, cpus_online; /* 0: as many as there are */

long __real_sysconf(int name);
long __wrap_sysconf(int name);

long __wrap_sysconf(int name)
{
    long told = name == _SC_NPROCESSORS_CONF   ? atomic_load(&cpus_possible)
                : name == _SC_NPROCESSORS_ONLN ? atomic_load(&cpus_online)
                                               : 0;
    return told != 0 ? told : __real_sysconf(name);
}

static void have_cpus(long possible, long online)
{
    atomic_store(&cpus_possible, possible);
    atomic_store(&cpus_online, online);
}

/* ---- the crew by itself ---- */

struct caller {
    struct fsw_crew *crew;
    _Atomic unsigned *parts;
    unsigned count, rounds, nested;
    _Atomic unsigned wrong;
};

static void run_inner(void *arg, unsigned part)
{
    atomic_fetch_add((_Atomic unsigned *)arg, 1);
}

static void run_outer(void *arg, unsigned part)
{
    struct caller *caller = arg;
    _Atomic unsigned inner = 0;

    if (part >= caller->count || atomic_fetch_add(&caller->parts[part], 1) != 0)
        atomic_fetch_add(&caller->wrong, 1);
    if (caller->nested) { /* as a batch with a large request in it */
        fsw_crew_run(caller->crew, run_inner, &inner, 5);
        if (atomic_load(&inner) != 5)
            atomic_fetch_add(&caller->wrong, 1);
    }
}

static void *call(void *opaque)
{
    struct caller *caller = opaque;

    for (unsigned round = 0; round < caller->rounds; round++) {
        caller->count = round % 40;
        for (unsigned i = 0; i < caller->count; i++)
            atomic_store(&caller->parts[i], 0);
        fsw_crew_run(caller->crew, run_outer, caller, caller->count);
        for (unsigned i = 0; i < caller->count; i++)
            if (atomic_load(&caller->parts[i]) != 1)
                atomic_fetch_add(&caller->wrong, 1);
    }
    return NULL;
}

static void cpus_come_and_go(struct fsw_crew *crew)
{
    uint64_t chance = rig_seed();

    for (unsigned i = 0; i < (RIG_SLOW ? 300 : 3000); i++) {
        fsw_crew_follow_cpus(crew, (unsigned)rig_below(&chance, FSW_CREW_MAX + 3));
        sched_yield();
    }
}

/* meanwhile: what is done to the crew while the callers go on. */
static void run_crew(unsigned members, void (*meanwhile)(struct fsw_crew *crew))
{
    struct fsw_crew crew = {0};
    struct caller callers[CALLERS];
    pthread_t threads[CALLERS];

    if (members > 0)
        assert_int_equal(fsw_crew_start(&crew, members), 0);
    for (unsigned i = 0; i < CALLERS; i++) {
        callers[i] = (struct caller){.crew = &crew,
                                     .parts = calloc(40, sizeof(unsigned)),
                                     .rounds = RIG_SLOW ? 500 : 3000,
                                     .nested = i % 2};
        pthread_create(&threads[i], NULL, call, &callers[i]);
    }
    if (meanwhile != NULL)
        meanwhile(&crew);
    for (unsigned i = 0; i < CALLERS; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(callers[i].wrong, 0);
        free((void *)callers[i].parts);
    }
    fsw_crew_stop(&crew); /* harmless if it was */
    assert_null(crew.jobs);
    assert_int_equal(crew.count, 0);
    assert_int_equal(crew.at_work, 0);
    assert_int_equal(atomic_load(&crew.idle), 0);
}

static void each_part_runs_once_whoever_is_idle(void **state)
{
    static const unsigned members[] = {0, 1, 3, FSW_CREW_MAX};

    for (unsigned i = 0; i < sizeof members / sizeof members[0]; i++)
        run_crew(members[i], NULL);
}

static void each_part_runs_once_while_cpus_come_and_go(void **state)
{
    run_crew(FSW_CREW_MAX, cpus_come_and_go);
}

static void a_crew_that_ends_under_load_leaves_no_part(void **state)
{
    for (unsigned round = 0; round < 5; round++)
        run_crew(1 + round * 3, fsw_crew_stop);
}

/* ---- as many as there are CPUs ---- */

#define MEMBERS 7u

struct gathering {
    struct fsw_crew *crew;
    _Atomic unsigned inside, most;
    unsigned wanted;
    _Atomic int met; /* so many were inside at once */
};

static _Thread_local int is_caller;

static void come_in(struct gathering *gathering)
{
    unsigned inside = atomic_fetch_add(&gathering->inside, 1) + 1;
    unsigned most = atomic_load(&gathering->most);

    while (inside > most && !atomic_compare_exchange_weak(&gathering->most, &most, inside))
        ;
    if (inside >= gathering->wanted)
        atomic_store(&gathering->met, 1);
}

/* Nobody leaves before all have come, or will not come. */
static void meet(void *arg, unsigned part)
{
    struct gathering *gathering = arg;
    uint64_t end = fsw_now_ns() + 60 * FSW_NS_PER_S;

    come_in(gathering);
    while (!atomic_load(&gathering->met) && fsw_now_ns() < end)
        sched_yield();
    atomic_fetch_sub(&gathering->inside, 1);
}

static void wait_idle(struct fsw_crew *crew)
{
    uint64_t end = fsw_now_ns() + 60 * FSW_NS_PER_S;

    while (atomic_load(&crew->idle) < MEMBERS) {
        assert_true(fsw_now_ns() < end);
        sched_yield();
    }
}

static void all_cpus_help_and_no_more(void **state)
{
    static const unsigned cpus[] = {MEMBERS + 1, 1, 2, 4, MEMBERS + 1, MEMBERS + 9, 3, 0, 5};
    struct fsw_crew crew = {0};

    assert_int_equal(fsw_crew_start(&crew, MEMBERS), 0);
    for (unsigned i = 0; i < sizeof cpus / sizeof cpus[0]; i++) {
        unsigned wanted = cpus[i] < 1 ? 1 : cpus[i] > MEMBERS ? MEMBERS + 1 : cpus[i];
        struct gathering gathering = {.wanted = wanted};
        fsw_crew_follow_cpus(&crew, cpus[i]);
        wait_idle(&crew);
        fsw_crew_run(&crew, meet, &gathering, 40);
        assert_true(gathering.met);
        assert_int_equal(gathering.most, wanted);
    }
    fsw_crew_stop(&crew);
}

static void count_end(void *arg)
{
    atomic_fetch_add((_Atomic unsigned *)arg, 1000);
}

static void who_helps_takes_no_members_place(void **state)
{
    struct fsw_crew crew = {0};
    _Atomic unsigned count = 0;
    struct fsw_crew_job job = {.run = run_inner, .done = count_end, .arg = &count, .parts = 10};

    assert_int_equal(fsw_crew_start(&crew, MEMBERS), 0);
    fsw_crew_follow_cpus(&crew, 1);
    fsw_crew_begin(&crew, &job);
    assert_int_equal(fsw_crew_help(&crew, &job), 1);
    assert_int_equal(count, 10 + 1000);
    assert_int_equal(crew.at_work, 0);
    fsw_crew_stop(&crew);
}

static void pass_by(void *arg, unsigned part)
{
    struct gathering *gathering = arg;

    if (is_caller) {
        sched_yield();
        return;
    }
    come_in(gathering);
    sched_yield();
    atomic_fetch_sub(&gathering->inside, 1);
}

static void *call_again_and_again(void *opaque)
{
    struct gathering *gathering = opaque;
    uint64_t end = fsw_now_ns() + 60 * FSW_NS_PER_S;
    unsigned rounds = RIG_SLOW ? 500 : 3000;

    is_caller = 1;
    /* And on until somebody has come to help. */
    for (unsigned round = 0;
         round < rounds || (atomic_load(&gathering->most) == 0 && fsw_now_ns() < end); round++)
        fsw_crew_run(gathering->crew, pass_by, gathering, 8);
    return NULL;
}

static void many_callers_get_no_more_help_than_one(void **state)
{
    struct fsw_crew crew = {0};
    struct gathering gathering = {.crew = &crew, .wanted = 1};
    pthread_t threads[CALLERS];

    assert_int_equal(fsw_crew_start(&crew, MEMBERS), 0);
    fsw_crew_follow_cpus(&crew, 3);
    wait_idle(&crew);
    for (unsigned i = 0; i < CALLERS; i++)
        pthread_create(&threads[i], NULL, call_again_and_again, &gathering);
    for (unsigned i = 0; i < CALLERS; i++)
        pthread_join(threads[i], NULL);
    assert_in_range(gathering.most, 1, 2);
    fsw_crew_stop(&crew);
}

static int limit_is(struct rig *rig, void *opaque)
{
    return atomic_load(&rig->device->crew.limit) == *(unsigned *)opaque;
}

static void a_devices_crew_follows_the_cpus(void **state)
{
    static const unsigned limits[] = {5, 0, 7, 1};
    struct rig rig;

    have_cpus(8, 2);
    rig_open(&rig, &(struct rig_options){.size = MIB(4), .memory = MIB(4)});
    assert_int_equal(rig.device->crew.count, 7);
    assert_int_equal(atomic_load(&rig.device->crew.limit), 1);
    for (unsigned i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        unsigned limit = limits[i];
        have_cpus(8, limit + 1);
        rig_wait(&rig, limit_is, &limit);
    }
    rig_close(&rig);
    have_cpus(0, 0);
}

/* ---- large requests ---- */

#define REGION                                                                                     \
    (700 * 1024ull) /* not a multiple of a page: two callers share one at each border   \
                                */
#define LONGEST (400 * 1024ull)

struct worker {
    struct rig *rig;
    uint64_t state, from; /* of its region */
    unsigned char *bytes, *scratch;
    _Atomic unsigned wrong;
    unsigned rounds;
};

static void fill(struct worker *worker, unsigned char *to, uint64_t length)
{
    for (uint64_t at = 0; at < length; at += FSW_PAGE_SIZE) {
        unsigned char page[FSW_PAGE_SIZE];
        rig_fill(page, (enum rig_kind)rig_below(&worker->state, RIG_KINDS),
                 rig_below(&worker->state, 100));
        memcpy(to + at, page, length - at < FSW_PAGE_SIZE ? length - at : FSW_PAGE_SIZE);
    }
}

static void expect(struct worker *worker, int r, const unsigned char *got, uint64_t at,
                   uint64_t length)
{
    if (r < 0 || memcmp(got, worker->bytes + at, length) != 0)
        atomic_fetch_add(&worker->wrong, 1);
}

static void one_at_a_time(struct worker *worker)
{
    struct fsw_device *device = worker->rig->device;
    uint64_t at = rig_below(&worker->state, REGION - 1);
    uint64_t length = 1 + rig_below(&worker->state, LONGEST);

    length = at + length > REGION ? REGION - at : length;
    int r = fsw_device_read(device, worker->scratch, worker->from + at, length);
    expect(worker, r, worker->scratch, at, length);
    fill(worker, worker->scratch, length);
    if (fsw_device_write(device, worker->scratch, worker->from + at, length) < 0)
        atomic_fetch_add(&worker->wrong, 1);
    memcpy(worker->bytes + at, worker->scratch, length);
}

/* Four requests on four quarters of the region, all at once. */
static void many_at_once(struct worker *worker)
{
    struct fsw_io ios[5] = {{.verb = FSW_FLUSH, .result = 1}};
    uint64_t quarter = REGION / 4, at[5];

    for (unsigned i = 1; i < 5; i++) {
        at[i] = (i - 1) * quarter + rig_below(&worker->state, quarter / 2);
        ios[i] = (struct fsw_io){.verb = (enum fsw_verb)rig_below(&worker->state, 4),
                                 .result = 1,
                                 .bytes = worker->scratch + (i - 1) * quarter,
                                 .offset = worker->from + at[i],
                                 .length = 1 + rig_below(&worker->state, quarter / 2)};
        if (ios[i].verb == FSW_WRITE)
            fill(worker, ios[i].bytes, ios[i].length);
    }
    fsw_device_batch(worker->rig->device, ios, 5);
    for (unsigned i = 1; i < 5; i++) {
        uint64_t end = worker->from + at[i] + ios[i].length;
        uint64_t first = (ios[i].offset + FSW_PAGE_SIZE - 1) / FSW_PAGE_SIZE * FSW_PAGE_SIZE,
                 last = end / FSW_PAGE_SIZE * FSW_PAGE_SIZE;
        if (ios[i].verb == FSW_READ)
            expect(worker, ios[i].result, ios[i].bytes, at[i], ios[i].length);
        else if (ios[i].verb == FSW_WRITE)
            memcpy(worker->bytes + at[i], ios[i].bytes, ios[i].length);
        else if (ios[i].verb == FSW_ZERO)
            memset(worker->bytes + at[i], 0, ios[i].length);
        else if (first < last)
            memset(worker->bytes + (first - worker->from), 0, last - first);
        if (ios[i].result != 0)
            atomic_fetch_add(&worker->wrong, 1);
    }
    if (ios[0].result != 0)
        atomic_fetch_add(&worker->wrong, 1);
}

static void *work(void *opaque)
{
    struct worker *worker = opaque;

    for (unsigned round = 0; round < worker->rounds && atomic_load(&worker->wrong) == 0; round++)
        if (round % 2)
            one_at_a_time(worker);
        else
            many_at_once(worker);
    int r = fsw_device_read(worker->rig->device, worker->scratch, worker->from, REGION);
    expect(worker, r, worker->scratch, 0, REGION);
    return NULL;
}

static void run_large(unsigned members, int with_store)
{
    struct rig rig;
    struct worker workers[CALLERS];
    pthread_t threads[CALLERS];
    uint64_t seed = rig_seed();

    have_cpus(members + 1, members + 1);
    rig_open(&rig, &(struct rig_options){.size = MIB(4),
                                         .memory = with_store ? MIB(3) : MIB(8),
                                         .with_store = with_store});
    assert_int_equal(rig.device->crew.count, members);
    for (unsigned i = 0; i < CALLERS; i++) {
        workers[i] = (struct worker){.rig = &rig,
                                     .state = seed + i,
                                     .from = 100 + i * REGION,
                                     .bytes = calloc(1, REGION),
                                     .scratch = malloc(REGION),
                                     .rounds = RIG_SLOW ? 30 : 150};
        pthread_create(&threads[i], NULL, work, &workers[i]);
    }
    for (unsigned i = 0; i < CALLERS; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(workers[i].wrong, 0);
        free(workers[i].bytes);
        free(workers[i].scratch);
    }
    rig_close(&rig);
    have_cpus(0, 0);
}

static void large_requests_equal_an_array(void **state)
{
    run_large(0, 0);
    run_large(1, 0);
    run_large(5, 1);
}

/* ---- errors ---- */

#define PAGES 64u

static void one_damaged_page_fails_the_read_and_no_other_page(void **state)
{
    struct rig rig;
    static char bytes[PAGES * FSW_PAGE_SIZE], expected[FSW_PAGE_SIZE];

    rig_open(&rig, &(struct rig_options){.size = MIB(4), .memory = MIB(4)});
    for (uint64_t page = 0; page < PAGES; page++)
        assert_int_equal(rig_write_page(&rig, page, RIG_TEXT, page), 0);
    *rig_entry(&rig, 37) = fsw_entry_pool(0, 9, 0);
    assert_int_equal(fsw_device_read(rig.device, bytes, 0, sizeof bytes), -EIO);
    assert_int_equal(fsw_device_read(rig.device, bytes, 0, 37 * FSW_PAGE_SIZE), 0);
    assert_int_equal(
        fsw_device_read(rig.device, bytes, 38 * FSW_PAGE_SIZE, (PAGES - 38) * FSW_PAGE_SIZE), 0);
    struct fsw_io ios[PAGES + 3] = {{0}};
    for (unsigned i = 0; i < PAGES; i++)
        ios[i] = (struct fsw_io){.verb = FSW_READ,
                                 .result = 1,
                                 .bytes = bytes + i * FSW_PAGE_SIZE,
                                 .offset = i * FSW_PAGE_SIZE,
                                 .length = FSW_PAGE_SIZE};
    ios[PAGES] = (struct fsw_io){.verb = FSW_WRITE, .bytes = bytes, .offset = MIB(4), .length = 1};
    ios[PAGES + 1] = (struct fsw_io){.verb = (enum fsw_verb)77};
    ios[PAGES + 2] = (struct fsw_io){.verb = FSW_DISCARD, .offset = 1, .length = UINT64_MAX};
    fsw_device_batch(rig.device, ios, 0);
    assert_int_equal(ios[0].result, 1);
    fsw_device_batch(rig.device, ios, PAGES + 3);
    for (unsigned i = 0; i < PAGES; i++) {
        assert_int_equal(ios[i].result, i == 37 ? -EIO : 0);
        rig_fill(expected, RIG_TEXT, i);
        if (i != 37)
            assert_memory_equal(bytes + i * FSW_PAGE_SIZE, expected, FSW_PAGE_SIZE);
    }
    for (unsigned i = PAGES; i < PAGES + 3; i++)
        assert_int_equal(ios[i].result, -EINVAL);
    rig_abandon(&rig);
}

/* Memory runs out inside a large write: each page is old or new. */
static void a_large_write_without_room_leaves_pages_whole(void **state)
{
    enum { MANY = 512 };
    struct rig rig;
    static char noise[MANY * FSW_PAGE_SIZE], got[FSW_PAGE_SIZE], old[FSW_PAGE_SIZE];
    unsigned changed = 0;

    rig_open(&rig, &(struct rig_options){.size = MIB(4), .memory = MIB(2)});
    for (uint64_t page = 0; page < MANY; page++) {
        assert_int_equal(rig_write_page(&rig, page, RIG_TEXT, page), 0);
        rig_fill(noise + page * FSW_PAGE_SIZE, RIG_NOISE, page);
    }
    assert_int_equal(fsw_device_write(rig.device, noise, 0, sizeof noise), -ENOSPC);
    for (uint64_t page = 0; page < MANY; page++) {
        rig_fill(old, RIG_TEXT, page);
        assert_int_equal(fsw_device_read(rig.device, got, page * FSW_PAGE_SIZE, FSW_PAGE_SIZE), 0);
        int is_new = memcmp(got, noise + page * FSW_PAGE_SIZE, FSW_PAGE_SIZE) == 0;
        assert_true(is_new || memcmp(got, old, FSW_PAGE_SIZE) == 0);
        changed += (unsigned)is_new;
    }
    assert_in_range(changed, 1, MANY - 1);
    rig_close(&rig);
}

RIG_MAIN(cmocka_unit_test(each_part_runs_once_whoever_is_idle),
         cmocka_unit_test(each_part_runs_once_while_cpus_come_and_go),
         cmocka_unit_test(a_crew_that_ends_under_load_leaves_no_part),
         cmocka_unit_test(all_cpus_help_and_no_more),
         cmocka_unit_test(who_helps_takes_no_members_place),
         cmocka_unit_test(many_callers_get_no_more_help_than_one),
         cmocka_unit_test(a_devices_crew_follows_the_cpus),
         cmocka_unit_test(large_requests_equal_an_array),
         cmocka_unit_test(one_damaged_page_fails_the_read_and_no_other_page),
         cmocka_unit_test(a_large_write_without_room_leaves_pages_whole))

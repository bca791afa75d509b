/*
 * test_crew.c: jobs that many threads work on, large requests and batches. Each thread has a region
 * of the device to itself, compared with an array; what a request does to its neighbours shows at
 * the regions' borders.
 */
#include "rig.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define CALLERS 4u
#define MIB(n) ((uint64_t)(n) << 20)

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

/* stop_meanwhile: the crew is ended while the callers go on. */
static void run_crew(unsigned members, int stop_meanwhile)
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
    if (stop_meanwhile)
        fsw_crew_stop(&crew);
    for (unsigned i = 0; i < CALLERS; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(callers[i].wrong, 0);
        free((void *)callers[i].parts);
    }
    if (!stop_meanwhile)
        fsw_crew_stop(&crew);
    assert_null(crew.jobs);
    assert_int_equal(crew.count, 0);
    assert_int_equal(atomic_load(&crew.idle), 0);
}

static void each_part_runs_once_whoever_is_idle(void **state)
{
    static const unsigned members[] = {0, 1, 3, FSW_CREW_MAX};

    for (unsigned i = 0; i < sizeof members / sizeof members[0]; i++)
        run_crew(members[i], 0);
}

static void a_crew_that_ends_under_load_leaves_no_part(void **state)
{
    for (unsigned round = 0; round < 5; round++)
        run_crew(1 + round * 3, 1);
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

    rig_open(&rig, &(struct rig_options){.size = MIB(4),
                                         .memory = with_store ? MIB(3) : MIB(8),
                                         .with_store = with_store});
    fsw_crew_stop(&rig.device->crew);
    memset(&rig.device->crew, 0, sizeof rig.device->crew);
    if (members > 0)
        assert_int_equal(fsw_crew_start(&rig.device->crew, members), 0);
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
         cmocka_unit_test(a_crew_that_ends_under_load_leaves_no_part),
         cmocka_unit_test(large_requests_equal_an_array),
         cmocka_unit_test(one_damaged_page_fails_the_read_and_no_other_page),
         cmocka_unit_test(a_large_write_without_room_leaves_pages_whole))

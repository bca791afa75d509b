/*
 * test_device_threads.c: many threads on the same pages, each read checked without a lock.
 *
 * Owned pages: page p is written by thread p % WRITERS only, version by version, and what version v
 * of page p looks like follows from (p, v) alone. Everybody reads. A read must be one whole version
 * between the last that was acknowledged before it began and the last that was begun when it ended:
 * with one writer a page that is all of linearizability.
 *
 * Common pages: everybody writes whole pages that are noise from one seed. A read must be the noise
 * of the seed in its first word: no page is ever torn.
 */
#include "rig.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define WRITERS 4u
#define OWNED 2048u
#define COMMON 16u

struct stress {
    struct rig rig;
    uint64_t seed, steps;
    _Atomic uint32_t begun[OWNED], acknowledged[OWNED];
    _Atomic unsigned wrong;
    _Atomic int ended;
    char first_wrong[200];
    pthread_mutex_t lock;
};

static void report(struct stress *stress, const char *what, uint64_t page, uint64_t version)
{
    pthread_mutex_lock(&stress->lock);
    if (atomic_fetch_add(&stress->wrong, 1) == 0)
        snprintf(stress->first_wrong, sizeof stress->first_wrong, "%s: page %llu, version %llu",
                 what, (unsigned long long)page, (unsigned long long)version);
    pthread_mutex_unlock(&stress->lock);
}

/* ---- what a version is ---- */

enum form { WHOLE, PART, ZEROED, DISCARDED };

struct version {
    enum form form;
    enum rig_kind kind;
    unsigned offset, length; /* PART, ZEROED */
    uint64_t seed;
};

static struct version version_of(uint64_t seed, uint64_t page, uint32_t number)
{
    static const enum form forms[] = {WHOLE, WHOLE, WHOLE, WHOLE, WHOLE, PART, ZEROED, DISCARDED};
    uint64_t state = seed ^ page << 32 ^ number;
    struct version version = {.form = forms[rig_below(&state, 8)]};

    version.kind = (enum rig_kind)rig_below(&state, RIG_KINDS);
    version.offset = (unsigned)rig_below(&state, FSW_PAGE_SIZE);
    version.length = 1 + (unsigned)rig_below(&state, FSW_PAGE_SIZE - version.offset);
    version.seed = rig_random(&state);
    if (number == 0)
        version.form = DISCARDED;
    return version;
}

static void content_of(uint64_t seed, uint64_t page, uint32_t number, char bytes[FSW_PAGE_SIZE])
{
    struct version version = version_of(seed, page, number);
    char whole[FSW_PAGE_SIZE];

    if (version.form == WHOLE) {
        rig_fill(bytes, version.kind, version.seed);
    } else if (version.form == DISCARDED) {
        memset(bytes, 0, FSW_PAGE_SIZE);
    } else {
        content_of(seed, page, number - 1, bytes);
        rig_fill(whole, version.form == PART ? version.kind : RIG_ZERO, version.seed);
        memcpy(bytes + version.offset, whole + version.offset, version.length);
    }
}

/* ---- one thread ---- */

struct worker {
    struct stress *stress;
    unsigned number;
    uint64_t state;
};

static void check_owned(struct worker *worker, uint64_t page)
{
    struct stress *stress = worker->stress;
    char bytes[FSW_PAGE_SIZE], expected[FSW_PAGE_SIZE];
    uint32_t from = atomic_load(&stress->acknowledged[page]);
    int r = fsw_device_read(stress->rig.device, bytes, page * FSW_PAGE_SIZE, FSW_PAGE_SIZE);
    uint32_t to = atomic_load(&stress->begun[page]);

    if (r < 0)
        report(stress, "read failed", page, (uint64_t)-r);
    for (uint32_t number = from; r == 0 && number <= to; number++) {
        content_of(stress->seed, page, number, expected);
        if (memcmp(bytes, expected, FSW_PAGE_SIZE) == 0)
            return;
    }
    if (r == 0)
        report(stress, "stale, torn or foreign", page, from);
}

static int apply(struct stress *stress, uint64_t page, uint32_t number)
{
    struct version version = version_of(stress->seed, page, number);
    struct fsw_device *device = stress->rig.device;
    uint64_t at = page * FSW_PAGE_SIZE;
    char bytes[FSW_PAGE_SIZE];

    rig_fill(bytes, version.kind, version.seed);
    switch (version.form) {
    case WHOLE:
        return fsw_device_write(device, bytes, at, FSW_PAGE_SIZE);
    case PART:
        return fsw_device_write(device, bytes + version.offset, at + version.offset,
                                version.length);
    case ZEROED:
        return fsw_device_zero(device, at + version.offset, version.length);
    default:
        return fsw_device_discard(device, at, FSW_PAGE_SIZE);
    }
}

/* A write that finds no room leaves the old version, and is tried again. */
static void change_owned(struct worker *worker)
{
    struct stress *stress = worker->stress;
    uint64_t page = rig_below(&worker->state, OWNED / WRITERS) * WRITERS + worker->number;
    uint32_t number = atomic_load(&stress->begun[page]) + 1;
    int r;

    if (rig_below(&worker->state, 4))
        check_owned(worker, page);
    atomic_store(&stress->begun[page], number);
    while ((r = apply(stress, page, number)) == -ENOSPC) {
        atomic_store(&stress->begun[page], number - 1);
        check_owned(worker, page);
        atomic_store(&stress->begun[page], number);
    }
    if (r < 0)
        report(stress, strerror(-r), page, number);
    atomic_store(&stress->acknowledged[page], number);
}

static void change_common(struct worker *worker)
{
    uint64_t words[FSW_PAGE_SIZE / 8], seed = rig_random(&worker->state) | 1;
    uint64_t page = OWNED + rig_below(&worker->state, COMMON);

    words[0] = seed;
    unsigned noisy = seed >> 1 & 1 ? 512 : 100;
    for (unsigned i = 1; i < 512; i++)
        words[i] = i < noisy ? rig_random(&seed) : words[0];
    fsw_device_write(worker->stress->rig.device, words, page * FSW_PAGE_SIZE, FSW_PAGE_SIZE);
}

static void check_common(struct worker *worker)
{
    uint64_t words[FSW_PAGE_SIZE / 8];
    uint64_t page = OWNED + rig_below(&worker->state, COMMON);
    int r = fsw_device_read(worker->stress->rig.device, words, page * FSW_PAGE_SIZE, FSW_PAGE_SIZE);
    uint64_t seed = words[0];
    unsigned noisy = seed >> 1 & 1 ? 512 : 100;

    if (r < 0)
        report(worker->stress, "read failed", page, (uint64_t)-r);
    for (unsigned i = 1; r == 0 && i < 512; i++)
        if (words[i] != (words[0] == 0 ? 0 : i < noisy ? rig_random(&seed) : words[0])) {
            report(worker->stress, "torn", page, i);
            return;
        }
}

/* A read of many pages, whose versions are not of one moment: only each page counts. */
static void read_range(struct worker *worker)
{
    struct stress *stress = worker->stress;
    uint64_t page = rig_below(&worker->state, OWNED - 40),
             count = 1 + rig_below(&worker->state, 40);
    uint32_t from[40];
    char *bytes = malloc(count * FSW_PAGE_SIZE), expected[FSW_PAGE_SIZE];

    for (uint64_t i = 0; i < count; i++)
        from[i] = atomic_load(&stress->acknowledged[page + i]);
    if (fsw_device_read(stress->rig.device, bytes, page * FSW_PAGE_SIZE, count * FSW_PAGE_SIZE) < 0)
        report(stress, "long read failed", page, count);
    for (uint64_t i = 0; i < count; i++) {
        uint32_t to = atomic_load(&stress->begun[page + i]), number = from[i];
        for (; number <= to; number++) {
            content_of(stress->seed, page + i, number, expected);
            if (memcmp(bytes + i * FSW_PAGE_SIZE, expected, FSW_PAGE_SIZE) == 0)
                break;
        }
        if (number > to)
            report(stress, "stale, torn or foreign in a long read", page + i, from[i]);
    }
    free(bytes);
}

static void *work(void *opaque)
{
    struct worker *worker = opaque;
    struct stress *stress = worker->stress;

    for (uint64_t step = 0; step < stress->steps && atomic_load(&stress->wrong) == 0; step++) {
        uint64_t choice = rig_below(&worker->state, 32);
        if (choice < 25)
            change_owned(worker);
        else if (choice < 29)
            check_owned(worker, rig_below(&worker->state, OWNED));
        else if (choice < 30)
            change_common(worker);
        else if (choice < 31)
            check_common(worker);
        else
            read_range(worker);
    }
    return NULL;
}

/* Objects move as fast as they can. */
static void *stir(void *opaque)
{
    struct stress *stress = opaque;
    const struct timespec pause = {.tv_nsec = 300 * 1000};

    while (!atomic_load(&stress->ended)) {
        rig_compact(&stress->rig);
        nanosleep(&pause, NULL);
    }
    return NULL;
}

static int has_moved(struct rig *rig, void *opaque)
{
    return rig_stat(rig, FSW_STAT_COMPACT_MOVED) > 0;
}

static void run(const struct rig_options *options, uint64_t steps, unsigned delay_us,
                unsigned fail_in_thousand)
{
    struct stress *stress = calloc(1, sizeof *stress);
    struct worker workers[WRITERS];
    pthread_t threads[WRITERS], stirrer;

    stress->seed = rig_seed();
    stress->steps = RIG_SLOW ? steps / 12 : steps;
    pthread_mutex_init(&stress->lock, NULL);
    rig_open(&stress->rig, options);
    if (stress->rig.store != NULL) {
        teststore_delay(stress->rig.store, delay_us);
        teststore_fail_some(stress->rig.store, fail_in_thousand);
    }
    uint64_t took = fsw_now_ns();
    for (unsigned i = 0; i < WRITERS; i++) {
        workers[i] = (struct worker){.stress = stress, .number = i, .state = stress->seed + i};
        pthread_create(&threads[i], NULL, work, &workers[i]);
    }
    pthread_create(&stirrer, NULL, stir, stress);
    for (unsigned i = 0; i < WRITERS; i++)
        pthread_join(threads[i], NULL);
    took = fsw_now_ns() - took;
    rig_wait(&stress->rig, has_moved, NULL);
    atomic_store(&stress->ended, 1);
    pthread_join(stirrer, NULL);
    /* A second is usual; three minutes, and nine tenths of the writers' time, when overflow and cleaning each
     * waited out the other's rest. */
    uint64_t stalled = rig_stat(&stress->rig, FSW_STAT_WRITE_STALL_NS);
    assert_true(stalled < 60 * FSW_NS_PER_S || stalled < took * WRITERS / 2);
    for (uint64_t page = 0; page < OWNED && atomic_load(&stress->wrong) == 0; page++)
        check_owned(&workers[0], page);
    if (atomic_load(&stress->wrong) != 0)
        fail_msg("%s", stress->first_wrong);
    if (stress->rig.store != NULL)
        teststore_fail_some(stress->rig.store, 0);
    rig_close(&stress->rig);
    free(stress);
}

#define SIZE ((OWNED + COMMON) * (uint64_t)FSW_PAGE_SIZE)

static void threads_on_a_pool_that_holds_all(void **state)
{
    run(&(struct rig_options){.size = SIZE, .memory = 16 << 20}, 140000, 0, 0);
}

static void threads_while_pages_overflow(void **state)
{
    run(&(struct rig_options){.size = SIZE, .memory = 3 << 20, .with_store = 1}, 90000, 200, 0);
}

static void threads_while_the_store_fails_at_times(void **state)
{
    run(&(struct rig_options){.size = SIZE, .memory = 4 << 20, .with_store = 1}, 50000, 300, 50);
}

static void threads_with_a_store_that_answers_at_once(void **state)
{
    run(
        &(struct rig_options){
            .size = SIZE, .memory = 3 << 20, .with_store = 1, .answer_at_once = 1, .codec = "raw"},
        60000, 0, 0);
}

RIG_MAIN(cmocka_unit_test(threads_on_a_pool_that_holds_all),
         cmocka_unit_test(threads_while_pages_overflow),
         cmocka_unit_test(threads_while_the_store_fails_at_times),
         cmocka_unit_test(threads_with_a_store_that_answers_at_once))

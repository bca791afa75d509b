/*
 * test_steer.c: memory=, codec= and CPUs change while threads write and read. Each thread knows
 * what its pages hold. The words are set as `farswap set` sets them.
 */
#include "rig.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "core/steer.h"

#define MIB(n) ((uint64_t)(n) << 20)
#define WORKERS 3u

/* ---- load ---- */

struct worker {
    struct load *load;
    unsigned number;
    uint64_t state;
};

struct load {
    struct rig rig;
    uint64_t pages;
    struct {
        uint64_t seed; /* 0: never written */
        enum rig_kind kind;
    } * held;
    struct worker workers[WORKERS];
    pthread_t threads[WORKERS];
    _Atomic int stop;
    _Atomic unsigned wrong, refused;
    _Atomic uint64_t written;
};

static void check_page(struct load *load, uint64_t page)
{
    char expected[FSW_PAGE_SIZE], got[FSW_PAGE_SIZE];

    rig_fill(expected, load->held[page].seed ? load->held[page].kind : RIG_ZERO,
             load->held[page].seed);
    if (fsw_device_read(load->rig.device, got, page * FSW_PAGE_SIZE, FSW_PAGE_SIZE) < 0 ||
        memcmp(expected, got, FSW_PAGE_SIZE) != 0)
        atomic_fetch_add(&load->wrong, 1);
}

static void write_page(struct worker *worker, uint64_t page)
{
    struct load *load = worker->load;
    enum rig_kind kind = (enum rig_kind)(RIG_NEARLY_SAME + rig_below(&worker->state, 5));
    uint64_t seed = rig_random(&worker->state) | 1;
    int r = rig_write_page(&load->rig, page, kind, seed);

    if (r == -ENOSPC) { /* then the old one stays */
        atomic_fetch_add(&load->refused, 1);
        return;
    }
    if (r < 0)
        atomic_fetch_add(&load->wrong, 1);
    load->held[page].kind = kind;
    load->held[page].seed = seed;
    atomic_fetch_add(&load->written, 1);
}

static void *work(void *opaque)
{
    struct worker *worker = opaque;
    struct load *load = worker->load;

    while (!atomic_load(&load->stop)) {
        uint64_t page = rig_below(&worker->state, load->pages / WORKERS) * WORKERS + worker->number;
        check_page(load, page);
        write_page(worker, page);
    }
    return NULL;
}

static struct load *start_load(const struct rig_options *options)
{
    struct load *load = calloc(1, sizeof *load);
    uint64_t seed = rig_seed();

    load->pages = options->size / FSW_PAGE_SIZE;
    load->held = calloc(load->pages, sizeof load->held[0]);
    rig_open(&load->rig, options);
    for (unsigned i = 0; i < WORKERS; i++)
        load->workers[i] = (struct worker){.load = load, .number = i, .state = seed + i};
    return load;
}

static void let_work(struct load *load)
{
    atomic_store(&load->stop, 0);
    for (unsigned i = 0; i < WORKERS; i++)
        pthread_create(&load->threads[i], NULL, work, &load->workers[i]);
}

static void stop_work(struct load *load)
{
    atomic_store(&load->stop, 1);
    for (unsigned i = 0; i < WORKERS; i++)
        pthread_join(load->threads[i], NULL);
    for (uint64_t page = 0; page < load->pages; page++)
        check_page(load, page);
    assert_int_equal(load->wrong, 0);
}

static void end_load(struct load *load)
{
    rig_close(&load->rig);
    free(load->held);
    free(load);
}

static void wait_written(struct load *load, uint64_t count)
{
    uint64_t deadline = fsw_now_ns() + 60 * FSW_NS_PER_S,
             until = atomic_load(&load->written) + count;
    const struct timespec pause = {.tv_nsec = 200 * 1000};

    while (atomic_load(&load->written) < until && atomic_load(&load->wrong) == 0) {
        assert_true(fsw_now_ns() < deadline);
        nanosleep(&pause, NULL);
    }
}

/* Wakes the keeper, which would look by itself in a tenth of a second. */
static void wake_keeper(struct rig *rig)
{
    struct fsw_keeper *keeper = &rig->device->keeper;

    pthread_mutex_lock(&keeper->lock);
    pthread_cond_signal(&keeper->wake);
    pthread_mutex_unlock(&keeper->lock);
}

/* ---- memory= ---- */

/* Once the server has followed: before, it may be within by chance, and grow. */
static int is_within(struct rig *rig, void *opaque)
{
    uint64_t memory = *(uint64_t *)opaque;
    return atomic_load(&rig->device->pool.frames.limit) == memory / FSW_FRAME_SIZE &&
           rig_resident(&rig->device->image) <= memory;
}

static int has_grown(struct rig *rig, void *opaque)
{
    return rig_resident(&rig->device->image) >= *(uint64_t *)opaque;
}

static void set_memory(struct rig *rig, uint64_t memory)
{
    atomic_store(&rig->device->image.super->memory_limit, memory);
    wake_keeper(rig);
}

static void memory_goes_down_and_up_while_a_store_takes_pages(void **state)
{
    struct load *load = start_load(&(struct rig_options){
        .size = MIB(16), .memory = MIB(12), .with_store = 1, .answer_at_once = 1});
    static const uint64_t limits[] = {MIB(4), MIB(12), MIB(3), MIB(6)};

    let_work(load);
    wait_written(load, RIG_SLOW ? 1500 : 4000);
    for (unsigned i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        uint64_t memory = limits[i], most = memory * 2 / 3;
        set_memory(&load->rig, memory);
        rig_wait(&load->rig, is_within, &memory);
        for (unsigned looks = 0; looks < 20; looks++) { /* and stays */
            wait_written(load, 20);
            assert_true(rig_resident(&load->rig.device->image) <= memory);
        }
        rig_wait(&load->rig, has_grown, &most); /* and is made use of */
        assert_int_equal(rig_stat(&load->rig, FSW_STAT_MEM_LIMIT), memory);
    }
    stop_work(load);
    assert_int_equal(load->refused, 0);
    end_load(load);
}

static int is_paid(struct rig *rig, void *opaque)
{
    return fsw_frames_debt(&rig->device->pool.frames) == 0;
}

/* Or nothing more can be put on its way: the keeper, who asks again, may have been quicker than that. */
static int nothing_is_wanted(struct rig *rig, void *opaque)
{
    struct fsw_overflow *overflow = &rig->device->overflow;
    FSW_LOCK_SCOPE(&overflow->lock);

    return !atomic_load(&overflow->wanted) || overflow->puts_out == FSW_PUTS_IN_FLIGHT;
}

/* The last that are to leave are on their way, nothing more is wanted, and then they stay: nobody writes
 * who would ask for them again. */
static void memory_that_goes_down_is_followed_though_puts_fail_and_nobody_writes(void **state)
{
    struct rig rig;

    rig_open(&rig, &(struct rig_options){.size = MIB(16), .memory = MIB(8), .with_store = 1});
    for (unsigned page = 0; page < 256; page++)
        assert_int_equal(rig_write_page(&rig, page, RIG_NOISE, page), 0);
    struct fsw_frames *frames = &rig.device->pool.frames;
    rig_prove(&rig); /* and the filler has nothing in its hands */
    uint32_t in_use = atomic_load(&frames->used) + atomic_load(&frames->overhead);
    assert_int_equal(rig_stat(&rig, FSW_STAT_PAGES_STORE), 0);
    teststore_hold(rig.store, TESTSTORE_PUTS);
    set_memory(&rig, (uint64_t)(in_use + FSW_HEADROOM_FRAMES - 12) * FSW_FRAME_SIZE);
    teststore_wait_held(rig.store, TESTSTORE_PUTS, 1);
    rig_wait(&rig, nothing_is_wanted, NULL);
    assert_false(is_paid(&rig, NULL));
    teststore_answer(rig.store, TESTSTORE_PUTS, FSW_STORE_FULL, FSW_PUTS_IN_FLIGHT, 0);
    teststore_release(rig.store, TESTSTORE_PUTS);
    rig_wait(&rig, is_paid, NULL);
    assert_true(rig_stat(&rig, FSW_STAT_OVERFLOW_FAILED) > 0);
    rig_close(&rig);
}

/* The server itself can only refuse writes then: nothing that is there may be lost. */
static void memory_below_use_without_a_store_loses_nothing(void **state)
{
    struct load *load = start_load(&(struct rig_options){.size = MIB(8), .memory = MIB(12)});

    let_work(load);
    wait_written(load, 2000);
    set_memory(&load->rig, MIB(2));
    uint64_t deadline = fsw_now_ns() + 60 * FSW_NS_PER_S;
    while (atomic_load(&load->refused) < 50 && fsw_now_ns() < deadline)
        usleep(500);
    assert_true(load->refused >= 50);
    set_memory(&load->rig, MIB(12));
    wait_written(load, 500);
    stop_work(load);
    end_load(load);
}

/* ---- watermarks= ---- */

static void set_watermarks(struct rig *rig, const char *value)
{
    struct fsw_error err = {""};

    assert_int_equal(fsw_image_set(&rig->device->image, "watermarks", value, &err), 0);
    wake_keeper(rig);
}

/* Percent of memory= that is in use. */
static unsigned in_use(struct rig *rig)
{
    struct fsw_frames *frames = &rig->device->pool.frames;
    unsigned limit = atomic_load(&frames->limit);

    return (limit - fsw_frames_free(frames)) * 100 / limit;
}

/* And nothing is on its way. */
static int uses_at_most(struct rig *rig, void *opaque)
{
    struct fsw_overflow *overflow = &rig->device->overflow;

    pthread_mutex_lock(&overflow->lock);
    int rests = !atomic_load(&overflow->wanted) && overflow->puts_out == 0;
    pthread_mutex_unlock(&overflow->lock);
    return rests && in_use(rig) <= *(unsigned *)opaque;
}

static int is_auto(struct rig *rig, void *opaque)
{
    return atomic_load(&rig->device->reclaim.low) < 12 * 256 / 20;
}

/* Above the one pages leave, and down to the other; in between they stay. */
static void watermarks_say_when_overflow_starts_and_stops(void **state)
{
    unsigned stop = 40;
    struct rig rig;

    rig_open(&rig, &(struct rig_options){
                       .size = MIB(16), .memory = MIB(12), .with_store = 1, .answer_at_once = 1});
    for (uint64_t page = 0; page < 2000; page++)
        assert_int_equal(rig_write_page(&rig, page, RIG_NOISE, page), 0);
    assert_in_range(in_use(&rig), 60, 90);
    assert_int_equal(rig_stat(&rig, FSW_STAT_OVERFLOW_PAGES), 0);
    set_watermarks(&rig, "60:40");
    rig_wait(&rig, uses_at_most, &stop);
    assert_in_range(in_use(&rig), 25, 40); /* and not much further */
    uint64_t left = rig_stat(&rig, FSW_STAT_OVERFLOW_PAGES);
    for (uint64_t page = 3000; page < 3200; page++)
        assert_int_equal(rig_write_page(&rig, page, RIG_NOISE, page), 0);
    usleep(150 * 1000);
    assert_int_equal(rig_stat(&rig, FSW_STAT_OVERFLOW_PAGES), left);
    set_watermarks(&rig, "auto");
    rig_wait(&rig, is_auto, NULL);
    for (uint64_t page = 0; page < 2000; page++)
        rig_expect_page(&rig, page, RIG_NOISE, page);
    rig_close(&rig);
}

/* ---- huge= ---- */

#define KIND_PAGES 1000u

static unsigned in_store(struct rig *rig, unsigned from)
{
    unsigned count = 0;

    for (uint64_t page = from; page < from + KIND_PAGES; page++)
        count += fsw_entry_state(fsw_entry_load(rig_entry(rig, page))) == FSW_STORE;
    return count;
}

/* Which of two kinds leaves: those that compress are older. */
static void huge_says_whether_what_does_not_compress_leaves_first(void **state)
{
    unsigned some, most = 20;
    char value[16];
    struct fsw_error err = {""};
    struct rig rig;

    for (int first = 0; first < 2; first++) {
        rig_open(&rig,
                 &(struct rig_options){
                     .size = MIB(16), .memory = MIB(12), .with_store = 1, .answer_at_once = 1});
        for (uint64_t page = 0; page < 2 * KIND_PAGES; page++)
            assert_int_equal(
                rig_write_page(&rig, page, page < KIND_PAGES ? RIG_HALF : RIG_NOISE, page), 0);
        assert_int_equal(rig_stat(&rig, FSW_STAT_HUGE_PAGES), KIND_PAGES);
        some = in_use(&rig) - 5;
        assert_in_range(some, 30, 80);
        assert_int_equal(fsw_device_set(rig.device, "huge", first ? "first" : "age", &err), 0);
        snprintf(value, sizeof value, "%u:%u", some + 1, some);
        set_watermarks(&rig, value);
        rig_wait(&rig, uses_at_most, &some);
        assert_true(in_store(&rig, first ? KIND_PAGES : 0) > 50);
        assert_int_equal(in_store(&rig, first ? 0 : KIND_PAGES), 0);
        /* Others follow. */
        set_watermarks(&rig, "16:15");
        rig_wait(&rig, uses_at_most, &most);
        assert_true(in_store(&rig, 0) > 0);
        assert_int_equal(in_store(&rig, KIND_PAGES) == KIND_PAGES, first);
        for (uint64_t page = 0; page < 2 * KIND_PAGES; page++)
            rig_expect_page(&rig, page, page < KIND_PAGES ? RIG_HALF : RIG_NOISE, page);
        rig_close(&rig);
    }
}

/* ---- codec= ---- */

/* Which codecs the pool's objects have, a bit each. */
static unsigned codecs_in_use(struct rig *rig, uint64_t pages)
{
    char object[FSW_OBJECT_MAX];
    unsigned seen = 0;

    for (uint64_t page = 0; page < pages; page++) {
        uint64_t value = rig_entry(rig, page) ? *rig_entry(rig, page) : 0;
        if (fsw_entry_state(value) != FSW_POOL)
            continue;
        assert_int_equal(fsw_pool_read(&rig->device->image, fsw_entry_location(value), object,
                                       fsw_entry_units(value)),
                         0);
        seen |= 1u << ((struct fsw_object_header *)(void *)object)->codec;
    }
    return seen;
}

static int codec_followed(struct rig *rig, void *opaque)
{
    struct fsw_device *device = rig->device;
    int same = atomic_load(&device->keeper.codec) == atomic_load(&device->image.super->codec);

    wake_keeper(rig);
    return same;
}

static void the_codec_changes_under_load(void **state)
{
    static const char *const names[] = {"zstd", "raw",    "lz4:8", "zstd:-7",
                                        "lz4",  "zstd:5", "lz4:8"};
    struct load *load = start_load(&(struct rig_options){.size = MIB(8), .memory = MIB(12)});
    unsigned seen = 0;

    let_work(load);
    for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++) {
        uint8_t id;
        int level;
        assert_int_equal(fsw_codec_parse(names[i], &id, &level, NULL), 0);
        atomic_store(&load->rig.device->image.super->codec, fsw_codec_word(id, level));
        rig_wait(&load->rig, codec_followed, NULL);
        wait_written(load, RIG_SLOW ? 100 : 300);
        stop_work(load); /* or what comes next may be all that is left when we look */
        seen |= codecs_in_use(&load->rig, load->pages);
        let_work(load);
    }
    /* Words that nobody sets: the last codec stays, or pages are kept raw. */
    static const uint32_t nonsense[] = {3,
                                        0xff,
                                        FSW_CODEC_SAME,
                                        FSW_CODEC_LZ4 | 0x800000u << 8,
                                        FSW_CODEC_ZSTD | 0x7fffffu << 8,
                                        UINT32_MAX};
    for (unsigned i = 0; i < sizeof nonsense / sizeof nonsense[0]; i++) {
        atomic_store(&load->rig.device->image.super->codec, nonsense[i]);
        rig_wait(&load->rig, codec_followed, NULL);
        wait_written(load, 50);
    }
    stop_work(load);
    assert_true(seen >> FSW_CODEC_LZ4 & 1 && seen >> FSW_CODEC_ZSTD & 1 && seen & 1);
    end_load(load);
}

/* ---- CPUs ---- */

static void cpus_come_and_go_under_load(void **state)
{
    struct load *load =
        start_load(&(struct rig_options){.size = MIB(8), .memory = MIB(12), .codec = "zstd"});
    struct fsw_contexts *contexts = &load->rig.device->contexts;
    uint64_t chance = rig_seed();

    fsw_keeper_stop(load->rig.device); /* it would follow the CPUs that there are */
    fsw_contexts_deinit(contexts);
    contexts->room = 32; /* for a host that could have sixteen */
    contexts->count = 0;
    contexts->all = aligned_alloc(64, contexts->room * sizeof contexts->all[0]);
    memset(contexts->all, 0, contexts->room * sizeof contexts->all[0]);
    fsw_contexts_follow_cpus(contexts, 2);
    assert_int_equal(contexts->count, 4);
    let_work(load);
    for (unsigned round = 0; round < (RIG_SLOW ? 200 : 600); round++) {
        fsw_contexts_follow_cpus(contexts, 1 + (unsigned)rig_below(&chance, 20));
        assert_in_range(contexts->count, 4, 32);
        if (round % 8 == 0)
            assert_int_equal(
                fsw_contexts_set_codec(contexts, round % 16 ? FSW_CODEC_LZ4 : FSW_CODEC_ZSTD, 1),
                0);
        if (round % 16 == 0)
            wait_written(load, 3);
    }
    stop_work(load);
    fsw_contexts_follow_cpus(contexts, 12);
    fsw_contexts_follow_cpus(contexts, 3);
    /* what is gone is freed, what is there is whole */
    for (unsigned i = 0; i < contexts->room; i++)
        assert_int_equal(contexts->all[i].state != NULL, i < contexts->count);
    end_load(load);
}

/* ---- the command ---- */

static int run_cli(const char *const argv[])
{
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        execv(FARSWAP_CLI, (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void the_command_refuses_what_cannot_be(void **state)
{
    struct rig rig;

    rig_open(&rig, &(struct rig_options){.size = MIB(16), .memory = MIB(12)});
    for (uint64_t page = 0; page < 2000; page++)
        assert_int_equal(rig_write_page(&rig, page, RIG_NOISE, page), 0);
    const char *name = rig.device->name;
    struct fsw_superblock *super = rig.device->image.super;
    uint32_t codec = atomic_load(&super->codec);
    static const char *const bad[] = {"memory=6M", "memory=1", "codec=gzip", "codec=lz4:0",
                                      "size=32M",  "memory",   "memory=1E"};
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(run_cli((const char *[]){"farswap", "set", name, bad[i], NULL}), 1);
        assert_true(atomic_load(&super->memory_limit) == MIB(12));
        assert_int_equal(atomic_load(&super->codec), codec);
    }
    assert_int_equal(
        run_cli((const char *[]){"farswap", "set", name, "memory=14M", "codec=zstd:2", NULL}), 0);
    assert_true(atomic_load(&super->memory_limit) == MIB(14));
    assert_int_equal(atomic_load(&super->codec), fsw_codec_word(FSW_CODEC_ZSTD, 2));
    assert_int_equal(run_cli((const char *[]){"farswap", "compact", name, NULL}), 0);
    assert_int_equal(run_cli((const char *[]){"farswap", "set", "nobody", "memory=14M", NULL}), 1);
    rig_close(&rig);
}

/* Sums over the lines of `farswap stats --classes`, whose columns the first line names. */
static void the_command_lists_the_classes(void **state)
{
    char line[256];
    unsigned long long size, objects, used, zspages, frames, freeable, slots;
    uint64_t sums[4] = {0}, lines = 0, could_be_free = 0;
    unsigned class;
    struct rig rig;

    rig_open(&rig, &(struct rig_options){.size = MIB(16), .memory = MIB(24)});
    fsw_keeper_stop(rig.device); /* or it would pack what this is to show */
    for (uint64_t page = 0; page < 4000; page++)
        assert_int_equal(rig_write_page(&rig, page, (enum rig_kind)(page % RIG_KINDS), page), 0);
    for (uint64_t page = 0; page < 4000; page++)
        if (page % 3)
            assert_int_equal(fsw_device_discard(rig.device, page * FSW_PAGE_SIZE, FSW_PAGE_SIZE),
                             0);
    snprintf(line, sizeof line, "%s stats --classes %s", FARSWAP_CLI, rig.device->name);
    FILE *said = popen(line, "re");
    assert_non_null(fgets(line, sizeof line, said));
    assert_non_null(strstr(line, "objects  used_bytes  zspages  frames  freeable"));
    for (; fgets(line, sizeof line, said) != NULL; lines++) {
        assert_int_equal(sscanf(line, "%u %llu %llu %llu %llu %llu %llu %llu", &class, &size,
                                &objects, &used, &zspages, &frames, &freeable, &slots),
                         8);
        const struct fsw_class_shape *shape = &fsw_class_table()->shape[class];
        assert_true(size == shape->units * FSW_UNIT && slots == shape->slots);
        assert_true(used == objects * size && objects <= zspages * slots && freeable < frames);
        sums[0] += objects;
        sums[1] += zspages;
        sums[2] += frames;
        sums[3] += used;
        could_be_free += freeable;
    }
    assert_int_equal(pclose(said), 0);
    assert_true(lines > 3);
    assert_true(sums[0] == rig_stat(&rig, FSW_STAT_PAGES_POOL));
    assert_true(sums[1] == rig_stat(&rig, FSW_STAT_ZSPAGES));
    assert_true(sums[2] == rig_stat(&rig, FSW_STAT_POOL_FRAMES));
    assert_true(sums[3] >= rig_stat(&rig, FSW_STAT_COMPR_DATA_SIZE));
    /* What it says could come free does, and nothing else. */
    while (fsw_compact_step(rig.device) > 0)
        ;
    assert_in_range(sums[2] - rig_stat(&rig, FSW_STAT_POOL_FRAMES), could_be_free,
                    could_be_free + sums[1]);
    rig_close(&rig);
}

RIG_MAIN(cmocka_unit_test(watermarks_say_when_overflow_starts_and_stops),
         cmocka_unit_test(huge_says_whether_what_does_not_compress_leaves_first),
         cmocka_unit_test(memory_goes_down_and_up_while_a_store_takes_pages),
         cmocka_unit_test(memory_that_goes_down_is_followed_though_puts_fail_and_nobody_writes),
         cmocka_unit_test(memory_below_use_without_a_store_loses_nothing),
         cmocka_unit_test(the_codec_changes_under_load),
         cmocka_unit_test(cpus_come_and_go_under_load),
         cmocka_unit_test(the_command_refuses_what_cannot_be),
         cmocka_unit_test(the_command_lists_the_classes))

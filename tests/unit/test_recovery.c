/*
 * test_recovery.c: images that change hands: servers that are killed, what they leave half-done, the
 * age order, spares that wait.
 */
#include "handover.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "farswap/steer.h"

static void pages_are_there_after_a_close(void **state)
{
    struct fsw_params params = handover_params("close", HANDOVER_PAGES, MIB(16));
    uint64_t before[FSW_STAT_COUNT], after[FSW_STAT_COUNT];
    struct rig rig;

    handover_leave(&rig, &params, NULL);
    assert_int_equal(fsw_device_discard(rig.device, 0, 300 * FSW_PAGE_SIZE), 0);
    /* Nothing is left to compact, for this server or the next. */
    assert_int_equal(fsw_device_compact(rig.device, 60 * FSW_NS_PER_S), 0);
    fsw_keeper_stop(rig.device);
    fsw_device_stats(rig.device, before);
    struct fsw_device_id id = *fsw_device_id(rig.device);
    handover_let_go(&rig);
    handover_take(&rig, &params, NULL);
    assert_memory_equal(&id, fsw_device_id(rig.device), sizeof id);
    fsw_device_stats(rig.device, after);
    rig_prove(&rig);
    struct fsw_frames *frames = &rig.device->pool.frames;
    uint64_t resident = rig_resident(&rig.device->image); /* all of it is accounted for */
    assert_true(resident <=
                ((uint64_t)frames->used + frames->nready + frames->overhead) * FSW_FRAME_SIZE);
    for (unsigned i = 0; i < FSW_STAT_COUNT; i++)
        if (i != FSW_STAT_MEM_RESERVE && i != FSW_STAT_MEM_USED_MAX && i != FSW_STAT_AGE_TICKS &&
            i != FSW_STAT_MEM_USED_TOTAL)
            if (before[i] != after[i])
                fail_msg("%s: %llu before, %llu after", fsw_stat_table[i].name,
                         (unsigned long long)before[i], (unsigned long long)after[i]);
    for (unsigned page = 0; page < 300; page++)
        rig_expect_page(&rig, page, RIG_ZERO, 0);
    for (unsigned page = 300; page < HANDOVER_PAGES; page++)
        rig_expect_page(&rig, page, (enum rig_kind)(page % RIG_KINDS), page);
    handover_let_go(&rig);
    handover_destroy("close");
}

/* ---- servers that are killed ---- */

#define WORKERS 2u

/* What the pages hold, in memory that outlives the server: the content that was acknowledged, and
 * the one that is under way. */
struct content {
    _Atomic uint32_t kind;
    _Atomic uint64_t seed;
};
struct model {
    struct {
        struct content old, new;
        _Atomic int pending;
    } pages[HANDOVER_PAGES];
    _Atomic uint64_t requests;
};

static struct model *shared;

struct killed_worker {
    struct rig *rig;
    unsigned number;
    uint64_t chance;
};

static void *work_for_ever(void *opaque)
{
    struct killed_worker *worker = opaque;

    for (;;) {
        unsigned page = (unsigned)rig_below(&worker->chance, HANDOVER_PAGES / WORKERS) * WORKERS +
                        worker->number;
        enum rig_kind kind = (enum rig_kind)rig_below(&worker->chance, RIG_KINDS);
        uint64_t seed = rig_random(&worker->chance);
        atomic_store(&shared->pages[page].new.kind, kind);
        atomic_store(&shared->pages[page].new.seed, seed);
        atomic_store(&shared->pages[page].pending, 1);
        int r = kind == RIG_ZERO
                    ? fsw_device_discard(worker->rig->device, page * FSW_PAGE_SIZE, FSW_PAGE_SIZE)
                    : rig_write_page(worker->rig, page, kind, seed);
        if (r < 0)
            _exit(3);
        atomic_store(&shared->pages[page].old.kind, kind);
        atomic_store(&shared->pages[page].old.seed, seed);
        atomic_store(&shared->pages[page].pending, 0);
        if (atomic_fetch_add(&shared->requests, 1) % 512 == 0)
            rig_compact(worker->rig);
    }
    return NULL;
}

/* In a child: serves until it is killed. No cmocka here. */
static void __attribute__((noreturn)) serve(const struct fsw_params *params, uint64_t seed)
{
    struct fsw_error err = {""};
    struct rig rig = {0};
    struct killed_worker workers[WORKERS];
    pthread_t threads[WORKERS];

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    int r = fsw_device_open(params, FSW_OPEN_NEW_OR_EXISTING, 0, NULL, &rig.device, &err);
    if (r == 0)
        rig_be_patient(rig.device);
    if (r < 0 || fsw_device_start(rig.device, &err) < 0) {
        fprintf(stderr, "%s\n", err.text);
        _exit(2);
    }
    for (unsigned i = 0; i < WORKERS; i++) {
        workers[i] = (struct killed_worker){&rig, i, seed + i};
        pthread_create(&threads[i], NULL, work_for_ever, &workers[i]);
    }
    for (;;)
        pause();
}

static int page_is(const void *page, const struct content *content)
{
    char expected[FSW_PAGE_SIZE];

    rig_fill(expected, (enum rig_kind)atomic_load(&content->kind), atomic_load(&content->seed));
    return memcmp(page, expected, FSW_PAGE_SIZE) == 0;
}

/* Acknowledged, or under way. */
static void settle_model(struct rig *rig)
{
    char page[FSW_PAGE_SIZE];

    for (unsigned i = 0; i < HANDOVER_PAGES; i++) {
        assert_int_equal(
            fsw_device_read(rig->device, page, i * (uint64_t)FSW_PAGE_SIZE, FSW_PAGE_SIZE), 0);
        int pending = atomic_exchange(&shared->pages[i].pending, 0);
        if (pending && page_is(page, &shared->pages[i].new)) {
            atomic_store(&shared->pages[i].old.kind, atomic_load(&shared->pages[i].new.kind));
            atomic_store(&shared->pages[i].old.seed, atomic_load(&shared->pages[i].new.seed));
        } else if (!page_is(page, &shared->pages[i].old)) {
            fail_msg("page %u is neither what was acknowledged nor what was under way", i);
        }
    }
}

static void killed_servers_lose_nothing(void **state)
{
    struct fsw_params params = handover_params("killed", HANDOVER_PAGES, MIB(16));
    uint64_t seed = rig_seed();
    struct rig rig;
    int status;

    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    for (unsigned round = 0; round < (RIG_SLOW ? 5 : 12); round++) {
        uint64_t before = atomic_load(&shared->requests), enough = rig_below(&seed, 3000) + 20;
        pid_t child = fork();
        if (child == 0)
            serve(&params, seed + round);
        const struct timespec pause = {.tv_nsec = 200 * 1000};
        uint64_t deadline = fsw_now_ns() + 60 * FSW_NS_PER_S;
        while (atomic_load(&shared->requests) < before + enough && fsw_now_ns() < deadline)
            nanosleep(&pause, NULL);
        kill(child, SIGKILL);
        waitpid(child, &status, 0);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        assert_true(fsw_now_ns() < deadline);
        handover_check("killed");
        handover_take(&rig, &params, NULL);
        settle_model(&rig);
        rig_prove(&rig);
        handover_let_go(&rig);
        assert_int_equal(handover_check("killed").leftovers, 0);
    }
    munmap(shared, sizeof *shared);
    handover_destroy("killed");
}

/* ---- what a server leaves half-done ---- */

/* Everything that can be half-done at once, by hand, as the order of writes allows it. */
static void leave_half_done(struct fsw_device *device)
{
    struct fsw_image *image = &device->image;
    fsw_entry *entry = fsw_table_find(image, 960); /* 60 in one leaf */
    uint64_t id;

    for (unsigned i = 0; i < 60; i++, entry++) /* all states, with each of the bits */
        if (i % 3 != 0)
            *entry |= i % 3 == 1 || fsw_entry_state(*entry) != FSW_POOL
                          ? FSW_ENTRY_LOCK
                          : FSW_ENTRY_LOCK | FSW_ENTRY_OVERFLOW;
    uint64_t slot = fsw_pool_alloc(&device->pool, 20), lone = fsw_pool_alloc(&device->pool, 250);
    assert_true(slot != 0 && lone != 0); /* objects that no entry names */
    uint32_t frame = fsw_frames_take(&device->pool.frames), top = image->super->zspages_top;
    assert_true(frame != 0); /* one that nobody names */
    image->classes[top] = 7; /* a zspage that died before it had a frame */
    image->super->zspages_top = top + 1;
    struct fsw_zspage_frames *map = &image->zspages[lone >> FSW_ZSPAGE_UNIT_BITS];
    assert_int_equal(map->frame[FSW_ZSPAGE_FRAMES - 1], 0);
    map->frame[FSW_ZSPAGE_FRAMES - 1] = fsw_frames_take(&device->pool.frames);
    if (device->store == NULL)
        return;
    uint32_t pending = fsw_row_take(&device->rows, &id), live = fsw_row_take(&device->rows, &id);
    image->rows[pending].bytes = 4711;            /* the put was answered just now */
    fsw_row_live(&device->rows, live, 160, 3, 1); /* nothing flipped yet; and the put's pin */
    uint32_t dropping = fsw_row_take(&device->rows, &id);
    fsw_row_live(&device->rows, dropping, 160, 1, 1);
    fsw_row_kill(&device->rows, dropping, 1);
    assert_int_equal(fsw_row_unpin(&device->rows, dropping), 1);
    uint32_t named = fsw_entry_row(*fsw_table_find(image, RIG_TEXT));
    assert_int_equal(fsw_row_pin(&device->rows, named), 1);
    image->rows[named].word += 2; /* entries changed, not counted yet */
}

static void half_done(struct fsw_store *store, const char *name)
{
    struct fsw_params params = handover_params(name, HANDOVER_PAGES, MIB(16));
    struct rig rig;

    if (store != NULL)
        strcpy(params.overflow, "keep");
    handover_leave(&rig, &params, store);
    uint64_t pool = rig_stat(&rig, FSW_STAT_PAGES_POOL),
             away = rig_stat(&rig, FSW_STAT_PAGES_STORE);
    assert_true(pool > 100 && (store == NULL || away > 100));
    fsw_keeper_stop(rig.device);
    leave_half_done(rig.device);
    unsigned stored = keep.stored, drops = keep.drops;
    handover_let_go(&rig);
    struct fsw_check_report report = handover_check(name);
    assert_true(report.leftovers >= 40);

    handover_take(&rig, &params, store);
    rig_prove(&rig); /* waits for the drops */
    handover_expect(&rig);
    assert_int_equal(rig_stat(&rig, FSW_STAT_PAGES_POOL), pool);
    assert_int_equal(rig_stat(&rig, FSW_STAT_PAGES_STORE), away);
    assert_int_equal(rig_stat(&rig, FSW_STAT_CORRUPT_PAGES), 0);
    assert_int_equal(keep.stored, stored);
    if (store != NULL)
        assert_int_equal(keep.drops, drops + 3); /* pending, live and dropping */
    rig_compact(&rig);
    rig_prove(&rig);
    handover_let_go(&rig);
    assert_int_equal(handover_check(name).leftovers, 0);
    handover_destroy(name);
}

static void what_was_half_done_is_ended(void **state)
{
    half_done(NULL, "half");
}

static void what_was_half_done_with_a_store_is_ended(void **state)
{
    half_done(keep_new(), "half-store");
}

static void ids_are_never_used_again(void **state)
{
    struct fsw_params params = handover_params("ids", HANDOVER_PAGES, MIB(16));
    struct rig rig;

    strcpy(params.overflow, "keep");
    handover_leave(&rig, &params, keep_new());
    uint64_t next = rig.device->image.super->next_segment, sentinel = keep.sentinel;
    assert_true(next > 5 && sentinel != 0);
    assert_int_equal(keep.planted, 0);
    rig.device->image.super->next_segment = 2; /* it fell back: a bit fell over */
    handover_let_go(&rig);
    handover_take(&rig, &params, &keep.base);
    assert_int_equal(rig.device->image.super->next_segment, next);
    assert_int_equal(keep.sentinel, sentinel);
    assert_int_equal(keep.planted, 1); /* a put was acknowledged */
    rig_evict_all(&rig);               /* the store would say if an id came again */
    handover_expect(&rig);
    rig_prove(&rig);
    handover_let_go(&rig);
    handover_destroy("ids");
}

/* ---- age ---- */

#define AGES 5u

static void the_oldest_leave_first_after_a_restart(void **state)
{
    struct fsw_params params = handover_params("age", HANDOVER_PAGES, MIB(16));
    struct fsw_pool_object objects[FSW_SLOTS_MAX];
    struct rig rig;
    uint8_t stamp;

    handover_leave(&rig, &params, NULL);
    assert_int_equal(fsw_device_discard(rig.device, 0, HANDOVER_PAGES * FSW_PAGE_SIZE), 0);
    static const enum rig_kind kinds[AGES] = {RIG_HALF, RIG_NOISE, RIG_TEXT, RIG_SAME64,
                                              RIG_NEARLY_SAME}; /* each its own size class */
    for (unsigned i = 0; i < AGES; i++) {
        assert_int_equal(rig_write_page(&rig, i, kinds[i], 1), 0);
        atomic_fetch_add(&rig.device->clock, 20);
        fsw_stat_add(&rig.device->image, FSW_STAT_AGE_TICKS, 20);
    }
    rig_expect_page(&rig, 0, RIG_HALF, 1); /* it is the youngest now */
    handover_let_go(&rig);
    handover_take(&rig, &params, NULL);
    fsw_keeper_stop(rig.device);
    uint8_t before = FSW_TICKS_A_LAP;
    for (unsigned i = 0; i < AGES; i++) {
        assert_int_equal(fsw_pool_pass_oldest(&rig.device->pool, objects, &stamp), 1);
        assert_int_equal(objects[0].page, (i + 1) % AGES);
        uint8_t passed = (uint8_t)(rig.device->clock - stamp);
        assert_true(i == 0 ? passed == FSW_TICKS_A_LAP : passed < before);
        before = passed;
    }
    handover_let_go(&rig);
    handover_destroy("age");
}

/* ---- spares ---- */

struct spare {
    struct fsw_params params;
    struct fsw_device *device;
    _Atomic int tid, opened;
};

static void *wait_for_the_image(void *opaque)
{
    struct spare *spare = opaque;
    struct fsw_error err = {""};

    atomic_store(&spare->tid, gettid());
    int r = fsw_device_open(&spare->params, FSW_OPEN_EXISTING, 1, NULL, &spare->device, &err);
    atomic_store(&spare->opened, r == 0 ? 1 : r);
    return NULL;
}

/* Asleep in flock: its state in /proc, which nothing else would tell. */
static int is_asleep(struct rig *rig, void *opaque)
{
    struct spare *spare = opaque;
    char path[64], line[256] = "";

    snprintf(path, sizeof path, "/proc/self/task/%d/wchan", atomic_load(&spare->tid));
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return 0;
    size_t n = fread(line, 1, sizeof line - 1, file);
    fclose(file);
    snprintf(path, sizeof path, "/proc/self/task/%d/syscall", atomic_load(&spare->tid));
    file = fopen(path, "re");
    if (file != NULL) {
        int number = -1;
        int read = fscanf(file, "%d", &number);
        fclose(file);
        return read == 1 && number == SYS_flock;
    }
    return n > 0;
}

static void a_spare_waits_for_its_turn(void **state)
{
    struct fsw_params params = handover_params("spare", HANDOVER_PAGES, MIB(16));
    struct spare spare = {.params = params};
    struct rig rig;
    pthread_t thread;

    handover_leave(&rig, &params, NULL);
    assert_int_equal(pthread_create(&thread, NULL, wait_for_the_image, &spare), 0);
    rig_wait(&rig, is_asleep, &spare);
    assert_int_equal(atomic_load(&spare.opened), 0);
    assert_int_equal(rig_write_page(&rig, 0, RIG_NOISE, 4711), 0); /* the last moment */
    handover_let_go(&rig);
    pthread_join(thread, NULL);
    assert_int_equal(atomic_load(&spare.opened), 1);
    rig.device = spare.device;
    rig_expect_page(&rig, 0, RIG_NOISE, 4711);
    fsw_device_discard_image(rig.device); /* never served, and was there before: it stays */
    handover_take(&rig, &params, NULL);
    rig_expect_page(&rig, 0, RIG_NOISE, 4711);
    handover_let_go(&rig);
    handover_destroy("spare");
}

/* ---- a check while nobody lives ---- */

static void a_check_does_not_wait_for_the_dead(void **state)
{
    struct fsw_params params = handover_params("dead", HANDOVER_PAGES, MIB(16));
    struct fsw_check_report report;
    unsigned problems = 0;
    struct rig rig;

    handover_leave(&rig, &params, NULL);
    *rig_entry(&rig, RIG_TEXT) |= FSW_ENTRY_LOCK; /* its holder was killed */
    *rig_entry(&rig, RIG_SAME32) |= FSW_ENTRY_LOCK;
    assert_int_equal(fsw_image_check(&rig.device->image, 1, handover_problem, &problems, &report),
                     0);
    assert_int_equal(problems, 0);
    assert_int_equal(report.opened, report.pages_pool);
    handover_let_go(&rig);
    handover_destroy("dead");
}

RIG_MAIN(cmocka_unit_test(pages_are_there_after_a_close),
         cmocka_unit_test(killed_servers_lose_nothing),
         cmocka_unit_test(what_was_half_done_is_ended),
         cmocka_unit_test(what_was_half_done_with_a_store_is_ended),
         cmocka_unit_test(ids_are_never_used_again),
         cmocka_unit_test(the_oldest_leave_first_after_a_restart),
         cmocka_unit_test(a_spare_waits_for_its_turn),
         cmocka_unit_test(a_check_does_not_wait_for_the_dead))

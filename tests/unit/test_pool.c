/*
 * test_pool.c: the allocator against a list of what was written, and frames by themselves.
 */
#include "rig.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"

/* On the heap: its threads outlive a test that fails. */
struct fixture {
    struct fsw_image image;
    struct fsw_pool pool;
    _Atomic uint8_t clock;
    struct fsw_error err;
};

static void open_pool(struct fixture *f, uint64_t size, uint64_t memory)
{
    struct fsw_params params;
    int unlocked;

    memset(f, 0, sizeof *f);
    fsw_params_init(&params);
    strcpy(params.name, "pool");
    params.size = size;
    params.memory = memory;
    assert_int_equal(fsw_image_create(&f->image, &params, &unlocked, &f->err), 0);
    shmctl(f->image.shmid, IPC_RMID, NULL);
    assert_int_equal(fsw_pool_init(&f->pool, &f->image, memory, &f->clock), 0);
    f->pool.frames.wait_ns = 60 * FSW_NS_PER_S; /* a machine that is busy refuses nothing */
}

static void close_pool(struct fixture *f)
{
    fsw_frames_stop(&f->pool.frames);
    fsw_pool_deinit(&f->pool);
    fsw_image_detach(&f->image);
    free(f);
}

static void prove(struct fixture *f)
{
    if (fsw_pool_check(&f->pool, &f->err) < 0)
        fail_msg("%s", f->err.text);
}

struct object {
    uint64_t location, seed;
    unsigned units;
};

static void fill_object(uint64_t *words, const struct object *object)
{
    uint64_t state = object->seed;
    for (unsigned i = 0; i < object->units * 2; i++)
        words[i] = rig_random(&state);
}

static void expect_object(struct fixture *f, const struct object *object)
{
    uint64_t words[FSW_OBJECT_MAX / 8], back[FSW_OBJECT_MAX / 8];

    fill_object(words, object);
    assert_int_equal(fsw_pool_read(&f->image, object->location, back, object->units), 0);
    assert_memory_equal(words, back, object->units * FSW_UNIT);
    assert_true(fsw_pool_is_allocated(&f->pool, object->location, object->units));
}

static unsigned any_units(uint64_t *state)
{
    unsigned span = FSW_OBJECT_UNITS_MAX - FSW_OBJECT_UNITS_MIN + 1;
    return FSW_OBJECT_UNITS_MIN + (unsigned)rig_below(state, rig_below(state, 2) ? span : 30);
}

/* memory: small makes alloc fail often, which must leave everything as it was. */
static void churn(uint64_t memory, unsigned steps, int with_filler)
{
    enum { MANY = 3000 };
    struct fixture *f = malloc(sizeof *f);
    static struct object objects[MANY];
    uint64_t state = rig_seed(), words[FSW_OBJECT_MAX / 8];
    unsigned failed = 0;

    memset(objects, 0, sizeof objects);
    open_pool(f, 16 << 20, memory);
    if (with_filler)
        assert_int_equal(fsw_frames_start(&f->pool.frames), 0);
    for (unsigned step = 0; step < steps; step++) {
        struct object *object = &objects[rig_below(&state, MANY)];
        if (object->location != 0) {
            expect_object(f, object);
            assert_int_equal(fsw_pool_free(&f->pool, object->location), 0);
            assert_int_equal(fsw_pool_free(&f->pool, object->location), -EIO); /* not twice */
            object->location = 0;
        } else {
            object->units = any_units(&state);
            object->seed = step;
            object->location = fsw_pool_alloc(&f->pool, object->units);
            failed += object->location == 0;
            fill_object(words, object);
            if (object->location != 0)
                assert_int_equal(fsw_pool_write(&f->pool, object->location, words, object->units),
                                 0);
        }
        if (step % (steps / 20) == 0) {
            prove(f);
            assert_true(rig_resident(&f->image) <= memory);
        }
    }
    assert_true((failed > 0) == (memory < 8 << 20));
    for (unsigned i = 0; i < MANY; i++)
        if (objects[i].location != 0) {
            expect_object(f, &objects[i]);
            assert_int_equal(fsw_pool_free(&f->pool, objects[i].location), 0);
        }
    prove(f);
    assert_int_equal(fsw_stat_get(&f->image, FSW_STAT_POOL_FRAMES), 0);
    assert_int_equal(fsw_stat_get(&f->image, FSW_STAT_ZSPAGES), 0);
    assert_int_equal(f->pool.oldest, 0);
    close_pool(f);
}

static void objects_of_all_sizes_come_and_go(void **state)
{
    churn(20 << 20, RIG_SLOW ? 10000 : 60000, 1);
}

static void an_allocation_that_fails_changes_nothing(void **state)
{
    churn(2 << 20, RIG_SLOW ? 10000 : 60000, 0);
}

static void the_hand_passes_every_object_once_a_lap(void **state)
{
    struct fixture *f = malloc(sizeof *f);
    static struct fsw_pool_object found[FSW_SLOTS_MAX];
    static uint8_t seen[1000];
    uint64_t words[FSW_OBJECT_MAX / 8] = {0}, chance = rig_seed();
    uint8_t stamp;

    open_pool(f, 16 << 20, 20 << 20);
    assert_int_equal(fsw_pool_pass_oldest(&f->pool, found, &stamp), 0);
    for (uint32_t page = 0; page < 1000; page++) {
        unsigned units = any_units(&chance);
        uint64_t location = fsw_pool_alloc(&f->pool, units);
        memcpy(words, &page, sizeof page);
        fsw_pool_write(&f->pool, location, words, units);
    }
    for (unsigned lap = 1; lap < 4; lap++) {
        uint64_t zspages = fsw_stat_get(&f->image, FSW_STAT_ZSPAGES);
        f->clock = (uint8_t)lap;
        for (uint64_t z = 0; z < zspages; z++) {
            unsigned n = fsw_pool_pass_oldest(&f->pool, found, &stamp);
            assert_int_equal(stamp, lap - 1);
            for (unsigned i = 0; i < n; i++)
                seen[found[i].page]++;
        }
        for (unsigned page = 0; page < 1000; page++)
            assert_int_equal(seen[page], lap);
    }
    prove(f);
    close_pool(f);
}

static void classes_hold_every_size_and_waste_little(void **state)
{
    const struct fsw_class_table *table = fsw_class_table();

    assert_in_range(table->count, 100, FSW_CLASS_MAX);
    for (unsigned units = FSW_OBJECT_UNITS_MIN; units <= FSW_OBJECT_UNITS_MAX; units++) {
        const struct fsw_class_shape *shape = &table->shape[table->of_units[units]];
        assert_in_range(table->of_units[units], 1, table->count - 1u);
        assert_in_range(shape->units, units, units + units / 16 + 1);
        assert_in_range(shape->slots, 1, FSW_SLOTS_MAX);
        assert_in_range(shape->frames, 1, FSW_ZSPAGE_FRAMES);
        assert_true(shape->slots * shape->units <= shape->frames * 256u);
        /* no slot straddles three frames, and locations fit their bits */
        for (unsigned slot = 0; slot < shape->slots; slot++) {
            unsigned at = slot * shape->units;
            assert_true((at + shape->units - 1) / 256 - at / 256 <= 1);
        }
        assert_true(shape->slots * shape->units <= 1 << FSW_ZSPAGE_UNIT_BITS);
        /* equal slots would be a class for nothing */
        unsigned left = shape->frames * 256u - shape->slots * shape->units;
        assert_true(left * 100 <= shape->frames * 256u * 2);
    }
}

/* ---- frames ---- */

static void frames_are_each_given_once_and_never_past_the_limit(void **state)
{
    struct fixture *f = malloc(sizeof *f);
    enum { MEMORY = 4 << 20 };
    static uint8_t taken[8192];
    static uint32_t mine[8192];
    uint64_t chance = rig_seed();
    uint32_t n = 0, most = 0;

    open_pool(f, 16 << 20, MEMORY);
    struct fsw_frames *frames = &f->pool.frames;
    assert_int_equal(fsw_frames_start(frames), 0);
    for (unsigned step = 0; step < 20000; step++) {
        int filling = step / 5000 % 2 == 0;
        if (rig_below(&chance, 8) < (filling ? 6 : 2)) {
            uint32_t frame = fsw_frames_take(frames);
            if (frame == 0) {
                assert_int_equal(fsw_frames_free(frames), 0);
                continue;
            }
            assert_false(taken[frame]);
            taken[frame] = 1;
            memset(fsw_image_frame(&f->image, frame), (int)frame, FSW_FRAME_SIZE);
            mine[n++] = frame;
        } else if (n > 0) {
            uint32_t at = (uint32_t)rig_below(&chance, n), frame = mine[at];
            assert_int_equal(*(uint8_t *)fsw_image_frame(&f->image, frame), (uint8_t)frame);
            taken[frame] = 0;
            mine[at] = mine[--n];
            fsw_frames_give(frames, frame);
        }
        most = n > most ? n : most;
        if (step % 50 == 0)
            assert_true(rig_resident(&f->image) <= MEMORY);
    }
    /* All but the headroom; the metadata may have grown since. */
    assert_in_range(
        most, MEMORY / FSW_FRAME_SIZE - atomic_load(&frames->overhead) - FSW_HEADROOM_FRAMES,
        MEMORY / FSW_FRAME_SIZE - f->image.super->rows_at / FSW_FRAME_SIZE - FSW_HEADROOM_FRAMES);
    close_pool(f);
}

static void growth_takes_from_the_reserve_and_then_the_headroom(void **state)
{
    struct fixture *f = malloc(sizeof *f);
    uint32_t last = 0, frame;

    open_pool(f, 16 << 20, 2 << 20);
    struct fsw_frames *frames = &f->pool.frames;
    while ((frame = fsw_frames_take(frames)) != 0)
        last = frame;
    for (unsigned i = 0; i < FSW_HEADROOM_FRAMES; i++)
        assert_int_equal(fsw_frames_charge(frames, 1), 0);
    assert_int_equal(fsw_frames_charge(frames, 1), -ENOSPC);
    fsw_frames_give(frames, last); /* refills the headroom, not the writers */
    assert_int_equal(fsw_frames_take(frames), 0);
    assert_int_equal(fsw_frames_charge(frames, 1), 0);
    assert_int_equal(fsw_frames_charge(frames, 1), -ENOSPC);
    fsw_frames_uncharge(frames, FSW_HEADROOM_FRAMES + 1);
    assert_int_not_equal(fsw_frames_take(frames), 0);
    assert_int_equal(fsw_frames_take(frames), 0);
    close_pool(f);
}

static void wait_until_small(struct fixture *f, uint64_t bound)
{
    uint64_t deadline = fsw_now_ns() + 60 * FSW_NS_PER_S;
    const struct timespec pause = {.tv_nsec = 1000 * 1000};

    while (rig_resident(&f->image) > bound && fsw_now_ns() < deadline)
        nanosleep(&pause, NULL);
    assert_true(rig_resident(&f->image) <= bound);
}

static void surplus_goes_back_to_the_system(void **state)
{
    struct fixture *f = malloc(sizeof *f);
    static uint32_t mine[8192];
    uint32_t n = 0;

    open_pool(f, 32 << 20, 20 << 20);
    assert_int_equal(fsw_frames_start(&f->pool.frames), 0);
    while (n < 4000 && (mine[n] = fsw_frames_take(&f->pool.frames)) != 0)
        n++;
    assert_int_equal(n, 4000);
    assert_true(rig_resident(&f->image) >= 4000 * 4096);
    while (n > 0)
        fsw_frames_give(&f->pool.frames, mine[--n]);
    struct fsw_frames *frames = &f->pool.frames;
    wait_until_small(f, (atomic_load(&frames->overhead) + frames->target * 3 / 2 + 8) *
                            (uint64_t)FSW_FRAME_SIZE);
    close_pool(f);
}

/* Stands for a system without memory, which keeps the filler for as long as it likes. */
static _Atomic int kept;

static void be_kept(void *opaque)
{
    atomic_store(&kept, 1);
    pthread_mutex_lock(opaque);
    pthread_mutex_unlock(opaque);
}

static uint64_t time_of_a_take(struct fsw_frames *frames, uint32_t *ret_frame)
{
    uint64_t start = fsw_now_ns();

    *ret_frame = fsw_frames_take(frames);
    return fsw_now_ns() - start;
}

static void nobody_but_the_filler_waits_for_the_system(void **state)
{
    struct fixture *f = malloc(sizeof *f);
    struct fsw_frames *frames = &f->pool.frames;
    pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
    uint32_t frame, taken = 0;
    uint64_t ns, deadline;

    open_pool(f, 32 << 20, 20 << 20);
    pthread_mutex_lock(&gate);
    frames->ahead = be_kept;
    frames->ahead_opaque = &gate;
    frames->wait_ns = FSW_FILLER_WAIT_NS;
    assert_int_equal(fsw_frames_start(frames), 0);
    while (!atomic_load(&kept))
        sched_yield();
    while (ns = time_of_a_take(frames, &frame), frame != 0)
        taken++;
    assert_in_range(ns, FSW_FILLER_WAIT_NS, 60 * FSW_FILLER_WAIT_NS);
    assert_int_equal(taken, frames->target); /* what was ready, and none by ourselves */
    assert_int_equal(fsw_frames_await_look(frames), -ENOSPC);
    for (unsigned i = 0; i < 10;
         i++) { /* once is enough; a machine stands still for some, but not for all */
        uint64_t took = time_of_a_take(frames, &frame);
        assert_int_equal(frame, 0);
        ns = took < ns ? took : ns;
    }
    assert_true(ns < FSW_FILLER_WAIT_NS / 2);
    pthread_mutex_unlock(&gate);
    for (deadline = fsw_now_ns() + 60 * FSW_NS_PER_S; frame == 0 && fsw_now_ns() < deadline;)
        frame = fsw_frames_take(frames);
    assert_int_not_equal(frame, 0);
    close_pool(f);
}

static void *take_one(void *opaque)
{
    static uint32_t frame;

    frame = fsw_frames_take(opaque);
    return &frame;
}

static void who_waits_for_the_filler_takes_what_another_gives(void **state)
{
    struct fixture *f = malloc(sizeof *f);
    struct fsw_frames *frames = &f->pool.frames;
    pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
    pthread_t taker;
    uint32_t mine = 0;
    void *frame;

    open_pool(f, 32 << 20, 20 << 20);
    pthread_mutex_lock(&gate);
    atomic_store(&kept, 0);
    frames->wait_ns = 60 * FSW_NS_PER_S;
    frames->ahead = be_kept;
    frames->ahead_opaque = &gate;
    assert_int_equal(fsw_frames_start(frames), 0);
    while (!atomic_load(&kept))
        sched_yield();
    for (uint32_t taken = 0; taken < frames->target; taken++)
        assert_int_not_equal(mine = fsw_frames_take(frames), 0);
    uint64_t start = fsw_now_ns();
    pthread_create(&taker, NULL, take_one, frames);
    while (fsw_stat_get(&f->image, FSW_STAT_RESERVE_MISSES) == 0)
        sched_yield();
    fsw_frames_give(frames, mine); /* has the lock when the other one sleeps */
    pthread_join(taker, &frame);
    assert_int_equal(*(uint32_t *)frame, mine);
    assert_true(fsw_now_ns() - start < frames->wait_ns / 2);
    pthread_mutex_unlock(&gate);
    close_pool(f);
}

/* ---- a host that stands still ---- */

/* In a process of its own, which stops the one it came from for so long. */
static pid_t stop_for(pid_t pid, unsigned ms)
{
    pid_t child = fork();

    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        usleep(100 * 1000); /* it waits by then, or is stopped before */
        kill(pid, SIGSTOP);
        usleep(ms * 1000);
        kill(pid, SIGCONT);
        _exit(0);
    }
    return child;
}

struct opening {
    pthread_mutex_t gate;
    _Atomic int held, stood_still, over;
};

/* A while after all stood still the system has memory again. */
static void *hold_and_open_later(void *opaque)
{
    struct opening *opening = opaque;
    uint64_t before;

    pthread_mutex_lock(&opening->gate);
    atomic_store(&opening->held, 1);
    for (before = fsw_now_ns();
         fsw_now_ns() - before < FSW_FILLER_WAIT_NS && !atomic_load(&opening->over); usleep(1000))
        before = fsw_now_ns();
    atomic_store(&opening->stood_still, !atomic_load(&opening->over));
    usleep(100 * 1000);
    pthread_mutex_unlock(&opening->gate);
    return NULL;
}

/* The frame that was taken by who stood still with the filler. -1: they did not, in the time they had. */
static int take_across_a_stop(void)
{
    struct fixture *f = malloc(sizeof *f);
    struct fsw_frames *frames = &f->pool.frames;
    struct opening opening = {.gate = PTHREAD_MUTEX_INITIALIZER};
    pthread_t opener;
    uint32_t frame;

    open_pool(f, 32 << 20, 20 << 20);
    frames->ahead = be_kept;
    frames->ahead_opaque = &opening.gate;
    frames->wait_ns = FSW_FILLER_WAIT_NS;
    atomic_store(&kept, 0);
    pthread_create(&opener, NULL, hold_and_open_later, &opening);
    while (!atomic_load(&opening.held))
        sched_yield();
    assert_int_equal(fsw_frames_start(frames), 0);
    while (!atomic_load(&kept))
        sched_yield();
    for (uint32_t n = frames->target; n > 0; n--) /* what is ready */
        assert_int_not_equal(fsw_frames_take(frames), 0);
    pid_t stopper = stop_for(getpid(), 2 * FSW_FILLER_WAIT_NS / FSW_NS_PER_MS);
    frame = fsw_frames_take(frames);
    int was_in_time = frame != 0 || atomic_load(&opening.stood_still);
    atomic_store(&opening.over, 1);
    pthread_join(opener, NULL);
    waitpid(stopper, NULL, 0);
    close_pool(f);
    return was_in_time ? (int)frame : -1;
}

static void who_stood_still_with_the_filler_waits_on(void **state)
{
    int frame = -1;

    for (unsigned tries = 0; frame < 0 && tries < 10; tries++)
        frame = take_across_a_stop();
    assert_true(frame > 0);
}

RIG_MAIN(cmocka_unit_test(objects_of_all_sizes_come_and_go),
         cmocka_unit_test(an_allocation_that_fails_changes_nothing),
         cmocka_unit_test(the_hand_passes_every_object_once_a_lap),
         cmocka_unit_test(classes_hold_every_size_and_waste_little),
         cmocka_unit_test(frames_are_each_given_once_and_never_past_the_limit),
         cmocka_unit_test(growth_takes_from_the_reserve_and_then_the_headroom),
         cmocka_unit_test(surplus_goes_back_to_the_system),
         cmocka_unit_test(nobody_but_the_filler_waits_for_the_system),
         cmocka_unit_test(who_stood_still_with_the_filler_waits_on),
         cmocka_unit_test(who_waits_for_the_filler_takes_what_another_gives))

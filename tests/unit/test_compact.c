/*
 * test_compact.c: objects move together. The pool by itself with a list for its entries, the device
 * against an array with a step of compaction between any two operations, what an adversary leaves,
 * and what stands in the way.
 */
#include "rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/shm.h>

#include "common/clock.h"

#define MIB(n) ((uint64_t)(n) << 20)
#define FRAME_UNITS (FSW_FRAME_SIZE / FSW_UNIT)

/* ---- the pool, and a list in place of entries ---- */

enum { MANY = 1500 };

struct object {
    uint64_t location, seed;
    unsigned units;
};

struct yard {
    struct fsw_image image;
    struct fsw_pool pool;
    _Atomic uint8_t clock;
    struct object objects[MANY];
    struct fsw_pool_object found[FSW_SLOTS_MAX];
    uint64_t moved;
};

static struct yard *open_yard(uint64_t memory)
{
    struct yard *yard = calloc(1, sizeof *yard + 64);
    struct fsw_params params;
    struct fsw_error err;
    int unlocked;

    fsw_params_init(&params);
    strcpy(params.name, "yard");
    params.size = MIB(16);
    params.memory = memory;
    assert_int_equal(fsw_image_create(&yard->image, &params, &unlocked, &err), 0);
    shmctl(yard->image.shmid, IPC_RMID, NULL);
    assert_int_equal(fsw_pool_init(&yard->pool, &yard->image, memory, &yard->clock), 0);
    return yard;
}

static void close_yard(struct yard *yard)
{
    fsw_pool_deinit(&yard->pool);
    fsw_image_detach(&yard->image);
    free(yard);
}

static void prove_yard(struct yard *yard)
{
    struct fsw_error err = {""};

    if (fsw_pool_check(&yard->pool, &err) < 0)
        fail_msg("%s", err.text);
    for (unsigned c = 1; c < yard->pool.table->count; c++) {
        uint32_t objects = 0, frames = 0, zspages = 0;
        for (uint32_t id = 1; id < yard->image.super->zspages_top; id++)
            if (yard->pool.zspages[id].class == c) {
                zspages++;
                objects += yard->pool.zspages[id].used;
                frames += yard->pool.zspages[id].attached;
            }
        assert_int_equal(objects, yard->image.class_stats[c].objects);
        assert_int_equal(frames, yard->image.class_stats[c].frames);
        assert_int_equal(zspages, yard->image.class_stats[c].zspages);
    }
}

static void fill_words(uint64_t *words, const struct object *object)
{
    uint64_t state = object->seed;
    for (unsigned i = 0; i < object->units * 2; i++)
        words[i] = rig_random(&state);
    /* As in a header: whose it is. */
    memcpy(words, &(uint32_t){(uint32_t)object->seed}, sizeof(uint32_t));
}

static void expect_object(struct yard *yard, const struct object *object)
{
    uint64_t words[FSW_OBJECT_MAX / 8], back[FSW_OBJECT_MAX / 8];

    fill_words(words, object);
    assert_true(fsw_pool_is_allocated(&yard->pool, object->location, object->units));
    assert_int_equal(fsw_pool_read(&yard->image, object->location, back, object->units), 0);
    assert_memory_equal(words, back, object->units * FSW_UNIT);
}

/* What compact.c does, with the list for entries; some objects are held and stay. */
static void pack(struct yard *yard, unsigned class_number, uint64_t *chance)
{
    unsigned count;
    uint32_t id = fsw_pool_sparse(&yard->pool, class_number, yard->found, &count);
    uint64_t words[FSW_OBJECT_MAX / 8];
    uint32_t attached = id != 0 ? yard->pool.zspages[id].attached : 0, held = 0;

    for (unsigned i = 0; i < count; i++) {
        struct object *object = &yard->objects[yard->found[i].page % MANY];
        assert_true(object->location == yard->found[i].location);
        if (rig_below(chance, 16) == 0) {
            held = 2; /* frames that a move has cost and that it did not free */
            continue;
        }
        uint64_t to = fsw_pool_alloc_packed(&yard->pool, id, object->units);
        if (to == 0)
            continue;
        assert_true(to < object->location && to >> FSW_ZSPAGE_UNIT_BITS == id);
        assert_int_equal(fsw_pool_read(&yard->image, object->location, words, object->units), 0);
        assert_int_equal(fsw_pool_write(&yard->pool, to, words, object->units), 0);
        assert_int_equal(fsw_pool_free(&yard->pool, object->location), 0);
        object->location = to;
        yard->moved++;
    }
    if (id != 0 && yard->pool.zspages[id].class == class_number)
        assert_true(yard->pool.zspages[id].attached <= attached + held);
}

static void packing_at_every_step_loses_nothing(void **state)
{
    static const uint64_t memories[] = {MIB(20), MIB(2)};
    uint64_t chance = rig_seed(), words[FSW_OBJECT_MAX / 8];

    for (unsigned round = 0; round < 2; round++) {
        struct yard *yard = open_yard(memories[round]);
        unsigned steps = RIG_SLOW ? 8000 : 40000;
        for (unsigned step = 0; step < steps; step++) {
            struct object *object = &yard->objects[rig_below(&chance, MANY)];
            unsigned span = rig_below(&chance, 2) ? FSW_OBJECT_UNITS_MAX - 1 : 12;
            if (object->location != 0) {
                expect_object(yard, object);
                assert_int_equal(fsw_pool_free(&yard->pool, object->location), 0);
                object->location = 0;
            } else {
                object->units = 2 + (unsigned)rig_below(&chance, span);
                object->seed = (uint64_t)(object - yard->objects) + MANY * (uint64_t)(step % 1000);
                object->location = fsw_pool_alloc(&yard->pool, object->units);
                fill_words(words, object);
                if (object->location != 0)
                    fsw_pool_write(&yard->pool, object->location, words, object->units);
            }
            unsigned class_number = 1 + (unsigned)rig_below(&chance, yard->pool.table->count - 1u);
            if (object->location != 0 && rig_below(&chance, 2))
                class_number = yard->pool.table->of_units[object->units];
            pack(yard, class_number, &chance);
            if (step % (steps / 40) == 0)
                prove_yard(yard);
        }
        assert_true(yard->moved > steps / 100);
        for (unsigned i = 0; i < MANY; i++)
            if (yard->objects[i].location != 0)
                expect_object(yard, &yard->objects[i]);
        prove_yard(yard);
        close_yard(yard);
    }
}

/* ---- the device ---- */

struct model {
    struct rig rig;
    uint64_t chance, pages;
    uint8_t *kinds; /* of each page; its seed */
    uint64_t *seeds;
    char (*parts)[64]; /* what was written at byte 100 since, "" for nothing */
};

static void expect_page(struct model *model, uint64_t page)
{
    char expected[FSW_PAGE_SIZE], bytes[FSW_PAGE_SIZE];

    rig_fill(expected, (enum rig_kind)model->kinds[page], model->seeds[page]);
    memcpy(expected + 100, model->parts[page], strlen(model->parts[page]));
    assert_int_equal(fsw_device_read(model->rig.device, bytes, page * FSW_PAGE_SIZE, FSW_PAGE_SIZE),
                     0);
    if (memcmp(expected, bytes, FSW_PAGE_SIZE) != 0)
        fail_msg("page %llu is not what was written", (unsigned long long)page);
}

static void change_page(struct model *model, uint64_t page)
{
    struct fsw_device *device = model->rig.device;
    uint64_t at = page * FSW_PAGE_SIZE, choice = rig_below(&model->chance, 10);

    expect_page(model, page);
    if (choice < 2) {
        assert_int_equal(fsw_device_discard(device, at, FSW_PAGE_SIZE), 0);
        model->kinds[page] = RIG_ZERO;
        model->parts[page][0] = '\0';
    } else if (choice < 4) {
        snprintf(model->parts[page], 64, "%llu", (unsigned long long)rig_random(&model->chance));
        char whole[FSW_PAGE_SIZE];
        rig_fill(whole, (enum rig_kind)model->kinds[page], model->seeds[page]);
        memcpy(whole + 100, model->parts[page], strlen(model->parts[page]));
        /* 64 bytes, which cover the part before */
        assert_int_equal(fsw_device_write(device, whole + 100, at + 100, 64), 0);
    } else {
        model->kinds[page] = (uint8_t)rig_below(&model->chance, RIG_KINDS);
        model->seeds[page] = rig_random(&model->chance);
        model->parts[page][0] = '\0';
        assert_int_equal(rig_write_page(&model->rig, page, (enum rig_kind)model->kinds[page],
                                        model->seeds[page]),
                         0);
    }
    expect_page(model, page);
}

/* As many operations as `steps`, and on until as many objects as `least` have moved: how soon they do
 * is a matter of chance. Of 20 times the steps, that many have, or compaction does not work. */
static void run_model(const struct rig_options *options, unsigned steps, uint64_t least)
{
    struct model model = {.chance = rig_seed(), .pages = options->size / FSW_PAGE_SIZE};
    uint64_t moved = 0;

    model.kinds = calloc(model.pages, 1);
    model.seeds = calloc(model.pages, sizeof model.seeds[0]);
    model.parts = calloc(model.pages, sizeof model.parts[0]);
    rig_open(&model.rig, options);
    fsw_keeper_stop(model.rig.device); /* one caller at a time: us */
    for (unsigned step = 0; step < steps || (moved < least && step < 20 * steps); step++) {
        if (options->with_store && step % 64 == 0 && step % 512 < 128)
            rig_evict(&model.rig, step % 512 == 0);
        change_page(&model, rig_below(&model.chance, model.pages));
        moved += fsw_compact_step(model.rig.device);
        if (step % (steps / 8) == 0) {
            rig_prove(&model.rig);
            fsw_keeper_stop(model.rig.device);
        }
    }
    rig_evict(&model.rig, 0);
    for (uint64_t page = 0; page < model.pages; page++)
        expect_page(&model, page);
    assert_true(moved >= least);
    assert_true(rig_stat(&model.rig, FSW_STAT_COMPACT_MOVED) >= moved);
    rig_close(&model.rig);
    free(model.kinds);
    free(model.seeds);
    free(model.parts);
}

static void a_step_between_any_two_operations_loses_nothing(void **state)
{
    unsigned steps = RIG_SLOW ? 4000 : 30000;

    run_model(&(struct rig_options){.size = MIB(6), .memory = MIB(10)}, steps, 100);
    run_model(&(struct rig_options){.size = MIB(6), .memory = MIB(4), .with_store = 1}, steps, 100);
}

/* ---- fragmentation ---- */

static void compact_all(struct rig *rig)
{
    fsw_keeper_stop(rig->device);
    while (fsw_compact_step(rig->device) > 0)
        ;
}

/* Frames that live objects need end to end, a class each, and one more a zspage whose end is
 * ragged: what is left after compaction. */
static uint64_t frames_needed(struct rig *rig)
{
    const struct fsw_image *image = &rig->device->image;
    uint64_t sum = 0;

    for (unsigned c = 1; c < fsw_class_table()->count; c++)
        sum += ((uint64_t)image->class_stats[c].objects * fsw_class_table()->shape[c].units +
                FRAME_UNITS - 1) /
                   FRAME_UNITS +
               image->class_stats[c].zspages;
    return sum;
}

static int resident_is_small(struct rig *rig, void *opaque)
{
    return rig_resident(&rig->device->image) <= *(uint64_t *)opaque;
}

/* Keeps the page whose object is first in each frame (or zspage), and discards the others. */
static uint64_t discard_all_but_one(struct rig *rig, uint64_t pages, int a_frame)
{
    static uint8_t kept[1 << 20];
    uint64_t left = 0;

    memset(kept, 0, sizeof kept);
    for (uint64_t page = 0; page < pages; page++) {
        uint64_t location = fsw_entry_location(*rig_entry(rig, page));
        uint64_t key = a_frame ? location / FRAME_UNITS : location >> FSW_ZSPAGE_UNIT_BITS;
        assert_true(key < sizeof kept);
        if (!kept[key]) {
            kept[key] = 1;
            left++;
        } else {
            assert_int_equal(fsw_device_discard(rig->device, page * FSW_PAGE_SIZE, FSW_PAGE_SIZE),
                             0);
        }
    }
    return left;
}

static void adversary(int a_frame, enum rig_kind kind)
{
    enum { PAGES = 12000 };
    struct rig rig;

    rig_open(&rig, &(struct rig_options){.size = MIB(64), .memory = MIB(64)});
    fsw_keeper_stop(rig.device);
    for (uint64_t page = 0; page < PAGES; page++)
        assert_int_equal(rig_write_page(&rig, page, kind, page), 0);
    uint64_t full = rig_stat(&rig, FSW_STAT_POOL_FRAMES);
    uint64_t left = discard_all_but_one(&rig, PAGES, a_frame);
    uint64_t sparse = rig_stat(&rig, FSW_STAT_POOL_FRAMES);
    assert_true(sparse <= 2 * left); /* an object straddles two frames at most */
    compact_all(&rig);
    uint64_t packed = rig_stat(&rig, FSW_STAT_POOL_FRAMES);
    if (packed > frames_needed(&rig))
        fail_msg("%llu frames after packing, %llu needed", (unsigned long long)packed,
                 (unsigned long long)frames_needed(&rig));
    if (a_frame)
        assert_true(packed * 2 < sparse);
    /* The memory is the system's again: what is in use, and a reserve and a half. */
    uint64_t enough = rig_stat(&rig, FSW_STAT_MEM_USED_TOTAL) +
                      (FSW_RESERVE_FRAMES * 3 / 2 + 16) * FSW_FRAME_SIZE;
    rig_wait(&rig, resident_is_small, &enough);
    /* Refilled, the holes are used: no more frames than the first time. */
    for (uint64_t page = 0; page < PAGES; page++)
        if (*rig_entry(&rig, page) == 0)
            assert_int_equal(rig_write_page(&rig, page, kind, page), 0);
    assert_true(rig_stat(&rig, FSW_STAT_POOL_FRAMES) <= full + full / 50 + 2);
    for (uint64_t page = 0; page < PAGES; page += RIG_SLOW ? 7 : 1)
        rig_expect_page(&rig, page, kind, page);
    rig_close(&rig);
}

static void all_but_one_object_a_zspage_discarded(void **state)
{
    adversary(0, RIG_HALF);
    adversary(0, RIG_SAME64);
}

static void all_but_one_object_a_frame_discarded(void **state)
{
    adversary(1, RIG_TEXT);
    adversary(1, RIG_HALF);
}

static int is_packed(struct rig *rig, void *opaque)
{
    uint64_t frames = rig_stat(rig, FSW_STAT_POOL_FRAMES);
    return frames * FSW_FRAME_SIZE <= rig_stat(rig, FSW_STAT_COMPR_DATA_SIZE) * 115 / 100;
}

/* Nobody asks: the keeper sees it. */
static void three_quarters_discarded_at_random_come_back_by_themselves(void **state)
{
    struct rig rig;
    uint64_t chance = rig_seed();

    rig_open(&rig, &(struct rig_options){.size = MIB(64), .memory = MIB(64)});
    for (uint64_t page = 0; page < 16384; page++)
        assert_int_equal(rig_write_page(&rig, page, RIG_TEXT + page % 2, page), 0);
    for (uint64_t page = 0; page < 16384; page++)
        if (rig_below(&chance, 4))
            assert_int_equal(fsw_device_discard(rig.device, page * FSW_PAGE_SIZE, FSW_PAGE_SIZE),
                             0);
    rig_wait(&rig, is_packed, NULL);
    rig_close(&rig);
}

/* ---- in the way ---- */

/* Two classes with holes; an object that can't move in each most wasteful zspage. */
static void what_cannot_move_does_not_stop_the_rest(void **state)
{
    enum { PAGES = 3000 };
    struct rig rig;
    unsigned spoilt = 0;

    rig_open(&rig, &(struct rig_options){.size = MIB(16), .memory = MIB(16)});
    fsw_keeper_stop(rig.device);
    for (uint64_t page = 0; page < PAGES; page++)
        assert_int_equal(rig_write_page(&rig, page, page % 2 ? RIG_TEXT : RIG_HALF, page), 0);
    discard_all_but_one(&rig, PAGES, 1);
    /* The last zspage in use of each kind: all its objects' headers lie. */
    uint32_t last[2] = {0, 0};
    for (uint64_t page = 0; page < PAGES; page++) {
        uint32_t id = (uint32_t)(fsw_entry_location(*rig_entry(&rig, page)) >> 14);
        last[page % 2] = id != 0 && last[page % 2] == 0 ? id : last[page % 2];
    }
    struct fsw_image *image = &rig.device->image;
    for (uint64_t page = 0; page < PAGES; page++) {
        uint64_t location = fsw_entry_location(*rig_entry(&rig, page));
        if (location == 0 || (location >> 14 != last[0] && location >> 14 != last[1]))
            continue;
        uint32_t frame = image->zspages[location >> 14].frame[(location & 0x3fff) / FRAME_UNITS];
        ((char *)fsw_image_frame(image, frame))[location % FRAME_UNITS * FSW_UNIT] ^= 0x40;
        *rig_entry(&rig, page) = fsw_entry_with_age(*rig_entry(&rig, page), 77);
        spoilt++;
    }
    assert_true(spoilt > 20);
    /* The others waste less, so these come first. */
    for (uint64_t page = 0; page < PAGES; page++) {
        uint64_t value = *rig_entry(&rig, page), location = fsw_entry_location(value);
        if (value != 0 && fsw_entry_age(value) != 77 && location / FRAME_UNITS % 2)
            fsw_device_discard(rig.device, page * FSW_PAGE_SIZE, FSW_PAGE_SIZE);
    }
    compact_all(&rig);
    uint64_t kept =
        rig.device->pool.zspages[last[0]].attached + rig.device->pool.zspages[last[1]].attached;
    assert_true(rig_stat(&rig, FSW_STAT_POOL_FRAMES) <= frames_needed(&rig) + kept);
    for (uint64_t page = 0; page < PAGES; page++)
        if (*rig_entry(&rig, page) != 0 && fsw_entry_age(*rig_entry(&rig, page)) != 77)
            rig_expect_page(&rig, page, page % 2 ? RIG_TEXT : RIG_HALF, page);
    rig_abandon(&rig);
}

/* At the limit there is no frame to be had, and packing is wanted most. */
static void a_pool_without_a_free_frame_is_packed(void **state)
{
    enum { PAGES = 3000 };
    struct rig rig;

    rig_open(&rig, &(struct rig_options){.size = MIB(16), .memory = MIB(16)});
    fsw_keeper_stop(rig.device);
    for (uint64_t page = 0; page < PAGES; page++)
        assert_int_equal(rig_write_page(&rig, page, RIG_TEXT, page), 0);
    for (uint64_t page = 0; page < PAGES; page++)
        if (page % 3 || fsw_entry_location(*rig_entry(&rig, page)) / FRAME_UNITS % 64 < 5)
            fsw_device_discard(rig.device, page * FSW_PAGE_SIZE, FSW_PAGE_SIZE);
    struct fsw_frames *frames = &rig.device->pool.frames;
    fsw_frames_stop(frames);
    static uint32_t held[8192];
    uint32_t n = 0;
    while (n < 8192 && (held[n] = fsw_frames_take(frames)) != 0)
        n++;
    uint64_t before = rig_stat(&rig, FSW_STAT_POOL_FRAMES);
    assert_true(fsw_compact_step(rig.device) > 0);
    compact_all(&rig);
    assert_true(rig_stat(&rig, FSW_STAT_POOL_FRAMES) < before * 2 / 3);
    while (n > 0)
        fsw_frames_give(frames, held[--n]);
    assert_int_equal(fsw_frames_start(frames), 0);
    for (uint64_t page = 0; page < PAGES; page++)
        if (*rig_entry(&rig, page) != 0)
            rig_expect_page(&rig, page, RIG_TEXT, page);
    rig_close(&rig);
}

static void compact_while_packed(enum fsw_hook at, void *opaque)
{
    if (at == FSW_HOOK_PACKED || at == FSW_HOOK_LIVE)
        while (fsw_compact_step(opaque) > 0)
            ;
}

/* What an evictor has copied stays until its put has ended (E3): nothing races, all leave. */
static void what_an_evictor_holds_stays(void **state)
{
    enum { PAGES = 2000 };
    struct rig rig;

    rig_open(&rig, &(struct rig_options){.size = MIB(8), .memory = MIB(8), .with_store = 1});
    fsw_keeper_stop(rig.device); /* the hook is the one caller */
    for (uint64_t page = 0; page < PAGES; page++)
        assert_int_equal(rig_write_page(&rig, page, RIG_TEXT, page), 0);
    for (uint64_t page = 0; page < PAGES; page++)
        if (page % 4)
            fsw_device_discard(rig.device, page * FSW_PAGE_SIZE, FSW_PAGE_SIZE);
    rig.device->hook_opaque = rig.device;
    rig.device->hook = compact_while_packed;
    rig_evict_all(&rig);
    assert_int_equal(rig_stat(&rig, FSW_STAT_OVERFLOW_RACED), 0);
    assert_int_equal(rig_stat(&rig, FSW_STAT_OVERFLOW_PAGES), PAGES / 4);
    assert_true(rig_stat(&rig, FSW_STAT_COMPACT_MOVED) > 0); /* those that nobody held */
    for (uint64_t page = 0; page < PAGES; page++)
        rig_expect_page(&rig, page, page % 4 ? RIG_ZERO : RIG_TEXT, page);
    rig_close(&rig);
}

/* Sets the overflow bit of all that is in the pool, as an evictor would, or takes it away. */
static void hold_all(struct rig *rig, uint64_t pages, int held)
{
    for (uint64_t page = 0; page < pages; page++) {
        fsw_entry *entry = rig_entry(rig, page);
        if (entry != NULL && fsw_entry_state(*entry) == FSW_POOL)
            *entry = held ? *entry | FSW_ENTRY_OVERFLOW : *entry & ~FSW_ENTRY_OVERFLOW;
    }
}

static int has_given_up(struct rig *rig, void *opaque)
{
    return rig_stat(rig, FSW_STAT_COMPACT_MOVED) == 0 &&
           atomic_load(&rig->device->keeper.futile) > 0;
}

/* A put that fails lets its pages go, and nothing else says so. */
static void what_was_held_is_packed_when_it_is_let_go(void **state)
{
    enum { PAGES = 8000 };
    struct rig rig;

    rig_open(&rig, &(struct rig_options){.size = MIB(32), .memory = MIB(32)});
    fsw_keeper_stop(rig.device);
    for (uint64_t page = 0; page < PAGES; page++)
        assert_int_equal(rig_write_page(&rig, page, RIG_TEXT, page), 0);
    for (uint64_t page = 0; page < PAGES; page++)
        if (page % 4)
            fsw_device_discard(rig.device, page * FSW_PAGE_SIZE, FSW_PAGE_SIZE);
    hold_all(&rig, PAGES, 1);
    atomic_store(&rig.device->keeper.stop, 0);
    assert_int_equal(fsw_keeper_start(rig.device), 0);
    rig_wait(&rig, has_given_up, NULL);
    assert_false(is_packed(&rig, NULL));
    hold_all(&rig, PAGES, 0);
    rig_wait(&rig, is_packed, NULL);
    for (uint64_t page = 0; page < PAGES; page++)
        rig_expect_page(&rig, page, page % 4 ? RIG_ZERO : RIG_TEXT, page);
    rig_close(&rig);
}

/* Pages that die as fast as what they leave is packed (the test is linked with --wrap). */
static struct {
    _Atomic unsigned steps; /* left to do so; 0: at rest */
    uint32_t freeable;      /* as many as there were */
    uint64_t next;          /* page */
} outrun;

unsigned __real_fsw_compact_step(struct fsw_device *device);
unsigned __wrap_fsw_compact_step(struct fsw_device *device);

unsigned __wrap_fsw_compact_step(struct fsw_device *device)
{
    unsigned moved = __real_fsw_compact_step(device);

    if (atomic_load(&outrun.steps) == 0)
        return moved;
    for (; outrun.next < device->pages && fsw_compact_freeable(device) < outrun.freeable;
         outrun.next++)
        if (outrun.next % 4)
            fsw_device_discard(device, outrun.next * FSW_PAGE_SIZE, FSW_PAGE_SIZE);
    outrun.freeable = fsw_compact_freeable(device);
    atomic_fetch_sub(&outrun.steps, 1);
    return moved;
}

static int has_been_outrun(struct rig *rig, void *opaque)
{
    return atomic_load(&outrun.steps) == 0;
}

static void what_outruns_it_for_a_while_does_not_end_it(void **state)
{
    enum { PAGES = 12000, STEPS = 75 };
    struct rig rig;

    rig_open(&rig, &(struct rig_options){.size = MIB(48), .memory = MIB(64)});
    fsw_keeper_stop(rig.device);
    for (uint64_t page = 0; page < PAGES; page++)
        assert_int_equal(rig_write_page(&rig, page, RIG_NEARLY_RAW, page), 0);
    for (outrun.next = 0; fsw_compact_freeable(rig.device) < 800; outrun.next++)
        if (outrun.next % 4)
            fsw_device_discard(rig.device, outrun.next * FSW_PAGE_SIZE, FSW_PAGE_SIZE);
    outrun.freeable = fsw_compact_freeable(rig.device);
    atomic_store(&outrun.steps, STEPS);
    atomic_store(&rig.device->keeper.stop, 0);
    assert_int_equal(fsw_keeper_start(rig.device), 0);
    rig_wait(&rig, has_been_outrun, NULL);
    assert_in_range(outrun.next, PAGES / 4, PAGES - 1);
    rig_wait(&rig, is_packed, NULL);
    for (uint64_t page = 0; page < PAGES; page += 4)
        rig_expect_page(&rig, page, RIG_NEARLY_RAW, page);
    rig_close(&rig);
}

RIG_MAIN(cmocka_unit_test(packing_at_every_step_loses_nothing),
         cmocka_unit_test(a_step_between_any_two_operations_loses_nothing),
         cmocka_unit_test(all_but_one_object_a_zspage_discarded),
         cmocka_unit_test(all_but_one_object_a_frame_discarded),
         cmocka_unit_test(three_quarters_discarded_at_random_come_back_by_themselves),
         cmocka_unit_test(what_cannot_move_does_not_stop_the_rest),
         cmocka_unit_test(a_pool_without_a_free_frame_is_packed),
         cmocka_unit_test(what_an_evictor_holds_stays),
         cmocka_unit_test(what_was_held_is_packed_when_it_is_let_go),
         cmocka_unit_test(what_outruns_it_for_a_while_does_not_end_it))

/* test_table.c: entries, leaves, rows, by themselves. */
#include "rig.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

static const struct rig_options small = {.size = 4 << 20, .memory = 3 << 20, .with_store = 1};

static void an_entry_gives_back_what_was_put_in(void **state)
{
    uint64_t chance = rig_seed();

    for (unsigned i = 0; i < 10000; i++) {
        uint64_t location = rig_below(&chance, 1ull << 40);
        unsigned units = (unsigned)rig_below(&chance, FSW_LENGTH_MASK + 1);
        unsigned offset = (unsigned)rig_below(&chance, 1u << FSW_OFFSET_BITS);
        uint32_t row = (uint32_t)rig_below(&chance, 1ull << 31),
                 word = (uint32_t)rig_random(&chance);
        uint8_t age = (uint8_t)rig_random(&chance);
        uint64_t pool = fsw_entry_pool(location, units, age);
        uint64_t store = fsw_entry_store(row, offset, units);

        assert_int_equal(fsw_entry_state(pool), FSW_POOL);
        assert_true(fsw_entry_location(pool) == location && fsw_entry_units(pool) == units &&
                    fsw_entry_age(pool) == age);
        assert_int_equal(fsw_entry_state(store), FSW_STORE);
        assert_true(fsw_entry_row(store) == row && fsw_entry_offset_units(store) == offset &&
                    fsw_entry_units(store) == units);
        assert_int_equal(fsw_entry_state(fsw_entry_same(word)), FSW_SAME);
        assert_int_equal(fsw_entry_word(fsw_entry_same(word)), word);
        assert_false((pool | store | fsw_entry_same(word)) & (FSW_ENTRY_LOCK | FSW_ENTRY_OVERFLOW));
        uint64_t older = fsw_entry_with_age(pool, (uint8_t)(age + 1));
        assert_true(older != pool && fsw_entry_same_place(older, pool));
        assert_false(fsw_entry_same_place(pool, pool | FSW_ENTRY_OVERFLOW));
        assert_false(fsw_entry_same_place(pool, fsw_entry_pool(location ^ 1, units, age)));
        assert_false(fsw_entry_same_place(pool, fsw_entry_pool(location, units ^ 1, age)));
    }
}

static fsw_entry shared;
static uint64_t guarded;

static void *add_under_the_bit(void *opaque)
{
    for (unsigned i = 0; i < 20000; i++) {
        uint64_t value = fsw_entry_lock(&shared);
        guarded++;
        fsw_entry_unlock(&shared, value + 1);
    }
    return NULL;
}

static void *swap_words(void *opaque)
{
    for (unsigned i = 0; i < 20000; i++) {
        uint64_t old = fsw_entry_load(&shared);
        if (old & FSW_ENTRY_LOCK)
            return (void *)1;
    }
    return NULL;
}

static void the_lock_bit_lets_one_in(void **state)
{
    pthread_t threads[3];
    void *bad;

    shared = guarded = 0;
    pthread_create(&threads[0], NULL, add_under_the_bit, NULL);
    pthread_create(&threads[1], NULL, add_under_the_bit, NULL);
    pthread_create(&threads[2], NULL, swap_words, NULL);
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);
    pthread_join(threads[2], &bad);
    assert_null(bad);
    assert_int_equal(guarded, 40000);
    assert_true(shared == 40000);
}

static void looking_makes_no_leaf_and_leaves_stay(void **state)
{
    struct rig rig;

    rig_open(&rig, &small);
    struct fsw_device *device = rig.device;
    for (uint64_t page = 0; page < device->pages; page += 100)
        assert_null(fsw_table_find(&device->image, page));
    fsw_entry *entry = fsw_table_make(&device->table, 513);
    assert_non_null(entry);
    assert_ptr_equal(entry, fsw_table_make(&device->table, 513));
    assert_ptr_equal(entry, fsw_table_find(&device->image, 513));
    assert_ptr_equal(entry - 1, fsw_table_find(&device->image, 512));
    assert_null(fsw_table_find(&device->image, 511));
    for (unsigned i = 0; i < FSW_LEAF_ENTRIES; i++)
        assert_true(fsw_table_find(&device->image, 512)[i] == 0);
    assert_int_equal(rig_stat(&rig, FSW_STAT_TABLE_LEAVES), 1);
    rig_close(&rig);
}

static void a_row_lives_until_the_last_object_and_the_last_pin(void **state)
{
    struct rig rig;
    uint64_t id, other;

    rig_open(&rig, &small);
    struct fsw_rows *rows = &rig.device->rows;
    const struct fsw_image *image = rows->image;
    uint32_t row = fsw_row_take(rows, &id);
    assert_int_equal(fsw_row_state(image, row), FSW_ROW_PENDING);
    assert_int_equal(fsw_row_pin(rows, row), 0); /* only the living */
    assert_int_equal(fsw_row_kill(rows, row, 1), -EIO);
    fsw_row_live(rows, row, 480, 3, 1);
    assert_int_equal(fsw_row_pins(image, row), 1);
    assert_int_equal(fsw_row_pin(rows, row), 1);
    assert_int_equal(fsw_row_kill(rows, row, 4), -EIO);
    assert_int_equal(fsw_row_kill(rows, row, 3), 0);
    assert_int_equal(fsw_row_unpin(rows, row), 0);
    assert_int_equal(fsw_row_state(image, row), FSW_ROW_LIVE);
    assert_int_equal(fsw_row_unpin(rows, row), 1);
    assert_int_equal(fsw_row_state(image, row), FSW_ROW_DROPPING);
    assert_int_equal(fsw_row_pin(rows, row), 0);
    fsw_row_free(rows, row);
    assert_int_equal(fsw_row_take(rows, &other), row); /* its number comes again, its id never */
    assert_int_equal(other, id + 1);
    assert_int_equal(fsw_row_abandon(rows, row), 1);
    assert_int_equal(fsw_row_state(image, row), FSW_ROW_DROPPING);
    fsw_row_free(rows, row);
    assert_int_equal(fsw_row_pin(rows, 0), 0);
    assert_int_equal(fsw_row_pin(rows, UINT32_MAX), 0);
    assert_int_equal(fsw_row_kill(rows, UINT32_MAX, 1), -EIO);
    rig_close(&rig);
}

/* ---- reclaim ---- */

static int pages_left(struct rig *rig, void *opaque)
{
    return rig_stat(rig, FSW_STAT_OVERFLOW_PAGES) >= 50;
}

/* Pages that are read between two passes of the hand stay; the others leave. */
static void what_is_used_stays(void **state)
{
    struct rig rig;
    struct fsw_victim victim;
    unsigned hot = 0, cold = 0;

    rig_open(&rig, &(struct rig_options){.size = 8 << 20, .memory = 8 << 20, .with_store = 1});
    for (uint64_t page = 0; page < 100; page++) /* too few for the clock to tick by itself */
        assert_int_equal(rig_write_page(&rig, page, RIG_TEXT, page), 0);
    atomic_fetch_add(&rig.device->clock, 1);
    for (uint64_t page = 0; page < 100; page += 2)
        rig_expect_page(&rig, page, RIG_TEXT, page);
    fsw_keeper_stop(rig.device);
    for (unsigned i = 0; i < 50; i++) { /* the first lap: nobody else asks for victims now */
        assert_int_equal(fsw_reclaim_next(rig.device, &victim), 1);
        hot += victim.page % 2 == 0;
        cold += victim.page % 2 == 1;
    }
    assert_int_equal(hot, 0);
    assert_int_equal(cold, 50);
    assert_int_equal(rig_stat(&rig, FSW_STAT_RECLAIM_SECOND_CHANCES) > 0, 1);
    rig_evict(&rig, 1); /* and when all must leave, all can */
    rig_wait(&rig, pages_left, NULL);
    rig_evict_all(&rig);
    for (uint64_t page = 0; page < 100; page++)
        rig_expect_page(&rig, page, RIG_TEXT, page);
    rig_close(&rig);
}

static void old_ages_are_clamped_before_the_clock_laps_them(void **state)
{
    struct rig rig;

    rig_open(&rig, &(struct rig_options){.size = 8 << 20, .memory = 8 << 20});
    assert_int_equal(rig_write_page(&rig, 3, RIG_TEXT, 3), 0);
    for (unsigned tick = 1; tick <= 600; tick++) {
        atomic_fetch_add(&rig.device->clock, 1);
        fsw_reclaim_clamp(rig.device); /* no store: no other thread does */
        uint8_t now = rig.device->clock, age = fsw_entry_age(*rig_entry(&rig, 3));
        assert_in_range((uint8_t)(now - age), 0, 200);
        if (tick >= 127)
            assert_true((uint8_t)(now - age) >= 127);
    }
    rig_close(&rig);
}

RIG_MAIN(cmocka_unit_test(an_entry_gives_back_what_was_put_in),
         cmocka_unit_test(the_lock_bit_lets_one_in),
         cmocka_unit_test(looking_makes_no_leaf_and_leaves_stay),
         cmocka_unit_test(a_row_lives_until_the_last_object_and_the_last_pin),
         cmocka_unit_test(what_is_used_stays),
         cmocka_unit_test(old_ages_are_clamped_before_the_clock_laps_them))

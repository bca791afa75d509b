/*
 * test_device_damage.c: bits that fell over in the image. A damaged page is EIO, is counted, and
 * can be written anew; its neighbours don't notice, and the engine never crashes.
 */
#include "rig.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static int read_page(struct rig *rig, uint64_t page, char *bytes)
{
    return fsw_device_read(rig->device, bytes, page * FSW_PAGE_SIZE, FSW_PAGE_SIZE);
}

/* Page 5 is broken: every verb copes, and writing heals. */
static void expect_eio_and_heal(struct rig *rig, int by_discard)
{
    char bytes[FSW_PAGE_SIZE];
    uint64_t corrupt = rig_stat(rig, FSW_STAT_CORRUPT_PAGES);

    assert_int_equal(read_page(rig, 5, bytes), -EIO);
    assert_true(rig_stat(rig, FSW_STAT_CORRUPT_PAGES) > corrupt);
    assert_int_equal(fsw_device_write(rig->device, bytes, 5 * FSW_PAGE_SIZE + 1, 9), -EIO);
    assert_int_equal(fsw_device_zero(rig->device, 5 * FSW_PAGE_SIZE + 1, 9), -EIO);
    assert_int_equal(fsw_device_read(rig->device, bytes, 5 * FSW_PAGE_SIZE + 1, 9), -EIO);
    rig_expect_page(rig, 4, RIG_TEXT, 4);
    rig_expect_page(rig, 6, RIG_TEXT, 6);
    if (by_discard) {
        assert_int_equal(fsw_device_discard(rig->device, 5 * FSW_PAGE_SIZE, FSW_PAGE_SIZE), 0);
        rig_expect_page(rig, 5, RIG_ZERO, 0);
    }
    assert_int_equal(rig_write_page(rig, 5, RIG_HALF, 55), 0);
    rig_expect_page(rig, 5, RIG_HALF, 55);
    rig_expect_page(rig, 4, RIG_TEXT, 4);
    rig_expect_page(rig, 6, RIG_TEXT, 6);
}

static void open_rig(struct rig *rig, int with_store)
{
    rig_open(rig,
             &(struct rig_options){.size = 4 << 20, .memory = 4 << 20, .with_store = with_store});
    for (uint64_t page = 0; page < 10; page++)
        assert_int_equal(rig_write_page(rig, page, RIG_TEXT, page), 0);
}

/* The bytes of page 5's object, which lies in one frame or two. */
static char *object_byte(struct rig *rig, unsigned at)
{
    uint64_t location = fsw_entry_location(*rig_entry(rig, 5));
    uint64_t unit = (location & 0x3fff) + at / FSW_UNIT;
    struct fsw_image *image = &rig->device->image;
    uint32_t frame = image->zspages[location >> FSW_ZSPAGE_UNIT_BITS].frame[unit / 256];

    return (char *)fsw_image_frame(image, frame) + unit % 256 * FSW_UNIT + at % FSW_UNIT;
}

static void each_byte_of_an_object_counts(void **state)
{
    for (unsigned at = 0; at < FSW_OBJECT_HEADER + 40; at++) {
        struct rig rig;
        open_rig(&rig, 0);
        *object_byte(&rig, at) ^= 0x40;
        expect_eio_and_heal(&rig, at % 2);
        rig_close(&rig);
    }
}

/* A page that did not compress is read and checked another way. */
static void each_byte_of_a_huge_object_counts(void **state)
{
    for (unsigned at = 0; at < FSW_OBJECT_HEADER + FSW_PAGE_SIZE; at += at < 40 ? 1 : 83) {
        struct rig rig;
        open_rig(&rig, 0);
        assert_int_equal(rig_write_page(&rig, 5, RIG_NOISE, 5), 0);
        *object_byte(&rig, at) ^= 0x40;
        expect_eio_and_heal(&rig, at % 2);
        rig_close(&rig);
    }
}

static void a_page_number_of_another_page_is_no_content(void **state)
{
    static const enum rig_kind kinds[] = {RIG_TEXT, RIG_NOISE};

    for (unsigned i = 0; i < 2; i++) {
        struct rig rig;
        char bytes[FSW_PAGE_SIZE];
        open_rig(&rig, 0);
        assert_int_equal(rig_write_page(&rig, 4, kinds[i], 4), 0);
        *rig_entry(&rig, 5) = *rig_entry(&rig, 4); /* the entry names page 4's object */
        assert_int_equal(read_page(&rig, 5, bytes), -EIO);
        rig_expect_page(&rig, 4, kinds[i], 4);
        rig_abandon(&rig);
    }
}

static void entries_that_name_nothing(void **state)
{
    for (unsigned form = 0; form < 16; form++)
        for (int by_discard = 0; by_discard < 2; by_discard++) {
            struct rig rig;
            open_rig(&rig, 1);
            fsw_entry *entry = rig_entry(&rig, 5);
            uint64_t good = *entry, location = fsw_entry_location(good);
            unsigned units = fsw_entry_units(good);
            const uint64_t bad[] = {
                fsw_entry_pool(0, units, 0),
                fsw_entry_pool((1ull << 40) - 1, units, 0),
                fsw_entry_pool(location + (1 << FSW_ZSPAGE_UNIT_BITS) * 500ull, units, 0),
                fsw_entry_pool(location + 1, units, 0),
                fsw_entry_pool(location + units * 400ull, units, 0),
                fsw_entry_pool(location, 0, 0),
                fsw_entry_pool(location, 1, 0),
                fsw_entry_pool(location, FSW_LENGTH_MASK, 0),
                fsw_entry_pool(location, units - 1, 0),
                fsw_entry_pool(location | 0x3fff, FSW_OBJECT_UNITS_MAX, 0),
                fsw_entry_store(0, 0, units),
                fsw_entry_store(1, 0, units),
                fsw_entry_store(77, 0, units),
                fsw_entry_store(UINT32_MAX >> 1, 0, units),
                fsw_entry_store(1, 4095, FSW_LENGTH_MASK),
                fsw_entry_pool(location, units, 0) | FSW_ENTRY_WHERE,
            };
            *entry = bad[form];
            expect_eio_and_heal(&rig, by_discard);
            rig_abandon(&rig);
        }
}

/* Page 5 and its neighbours at the store, in a row that lives. */
static void entries_that_leave_their_segment(void **state)
{
    for (unsigned form = 0; form < 5; form++) {
        struct rig rig;
        open_rig(&rig, 1);
        rig_evict_all(&rig);
        fsw_entry *entry = rig_entry(&rig, 5);
        uint64_t good = *entry;
        uint32_t row = fsw_entry_row(good);
        unsigned offset = fsw_entry_offset_units(good), units = fsw_entry_units(good);
        const uint64_t bad[] = {
            fsw_entry_store(row, offset, FSW_LENGTH_MASK),
            fsw_entry_store(row, 4095, units),
            fsw_entry_store(row, offset, 0),
            fsw_entry_store(row + 1, offset, units),
            fsw_entry_store(row, offset + 1, units),
        };
        *entry = bad[form];
        expect_eio_and_heal(&rig, 0);
        rig_abandon(&rig);
    }
}

/* The hand passes objects whose header lies, and an evictor that packs leaves them alone. */
static void reclaim_passes_damaged_headers(void **state)
{
    struct rig rig;
    char bytes[FSW_PAGE_SIZE];

    open_rig(&rig, 1);
    *object_byte(&rig, 3) ^= 0x40; /* a page far past the device's end */
    rig_evict(&rig, 1);
    for (unsigned round = 0; round < 20; round++)
        for (uint64_t page = 20; page < 200; page++)
            assert_int_equal(rig_write_page(&rig, page, RIG_HALF, page), 0);
    for (uint64_t page = 20; page < 200; page++)
        rig_expect_page(&rig, page, RIG_HALF, page);
    rig_evict(&rig, 0);
    assert_int_equal(read_page(&rig, 5, bytes), -EIO);
    assert_int_equal(rig_write_page(&rig, 5, RIG_HALF, 5), 0);
    rig_close(&rig);
}

RIG_MAIN(cmocka_unit_test(each_byte_of_an_object_counts),
         cmocka_unit_test(each_byte_of_a_huge_object_counts),
         cmocka_unit_test(a_page_number_of_another_page_is_no_content),
         cmocka_unit_test(entries_that_name_nothing),
         cmocka_unit_test(entries_that_leave_their_segment),
         cmocka_unit_test(reclaim_passes_damaged_headers))

/*
 * test_device_model.c: the device against a plain array, one thread, random verbs at any offset
 * and length with contents of every kind; with and without a store, for each codec.
 */
#include "rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"

struct model {
    struct rig rig;
    uint64_t size, state;
    unsigned char *bytes, *scratch;
    uint64_t pages_written;
};

#define LONGEST (40 * FSW_PAGE_SIZE)

static void expect_range(struct model *model, uint64_t offset, uint64_t length)
{
    assert_int_equal(fsw_device_read(model->rig.device, model->scratch, offset, length), 0);
    if (memcmp(model->scratch, model->bytes + offset, length) == 0)
        return;
    uint64_t at = 0;
    while (model->scratch[at] == model->bytes[offset + at])
        at++;
    fail_msg("byte %llu (page %llu, in a read of %llu at %llu) is not what was written",
             (unsigned long long)(offset + at), (unsigned long long)((offset + at) / 4096),
             (unsigned long long)length, (unsigned long long)offset);
}

/* Whole pages mostly, sometimes borders and parts. */
static void choose_range(struct model *model, uint64_t *ret_offset, uint64_t *ret_length)
{
    uint64_t pages = model->size / FSW_PAGE_SIZE, offset, length;
    unsigned form = (unsigned)rig_below(&model->state, 8);

    offset = rig_below(&model->state, pages) * FSW_PAGE_SIZE;
    length = (1 + rig_below(&model->state, form == 0 ? 32 : 12)) * FSW_PAGE_SIZE;
    if (form == 1) /* inside a page or two */
        length = 1 + rig_below(&model->state, FSW_PAGE_SIZE);
    if (form == 1 || form == 2)
        offset += rig_below(&model->state, FSW_PAGE_SIZE);
    if (form == 3) /* one byte short or long */
        length += rig_below(&model->state, 2) ? 1 : -1;
    if (form == 4 && offset > 0)
        offset--;
    if (offset + length > model->size)
        length = model->size - offset;
    *ret_offset = offset;
    *ret_length = length;
}

static void fill_range(struct model *model, uint64_t length)
{
    for (uint64_t at = 0; at < length; at += FSW_PAGE_SIZE) {
        unsigned char page[FSW_PAGE_SIZE];
        uint64_t part = length - at < FSW_PAGE_SIZE ? length - at : FSW_PAGE_SIZE;
        rig_fill(page, (enum rig_kind)rig_below(&model->state, RIG_KINDS),
                 rig_below(&model->state, 1000));
        memcpy(model->scratch + at, page, part);
    }
}

/* With a store that answers, there is always room within FSW_WRITE_WAIT_NS. */
static void expect_written(struct model *model, int r)
{
    struct fsw_device *device = model->rig.device;

    if (r < 0)
        fail_msg("write: %d; %u frames free, %u ready, %llu in the pool, %llu pages there, %u puts "
                 "out, wanted %d; rows: top %u, ready %u, free %u",
                 r, fsw_frames_free(&device->pool.frames), (unsigned)device->pool.frames.nready,
                 (unsigned long long)rig_stat(&model->rig, FSW_STAT_POOL_FRAMES),
                 (unsigned long long)rig_stat(&model->rig, FSW_STAT_PAGES_POOL),
                 device->overflow.puts_out, atomic_load(&device->overflow.wanted),
                 (unsigned)device->image.super->rows_top, device->rows.ready, device->rows.free);
}

static void one_write(struct model *model, uint64_t offset, uint64_t length)
{
    if (rig_below(&model->state, 4)) /* what is about to go: nothing lost goes unseen */
        expect_range(model, offset, length);
    fill_range(model, length);
    expect_written(model, fsw_device_write(model->rig.device, model->scratch, offset, length));
    memcpy(model->bytes + offset, model->scratch, length);
    model->pages_written += (length + FSW_PAGE_SIZE - 1) / FSW_PAGE_SIZE;
}

static void one_discard(struct model *model, uint64_t offset, uint64_t length)
{
    uint64_t from = (offset + FSW_PAGE_SIZE - 1) / FSW_PAGE_SIZE * FSW_PAGE_SIZE;
    uint64_t to = (offset + length) / FSW_PAGE_SIZE * FSW_PAGE_SIZE;

    expect_range(model, offset, length);
    assert_int_equal(fsw_device_discard(model->rig.device, offset, length), 0);
    if (from < to)
        memset(model->bytes + from, 0, to - from);
    expect_range(model, offset, length);
}

static void one_step(struct model *model)
{
    uint64_t offset, length;

    choose_range(model, &offset, &length);
    switch (rig_below(&model->state, 16)) {
    case 0:
        one_discard(model, offset, length);
        break;
    case 1:
        expect_range(model, offset, length);
        assert_int_equal(fsw_device_zero(model->rig.device, offset, length), 0);
        memset(model->bytes + offset, 0, length);
        break;
    case 2:
    case 3:
    case 4:
        expect_range(model, offset, length);
        break;
    case 5:
        rig_compact(&model->rig);
        assert_int_equal(fsw_device_flush(model->rig.device), 0);
        break;
    default:
        one_write(model, offset, length);
    }
}

static void empty_device(struct model *model)
{
    assert_int_equal(fsw_device_discard(model->rig.device, 0, model->size), 0);
    memset(model->bytes, 0, model->size);
    expect_range(model, 0, LONGEST);
    rig_prove(&model->rig);
    static const enum fsw_stat gauges[] = {
        FSW_STAT_PAGES_STORED,    FSW_STAT_PAGES_POOL,  FSW_STAT_PAGES_SAME,
        FSW_STAT_PAGES_STORE,     FSW_STAT_HUGE_PAGES,  FSW_STAT_COMPR_DATA_SIZE,
        FSW_STAT_STORE_DATA_SIZE, FSW_STAT_STORE_BYTES, FSW_STAT_SEGMENTS,
        FSW_STAT_ZSPAGES,         FSW_STAT_POOL_FRAMES};
    for (unsigned i = 0; i < sizeof gauges / sizeof gauges[0]; i++)
        assert_int_equal(rig_stat(&model->rig, gauges[i]), 0);
}

static void run(const struct rig_options *options, uint64_t pages)
{
    struct model model = {.size = options->size, .state = rig_seed()};
    struct rig_options with_seed = *options;

    if (RIG_SLOW)
        pages /= 8;
    with_seed.seed = rig_random(&model.state);
    rig_open(&model.rig, &with_seed);
    model.bytes = calloc(1, model.size);
    model.scratch = malloc(model.size);
    uint64_t prove_at = pages / 4;
    while (model.pages_written < pages) {
        one_step(&model);
        if (model.pages_written >= prove_at) {
            rig_prove(&model.rig);
            prove_at += pages / 4;
        }
    }
    expect_range(&model, 0, model.size);
    rig_prove(&model.rig);
    empty_device(&model);
    rig_close(&model.rig);
    free(model.bytes);
    free(model.scratch);
}

#define MIB(n) ((uint64_t)(n) << 20)

static void device_equals_array_without_store(void **state)
{
    run(&(struct rig_options){.size = MIB(8), .memory = MIB(16)}, 120000);
}

static void device_equals_array_with_fast_lz4(void **state)
{
    run(&(struct rig_options){.size = MIB(4) + FSW_PAGE_SIZE, .memory = MIB(12), .codec = "lz4:64"},
        120000);
}

static void device_equals_array_with_zstd(void **state)
{
    run(&(struct rig_options){.size = MIB(4), .memory = MIB(2), .codec = "zstd", .with_store = 1},
        15000);
}

static void device_equals_array_uncompressed(void **state)
{
    run(&(struct rig_options){.size = MIB(4) + 3 * FSW_PAGE_SIZE,
                              .memory = MIB(12),
                              .codec = "raw"},
        120000);
}

static void device_equals_array_with_store(void **state)
{
    run(&(struct rig_options){.size = MIB(16), .memory = MIB(4), .with_store = 1}, 120000);
}

static void device_equals_array_with_nearly_all_in_the_store(void **state)
{
    run(
        &(struct rig_options){
            .size = MIB(16) + FSW_PAGE_SIZE, .memory = MIB(2), .with_store = 1, .codec = "raw"},
        80000);
}

static void device_equals_array_with_a_store_that_answers_at_once(void **state)
{
    run(
        &(struct rig_options){
            .size = MIB(8), .memory = MIB(3), .with_store = 1, .answer_at_once = 1},
        120000);
}

RIG_MAIN(cmocka_unit_test(device_equals_array_without_store),
         cmocka_unit_test(device_equals_array_with_fast_lz4),
         cmocka_unit_test(device_equals_array_with_zstd),
         cmocka_unit_test(device_equals_array_uncompressed),
         cmocka_unit_test(device_equals_array_with_store),
         cmocka_unit_test(device_equals_array_with_nearly_all_in_the_store),
         cmocka_unit_test(device_equals_array_with_a_store_that_answers_at_once))

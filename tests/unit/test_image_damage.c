/*
 * test_image_damage.c: every bit of an image's superblock and directory, of entries of each kind,
 * of rows and zspages falls over, one at a time; then many at once, by chance (damage.h says what
 * must hold). tests/fuzz/fuzz_image.c lets libFuzzer choose.
 */
#include "damage.h"
#include "rig.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "core/image.h"

static void a_whole_image_is_whole(void **state)
{
    assert_int_equal(damage_try(NULL, 0), 0);
    assert_string_equal(damage_attach_said(), "");
}

static void each_bit_of_the_superblock_counts(void **state)
{
    for (uint32_t at = 0; at < damage_size(DAMAGE_SUPER); at++) {
        damage_one(DAMAGE_SUPER, at, (uint8_t)(1 << at % 8));
        if (damage_attach_said()[0] == '\0')
            fail_msg("byte %u of the superblock may be anything", at);
    }
    for (unsigned bit = 0; bit < 8 * offsetof(struct fsw_superblock, device); bit++) {
        damage_one(DAMAGE_SUPER, bit / 8, (uint8_t)(1 << bit % 8));
        assert_string_not_equal(damage_attach_said(), "");
    }
}

static void a_top_past_the_end_is_refused(void **state)
{
    static const size_t tops[] = {offsetof(struct fsw_superblock, rows_top),
                                  offsetof(struct fsw_superblock, zspages_top),
                                  offsetof(struct fsw_superblock, frames_top)};

    for (unsigned i = 0; i < 3; i++) {
        size_t at = tops[i] - offsetof(struct fsw_superblock, next_segment);
        damage_one(DAMAGE_TOPS, (uint32_t)at + 3, 0x80);
        assert_non_null(strstr(damage_attach_said(), "more rows, zspages or frames"));
    }
}

static void each_bit_of_a_directory_word_costs_its_leaf(void **state)
{
    for (unsigned bit = 0; bit < 64; bit++)
        for (uint32_t leaf = 0; leaf < 2; leaf++)
            /* The second leaf has written pages up to 700; empty ones must not read either. */
            assert_int_equal(damage_one(DAMAGE_LEAVES, leaf * 8 + bit / 8, (uint8_t)(1 << bit % 8)),
                             512);
}

/* Pages at the store, in the pool, and never written, of all kinds. */
static void each_bit_of_an_entry_costs_its_page_at_most(void **state)
{
    static const uint32_t from[] = {0, 400, 800};

    for (unsigned i = 0; i < 3; i++)
        for (uint32_t page = from[i]; page < from[i] + (i < 2 ? RIG_KINDS : 1); page++)
            for (unsigned bit = 0; bit < 64; bit++)
                assert_in_range(
                    damage_one(DAMAGE_ENTRIES, page * 8 + bit / 8, (uint8_t)(1 << bit % 8)), 0, 1);
}

/* A word that fills a page has no other proof than its entry. */
static void each_bit_of_a_same_filled_or_empty_entry_counts(void **state)
{
    static const uint32_t pages[] = {400 / RIG_KINDS * RIG_KINDS + RIG_SAME32, 800, 600 / 8 * 8};

    for (unsigned i = 0; i < 3; i++)
        for (unsigned bit = 0; bit < 64; bit++)
            if (bit != 61) /* the lock */
                assert_int_equal(
                    damage_one(DAMAGE_ENTRIES, pages[i] * 8 + bit / 8, (uint8_t)(1 << bit % 8)), 1);
}

static void each_bit_of_rows_and_zspages_is_survived(void **state)
{
    for (uint32_t at = sizeof(struct fsw_row); at < 4 * sizeof(struct fsw_row); at++)
        for (unsigned bit = 0; bit < 8; bit++)
            damage_one(DAMAGE_ROWS, at, (uint8_t)(1 << bit));
    for (uint32_t at = 0; at < damage_size(DAMAGE_CLASSES); at++)
        damage_one(DAMAGE_CLASSES, at, (uint8_t)(1 << at % 8));
    for (uint32_t at = 0; at < damage_size(DAMAGE_FRAMES); at += 3)
        damage_one(DAMAGE_FRAMES, at, (uint8_t)(1 << at % 8));
}

static void much_at_once_is_survived(void **state)
{
    uint64_t chance = rig_seed();
    uint8_t input[6 * 32];

    for (unsigned seed = 0; seed < (RIG_SLOW ? 250 : 1500); seed++) {
        size_t flips = 1 + rig_below(&chance, rig_below(&chance, 2) ? 3 : 32);
        for (size_t i = 0; i < flips * 6; i++)
            input[i] = (uint8_t)rig_random(&chance);
        for (size_t i = 0; i < flips; i++) /* the superblock seldom: it ends the matter */
            if (input[i * 6] % DAMAGE_PARTS == DAMAGE_SUPER && rig_below(&chance, 16))
                input[i * 6] = DAMAGE_ENTRIES;
        damage_try(input, flips * 6);
    }
}

static int run_all(void)
{
    const struct CMUnitTest all[] = {
        cmocka_unit_test(a_whole_image_is_whole),
        cmocka_unit_test(each_bit_of_the_superblock_counts),
        cmocka_unit_test(a_top_past_the_end_is_refused),
        cmocka_unit_test(each_bit_of_a_directory_word_costs_its_leaf),
        cmocka_unit_test(each_bit_of_an_entry_costs_its_page_at_most),
        cmocka_unit_test(each_bit_of_a_same_filled_or_empty_entry_counts),
        cmocka_unit_test(each_bit_of_rows_and_zspages_is_survived),
        cmocka_unit_test(much_at_once_is_survived),
        cmocka_unit_test(a_whole_image_is_whole),
    };

    damage_open();
    return cmocka_run_group_tests(all, NULL, NULL);
}

int main(void)
{
    return rig_main(run_all);
}

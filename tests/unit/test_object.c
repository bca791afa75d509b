/* test_object.c: pages into objects and back, by every codec; what does not fit is refused. */
#include "rig.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[] = {"lz4", "lz4:64", "lz4:65537", "zstd", "zstd:-5", "raw"};

static unsigned make(const char *name, uint64_t seed, uint32_t number, const void *page,
                     char object[FSW_OBJECT_MAX + 48])
{
    uint8_t id;
    int level;
    assert_int_equal(fsw_codec_parse(name, &id, &level, NULL), 0);
    const struct fsw_codec *codec = fsw_codec_by_id(id);
    void *state = codec->state_new != NULL ? codec->state_new(level) : NULL;
    unsigned units = fsw_object_pack(page, codec, id, level, state, object);
    fsw_object_seal(seed, number, page, object);
    if (units == FSW_OBJECT_UNITS_MAX) /* huge: the page itself is the payload */
        memcpy(object + FSW_OBJECT_HEADER, page, FSW_PAGE_SIZE);
    if (codec->state_free != NULL)
        codec->state_free(state);
    return units;
}

static void every_page_comes_back_by_every_codec(void **state)
{
    char page[FSW_PAGE_SIZE], back[FSW_PAGE_SIZE], object[FSW_OBJECT_MAX + 48];

    for (unsigned n = 0; n < sizeof names / sizeof names[0]; n++)
        for (unsigned kind = 0; kind < RIG_KINDS; kind++)
            for (uint64_t seed = 0; seed < 20; seed++) {
                rig_fill(page, (enum rig_kind)kind, seed);
                unsigned units = make(names[n], seed, kind, page, object);
                assert_in_range(units, FSW_OBJECT_UNITS_MIN, FSW_OBJECT_UNITS_MAX);
                assert_int_equal(fsw_object_open(seed, kind, object, units, back), 0);
                assert_memory_equal(page, back, sizeof page);
            }
}

static void a_page_that_does_not_pay_is_kept_raw(void **state)
{
    char page[FSW_PAGE_SIZE], object[FSW_OBJECT_MAX + 48];

    rig_fill(page, RIG_NOISE, 1);
    assert_int_equal(make("lz4", 1, 1, page, object), FSW_OBJECT_UNITS_MAX);
    rig_fill(page, RIG_TEXT, 1);
    assert_true(make("lz4", 1, 1, page, object) < FSW_OBJECT_UNITS_MAX / 3);
    assert_int_equal(make("raw", 1, 1, page, object), FSW_OBJECT_UNITS_MAX);
}

/* The memory that a codec works with is as large as the largest page of its level needs: one that has
 * too little says that a page does not fit, and nobody would notice but by the pages kept raw. */
static void every_length_fits_at_every_level(void **state)
{
    char page[FSW_PAGE_SIZE], back[FSW_PAGE_SIZE], packed[2 * FSW_PAGE_SIZE];
    uint64_t chance = rig_seed();

    for (int level = fsw_codec_zstd.level_min; level <= fsw_codec_zstd.level_max; level++) {
        void *memory = fsw_codec_zstd.state_new(level);
        for (unsigned i = 0; i < 200; i++) {
            size_t length = 8 + rig_below(&chance, i % 2 ? FSW_PAGE_SIZE / 8 : 40) * 8;
            rig_fill(page, i % 3 ? RIG_TEXT : RIG_NOISE, i);
            memset(page + length, 0, sizeof page - length);
            size_t n = fsw_codec_zstd.compress(memory, level, page, length, packed, sizeof packed);
            if (n == 0)
                fail_msg("level %d can't take %zu bytes", level, length);
            assert_int_equal(fsw_codec_zstd.decompress(packed, n, back), 0);
            assert_memory_equal(page, back, sizeof page);
        }
        fsw_codec_zstd.state_free(memory);
    }
}

static void nothing_damaged_or_foreign_opens(void **state)
{
    char page[FSW_PAGE_SIZE], back[FSW_PAGE_SIZE], object[FSW_OBJECT_MAX + 48];

    for (unsigned kind = RIG_TEXT; kind < RIG_KINDS; kind++) {
        rig_fill(page, (enum rig_kind)kind, 3);
        unsigned units = make("lz4", 9, 5, page, object);
        assert_int_equal(fsw_object_open(9, 6, object, units, back), -EIO);
        assert_int_equal(fsw_object_open(8, 5, object, units, back), -EIO);
        assert_int_equal(fsw_object_open(9, 5, object, units - 1, back), -EIO);
        assert_int_equal(fsw_object_open(9, 5, object, units + 1, back), -EIO);
        assert_int_equal(fsw_object_open(9, 5, object, 0, back), -EIO);
        for (unsigned bit = 0; bit < units * FSW_UNIT * 8; bit++) {
            object[bit / 8] ^= (char)(1 << bit % 8);
            if (fsw_object_open(9, 5, object, units, back) == 0) /* padding, or the same page */
                assert_memory_equal(page, back, sizeof page);
            object[bit / 8] ^= (char)(1 << bit % 8);
        }
        for (unsigned bit = 0; bit < FSW_OBJECT_HEADER * 8; bit++) {
            object[bit / 8] ^= (char)(1 << bit % 8);
            assert_int_equal(fsw_object_open(9, 5, object, units, back), -EIO);
            object[bit / 8] ^= (char)(1 << bit % 8);
        }
    }
}

static void noise_is_no_object(void **state)
{
    uint64_t chance = rig_seed();
    char back[FSW_PAGE_SIZE];

    for (unsigned i = 0; i < 20000; i++) {
        uint64_t words[FSW_OBJECT_MAX / 8];
        struct fsw_object_header header = {.page = 5};
        unsigned units = 2 + (unsigned)rig_below(&chance, FSW_OBJECT_UNITS_MAX - 1);
        for (unsigned w = 0; w < FSW_OBJECT_MAX / 8; w++)
            words[w] = rig_random(&chance);
        header.checksum = (uint32_t)words[0];
        header.length = (uint16_t)(units * FSW_UNIT - FSW_OBJECT_HEADER);
        header.codec = (uint8_t)rig_below(&chance, FSW_CODEC_MAX + 1);
        memcpy(words, &header, FSW_OBJECT_HEADER);
        char *exact = malloc(units * FSW_UNIT); /* the sanitizer sees a read past it */
        memcpy(exact, words, units * FSW_UNIT);
        assert_int_equal(fsw_object_open(1, 5, exact, units, back), -EIO);
        free(exact);
    }
}

static void same_filled_pages_are_seen(void **state)
{
    char page[FSW_PAGE_SIZE], back[FSW_PAGE_SIZE], object[FSW_OBJECT_MAX + 48];
    uint64_t word;

    rig_fill(page, RIG_ZERO, 0);
    assert_true(fsw_same_filled(page, &word) && word == 0);
    rig_fill(page, RIG_SAME32, 4);
    assert_true(fsw_same_filled(page, &word) && word >> 32 == (uint32_t)word && word != 0);
    rig_fill(page, RIG_SAME64, 4);
    assert_true(fsw_same_filled(page, &word) && word >> 32 != (uint32_t)word);
    fsw_same_fill(back, word);
    assert_memory_equal(page, back, sizeof page);
    assert_int_equal(fsw_object_pack_same(page, object), FSW_OBJECT_UNITS_MIN);
    fsw_object_seal(1, 2, page, object);
    assert_int_equal(fsw_object_open(1, 2, object, FSW_OBJECT_UNITS_MIN, back), 0);
    assert_memory_equal(page, back, sizeof page);
    for (unsigned at = 0; at < FSW_PAGE_SIZE; at++) {
        page[at] ^= 1;
        assert_false(fsw_same_filled(page, &word));
        page[at] ^= 1;
    }
}

static void codec_names(void **state)
{
    static const char *const bad[] = {"",          "lz",    "lz44",   "lz4:", "lz4:0",
                                      "lz4:65538", "lz4:x", "raw:1",  "same", "LZ4",
                                      "lzo",       "zstd:", "zstd:99"};
    struct fsw_error err;
    uint8_t id = 99;
    int level = 99;

    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        err.text[0] = '\0';
        assert_int_equal(fsw_codec_parse(bad[i], &id, &level, &err), -EINVAL);
        assert_non_null(strstr(err.text, "lz4"));
    }
    assert_int_equal(fsw_codec_parse("lz4:7", &id, &level, &err), 0);
    assert_int_equal(id, FSW_CODEC_LZ4);
    assert_int_equal(level, 7);
    assert_null(fsw_codec_by_id(FSW_CODEC_MAX));
    assert_null(fsw_codec_by_id(3));
}

RIG_MAIN(cmocka_unit_test(every_page_comes_back_by_every_codec),
         cmocka_unit_test(a_page_that_does_not_pay_is_kept_raw),
         cmocka_unit_test(every_length_fits_at_every_level),
         cmocka_unit_test(nothing_damaged_or_foreign_opens), cmocka_unit_test(noise_is_no_object),
         cmocka_unit_test(same_filled_pages_are_seen), cmocka_unit_test(codec_names))

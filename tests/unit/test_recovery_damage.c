/*
 * test_recovery_damage.c: images whose bits fell over before they changed hands. What was damaged costs
 * its page, never another, and never the layout.
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
#include "core/registry.h"

/* ---- damage ---- */

/* Pages that can't be read: -EIO; any other is what it was. */
static unsigned count_lost(struct rig *rig)
{
    char page[FSW_PAGE_SIZE], expected[FSW_PAGE_SIZE];
    unsigned lost = 0;

    for (unsigned i = 0; i < HANDOVER_PAGES; i++) {
        int r = fsw_device_read(rig->device, page, i * (uint64_t)FSW_PAGE_SIZE, FSW_PAGE_SIZE);
        rig_fill(expected, (enum rig_kind)(i % RIG_KINDS), i);
        lost += r == -EIO;
        if (r != -EIO && (r < 0 || memcmp(page, expected, FSW_PAGE_SIZE) != 0))
            fail_msg("page %u: wrong bytes, and no error (%d)", i, r);
    }
    return lost;
}

/* Whatever was wrong, the layout is whole now, and every page can be written. */
static void heal(struct rig *rig)
{
    for (unsigned i = 0; i < HANDOVER_PAGES; i++)
        assert_int_equal(rig_write_page(rig, i, (enum rig_kind)(i % RIG_KINDS), i), 0);
    assert_int_equal(count_lost(rig), 0);
    rig_prove(rig);
}

static uint64_t *word_of(struct fsw_image *image, unsigned page)
{
    return (uint64_t *)(void *)fsw_table_find(image, page);
}

/* By kind, which is the page's number modulo RIG_KINDS; pages from HANDOVER_PAGES / 2 on are in the pool. */
#define IN_POOL(kind, nth)                                                                         \
    (HANDOVER_PAGES / 2 / RIG_KINDS * RIG_KINDS + RIG_KINDS * (1 + (nth)) + (kind))

static void points_nowhere(struct fsw_image *image)
{
    *word_of(image, IN_POOL(RIG_TEXT, 0)) = fsw_entry_pool(1ull << 39, 60, 0);
    *word_of(image, IN_POOL(RIG_TEXT, 1)) ^= 1 << FSW_LENGTH_BITS; /* no slot begins there */
    *word_of(image, IN_POOL(RIG_TEXT, 2)) ^= 64;                   /* another length */
    *word_of(image, IN_POOL(RIG_SAME32, 0)) ^= 1;
    *word_of(image, IN_POOL(RIG_ZERO, 0)) = 1;
    *word_of(image, IN_POOL(RIG_NOISE, 0)) = fsw_entry_store(77777, 0, 100);
}

/* The two share a place: who is right is in the object's header, whichever comes first. */
static void overlaps_another(struct fsw_image *image)
{
    *word_of(image, IN_POOL(RIG_TEXT, 0)) = *word_of(image, IN_POOL(RIG_TEXT, 1));
    *word_of(image, IN_POOL(RIG_HALF, 1)) = *word_of(image, IN_POOL(RIG_HALF, 0));
}

static void names_a_row_that_is_not(struct fsw_image *image)
{
    *word_of(image, RIG_TEXT) ^= 1ull << (FSW_OFFSET_BITS + FSW_LENGTH_BITS + 9);
    *word_of(image, RIG_TEXT + RIG_KINDS) |= 0xfffull << FSW_LENGTH_BITS; /* past its end */
}

static void row_has_another_id(struct fsw_image *image)
{
    uint32_t row = fsw_entry_row(*word_of(image, RIG_TEXT));

    image->rows[row].id++; /* its neighbour's: to drop that would be a loss of its pages */
}

static void row_has_no_state(struct fsw_image *image)
{
    uint32_t row = fsw_entry_row(*word_of(image, RIG_TEXT));

    image->rows[row].word ^= 5ull << 56; /* entries name it: it is LIVE */
}

static void class_is_none(struct fsw_image *image)
{
    uint64_t location = fsw_entry_location(*word_of(image, IN_POOL(RIG_HALF, 0)));

    image->classes[location >> FSW_ZSPAGE_UNIT_BITS] = 4711;
}

static void frame_is_anothers(struct fsw_image *image)
{
    uint64_t text = fsw_entry_location(*word_of(image, IN_POOL(RIG_TEXT, 0)));
    uint64_t half = fsw_entry_location(*word_of(image, IN_POOL(RIG_HALF, 0)));
    uint32_t *a = (uint32_t *)&image->zspages[text >> FSW_ZSPAGE_UNIT_BITS].frame[0];
    uint32_t *b = (uint32_t *)&image->zspages[half >> FSW_ZSPAGE_UNIT_BITS].frame[0];

    assert_true(*a != 0 && *b != 0 && a != b);
    *a = *b;
}

static void frame_is_past_the_top(struct fsw_image *image)
{
    uint64_t text = fsw_entry_location(*word_of(image, IN_POOL(RIG_TEXT, 0)));

    image->zspages[text >> FSW_ZSPAGE_UNIT_BITS].frame[0] = image->super->frames_top;
}

static void tops_fell_back(struct fsw_image *image)
{
    image->super->rows_top = 2;
    image->super->zspages_top = 3;
    image->super->frames_top = 5;
}

/* least, most: pages that it may cost. */
static void damaged(const char *name, void (*damage)(struct fsw_image *image), unsigned least,
                    unsigned most)
{
    struct fsw_params params = handover_params(name, HANDOVER_PAGES, MIB(16));
    struct rig rig;
    uint64_t words;

    strcpy(params.overflow, "keep");
    handover_leave(&rig, &params, keep_new());
    handover_let_go(&rig);
    struct fsw_image image = handover_image(name);
    damage(&image);
    fsw_image_detach(&image);
    handover_take(&rig, &params, &keep.base);
    fsw_device_is_recovered(rig.device, &words);
    rig_prove(&rig);
    unsigned lost = count_lost(&rig);
    if (lost < least || lost > most)
        fail_msg("%s: %u pages are lost, %u to %u may be", name, lost, least, most);
    assert_int_equal(words > 0, most > 0);
    assert_true(rig_stat(&rig, FSW_STAT_CORRUPT_PAGES) >= words);
    rig_evict_all(&rig); /* nothing of it confuses those who move pages */
    assert_int_equal(count_lost(&rig), lost);
    heal(&rig);
    handover_let_go(&rig);
    handover_take(&rig, &params, &keep.base);
    fsw_device_is_recovered(rig.device, &words);
    assert_int_equal(words, 0);
    assert_int_equal(count_lost(&rig), 0);
    handover_let_go(&rig);
    handover_destroy(name);
}

static void damage_costs_its_pages_and_never_the_layout(void **state)
{
    damaged("nowhere", points_nowhere, 6, 6);
    damaged("overlaps", overlaps_another, 2, 2);
    damaged("no-row", names_a_row_that_is_not, 2, 2);
    damaged("no-state", row_has_no_state, 0, 0);
    damaged("other-id", row_has_another_id, 1, 600);
    damaged("no-class", class_is_none, 1, 300);
    damaged("frame", frame_is_anothers, 1, 60);
    damaged("tops", tops_fell_back, 0, 0);
    damaged("past", frame_is_past_the_top, 1, 30);
}

static void a_damaged_leaf_costs_its_pages(void **state)
{
    struct fsw_params params = handover_params("leaf", HANDOVER_PAGES, MIB(16));
    struct rig rig;
    uint64_t words;

    handover_leave(&rig, &params, NULL);
    handover_let_go(&rig);
    struct fsw_image image = handover_image("leaf");
    image.directory[0] ^= 1ull << 40;
    image.directory[2] = fsw_leaf_word(2, (uint32_t)image.directory[1]); /* it proves itself */
    fsw_image_detach(&image);
    handover_take(&rig, &params, NULL);
    fsw_device_is_recovered(rig.device, &words);
    assert_int_equal(words, 2);
    assert_int_equal(count_lost(&rig), HANDOVER_PAGES - FSW_LEAF_ENTRIES);
    for (unsigned i = FSW_LEAF_ENTRIES; i < 2 * FSW_LEAF_ENTRIES; i++)
        assert_int_equal(rig_write_page(&rig, i, RIG_NOISE, i), 0);
    handover_let_go(&rig);
    handover_destroy("leaf");
}

/* ---- damage by chance ---- */

/* An image as it was, in frames that were resident. */
struct snapshot {
    uint64_t count;
    uint64_t *at;
    char (*bytes)[FSW_FRAME_SIZE];
};

static struct snapshot take_snapshot(const struct fsw_image *image)
{
    uint64_t most = image->bytes / FSW_FRAME_SIZE;
    struct snapshot snapshot = {.at = calloc(most, sizeof snapshot.at[0])};

    for (uint64_t i = 0; i < most; i++)
        if (fsw_image_resident((char *)image->super + i * FSW_FRAME_SIZE, 1))
            snapshot.at[snapshot.count++] = i;
    snapshot.bytes = calloc(snapshot.count, FSW_FRAME_SIZE);
    for (uint64_t i = 0; i < snapshot.count; i++)
        memcpy(snapshot.bytes[i], (char *)image->super + snapshot.at[i] * FSW_FRAME_SIZE,
               FSW_FRAME_SIZE);
    return snapshot;
}

static void restore(const struct fsw_image *image, const struct snapshot *snapshot)
{
    for (uint64_t i = 0; i < snapshot->count; i++)
        memcpy((char *)image->super + snapshot->at[i] * FSW_FRAME_SIZE, snapshot->bytes[i],
               FSW_FRAME_SIZE);
}

/* Of the image, but for what its checksum proves: half of them where the layout is, which is little
 * of it. */
static void flip_some(const struct fsw_image *image, const struct snapshot *snapshot,
                      uint64_t *chance)
{
    const struct fsw_superblock *super = image->super;
    unsigned flips = 1 + (unsigned)rig_below(chance, 12);

    for (unsigned done = 0; done < flips;) {
        uint64_t frame = snapshot->at[rig_below(chance, snapshot->count)];
        uint64_t at = frame * FSW_FRAME_SIZE + rig_below(chance, FSW_FRAME_SIZE);
        if (frame == 0 || rig_below(chance, 16) ==
                              0) /* only what grows and changes there is not proven by a checksum */
            at = offsetof(struct fsw_superblock, next_segment) +
                 rig_below(chance, offsetof(struct fsw_superblock, holder) -
                                       offsetof(struct fsw_superblock, next_segment));
        if (at >= super->frames_at && rig_below(chance, 2))
            continue;
        ((unsigned char *)image->super)[at] ^= (unsigned char)(1u << rig_below(chance, 8));
        done++;
    }
}

/* More rows, zspages or frames in use than there can be: it says so, and changes nothing. */
static int is_refused(const struct fsw_params *params)
{
    struct fsw_record record;
    struct fsw_image image;
    struct fsw_error err = {""};

    assert_int_equal(fsw_registry_read(params->name, -1, &record, NULL), 0);
    int r = fsw_registry_attach(&record, 0, &image, &err);
    if (r == 0)
        fsw_image_detach(&image);
    else if (r != -EUCLEAN || err.text[0] == '\0')
        fail_msg("error %d: %s", r, err.text);
    return r < 0;
}

static void bits_fall_over_by_chance(void **state)
{
    struct fsw_params params = handover_params("chance", HANDOVER_PAGES, MIB(16));
    uint64_t chance = rig_seed();
    struct rig rig;

    strcpy(params.overflow, "keep");
    handover_leave(&rig, &params, keep_new());
    handover_let_go(&rig);
    struct fsw_image image = handover_image("chance");
    struct snapshot snapshot = take_snapshot(&image);
    for (unsigned round = 0; round < (RIG_SLOW ? 20 : 60); round++) {
        restore(&image, &snapshot);
        flip_some(&image, &snapshot, &chance);
        if (is_refused(&params))
            continue;
        handover_take(&rig, &params, &keep.base);
        count_lost(&rig);
        handover_let_go(&rig);
        handover_take(&rig, &params, &keep.base); /* what it left is as good */
        count_lost(&rig);
        handover_let_go(&rig);
    }
    free(snapshot.at);
    free(snapshot.bytes);
    fsw_image_detach(&image);
    handover_destroy("chance");
}

RIG_MAIN(cmocka_unit_test(damage_costs_its_pages_and_never_the_layout),
         cmocka_unit_test(a_damaged_leaf_costs_its_pages),
         cmocka_unit_test(bits_fall_over_by_chance))

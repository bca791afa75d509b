/*
 * check.c: the proof that an image is whole.
 *
 *   C1  directory words and zspage frame slots name frames below frames_top, each at most once (I2)
 *   C2  an entry has a state, and where it says POOL: a slot of an existing zspage, long enough,
 *       whose frames are attached, and that no other entry names
 *   C3  the object there is that page's, and its checksum holds
 *   C4  an entry that says STORE names a LIVE row and a range inside its segment
 *   C5  a LIVE row's live count is the number of entries that name it, or more where a server was
 *       killed between changing an entry and counting
 *
 * While a server works on the image only C3 can be proven, page by page: an entry is read, its
 * object opened, and if that fails the entry is read again; only a page that stays the same and
 * does not open is damaged.
 */
#include "core/check.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/cleanup.h"
#include "core/object.h"
#include "core/pool/pool.h"
#include "core/rows.h"
#include "core/table.h"

#define LIVE_TRIES 5
#define LOCK_TRIES 20 /* of a millisecond */

struct check {
    const struct fsw_image *image;
    struct fsw_check_report *report;
    void (*problem)(const char *, void *);
    void *opaque;
    uint64_t seed;
    int served;
    uint32_t frames_top, zspages_top, rows_top;
    uint64_t *frame_seen;                      /* bit a frame */
    uint64_t (*slot_seen)[FSW_SLOTS_MAX / 64]; /* bits a zspage */
    uint32_t *row_live;
};

static void __attribute__((format(printf, 2, 3))) say(struct check *check, const char *format, ...)
{
    char line[256];
    va_list args;

    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    check->report->problems++;
    if (check->problem != NULL)
        check->problem(line, check->opaque);
}

/* C1. 1 if the frame may be looked at. */
static int claim_frame(struct check *check, uint32_t frame, const char *who, uint64_t number)
{
    if (frame >= check->frames_top) {
        say(check, "%s %llu names frame %u, past the last one", who, (unsigned long long)number,
            frame);
        return 0;
    }
    if (check->served)
        return 1;
    uint64_t bit = 1ull << frame % 64;
    if (check->frame_seen[frame / 64] & bit)
        say(check, "%s %llu names frame %u, which somebody else has", who,
            (unsigned long long)number, frame);
    check->frame_seen[frame / 64] |= bit;
    return 1;
}

static void check_object(struct check *check, uint64_t page, uint64_t value)
{
    char object[FSW_OBJECT_MAX], content[FSW_PAGE_SIZE];
    unsigned units = fsw_entry_units(value);
    int r = fsw_pool_read(check->image, fsw_entry_location(value), object, units);

    if (r < 0)
        say(check, "page %llu: its object's frames are not there", (unsigned long long)page);
    else if (fsw_object_open(check->seed, (uint32_t)page, object, units, content) < 0)
        say(check, "page %llu: its object is damaged", (unsigned long long)page);
    else
        check->report->opened++;
}

/* C2, for an image that nobody changes. 1 if the object may be read. */
static int claim_slot(struct check *check, uint64_t page, uint64_t value)
{
    uint64_t location = fsw_entry_location(value), id = location >> FSW_ZSPAGE_UNIT_BITS;
    unsigned at = (unsigned)location & ((1u << FSW_ZSPAGE_UNIT_BITS) - 1);
    const struct fsw_class_table *table = fsw_class_table();
    unsigned class_number =
        id != 0 && id < check->zspages_top ? atomic_load(&check->image->classes[id]) : 0;

    if (class_number == 0 || class_number >= table->count) {
        say(check, "page %llu names zspage %llu, which does not exist", (unsigned long long)page,
            (unsigned long long)id);
        return 0;
    }
    const struct fsw_class_shape *shape = &table->shape[class_number];
    unsigned slot = at / shape->units;
    if (at % shape->units != 0 || slot >= shape->slots || fsw_entry_units(value) > shape->units) {
        say(check, "page %llu names no slot of zspage %llu", (unsigned long long)page,
            (unsigned long long)id);
        return 0;
    }
    if (check->slot_seen[id][slot / 64] >> slot % 64 & 1)
        say(check, "page %llu names a slot that another page has", (unsigned long long)page);
    check->slot_seen[id][slot / 64] |= 1ull << slot % 64;
    return 1;
}

/* C4. */
static void check_row_of(struct check *check, uint64_t page, uint64_t value)
{
    uint32_t row = fsw_entry_row(value);
    unsigned end = (fsw_entry_offset_units(value) + fsw_entry_units(value)) * FSW_UNIT;

    if (row == 0 || row >= check->rows_top || fsw_row_state(check->image, row) != FSW_ROW_LIVE) {
        say(check, "page %llu names row %u, which holds no segment", (unsigned long long)page, row);
        return;
    }
    if (end > atomic_load(&check->image->rows[row].bytes))
        say(check, "page %llu names bytes past the end of row %u", (unsigned long long)page, row);
    check->row_live[row]++;
}

static void check_resting(struct check *check, uint64_t page, uint64_t value)
{
    if (value & (FSW_ENTRY_LOCK | FSW_ENTRY_OVERFLOW))
        check->report->leftovers++;
    if (fsw_entry_state(value) == FSW_POOL) {
        if (claim_slot(check, page, value))
            check_object(check, page, value);
    } else if (fsw_entry_state(value) == FSW_STORE) {
        check_row_of(check, page, value);
    } else if (!fsw_entry_is_word(value & ~FSW_ENTRY_LOCK)) {
        say(check, "page %llu: its entry is damaged", (unsigned long long)page);
    }
}

/* The entry's value without its lock bit, as soon as nobody holds that: for a while, since a server
 * that was killed meanwhile holds it for ever. */
static uint64_t load_patiently(fsw_entry *entry)
{
    const struct timespec pause = {.tv_nsec = 1000 * 1000};
    uint64_t value = atomic_load(entry);

    for (int tries = 0; value & FSW_ENTRY_LOCK && tries < LOCK_TRIES; tries++) {
        nanosleep(&pause, NULL);
        value = atomic_load(entry);
    }
    return value & ~FSW_ENTRY_LOCK;
}

/* A page that opens, or has changed, is well. */
static void check_moving(struct check *check, uint64_t page, fsw_entry *entry)
{
    char object[FSW_OBJECT_MAX], content[FSW_PAGE_SIZE];

    for (int tries = 0; tries < LIVE_TRIES; tries++) {
        uint64_t value = load_patiently(entry);
        if (fsw_entry_state(value) != FSW_POOL) {
            if (fsw_entry_state(value) != FSW_STORE && !fsw_entry_is_word(value))
                say(check, "page %llu: its entry is damaged", (unsigned long long)page);
            return;
        }
        unsigned units = fsw_entry_units(value);
        if (fsw_pool_read(check->image, fsw_entry_location(value), object, units) == 0 &&
            fsw_object_open(check->seed, (uint32_t)page, object, units, content) == 0) {
            check->report->opened++;
            return;
        }
        if (!fsw_entry_same_place(value & ~FSW_ENTRY_OVERFLOW,
                                  load_patiently(entry) & ~FSW_ENTRY_OVERFLOW)) {
            check->report->changed++;
            return;
        }
    }
    say(check, "page %llu: its object is damaged", (unsigned long long)page);
}

static void check_entry(struct check *check, uint64_t page, fsw_entry *entry)
{
    uint64_t value = atomic_load(entry);

    check->report->pages_pool += fsw_entry_state(value) == FSW_POOL;
    check->report->pages_same += fsw_entry_state(value) == FSW_SAME;
    check->report->pages_store += fsw_entry_state(value) == FSW_STORE;
    if (!check->served)
        check_resting(check, page, value);
    else if (fsw_entry_state(value) != FSW_STORE)
        check_moving(check, page, entry);
}

static void check_table(struct check *check)
{
    const struct fsw_image *image = check->image;
    uint64_t pages = image->super->size / FSW_PAGE_SIZE;

    for (uint64_t leaf = 0; leaf < image->super->leaves; leaf++) {
        atomic_store_explicit(&check->report->leaves, leaf, memory_order_relaxed);
        uint64_t word = atomic_load(&image->directory[leaf]), first = leaf * FSW_LEAF_ENTRIES;
        uint32_t frame = fsw_leaf_frame(image, leaf, word);
        if (word != 0 && frame == 0)
            say(check, "leaf %llu: its directory word is damaged, its pages can't be found",
                (unsigned long long)leaf);
        if (frame == 0 || !claim_frame(check, frame, "leaf", leaf))
            continue;
        fsw_entry *entries = fsw_table_find(image, first);
        for (uint64_t i = 0; i < FSW_LEAF_ENTRIES; i++)
            if (first + i < pages)
                check_entry(check, first + i, &entries[i]);
            else if (atomic_load(&entries[i]) != 0)
                say(check, "leaf %llu has an entry past the end of the device",
                    (unsigned long long)leaf);
    }
}

static int frame_needed(const struct check *check, uint32_t id, const struct fsw_class_shape *shape,
                        unsigned frame)
{
    unsigned units = FSW_FRAME_SIZE / FSW_UNIT;
    unsigned last = ((frame + 1) * units - 1) / shape->units;

    for (unsigned slot = frame * units / shape->units; slot <= last && slot < shape->slots; slot++)
        if (check->slot_seen[id][slot / 64] >> slot % 64 & 1)
            return 1;
    return 0;
}

static void check_zspages(struct check *check)
{
    const struct fsw_class_table *table = fsw_class_table();

    for (uint32_t id = 1; id < check->zspages_top; id++) {
        unsigned class_number = atomic_load(&check->image->classes[id]);
        if (class_number >= table->count) {
            say(check, "zspage %u has class %u, which does not exist", id, class_number);
            continue;
        }
        for (unsigned i = 0; i < FSW_ZSPAGE_FRAMES; i++) {
            uint32_t frame = atomic_load(&check->image->zspages[id].frame[i]);
            if (frame == 0 || !claim_frame(check, frame, "zspage", id))
                continue;
            if (class_number == 0 || !frame_needed(check, id, &table->shape[class_number], i))
                check->report->leftovers++;
        }
    }
}

static void check_rows(struct check *check)
{
    for (uint32_t row = 1; row < check->rows_top; row++) {
        enum fsw_row_state state = fsw_row_state(check->image, row);
        if (state == FSW_ROW_PENDING || state == FSW_ROW_DROPPING)
            check->report->leftovers++;
        else if (state == FSW_ROW_LIVE &&
                 check->row_live[row] < fsw_row_live_count(check->image, row))
            check->report->leftovers++; /* killed between an entry and its count */
        else if (state == FSW_ROW_LIVE &&
                 check->row_live[row] > fsw_row_live_count(check->image, row))
            say(check, "row %u counts %u live objects, %u pages name it", row,
                fsw_row_live_count(check->image, row), check->row_live[row]);
    }
}

int fsw_image_check(const struct fsw_image *image, int served,
                    void (*problem)(const char *line, void *opaque), void *opaque,
                    struct fsw_check_report *ret_report)
{
    struct fsw_superblock *super = image->super;
    struct check check = {.image = image,
                          .report = ret_report,
                          .problem = problem,
                          .opaque = opaque,
                          .seed = fsw_object_seed(&super->device),
                          .served = served,
                          .frames_top = atomic_load(&super->frames_top),
                          .zspages_top = atomic_load(&super->zspages_top),
                          .rows_top = atomic_load(&super->rows_top)};

    *ret_report = (struct fsw_check_report){0};
    if (check.frames_top > super->frames || check.zspages_top > super->zspages ||
        check.rows_top > super->rows) {
        say(&check, "the superblock's tops are past the image's ends");
        return 0;
    }
    if (served) { /* what grows meanwhile is not past the end */
        check.frames_top = (uint32_t)super->frames;
        check_table(&check);
        return 0;
    }
    FSW_CLEANUP_FREE void *frames = check.frame_seen = calloc(check.frames_top / 64 + 1, 8);
    FSW_CLEANUP_FREE void *slots = check.slot_seen =
        calloc(check.zspages_top + 1, sizeof check.slot_seen[0]);
    FSW_CLEANUP_FREE void *rows = check.row_live =
        calloc(check.rows_top + 1, sizeof check.row_live[0]);
    if (frames == NULL || slots == NULL || rows == NULL)
        return -ENOMEM;
    check_table(&check);
    check_zspages(&check);
    check_rows(&check);
    return 0;
}

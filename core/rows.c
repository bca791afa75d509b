/*
 * rows.c: the life of a row, every step one compare-and-swap of its word.
 */
#include "core/rows.h"

#include <assert.h>
#include <errno.h>

#include "common/cleanup.h"
#include "core/crash.h"

#define LIVE_MASK 0xffffffffull
#define OBJECTS_MASK 0xffffull
#define PIN_ONE (1ull << 32)
#define PIN_MASK (0xffffffull << 32)
#define STATE_SHIFT 56

static uint64_t word_of(enum fsw_row_state state, uint64_t pins, uint64_t live)
{
    return (uint64_t)state << STATE_SHIFT | pins * PIN_ONE | live;
}

static uint32_t check_of(uint32_t number, uint64_t id)
{
    return (uint32_t)((id * 0x9e3779b97f4a7c15ull ^ number * 0xc2b2ae3d27d4eb4full) >> 32);
}

static enum fsw_row_state state_of(uint64_t word)
{
    return (enum fsw_row_state)(word >> STATE_SHIFT);
}

/* One more frame of rows. The lock is held. */
static int grow(struct fsw_rows *rows)
{
    uint32_t step = FSW_FRAME_SIZE / sizeof(struct fsw_row), from = rows->ready;

    if ((uint64_t)from + step > rows->image->super->rows || fsw_frames_charge(rows->frames, 1) < 0)
        return -1;
    if (fsw_image_touch(&rows->image->rows[from], FSW_FRAME_SIZE) < 0) {
        fsw_frames_uncharge(rows->frames, 1);
        return -1;
    }
    rows->ready = from + step;
    fsw_crash_point("rows: a frame of them touched");
    return 0;
}

/* A row in use past the top: the top fell back. */
static void raise_top(struct fsw_rows *rows)
{
    _Atomic uint32_t *top = &rows->image->super->rows_top;

    for (uint32_t row = rows->ready; row-- > atomic_load(top) && row > 0;)
        if (fsw_row_is_whole(rows->image, row))
            atomic_store(top, row + 1);
}

void fsw_rows_init(struct fsw_rows *rows, struct fsw_image *image, struct fsw_frames *frames)
{
    *rows = (struct fsw_rows){.image = image, .frames = frames};
    pthread_mutex_init(&rows->lock, NULL);
    uint32_t step = FSW_FRAME_SIZE / sizeof(struct fsw_row);
    uint64_t room = image->super->rows / step,
             used = (atomic_load(&image->super->rows_top) + step - 1) / step;
    if (used < room) /* what an earlier server touched ahead of need */
        used += fsw_image_resident(&image->rows[used * step], room - used);
    rows->ready = (uint32_t)used * step;
    fsw_frames_rebuild_charge(frames, (uint32_t)used);
    raise_top(rows);
    if (used == 0)
        grow(rows); /* when memory is short it is too late */
}

/* ---- recovery ---- */

int fsw_row_is_whole(const struct fsw_image *image, uint32_t number)
{
    const struct fsw_row *row = &image->rows[number];
    uint64_t id = atomic_load(&row->id);

    return id != 0 && row->check == check_of(number, id);
}

int fsw_row_may_hold(const struct fsw_image *image, uint32_t number, uint32_t end)
{
    return number != 0 && number < atomic_load(&image->super->rows_top) &&
           fsw_row_is_whole(image, number) && end <= atomic_load(&image->rows[number].bytes) &&
           end <= FSW_SEGMENT_BYTES;
}

/* A counter that fell back would give out ids that the store has already. */
static void burn_id(struct fsw_rows *rows, uint64_t id)
{
    _Atomic uint64_t *next = &rows->image->super->next_segment;

    if (id >= atomic_load(next))
        atomic_store(next, id + 1);
}

/* The state of a row that no entry names. Returns 1 if it is to be dropped. */
static int rebuild_unnamed(struct fsw_rows *rows, uint32_t number, struct fsw_rows_found *found)
{
    struct fsw_row *row = &rows->image->rows[number];
    enum fsw_row_state state = state_of(atomic_load(&row->word));

    if (state == FSW_ROW_FREE || !fsw_row_is_whole(rows->image, number)) {
        atomic_store(&row->word, word_of(FSW_ROW_FREE, 0, 0));
        row->next = rows->free;
        rows->free = number;
        return 0;
    }
    if (state == FSW_ROW_PENDING) {
        atomic_store(&row->bytes, 0); /* never was LIVE */
        found->pending++;
    } else if (atomic_load(&row->bytes) != 0) {
        found->segments++;
        found->bytes += atomic_load(&row->bytes);
    }
    atomic_store(&row->word, word_of(FSW_ROW_DROPPING, 0, 0));
    return 1;
}

void fsw_rows_rebuild(struct fsw_rows *rows, const uint32_t *live,
                      void (*drop)(void *opaque, uint32_t row), void *opaque,
                      struct fsw_rows_found *found)
{
    uint32_t top = atomic_load(&rows->image->super->rows_top);

    *found = (struct fsw_rows_found){0};
    for (uint32_t number = top; number-- > 1;) {
        struct fsw_row *row = &rows->image->rows[number];
        if (fsw_row_is_whole(rows->image, number))
            burn_id(rows, atomic_load(&row->id));
        if (live[number] > 0) {
            atomic_store(&row->word, word_of(FSW_ROW_LIVE, 0, live[number]));
            found->segments++;
            found->bytes += atomic_load(&row->bytes);
        } else if (rebuild_unnamed(rows, number, found)) {
            drop(opaque, number);
        }
    }
}

static uint32_t take_number(struct fsw_rows *rows)
{
    FSW_LOCK_SCOPE(&rows->lock);
    _Atomic uint32_t *top = &rows->image->super->rows_top;
    uint32_t row = rows->free;

    if (row != 0) {
        rows->free = rows->image->rows[row].next;
        return row;
    }
    row = atomic_load(top);
    if (row == 0)
        row = 1; /* row 0 is "none" */
    /* A frame ahead of need: when memory is short it is too late. */
    if (row + FSW_FRAME_SIZE / sizeof(struct fsw_row) / 2 >= rows->ready && grow(rows) < 0 &&
        row >= rows->ready)
        return 0;
    atomic_store(top, row + 1);
    fsw_crash_point("rows: top raised");
    return row;
}

uint32_t fsw_row_take(struct fsw_rows *rows, uint64_t *ret_id)
{
    uint32_t number = take_number(rows);
    if (number == 0)
        return 0;

    struct fsw_row *row = &rows->image->rows[number];
    fsw_crash_point("row: number taken, no id");
    *ret_id = atomic_fetch_add(&rows->image->super->next_segment, 1);
    fsw_crash_point("row: id taken, not written");
    atomic_store(&row->bytes, 0);
    atomic_store(&row->id, *ret_id);
    row->check = check_of(number, *ret_id);
    fsw_crash_point("row: id written, not PENDING");
    atomic_store(&row->word, word_of(FSW_ROW_PENDING, 0, 0));
    fsw_crash_point("row: PENDING");
    return number;
}

void fsw_row_live(struct fsw_rows *rows, uint32_t number, uint32_t bytes, uint32_t live,
                  uint32_t copies)
{
    struct fsw_row *row = &rows->image->rows[number];

    assert(state_of(atomic_load(&row->word)) == FSW_ROW_PENDING);
    atomic_store(&row->bytes, bytes);
    fsw_crash_point("row: length written, not copies");
    atomic_store(&row->copies, copies);
    fsw_crash_point("row: length and copies written, not LIVE");
    atomic_store(&row->word, word_of(FSW_ROW_LIVE, 1, live));
    fsw_crash_point("row: LIVE");
}

int fsw_row_pin(struct fsw_rows *rows, uint32_t number)
{
    if (number == 0 || number >= atomic_load(&rows->image->super->rows_top))
        return 0;
    _Atomic uint64_t *word = &rows->image->rows[number].word;
    uint64_t value = atomic_load(word);

    while (state_of(value) == FSW_ROW_LIVE && (value & PIN_MASK) != PIN_MASK)
        if (atomic_compare_exchange_weak(word, &value, value + PIN_ONE)) {
            fsw_crash_point("row: pinned");
            return 1;
        }
    return 0;
}

/* A word whose last pin or last object has just gone is DROPPING (R2). */
static uint64_t settled(uint64_t value)
{
    return (value & (PIN_MASK | OBJECTS_MASK)) == 0 ? word_of(FSW_ROW_DROPPING, 0, 0) : value;
}

int fsw_row_unpin(struct fsw_rows *rows, uint32_t number)
{
    _Atomic uint64_t *word = &rows->image->rows[number].word;
    uint64_t value = atomic_load(word);

    do
        assert((value & PIN_MASK) != 0);
    while (!atomic_compare_exchange_weak(word, &value, settled(value - PIN_ONE)));
    fsw_crash_point("row: unpinned");
    return state_of(settled(value - PIN_ONE)) == FSW_ROW_DROPPING;
}

/* Units follow; it is the objects that count. (A damaged entry may have named other units.) */
static uint64_t without(uint64_t value, uint32_t live)
{
    uint32_t has = (uint32_t)(value & LIVE_MASK);
    uint32_t objects = fsw_live_objects(has) - fsw_live_objects(live);
    uint32_t units = fsw_live_units(has), gone = fsw_live_units(live);

    return settled((value & ~LIVE_MASK) |
                   fsw_live(objects, objects > 0 && units > gone ? units - gone : 0));
}

int fsw_row_kill(struct fsw_rows *rows, uint32_t number, uint32_t live)
{
    if (number == 0 || number >= atomic_load(&rows->image->super->rows_top))
        return -EIO;
    _Atomic uint64_t *word = &rows->image->rows[number].word;
    uint64_t value = atomic_load(word);

    do
        if (state_of(value) != FSW_ROW_LIVE || (value & OBJECTS_MASK) < fsw_live_objects(live))
            return -EIO;
    while (!atomic_compare_exchange_weak(word, &value, without(value, live)));
    fsw_crash_point("row: fewer objects live there");
    return state_of(without(value, live)) == FSW_ROW_DROPPING;
}

int fsw_row_abandon(struct fsw_rows *rows, uint32_t number)
{
    uint64_t value = word_of(FSW_ROW_PENDING, 0, 0);
    return atomic_compare_exchange_strong(&rows->image->rows[number].word, &value,
                                          word_of(FSW_ROW_DROPPING, 0, 0));
}

void fsw_row_free(struct fsw_rows *rows, uint32_t number)
{
    struct fsw_row *row = &rows->image->rows[number];

    fsw_crash_point("row: about to be FREE");
    atomic_store(&row->word, word_of(FSW_ROW_FREE, 0, 0));
    fsw_crash_point("row: FREE, in no list");
    FSW_LOCK_SCOPE(&rows->lock);
    row->next = rows->free;
    rows->free = number;
}

uint64_t fsw_row_id(const struct fsw_image *image, uint32_t number)
{
    return atomic_load(&image->rows[number].id);
}

enum fsw_row_state fsw_row_state(const struct fsw_image *image, uint32_t number)
{
    return state_of(atomic_load(&image->rows[number].word));
}

uint32_t fsw_row_live_now(const struct fsw_image *image, uint32_t number)
{
    return (uint32_t)(atomic_load(&image->rows[number].word) & LIVE_MASK);
}

uint32_t fsw_row_live_count(const struct fsw_image *image, uint32_t number)
{
    return fsw_live_objects(fsw_row_live_now(image, number));
}

uint32_t fsw_row_pins(const struct fsw_image *image, uint32_t number)
{
    return (uint32_t)((atomic_load(&image->rows[number].word) & PIN_MASK) / PIN_ONE);
}

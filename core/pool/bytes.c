/*
 * bytes.c: objects copied into and out of their slots. The caller knows that the slot is its own
 * (P1); a location that no frames back, which only a damaged entry names, is -EIO. Hints need not
 * know anything: a prefetch of what is not there, or not theirs, does nothing.
 */
#include <errno.h>
#include <string.h>

#include "core/crash.h"
#include "core/pool/zspage.h"

#define relaxed memory_order_relaxed

/* Where an object's first byte is and how many bytes its first frame has of it; *ret_rest: the
 * rest. */
static char *locate(const struct fsw_image *image, uint64_t location, size_t bytes,
                    size_t *ret_here, char **ret_rest)
{
    uint64_t id = location >> FSW_ZSPAGE_UNIT_BITS;
    unsigned at = (unsigned)location & UNIT_MASK, index = at / FRAME_UNITS;
    size_t offset = at % FRAME_UNITS * FSW_UNIT, here = FSW_FRAME_SIZE - offset;

    if (id == 0 || id >= atomic_load_explicit(&image->super->zspages_top, memory_order_acquire) ||
        bytes > FSW_OBJECT_MAX)
        return NULL;
    uint32_t frame = atomic_load_explicit(&image->zspages[id].frame[index], memory_order_acquire);
    if (frame == 0 || frame >= atomic_load_explicit(&image->super->frames_top, relaxed))
        return NULL;
    *ret_here = here < bytes ? here : bytes;
    *ret_rest = NULL;
    if (here < bytes) {
        if (index + 1 >= FSW_ZSPAGE_FRAMES)
            return NULL;
        uint32_t next =
            atomic_load_explicit(&image->zspages[id].frame[index + 1], memory_order_acquire);
        if (next == 0 || next >= atomic_load_explicit(&image->super->frames_top, relaxed))
            return NULL;
        *ret_rest = fsw_image_frame(image, next);
    }
    return (char *)fsw_image_frame(image, frame) + offset;
}

/* As many lines as a core can have on their way; more would make it wait here. */
#define PREFETCH_BYTES 768u

static void prefetch_lines(const char *from, size_t bytes)
{
    for (size_t at = 0; at < bytes && at < PREFETCH_BYTES; at += 64)
        __builtin_prefetch(from + at, 1);
}

void fsw_pool_prefetch(const struct fsw_pool *pool, uint64_t location, unsigned units)
{
    size_t bytes = units * FSW_UNIT, here;
    char *rest, *first = locate(pool->image, location, bytes, &here, &rest);

    if (first == NULL)
        return;
    prefetch_lines(first, here);
    if (rest != NULL)
        prefetch_lines(rest, bytes - here);
}

void fsw_pool_prefetch_slot(const struct fsw_pool *pool, uint64_t location)
{
    uint64_t id = location >> FSW_ZSPAGE_UNIT_BITS;
    unsigned at = (unsigned)location & UNIT_MASK;

    if (id >= atomic_load_explicit(&pool->image->super->zspages_top, relaxed))
        return;
    prefetch_lines((const char *)&pool->zspages[id], sizeof pool->zspages[id]);
    __builtin_prefetch((const void *)&pool->image->zspages[id].frame[at / FRAME_UNITS]);
}

/* An object's bytes where they lie: up to two pieces. */
struct place {
    char *first, *rest;
    size_t here; /* in the first piece */
};

static int find_place(const struct fsw_image *image, uint64_t location, unsigned units,
                      struct place *ret_place)
{
    ret_place->first =
        locate(image, location, units * FSW_UNIT, &ret_place->here, &ret_place->rest);
    return ret_place->first != NULL ? 0 : -EIO;
}

/* The library's memcpy. Where a compiler sees the size it puts `rep movs` in its place, which takes
 * twice as long on memory that is not in the cache (gcc 12, 4 KiB, measured with bench/engine). */
static void copy(void *to, const void *from, size_t bytes)
{
    __asm__("" : "+r"(bytes));
    memcpy(to, from, bytes);
}

static void copy_in(const struct place *place, size_t at, const void *from, size_t bytes)
{
    size_t here = at >= place->here ? 0 : place->here - at < bytes ? place->here - at : bytes;
    size_t half = fsw_crash_half(here);

    if (half > 0)
        copy(place->first + at, from, half);
    fsw_crash_point("object: half written");
    copy(place->first + at + half, (const char *)from + half, here - half);
    if (here < bytes) {
        fsw_crash_point("object: its first frame is written, not its second");
        copy(place->rest + (at + here - place->here), (const char *)from + here, bytes - here);
    }
}

static void copy_out(const struct place *place, size_t at, void *to, size_t bytes)
{
    size_t here = at >= place->here ? 0 : place->here - at < bytes ? place->here - at : bytes;

    copy(to, place->first + at, here);
    if (here < bytes)
        copy((char *)to + here, place->rest + (at + here - place->here), bytes - here);
}

/* The page number is what reclaim may look at meanwhile: one store. It is never cut in two. */
static void copy_page_number(const struct place *place, const void *object)
{
    uint32_t page;

    memcpy(&page, object, sizeof page);
    __atomic_store_n((uint32_t *)(void *)place->first, page, __ATOMIC_RELAXED);
    fsw_crash_point("object: only its page number is written");
}

int fsw_pool_write(struct fsw_pool *pool, uint64_t location, const void *object, unsigned units)
{
    const size_t rest = sizeof(uint32_t);
    struct place place;
    int r = find_place(pool->image, location, units, &place);

    if (r < 0)
        return r;
    copy_page_number(&place, object);
    copy_in(&place, rest, (const char *)object + rest, units * FSW_UNIT - rest);
    return 0;
}

int fsw_pool_write_huge(struct fsw_pool *pool, uint64_t location, const void *header,
                        const void *page)
{
    static const char padding[FSW_UNIT];
    const size_t rest = sizeof(uint32_t), end = FSW_OBJECT_HEADER + FSW_PAGE_SIZE;
    struct place place;
    int r = find_place(pool->image, location, FSW_OBJECT_UNITS_MAX, &place);

    if (r < 0)
        return r;
    copy_page_number(&place, header);
    copy_in(&place, rest, (const char *)header + rest, FSW_OBJECT_HEADER - rest);
    copy_in(&place, FSW_OBJECT_HEADER, page, FSW_PAGE_SIZE);
    copy_in(&place, end, padding, FSW_OBJECT_MAX - end);
    return 0;
}

int fsw_pool_read(const struct fsw_image *image, uint64_t location, void *object, unsigned units)
{
    struct place place;
    int r = units < FSW_OBJECT_UNITS_MIN ? -EIO : find_place(image, location, units, &place);

    if (r == 0)
        copy_out(&place, 0, object, units * FSW_UNIT);
    return r;
}

int fsw_pool_read_huge(const struct fsw_image *image, uint64_t location, void *header, void *page)
{
    struct place place;
    int r = find_place(image, location, FSW_OBJECT_UNITS_MAX, &place);

    if (r < 0)
        return r;
    copy_out(&place, 0, header, FSW_OBJECT_HEADER);
    copy_out(&place, FSW_OBJECT_HEADER, page, FSW_PAGE_SIZE);
    return 0;
}

int fsw_pool_peek(const struct fsw_image *image, uint64_t location, uint32_t *ret_page)
{
    struct place place;
    int r = find_place(image, location, FSW_OBJECT_UNITS_MIN, &place);

    if (r == 0)
        *ret_page = __atomic_load_n((uint32_t *)(void *)place.first, __ATOMIC_RELAXED);
    return r;
}

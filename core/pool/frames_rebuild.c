/*
 * frames_rebuild.c: which frames are free, found out again when an image changes hands.
 *
 * Until all who name frames have claimed theirs, the map of untouched frames has a bit for each
 * frame below the top that nobody has claimed. Then those of them that are resident go to the ready
 * stack: they count as the image's memory, and may not be forgotten.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "core/pool/frames.h"

#define CHUNK 512u /* frames that the system is asked about at once */
#define WORDS (CHUNK / 64u)

#define get(x) atomic_load_explicit(&(x), memory_order_relaxed)
#define set(x, value) atomic_store_explicit(&(x), value, memory_order_relaxed)

void fsw_frames_rebuild_begin(struct fsw_frames *frames)
{
    uint32_t top = get(frames->image->super->frames_top);

    memset(frames->untouched, 0xff, (top + 63) / 64 * sizeof frames->untouched[0]);
    if (top % 64 != 0)
        frames->untouched[top / 64] = (1ull << top % 64) - 1;
    frames->untouched[0] &= ~1ull; /* frame 0 is "none" */
}

void fsw_frames_rebuild_charge(struct fsw_frames *frames, uint32_t count)
{
    atomic_fetch_add_explicit(&frames->overhead, count, memory_order_relaxed);
}

int fsw_frames_claim(struct fsw_frames *frames, uint32_t frame)
{
    uint64_t bit = 1ull << frame % 64;

    if (frame >= get(frames->image->super->frames_top) || !(frames->untouched[frame / 64] & bit))
        return -EUCLEAN;
    frames->untouched[frame / 64] &= ~bit;
    set(frames->used, get(frames->used) + 1);
    return 0;
}

void fsw_frames_disclaim(struct fsw_frames *frames, uint32_t frame)
{
    frames->untouched[frame / 64] |= 1ull << frame % 64;
    set(frames->used, get(frames->used) - 1);
}

static int any_unclaimed(const struct fsw_frames *frames, uint32_t chunk)
{
    for (uint32_t word = chunk * WORDS; word < (chunk + 1) * WORDS; word++)
        if (frames->untouched[word] != 0)
            return 1;
    return 0;
}

/* From the last frame to the first, so that the first are taken first. */
static void sort_chunk(struct fsw_frames *frames, uint32_t chunk, uint32_t top)
{
    unsigned char resident[CHUNK];
    uint32_t first = chunk * CHUNK, count = top - first < CHUNK ? top - first : CHUNK;

    if (mincore(fsw_image_frame(frames->image, first), (size_t)count * FSW_FRAME_SIZE, resident) <
        0)
        memset(resident, 0, sizeof resident);
    for (uint32_t i = count; i-- > 0;) {
        uint32_t frame = first + i;
        uint64_t bit = 1ull << frame % 64;
        if (!(frames->untouched[frame / 64] & bit))
            continue;
        if (resident[i] & 1) {
            frames->untouched[frame / 64] &= ~bit;
            frames->ready[frames->nready++] = frame;
        } else {
            frames->untouched_count++;
            frames->untouched_hint = frame;
        }
    }
}

void fsw_frames_rebuilt(struct fsw_frames *frames)
{
    const struct fsw_image *image = frames->image;
    uint32_t top = get(image->super->frames_top);

    for (uint32_t chunk = (top + CHUNK - 1) / CHUNK; chunk-- > 0;)
        if (any_unclaimed(frames, chunk))
            sort_chunk(frames, chunk, top);
    fsw_stat_restart(image, FSW_STAT_MEM_USED_TOTAL,
                     (uint64_t)get(frames->overhead) * FSW_FRAME_SIZE);
    fsw_stat_restart(image, FSW_STAT_MEM_RESERVE, (uint64_t)get(frames->nready) * FSW_FRAME_SIZE);
}

/*
 * image.c: making, attaching and wiping the shared memory of a device. What is in it belongs to
 * others (table, rows, pool); where in it things lie is decided here, once, by lay_out().
 */
#include "core/image.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/shm.h>
#include <time.h>

#include "common/checksum.h"
#include "common/shm.h"
#include "core/budget.h"
#include "core/crash.h"
#include "core/object.h"

static uint64_t round_up(uint64_t value, uint64_t to)
{
    return (value + to - 1) / to * to;
}

static uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* How many of each there can be, and where they lie, for a device of that size. */
static void lay_out(struct fsw_superblock *super, uint64_t size)
{
    uint64_t pages = size / FSW_PAGE_SIZE;

    super->size = size;
    super->leaves = (pages + FSW_LEAF_ENTRIES - 1) / FSW_LEAF_ENTRIES;
    /* Every page raw needs 257/256 frames; an eighth more for holes, and some for small devices. */
    super->frames = min_u64(pages + pages / 8 + super->leaves + 4096, UINT32_MAX);
    /* A zspage has 64 frames at most; half of all may be sparse, and each class has one open. */
    super->zspages = min_u64(super->frames / 32 + 1024, 1ull << 26);
    /* A segment holds 15 pages at least when it is put; a quarter of the pages as rows leaves room
     * for segments that are mostly dead. */
    super->rows = min_u64(pages / 4 + 1024, 1ull << 31);

    uint64_t at = sizeof *super <= FSW_FRAME_SIZE ? FSW_FRAME_SIZE : 0;
    super->counters_at = at;
    at = round_up(at + FSW_STAT_STRIPES * FSW_STAT_ROOM * sizeof(uint64_t), FSW_FRAME_SIZE);
    super->latencies_at = at;
    at = round_up(at + FSW_LATENCY_STRIPES * sizeof(struct fsw_latencies), FSW_FRAME_SIZE);
    super->class_stats_at = at;
    at = round_up(at + FSW_CLASS_MAX * sizeof(struct fsw_class_stats), FSW_FRAME_SIZE);
    super->directory_at = at;
    at = round_up(at + super->leaves * sizeof(uint64_t), FSW_FRAME_SIZE);
    super->rows_at = at;
    at = round_up(at + super->rows * sizeof(struct fsw_row), FSW_FRAME_SIZE);
    super->classes_at = at;
    at = round_up(at + super->zspages * sizeof(uint16_t), FSW_FRAME_SIZE);
    super->zspages_at = at;
    at = round_up(at + super->zspages * sizeof(struct fsw_zspage_frames), FSW_FRAME_SIZE);
    super->frames_at = at;
    super->bytes = at + super->frames * FSW_FRAME_SIZE;
}

_Static_assert(sizeof(struct fsw_superblock) <= FSW_FRAME_SIZE, "the superblock is one frame");
_Static_assert((int)FSW_STAT_COUNT <= (int)FSW_STAT_ROOM, "every counter has its place");

uint64_t fsw_image_base_bytes(uint64_t size)
{
    struct fsw_superblock super = {0};
    lay_out(&super, size);
    /* One frame of each array that grows; the filler keeps it one frame ahead. */
    return super.rows_at + 8 * FSW_FRAME_SIZE;
}

uint64_t fsw_image_table_bytes(uint64_t size)
{
    struct fsw_superblock super = {0};
    lay_out(&super, size);
    return super.leaves * FSW_FRAME_SIZE;
}

static uint32_t super_checksum(const struct fsw_superblock *super)
{
    const char *from = (const char *)&super->device;
    return fsw_checksum(from, (size_t)((const char *)&super->next_segment - from), super->layout);
}

static void set_pointers(struct fsw_image *image, void *base)
{
    struct fsw_superblock *super = base;
    char *at = base;

    image->super = super;
    image->counters = (void *)(at + super->counters_at);
    image->latencies = (void *)(at + super->latencies_at);
    image->class_stats = (void *)(at + super->class_stats_at);
    image->directory = (void *)(at + super->directory_at);
    image->rows = (void *)(at + super->rows_at);
    image->classes = (void *)(at + super->classes_at);
    image->zspages = (void *)(at + super->zspages_at);
    image->frames = at + super->frames_at;
    image->bytes = super->bytes;
}

int fsw_image_touch(const void *at, size_t bytes)
{
    return fsw_shm_touch((void *)(uintptr_t)at, bytes);
}

uint64_t fsw_image_resident(const void *at, uint64_t most)
{
    unsigned char resident[64];
    uint64_t found = 0;

    while (found < most) {
        uint64_t part = min_u64(most - found, sizeof resident);
        char *from = (char *)(uintptr_t)at + found * FSW_FRAME_SIZE;
        if (mincore(from, part * FSW_FRAME_SIZE, resident) < 0)
            return found;
        for (uint64_t i = 0; i < part; i++, found++)
            if (!(resident[i] & 1))
                return found;
    }
    return found;
}

/* Fills in everything but the magic. */
static int write_super(struct fsw_superblock *super, const struct fsw_params *params)
{
    lay_out(super, params->size);
    super->layout = FSW_IMAGE_LAYOUT;
    if (getrandom(super->device.bytes, sizeof super->device.bytes, 0) !=
            (ssize_t)sizeof super->device.bytes ||
        getrandom(&super->sentinel, sizeof super->sentinel, 0) != (ssize_t)sizeof super->sentinel ||
        getrandom(super->store_key, sizeof super->store_key, 0) != (ssize_t)sizeof super->store_key)
        return -EIO;
    memcpy(super->name, params->name, sizeof super->name);
    memcpy(super->overflow, params->overflow, sizeof super->overflow);
    super->created = time(NULL);
    super->counters = FSW_STAT_COUNT;
    super->counter_names = fsw_stat_names_checksum(FSW_STAT_COUNT);
    super->checksum = super_checksum(super);
    atomic_store(&super->next_segment, 1);
    atomic_store(&super->memory_limit, params->memory);
    atomic_store(&super->codec, fsw_codec_word(params->codec, params->codec_level));
    atomic_store(&super->prefetch, params->prefetch);
    atomic_store(&super->fetch_timeout, params->fetch_timeout);
    atomic_store(&super->watermarks, params->watermarks);
    atomic_store(&super->write_wait, params->write_wait);
    atomic_store(&super->read_age, params->read_age);
    atomic_store(&super->huge, params->huge);
    fsw_budget_set_day(super, params->overflow_limit);
    return 0;
}

int fsw_image_create(struct fsw_image *image, const struct fsw_params *params, int *ret_unlocked,
                     struct fsw_error *err)
{
    struct fsw_superblock plan = {0};
    uint64_t bytes;
    void *base;

    lay_out(&plan, params->size);
    int shmid = fsw_shm_create(plan.bytes, err);
    if (shmid < 0)
        return shmid;
    int r = fsw_shm_map(shmid, 1, &base, &bytes, err);
    if (r < 0) {
        fsw_shm_unlink(shmid);
        return r;
    }
    fsw_crash_point("image: memory, and no word in it");
    *ret_unlocked = fsw_shm_lock(shmid) < 0;

    r = fsw_image_touch(base, FSW_FRAME_SIZE);
    if (r == 0)
        r = write_super(base, params);
    if (r < 0) {
        fsw_shm_unmap(base);
        fsw_shm_unlink(shmid);
        return fsw_error(err, r, "no memory for the image's superblock");
    }
    set_pointers(image, base);
    image->shmid = shmid;
    fsw_crash_point("image: superblock written, no name");
    return 0;
}

int fsw_image_finish(struct fsw_image *image, struct fsw_error *err)
{
    int r = fsw_image_touch(image->super, image->super->rows_at);

    if (r < 0)
        return fsw_error(err, r, "no memory for the image's directory (%llu bytes)",
                         (unsigned long long)image->super->rows_at);
    fsw_crash_point("image: named, not finished");
    atomic_thread_fence(memory_order_release);
    memcpy(image->super->magic, FSW_IMAGE_MAGIC, sizeof FSW_IMAGE_MAGIC);
    fsw_crash_point("image: finished");
    return 0;
}

static int check_super(const struct fsw_superblock *super, uint64_t bytes, struct fsw_error *err)
{
    struct fsw_superblock plan = {0};

    if (bytes < FSW_FRAME_SIZE ||
        memcmp(super->magic, FSW_IMAGE_MAGIC, sizeof FSW_IMAGE_MAGIC) != 0)
        return fsw_error(err, -EINVAL, "this shared memory is not a farswap image");
    if (super->layout != FSW_IMAGE_LAYOUT)
        return fsw_error(err, -ENOTSUP,
                         "the image has layout %u, this program knows layout %u: go on with the "
                         "farswap version that made it until nobody needs its pages (swapoff); "
                         "`farswap destroy` removes it",
                         super->layout, FSW_IMAGE_LAYOUT);
    lay_out(&plan, super->size);
    if (super->checksum != super_checksum(super) || super->size < FSW_SIZE_MIN ||
        super->size > FSW_SIZE_MAX || plan.bytes != super->bytes || bytes < super->bytes ||
        plan.frames_at != super->frames_at)
        return fsw_error(err, -EUCLEAN, FSW_IMAGE_DAMAGED);
    if (super->counters > FSW_STAT_ROOM ||
        (super->counters <= FSW_STAT_COUNT &&
         super->counter_names != fsw_stat_names_checksum(super->counters)))
        return fsw_error(err, -ENOTSUP,
                         "the image was made by a farswap that counts other things, at the same "
                         "places: go on with that version until nobody needs its pages (swapoff); "
                         "`farswap destroy` removes it");
    if (atomic_load(&super->rows_top) > super->rows ||
        atomic_load(&super->zspages_top) > super->zspages ||
        atomic_load(&super->frames_top) > super->frames)
        return fsw_error(
            err, -EUCLEAN,
            "the image's superblock is damaged: it counts more rows, zspages or frames "
            "than there can be; `farswap destroy` removes it");
    return 0;
}

int fsw_image_attach(struct fsw_image *image, int shmid, int writable, struct fsw_error *err)
{
    uint64_t bytes;
    void *base;

    int r = fsw_shm_map(shmid, writable, &base, &bytes, err);
    if (r < 0)
        return r;
    r = check_super(base, bytes, err);
    if (r < 0) {
        fsw_shm_unmap(base);
        return r;
    }
    set_pointers(image, base);
    image->shmid = shmid;
    image->lock_fd = -1;
    return 0;
}

enum fsw_image_remains fsw_image_remains(int shmid, const struct fsw_device_id *device)
{
    static const char none[sizeof(((struct fsw_superblock *)0)->magic)];
    enum fsw_image_remains remains = FSW_IMAGE_NONE;
    struct shmid_ds segment;

    if (shmctl(shmid, IPC_STAT, &segment) < 0 || segment.shm_segsz < FSW_FRAME_SIZE)
        return FSW_IMAGE_NONE;
    const struct fsw_superblock *super = shmat(shmid, NULL, SHM_RDONLY);
    if (super == (void *)-1)
        return FSW_IMAGE_NONE;
    if (fsw_image_resident(super, 1) == 1 && memcmp(&super->device, device, sizeof *device) == 0)
        remains = memcmp(super->magic, none, sizeof none) != 0 ? FSW_IMAGE_LOST_ITS_MAGIC
                  : segment.shm_nattch > 0                     ? FSW_IMAGE_BEING_MADE
                                                               : FSW_IMAGE_UNFINISHED;
    shmdt(super);
    return remains;
}

void fsw_image_detach(struct fsw_image *image)
{
    if (image->super != NULL)
        fsw_shm_unmap(image->super);
    image->super = NULL;
}

/* Ends the image whose memory is mapped at `base`. The superblock goes last. */
static int wipe_all(int shmid, char *base, uint64_t bytes, struct fsw_error *err)
{
    fsw_shm_wipe(base + FSW_FRAME_SIZE, bytes - FSW_FRAME_SIZE);
    explicit_bzero(base, FSW_FRAME_SIZE);
    fsw_shm_unmap(base);
    int r = fsw_shm_unlink(shmid);
    return r < 0 ? fsw_error(err, r, "removing shared memory %d: %s", shmid, strerror(-r)) : 0;
}

int fsw_image_wipe(struct fsw_image *image, struct fsw_error *err)
{
    struct fsw_superblock *super = image->super;
    uint64_t top = min_u64(atomic_load(&super->frames_top), super->frames);

    image->super = NULL;
    return wipe_all(image->shmid, (char *)super, super->frames_at + top * FSW_FRAME_SIZE, err);
}

int fsw_image_wipe_damaged(int shmid, struct fsw_error *err)
{
    uint64_t bytes;
    void *base;
    int r = fsw_shm_map(shmid, 1, &base, &bytes, err);

    return r < 0 ? r : wipe_all(shmid, base, bytes, err);
}

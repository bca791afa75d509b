/*
 * damage.c: the device has no thread at work while it is damaged, and its store lives here: one
 * that answers at once, keeps what is dropped, and refuses what is not there, since a damaged row
 * may ask for anything.
 */
#include "damage.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/shm.h>
#include <time.h>

#include "common/cleanup.h"
#include "core/check.h"
#include "rig.h"

#define PAGES 1024u
#define WRITTEN 700u /* of the rest some are empty in a leaf, some have none */
#define AWAY 250u    /* of these are in the store */
#define SEGMENTS 64u
#define FLIP_BYTES 6u
#define FLIPS_MAX 64u

static struct {
    struct fsw_store base;
    char *bytes[SEGMENTS];
    uint32_t length[SEGMENTS];
} store;

static struct fsw_device *device;
static struct fsw_image *image;
static unsigned char (*expected)[FSW_PAGE_SIZE];
static char attach_said[sizeof((struct fsw_error *)0)->text];

/* Read to be flipped, and put back as a whole, since reading changes ages and pins. */
static char *leaf_copy, *row_copy;
static uint32_t leaf_frames[PAGES / FSW_LEAF_ENTRIES], leaf_count;
static uint32_t *object_frames, object_frame_count;
static size_t row_bytes;

static void __attribute__((noreturn, format(printf, 1, 2))) broken(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    abort();
}

/* ---- the store ---- */

static enum fsw_store_result answer(struct fsw_store_request *request)
{
    uint64_t id = request->id;

    if (request->verb == FSW_STORE_DROP)
        return FSW_STORE_OK;
    if (id >= SEGMENTS)
        return FSW_STORE_GONE;
    if (request->verb == FSW_STORE_PUT) {
        store.bytes[id] = malloc(request->length);
        store.length[id] = request->length;
        memcpy(store.bytes[id], request->bytes, request->length);
        request->copies = 1;
        return FSW_STORE_OK;
    }
    if (store.bytes[id] == NULL)
        return FSW_STORE_GONE;
    if ((uint64_t)request->offset + request->length > store.length[id])
        return FSW_STORE_CORRUPT;
    memcpy(request->bytes, store.bytes[id] + request->offset, request->length);
    return FSW_STORE_OK;
}

static void store_submit(struct fsw_store *base, struct fsw_store_request *const *requests,
                         size_t n)
{
    for (size_t i = 0; i < n; i++) {
        requests[i]->result = answer(requests[i]);
        requests[i]->done(requests[i]);
    }
}

static int store_start(struct fsw_store *base, const struct fsw_store_identity *identity,
                       struct fsw_error *err)
{
    return 0;
}

static int store_list(struct fsw_store *base, const struct fsw_device_id *whose,
                      int (*each)(uint32_t row, uint64_t id, void *opaque), void *opaque,
                      struct fsw_error *err)
{
    return 0; /* its images are damaged: nothing is swept */
}

static void store_health(struct fsw_store *base, struct fsw_store_health *ret_health)
{
    *ret_health = (struct fsw_store_health){.connected = 1};
}

static void store_close(struct fsw_store *base) {}

static const struct fsw_store_ops store_ops = {.scheme = "damage",
                                               .start = store_start,
                                               .submit = store_submit,
                                               .list = store_list,
                                               .health = store_health,
                                               .close = store_close};

/* ---- the device ---- */

static void write_pages(uint64_t from, uint64_t to)
{
    for (uint64_t page = from; page < to; page++) {
        rig_fill(expected[page], (enum rig_kind)(page % RIG_KINDS), page);
        if (fsw_device_write(device, expected[page], page * FSW_PAGE_SIZE, FSW_PAGE_SIZE) < 0)
            broken("setting up: page %llu can't be written", (unsigned long long)page);
    }
}

static uint64_t stat_of(enum fsw_stat stat)
{
    uint64_t values[FSW_STAT_COUNT];
    fsw_device_stats(device, values);
    return values[stat];
}

static unsigned puts_out(void)
{
    FSW_LOCK_SCOPE(&device->overflow.lock);
    return device->overflow.puts_out;
}

static void evict_all(void)
{
    struct fsw_overflow *overflow = &device->overflow;
    const struct timespec pause = {.tv_nsec = 500 * 1000};
    uint32_t high = device->reclaim.high;

    device->reclaim.high = UINT32_MAX;
    for (int tries = 0; stat_of(FSW_STAT_PAGES_POOL) > 0 || puts_out() > 0; tries++) {
        pthread_mutex_lock(&overflow->lock);
        atomic_store(&overflow->wanted, 1);
        pthread_cond_signal(&overflow->wake);
        pthread_mutex_unlock(&overflow->lock);
        if (tries > 120000) /* a minute at least */
            broken("setting up: pages do not leave");
        nanosleep(&pause, NULL);
    }
    device->reclaim.high = high;
    atomic_store(&overflow->wanted, 0);
}

static void remember(void)
{
    for (uint64_t leaf = 0; leaf < PAGES / FSW_LEAF_ENTRIES; leaf++)
        if (image->directory[leaf] != 0)
            leaf_frames[leaf_count++] = (uint32_t)image->directory[leaf];
    leaf_copy = malloc(leaf_count * FSW_FRAME_SIZE);
    for (uint32_t i = 0; i < leaf_count; i++)
        memcpy(leaf_copy + i * FSW_FRAME_SIZE, fsw_image_frame(image, leaf_frames[i]),
               FSW_FRAME_SIZE);
    row_bytes = image->super->rows_top * sizeof(struct fsw_row);
    row_copy = malloc(row_bytes);
    memcpy(row_copy, (void *)image->rows, row_bytes);
    object_frames = calloc(image->super->frames_top, sizeof object_frames[0]);
    for (uint32_t id = 1; id < image->super->zspages_top; id++)
        for (unsigned i = 0; i < FSW_ZSPAGE_FRAMES; i++)
            if (image->zspages[id].frame[i] != 0)
                object_frames[object_frame_count++] = image->zspages[id].frame[i];
}

void damage_open(void)
{
    struct fsw_params params;
    struct fsw_error err = {""};

    expected = calloc(PAGES, FSW_PAGE_SIZE);
    fsw_params_init(&params);
    strcpy(params.name, "damage");
    params.size = PAGES * (uint64_t)FSW_PAGE_SIZE;
    params.memory = 8 << 20;
    fsw_params_set(&params, "codec", "lz4", &err);
    store.base.ops = &store_ops;
    if (fsw_device_open(&params, FSW_OPEN_NEW, 0, &store.base, &device, &err) < 0)
        broken("%s", err.text);
    image = &device->image;
    shmctl(image->shmid, IPC_RMID, NULL);
    if (fsw_device_start(device, &err) < 0)
        broken("%s", err.text);
    write_pages(0, AWAY);
    evict_all();
    write_pages(AWAY, WRITTEN);
    fsw_keeper_stop(device);
    fsw_frames_stop(&device->pool.frames);
    remember();
    if (stat_of(FSW_STAT_PAGES_STORE) < 100 || stat_of(FSW_STAT_PAGES_POOL) < 100)
        broken("setting up: too few pages in pool or store");
}

/* ---- damage ---- */

#define SUPER_CHECKED offsetof(struct fsw_superblock, next_segment)

size_t damage_size(enum damage_part part)
{
    switch (part) {
    case DAMAGE_SUPER:
        return SUPER_CHECKED;
    case DAMAGE_TOPS:
        return sizeof(struct fsw_superblock) - SUPER_CHECKED;
    case DAMAGE_LEAVES:
        return PAGES / FSW_LEAF_ENTRIES * sizeof image->directory[0];
    case DAMAGE_ROWS:
        return row_bytes;
    case DAMAGE_CLASSES:
        return image->super->zspages_top * sizeof image->classes[0];
    case DAMAGE_FRAMES:
        return image->super->zspages_top * sizeof image->zspages[0];
    case DAMAGE_ENTRIES:
        return leaf_count * (size_t)FSW_FRAME_SIZE;
    default:
        return object_frame_count * (size_t)FSW_FRAME_SIZE;
    }
}

static unsigned char *place(enum damage_part part, size_t at)
{
    switch (part) {
    case DAMAGE_SUPER:
        return (unsigned char *)image->super + at;
    case DAMAGE_TOPS:
        return (unsigned char *)image->super + SUPER_CHECKED + at;
    case DAMAGE_LEAVES:
        return (unsigned char *)image->directory + at;
    case DAMAGE_ROWS:
        return (unsigned char *)image->rows + at;
    case DAMAGE_CLASSES:
        return (unsigned char *)image->classes + at;
    case DAMAGE_FRAMES:
        return (unsigned char *)image->zspages + at;
    case DAMAGE_ENTRIES:
        return (unsigned char *)fsw_image_frame(image, leaf_frames[at / FSW_FRAME_SIZE]) +
               at % FSW_FRAME_SIZE;
    default:
        return (unsigned char *)fsw_image_frame(image, object_frames[at / FSW_FRAME_SIZE]) +
               at % FSW_FRAME_SIZE;
    }
}

struct flip {
    unsigned char *at;
    uint8_t bits;
};

static unsigned decode(const uint8_t *input, size_t length, struct flip *flips)
{
    unsigned n = 0;

    for (; length >= FLIP_BYTES && n < FLIPS_MAX; length -= FLIP_BYTES, input += FLIP_BYTES) {
        enum damage_part part = (enum damage_part)(input[0] % DAMAGE_PARTS);
        uint32_t at;
        memcpy(&at, input + 1, sizeof at);
        at = (uint32_t)(at % damage_size(part));
        uint8_t bits = input[5];
        if (part == DAMAGE_ENTRIES && at % 8 == 7)
            bits &= (uint8_t) ~(FSW_ENTRY_LOCK >> 56);
        flips[n++] = (struct flip){.at = place(part, at), .bits = bits};
    }
    return n;
}

static int drops_are_done(void)
{
    struct fsw_overflow *overflow = &device->overflow;
    FSW_LOCK_SCOPE(&overflow->lock);
    return overflow->drops.waiting == 0 && overflow->drops.out == 0 &&
           overflow->drops.finished == NULL;
}

static void repair(const struct flip *flips, unsigned count)
{
    const struct timespec pause = {.tv_nsec = 100 * 1000};

    while (!drops_are_done()) /* a row whose count fell to 0 */
        nanosleep(&pause, NULL);
    for (unsigned i = count; i-- > 0;)
        *flips[i].at ^= flips[i].bits;
    for (uint32_t i = 0; i < leaf_count; i++)
        memcpy(fsw_image_frame(image, leaf_frames[i]), leaf_copy + i * FSW_FRAME_SIZE,
               FSW_FRAME_SIZE);
    memcpy((void *)image->rows, row_copy, row_bytes);
    pthread_mutex_lock(&device->rows.lock);
    device->rows.free = 0;
    pthread_mutex_unlock(&device->rows.lock);
}

/* ---- what must hold ---- */

/* *ret_local: those of them that were not in the store. */
static unsigned read_all(unsigned *ret_local)
{
    unsigned char page[FSW_PAGE_SIZE];
    unsigned failed = 0;

    for (uint64_t number = 0; number < PAGES; number++) {
        int r = fsw_device_read(device, page, number * FSW_PAGE_SIZE, FSW_PAGE_SIZE);
        failed += r < 0;
        *ret_local += r < 0 && number >= AWAY;
        if (r < 0 && r != -EIO)
            broken("page %llu: error %d", (unsigned long long)number, r);
        if (r == 0 && memcmp(page, expected[number], FSW_PAGE_SIZE) != 0)
            broken("page %llu: wrong bytes, and no error", (unsigned long long)number);
    }
    return failed;
}

static void ignore_problem(const char *line, void *opaque)
{
    if (line[0] == '\0')
        broken("a problem without a word");
}

static int attach(void)
{
    struct fsw_image second;
    struct fsw_error err = {""};
    int r = fsw_image_attach(&second, image->shmid, 0, &err);

    memcpy(attach_said, err.text, sizeof attach_said);
    if (r == 0)
        fsw_image_detach(&second);
    else if (err.text[0] == '\0')
        broken("attach: error %d and not a word", r);
    return r;
}

const char *damage_attach_said(void)
{
    return attach_said;
}

unsigned damage_try(const uint8_t *input, size_t length)
{
    struct flip flips[FLIPS_MAX];
    struct fsw_check_report report, served;
    unsigned count = decode(input, length, flips), failed = 0, local = 0;

    for (unsigned i = 0; i < count; i++)
        *flips[i].at ^= flips[i].bits;
    if (attach() == 0) { /* else nobody would look any further */
        if (fsw_image_check(image, 0, ignore_problem, NULL, &report) < 0 ||
            fsw_image_check(image, 1, ignore_problem, NULL, &served) < 0)
            broken("check: no memory");
        failed = read_all(&local);
        /* Check does not ask the store, so it can't know a range or an id that is another's. */
        if (report.problems == 0 && local > 0)
            broken("check found nothing, and %u pages do not read", local);
        if (count == 0 && report.problems + report.leftovers + served.problems > 0)
            broken("check found something in a whole image");
    }
    repair(flips, count);
    return failed;
}

unsigned damage_one(enum damage_part part, uint32_t at, uint8_t bits)
{
    uint8_t input[FLIP_BYTES] = {(uint8_t)part};

    memcpy(input + 1, &at, sizeof at);
    input[5] = bits;
    return damage_try(input, sizeof input);
}

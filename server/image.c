/*
 * image.c: making, finding, attaching and wiping the shared memory of a donor. What is in it
 * belongs to others (vault, keyspace, devices); where in it things lie is decided here, by
 * lay_out().
 */
#include "server/image.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/checksum.h"
#include "common/parse.h"
#include "common/shm.h"
#include "server/claim.h"

/* Address space of a new image: a value takes 64 KiB of it, however small, and --memory may be
 * larger at the next start. */
#define SPAN_TIMES 16u
#define SPAN_MIN (64ull << 30)
#define SPAN_MAX (64ull << 40)
/* A killed donor of 100 GiB takes a second or two until its lock is free. */
#define PATIENCE_S 5

_Static_assert(sizeof(struct fsw_donor_super) <= FSW_DONOR_PAGE, "the superblock is one page");

static uint64_t round_up(uint64_t value, uint64_t to)
{
    return (value + to - 1) / to * to;
}

static void lay_out(struct fsw_donor_super *super, uint64_t slots)
{
    super->slots = slots;
    super->contacts_at = FSW_DONOR_PAGE;
    super->descriptors_at =
        round_up(super->contacts_at + FSW_MAX_DEVICES * sizeof(struct fsw_contact), FSW_DONOR_PAGE);
    super->slots_at =
        round_up(super->descriptors_at + slots * sizeof(struct fsw_descriptor), FSW_SLOT_BYTES);
    super->bytes = super->slots_at + slots * FSW_SLOT_BYTES;
}

static uint32_t super_checksum(const struct fsw_donor_super *super)
{
    const char *from = super->name;

    return fsw_checksum(from, (size_t)((const char *)&super->sequence - from), super->layout);
}

uint32_t fsw_descriptor_checksum(const struct fsw_descriptor *descriptor)
{
    uint64_t seed = descriptor->sequence ^ (uint64_t)descriptor->length << 32 ^
                    (uint64_t)descriptor->within << 8 ^ descriptor->key_length;
    size_t text = descriptor->key_length + (descriptor->within ? descriptor->length : 0);

    return fsw_checksum(descriptor->text, text, seed);
}

bool fsw_descriptor_sound(const struct fsw_descriptor *descriptor)
{
    uint32_t most =
        descriptor->within ? FSW_DESCRIPTOR_TEXT - descriptor->key_length : FSW_SLOT_BYTES;

    return descriptor->key_length <= FSW_MAX_KEY && descriptor->within <= 1 &&
           descriptor->length <= most &&
           descriptor->checksum == fsw_descriptor_checksum(descriptor);
}

/* ---- making one ---- */

static void set_pointers(struct fsw_donor_image *image, int shmid, void *base)
{
    struct fsw_donor_super *super = base;

    image->super = super;
    image->contacts = (void *)((char *)base + super->contacts_at);
    image->descriptors = (void *)((char *)base + super->descriptors_at);
    image->slots = (char *)base + super->slots_at;
    image->shmid = shmid;
}

/* Shared memory for as many slots, and where it is mapped. */
static int get_memory(uint64_t slots, void **ret_base, struct fsw_error *err)
{
    struct fsw_donor_super plan = {0};
    uint64_t bytes;

    lay_out(&plan, slots);
    int shmid = fsw_shm_create(plan.bytes, err);
    if (shmid < 0)
        return shmid;
    int r = fsw_shm_map(shmid, 1, ret_base, &bytes, err);
    if (r == 0)
        return shmid;
    fsw_shm_unlink(shmid);
    return r;
}

/* As many slots as we'd like, or as this host lets us have, down to what memory needs. */
static int get_sparse(uint64_t memory, uint64_t *ret_slots, void **ret_base, struct fsw_error *err)
{
    uint64_t span = memory > SPAN_MAX / SPAN_TIMES ? SPAN_MAX : memory * SPAN_TIMES;
    int shmid;

    if (span < SPAN_MIN)
        span = SPAN_MIN;
    for (;; span /= 2) {
        *ret_slots = round_up(span, FSW_SLOT_BYTES * FSW_DESCRIPTORS_A_PAGE) / FSW_SLOT_BYTES;
        shmid = get_memory(*ret_slots, ret_base, err);
        if (shmid >= 0 || span / 2 < memory)
            return shmid;
    }
}

static int image_create(struct fsw_donor_image *image, const char *name, uint64_t memory,
                        struct fsw_error *err)
{
    void *base = NULL;
    uint64_t slots;
    int shmid = get_sparse(memory, &slots, &base, err);

    if (shmid < 0)
        return shmid;
    image->unlocked = fsw_shm_lock(shmid) < 0;
    if (name == NULL)
        fsw_shm_unlink(shmid); /* lives on as long as we have it mapped */
    if (fsw_shm_touch(base, FSW_DONOR_PAGE) < 0) {
        fsw_shm_unmap(base);
        fsw_shm_unlink(shmid);
        return fsw_error(err, -ENOMEM, "no memory for the image's superblock");
    }
    struct fsw_donor_super *super = base;
    lay_out(super, slots);
    super->layout = FSW_DONOR_LAYOUT;
    snprintf(super->name, sizeof super->name, "%s", name != NULL ? name : "");
    super->created = time(NULL);
    super->checksum = super_checksum(super);
    atomic_store(&super->top,
                 FSW_DESCRIPTORS_A_PAGE); /* 0 is none, and its page not worth a case */
    atomic_signal_fence(memory_order_release);
    memcpy(super->magic, FSW_DONOR_MAGIC, sizeof FSW_DONOR_MAGIC);
    set_pointers(image, shmid, base);
    return 0;
}

/* ---- finding one ---- */

static int check_super(const struct fsw_donor_super *super, uint64_t bytes, struct fsw_error *err)
{
    struct fsw_donor_super plan = {0};

    if (bytes < FSW_DONOR_PAGE ||
        memcmp(super->magic, FSW_DONOR_MAGIC, sizeof FSW_DONOR_MAGIC) != 0)
        return fsw_error(err, -EINVAL, "this shared memory is not a donor's image");
    if (super->layout != FSW_DONOR_LAYOUT)
        return fsw_error(err, -ENOTSUP,
                         "the image has layout %u, this farswapd knows layout %u: use the version "
                         "that made it, or remove it with --destroy",
                         super->layout, FSW_DONOR_LAYOUT);
    lay_out(&plan, super->slots);
    if (super->checksum != super_checksum(super) || super->bytes != bytes ||
        plan.bytes != super->bytes || plan.slots_at != super->slots_at ||
        super->top > super->slots || super->top < FSW_DESCRIPTORS_A_PAGE ||
        super->top % FSW_DESCRIPTORS_A_PAGE != 0)
        return fsw_error(err, -EUCLEAN,
                         "the image's superblock is damaged: nothing in it can be trusted; "
                         "farswapd --destroy removes it");
    return 0;
}

static int image_attach(struct fsw_donor_image *image, int shmid, struct fsw_error *err)
{
    uint64_t bytes;
    void *base;

    if (fsw_shm_map(shmid, 1, &base, &bytes, err) < 0)
        return -ENOENT;
    int r = check_super(base, bytes, err);
    if (r < 0) {
        fsw_shm_unmap(base);
        return r;
    }
    set_pointers(image, shmid, base);
    image->unlocked = fsw_shm_lock(shmid) < 0;
    return 0;
}

struct search {
    const char *name;
    int shmid;
};

static int is_orphan(int shmid, uint64_t bytes, unsigned attached, void *opaque)
{
    struct search *search = opaque;
    struct fsw_donor_image image;

    if (attached > 0 || bytes < FSW_DONOR_PAGE || image_attach(&image, shmid, NULL) < 0)
        return 0;
    if (strcmp(image.super->name, search->name) == 0)
        search->shmid = shmid;
    fsw_shm_unmap(image.super);
    return search->shmid >= 0;
}

/* The image of that name whose file was lost (a cleaned /run, a kill before it was written). */
static int find_orphan(const char *name)
{
    struct search search = {name, -1};

    fsw_shm_each(is_orphan, &search);
    return search.shmid;
}

/* Attaches what the claim names, or an orphan. -ENOENT: there is nothing of that name. */
static int attach_claimed(struct fsw_donor_image *image, const char *name, struct fsw_error *err)
{
    int shmid = fsw_claim_read(image->lock);
    int r = shmid < 0 ? -ENOENT : image_attach(image, shmid, err);

    if (r == 0 && strcmp(image->super->name, name) != 0) {
        fsw_shm_unmap(image->super);
        r = -ENOENT; /* the number is another's by now */
    }
    if (r != -ENOENT && r != -EINVAL)
        return r;
    shmid = find_orphan(name);
    return shmid < 0 ? -ENOENT : image_attach(image, shmid, err);
}

static int open_named(struct fsw_donor_image *image, const char *name, uint64_t memory,
                      struct fsw_error *err)
{
    int r = fsw_shm_check_host(err);

    if (r == 0)
        r = fsw_claim_lock(name, PATIENCE_S, &image->lock, err);
    if (r < 0)
        return r;
    r = attach_claimed(image, name, err);
    if (r == -ENOENT)
        r = image_create(image, name, memory, err);
    if (r < 0)
        return r;
    char text[FSW_SIZE_TEXT];
    uint64_t room = image->super->slots * FSW_SLOT_BYTES;
    if (room < memory)
        return fsw_error(err, -E2BIG, "this donor's image was made for --memory %s at most",
                         fsw_format_size(room, text));
    return fsw_claim_write(name, image->lock, image->shmid, err);
}

int fsw_donor_image_open(struct fsw_donor_image *image, const char *name, uint64_t memory,
                         struct fsw_error *err)
{
    int r;

    *image = (struct fsw_donor_image){.lock = -1, .shmid = -1};
    r = name == NULL ? image_create(image, NULL, memory, err)
                     : open_named(image, name, memory, err);
    if (r < 0)
        fsw_donor_image_close(image);
    else
        image->super->holder = getpid();
    return r;
}

void fsw_donor_image_close(struct fsw_donor_image *image)
{
    if (image->super != NULL)
        fsw_shm_unmap(image->super);
    if (image->lock >= 0)
        close(image->lock);
    *image = (struct fsw_donor_image){.lock = -1, .shmid = -1};
}

/* ---- the end of one ---- */

static void wipe(struct fsw_donor_image *image)
{
    struct fsw_donor_super *super = image->super;
    uint32_t top = super->top;

    fsw_shm_wipe(image->slots, (uint64_t)top * FSW_SLOT_BYTES);
    fsw_shm_wipe(image->descriptors, (uint64_t)top * sizeof *image->descriptors);
    fsw_shm_wipe(super, super->descriptors_at);
    fsw_shm_unlink(image->shmid);
}

int fsw_donor_image_destroy(const char *name, struct fsw_error *err)
{
    struct fsw_donor_image image = {.lock = -1, .shmid = -1};
    int r = fsw_claim_lock(name, 0, &image.lock, err);

    if (r < 0)
        return r;
    r = attach_claimed(&image, name, err);
    if (r == 0)
        wipe(&image);
    else if (r == -EUCLEAN || r == -ENOTSUP)
        fsw_shm_unlink(fsw_claim_read(image.lock)); /* nothing tells what there is to wipe */
    if (r == -ENOENT)
        fsw_error(err, r, "there is no donor named %s", name);
    fsw_claim_remove(name);
    fsw_donor_image_close(&image);
    return r == -EUCLEAN || r == -ENOTSUP ? 0 : r;
}

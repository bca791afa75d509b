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
#include "common/clock.h"
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

/* ---- whose it is ---- */

/* Whose image is looked for. */
struct owner {
    const char *name;
    uint32_t home;
    uint32_t claimed; /* the home that the claim's file tells; or 0 */
};

static uint64_t home_word(uint32_t home)
{
    return (uint64_t)~home << 32 | home;
}

static bool has_home(const struct fsw_donor_super *super, uint32_t home)
{
    return home != 0 && super->home == home_word(home);
}

static bool is_owned(const struct fsw_donor_super *super, const struct owner *owner)
{
    return strncmp(super->name, owner->name, sizeof super->name) == 0 &&
           (super->home == 0 || has_home(super, owner->home) || has_home(super, owner->claimed));
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

/* owner: NULL, and it goes with the process. */
static int image_create(struct fsw_donor_image *image, const struct owner *owner, uint64_t memory,
                        struct fsw_error *err)
{
    void *base = NULL;
    uint64_t slots;
    int shmid = get_sparse(memory, &slots, &base, err);

    if (shmid < 0)
        return shmid;
    image->unlocked = fsw_shm_lock(shmid) < 0;
    if (owner == NULL)
        fsw_shm_unlink(shmid); /* lives on as long as we have it mapped */
    if (fsw_shm_touch(base, FSW_DONOR_PAGE) < 0) {
        fsw_shm_unmap(base);
        fsw_shm_unlink(shmid);
        return fsw_error(err, -ENOMEM, "no memory for the image's superblock");
    }
    struct fsw_donor_super *super = base;
    lay_out(super, slots);
    super->layout = FSW_DONOR_LAYOUT;
    snprintf(super->name, sizeof super->name, "%s", owner != NULL ? owner->name : "");
    super->home = owner != NULL ? home_word(owner->home) : 0;
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
    if (super->checksum != super_checksum(super) ||
        (super->home != 0 && super->home != home_word((uint32_t)super->home)) ||
        super->bytes != bytes || plan.bytes != super->bytes || plan.slots_at != super->slots_at ||
        super->top > super->slots || super->top < FSW_DESCRIPTORS_A_PAGE ||
        super->top % FSW_DESCRIPTORS_A_PAGE != 0)
        return fsw_error(err, -EUCLEAN,
                         "the image's superblock is damaged: nothing in it can be trusted; "
                         "farswapd --destroy removes it");
    return 0;
}

/* -ENOENT, -EINVAL: it is none of the owner's. -EBUSY: it may be, and another process has it mapped. */
static int image_attach(struct fsw_donor_image *image, int shmid, const struct owner *owner,
                        struct fsw_error *err)
{
    uint64_t bytes;
    void *base;

    int r = fsw_shm_map(shmid, 1, &base, &bytes, err);
    if (r < 0)
        return r == -EIDRM || r == -EACCES ? -ENOENT : r;
    bool alone = fsw_shm_attached(shmid) == 1; /* from here on, if at all: I5 */
    r = check_super(base, bytes, err);
    if ((r == 0 || r == -ENOTSUP) && !is_owned(base, owner))
        r = -ENOENT; /* the number is another's by now */
    else if (r != -EINVAL && !alone)
        r = fsw_error(err, -EBUSY,
                      "the image of donor %s (shared memory %d) is mapped by another process: a "
                      "donor whose claim's file was removed, or one in a container; stop that, or "
                      "choose another name",
                      owner->name, shmid);
    if (r < 0) {
        fsw_shm_unmap(base);
        return r;
    }
    set_pointers(image, shmid, base);
    image->unlocked = fsw_shm_lock(shmid) < 0;
    return 0;
}

/* Others map images, for a moment, to see whose they are. */
static int attach_patiently(struct fsw_donor_image *image, int shmid, const struct owner *owner,
                            struct fsw_error *err)
{
    const uint64_t deadline = fsw_now_ns() + PATIENCE_S * FSW_NS_PER_S;
    const struct timespec pause = {.tv_nsec = 20 * 1000 * 1000};
    int r;

    while ((r = image_attach(image, shmid, owner, err)) == -EBUSY && fsw_now_ns() < deadline)
        nanosleep(&pause, NULL);
    return r;
}

/* In order of preference. */
enum find { NONE, OF_NO_HOME, BUSY, ORPHAN };

struct search {
    const struct owner *owner;
    enum find best;
    int shmid;
};

static enum find judge(const struct fsw_donor_super *super, unsigned attached,
                       const struct owner *owner)
{
    if (!is_owned(super, owner))
        return NONE;
    if (super->home == 0)
        return attached == 0 ? OF_NO_HOME : NONE;
    return attached == 0 ? ORPHAN : BUSY;
}

static int look_at(int shmid, uint64_t bytes, unsigned attached, void *opaque)
{
    struct search *search = opaque;
    enum find find = NONE;
    void *base;

    if (bytes < FSW_DONOR_PAGE || fsw_shm_map(shmid, 0, &base, &bytes, NULL) < 0)
        return 0;
    if (check_super(base, bytes, NULL) == 0)
        find = judge(base, attached, search->owner);
    fsw_shm_unmap(base);
    if (find > search->best) {
        search->best = find;
        search->shmid = shmid;
    }
    return find == ORPHAN;
}

/* The owner's image without a file: -1, there is none. */
static int find_orphan(const struct owner *owner)
{
    struct search search = {owner, NONE, -1};

    fsw_shm_each(look_at, &search);
    return search.shmid;
}

/* Attaches what the claim names, or an orphan. -ENOENT: there is nothing of the owner's. */
static int attach_owned(struct fsw_donor_image *image, const struct owner *owner,
                        struct fsw_error *err)
{
    struct fsw_claim claim = fsw_claim_read(image->lock);
    struct owner by_claim = {owner->name, owner->home, claim.home};
    int r = claim.shmid < 0 ? -ENOENT : attach_patiently(image, claim.shmid, &by_claim, err);

    if (r != -ENOENT && r != -EINVAL)
        return r;
    int shmid = find_orphan(owner);
    r = shmid < 0 ? -ENOENT : attach_patiently(image, shmid, owner, err);
    return r == -EINVAL || r == -EUCLEAN || r == -ENOTSUP ? -ENOENT : r; /* wiped just now */
}

/* The right to the name, and all that tells its image. */
static int take_name(struct fsw_donor_image *image, const char *name, unsigned seconds,
                     struct owner *ret_owner, struct fsw_error *err)
{
    int r = fsw_claim_lock(name, seconds, &image->lock, err);

    *ret_owner = (struct owner){.name = name};
    return r < 0 ? r : fsw_claim_home(&ret_owner->home, err);
}

static int open_named(struct fsw_donor_image *image, const char *name, uint64_t memory,
                      struct fsw_error *err)
{
    struct owner owner;
    int r = fsw_shm_check_host(err);

    if (r == 0)
        r = take_name(image, name, PATIENCE_S, &owner, err);
    if (r < 0)
        return r;
    r = attach_owned(image, &owner, err);
    if (r == -ENOENT)
        r = image_create(image, &owner, memory, err);
    if (r < 0)
        return r;
    char text[FSW_SIZE_TEXT];
    uint64_t room = image->super->slots * FSW_SLOT_BYTES;
    if (room < memory)
        return fsw_error(err, -E2BIG, "this donor's image was made for --memory %s at most",
                         fsw_format_size(room, text));
    /* First: a file that tells the new home of an image that has the old one would not find it. */
    image->super->home = home_word(owner.home);
    return fsw_claim_write(name, image->lock, &(struct fsw_claim){image->shmid, owner.home}, err);
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
    struct owner owner;
    int r = take_name(&image, name, 0, &owner, err);

    if (r == 0)
        r = attach_owned(&image, &owner, err);
    if (r == 0)
        wipe(&image);
    else if (r == -EUCLEAN || r == -ENOTSUP)
        fsw_shm_unlink(fsw_claim_read(image.lock).shmid); /* nothing tells what there is to wipe */
    else if (r == -ENOENT)
        fsw_error(err, r, "there is no donor named %s", name);
    if (image.lock >= 0 && r != -EBUSY)
        fsw_claim_remove(name);
    fsw_donor_image_close(&image);
    return r == -EUCLEAN || r == -ENOTSUP ? 0 : r;
}

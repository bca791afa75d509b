/*
 * image.h: the shared memory that holds a donor's values, and its layout.
 *
 *      superblock      4 KiB
 *      contacts        64 bytes for each device that was ever here
 *      descriptors     256 bytes each
 *      slots           64 KiB of address space each
 *
 * Descriptor i is the key of the value in slot i. A slot's pages are touched from its begin, as
 * many as the value needs, and given back to the system afterwards: address space is the only
 * thing that is spent on the rest, so nothing ever has to be moved or merged.
 *
 *   I1  Truth is the superblock and, of each descriptor below `top`, its state, sequence, length,
 *       key and text. The rest of a descriptor is derived and rebuilt by who attaches.
 *   I2  A descriptor is LIVE, with its checksum right, or FREE. LIVE is stored last of all that is
 *       written for a value, and FREE first of all that is done to take it away; so a process
 *       that is killed between leaves the value or nothing. Every other word is damage.
 *   I3  Of two LIVE descriptors with one key the one of the higher sequence counts: its maker was
 *       killed before it could free the other.
 *   I4  Only descriptors below `top` may be read, and only slots of values: memory that was never
 *       touched would be by reading it.
 *   I5  One process works on it. It holds its name's claim (claim.h), and nobody else has the memory
 *       mapped; the second is for donors that do not see each other's claims, as those of two
 *       containers with one IPC namespace. Who finds it mapped leaves it.
 *
 * An image is its name's and its home's (claim.h). One of another home is neither served nor wiped,
 * however abandoned it looks. Without its claim's file (a cleaned /run, a kill before it was written)
 * name and home find it; with the file it is found as well when the folder moved, and has the new
 * home from then on.
 *
 * A home is a path, so containers that share the IPC namespace and have folders of their own, all
 * called /run/farswap, have one home. I5 keeps two of them from one image, and one from making a
 * second image while the first is served. But a name's first donor finds the image of another's that
 * is stopped, and who destroys the name there wipes it: such containers need names of their own.
 */
#ifndef FSW_SERVER_IMAGE_H
#define FSW_SERVER_IMAGE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "farswap/error.h"
#include "server/limits.h"
#include "server/value.h"

#define FSW_DONOR_MAGIC "farswpd"
#define FSW_DONOR_LAYOUT 1u
#define FSW_DONOR_NAME 64u
#define FSW_DONOR_PAGE 4096u
#define FSW_SLOT_BYTES 65536u
#define FSW_DESCRIPTORS_A_PAGE 16u
#define FSW_DESCRIPTOR_TEXT 184u

#define FSW_DESCRIPTOR_FREE UINT64_C(0)
#define FSW_DESCRIPTOR_LIVE UINT64_C(0x6c6976652076616c) /* far from 0, whatever bit falls over */

/* In every layout magic, layout, name and home are where they are now. */
struct fsw_donor_super {
    char magic[8]; /* written last: an image without it was never finished */
    uint32_t layout;
    uint32_t checksum; /* of what follows, up to the first atomic */
    char name[FSW_DONOR_NAME + 8];
    uint64_t bytes, contacts_at, descriptors_at, slots_at;
    uint64_t slots;  /* how many there can be, number 0 not used */
    int64_t created; /* seconds since 1970 */

    _Atomic uint64_t sequence; /* the last one given out */
    _Atomic uint32_t top;   /* descriptors below it may be read; a whole page of them at a time */
    _Atomic int32_t holder; /* pid of the last donor; the lock, not this, says if it lives */
    /* fsw_claim_home of the last donor, and above it its complement. 0: from before there were homes,
     * and anybody's of its name. Apart from what the checksum covers, to be changed in one store. */
    _Atomic uint64_t home;
};

/* What is told of a device. Nothing depends on it. */
struct fsw_contact {
    uint8_t device[16];
    int64_t last; /* seconds since 1970; 0: this place is free */
    char peer[40];
};

struct fsw_descriptor {
    _Atomic uint64_t state;
    uint64_t sequence;
    uint32_t checksum; /* of sequence, length, key_length, within and text */
    uint32_t length;   /* of the value */
    uint8_t key_length;
    uint8_t within; /* 1: the value is in text, behind the key, and the slot is not used */
    uint8_t unused[2];

    /* derived */
    uint8_t frames; /* pages of the slot that are touched */
    uint8_t spare1;
    uint16_t device; /* index into server/devices.h's */
    uint32_t next;   /* of the chain that it is in; 0: the last */
    uint32_t spare2;
    uint64_t position;
    struct fsw_value value;

    char text[FSW_DESCRIPTOR_TEXT]; /* the key; then the value, if it is within */
};

_Static_assert(sizeof(struct fsw_descriptor) == FSW_DONOR_PAGE / FSW_DESCRIPTORS_A_PAGE,
               "16 descriptors a page");
_Static_assert(sizeof(struct fsw_contact) == 64, "a contact is 64 bytes");
_Static_assert(FSW_MAX_KEY <= FSW_DESCRIPTOR_TEXT, "a key fits");
_Static_assert(FSW_MAX_VALUE <= FSW_SLOT_BYTES, "a value fits");

struct fsw_donor_image {
    struct fsw_donor_super *super;
    struct fsw_contact *contacts;
    struct fsw_descriptor *descriptors;
    char *slots;
    int shmid;
    int lock;      /* -1: without a name, the memory is this process's alone */
    bool unlocked; /* the system may swap it out */
};

/* The image of that name, made if there is none; locked, so that no other donor has it. NULL: one
 * without a name, which goes with the process. memory: what it must be able to hold at least.
 * -EBUSY (served, or mapped by somebody, after some seconds of patience: a big process takes time to
 * die), -EUCLEAN (damaged), -ENOTSUP (another layout), -EPERM (host, or file), -E2BIG (memory is more
 * than the image's address space). Blocks. */
int fsw_donor_image_open(struct fsw_donor_image *image, const char *name, uint64_t memory,
                         struct fsw_error *err);
/* Lets go of it. One without a name is gone then. */
void fsw_donor_image_close(struct fsw_donor_image *image);

/* Wipes the image of that name and removes it: -ENOENT, -EBUSY (as open, without patience for the
 * lock). Blocks. */
int fsw_donor_image_destroy(const char *name, struct fsw_error *err);

/* What LIVE descriptors promise. Reads one below top. */
bool fsw_descriptor_sound(const struct fsw_descriptor *descriptor);
uint32_t fsw_descriptor_checksum(const struct fsw_descriptor *descriptor);

static inline struct fsw_descriptor *fsw_donor_descriptor(const struct fsw_donor_image *image,
                                                          uint32_t slot)
{
    return &image->descriptors[slot];
}

static inline char *fsw_donor_slot(const struct fsw_donor_image *image, uint32_t slot)
{
    return image->slots + (uint64_t)slot * FSW_SLOT_BYTES;
}

static inline unsigned fsw_frames_of(size_t bytes)
{
    return (unsigned)((bytes + FSW_DONOR_PAGE - 1) / FSW_DONOR_PAGE);
}

#endif

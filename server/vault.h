/*
 * vault.h: which slots of the image are free, and what all of it may cost.
 *
 *              take                      publish (keyspace)
 *      warm ---------> in holders' hands ------------------> LIVE, the keyspace being a holder
 *       ^ \            <- - - - - - - - (retire, by keyspace) - -
 *       |  \ give, by the last holder
 *       |   tidy: pages back to the system
 *       |
 *      cold: no page of it touched; or above top and never used
 *
 *   V1  A slot is in exactly one of these places. Its bit in `taken` is set unless it is cold.
 *   V2  A page of descriptors is touched if one of its bits is set, and only then.
 *   V3  used() <= limit after each take that succeeds: --memory bounds pages of the image (warm ones
 *       too), values of the allocator, and whatever else was charged. But for an image that held
 *       more when it was opened: then nothing is taken until it holds less.
 *   V4  Warm slots beyond FSW_WARM_FRAMES pages are handed back by tidy().
 *
 * All derived: lost with the process and rebuilt from the descriptors. One thread.
 */
#ifndef FSW_SERVER_VAULT_H
#define FSW_SERVER_VAULT_H

#include <stdbool.h>
#include <stdint.h>

#include "server/image.h"
#include "server/value.h"

/* What free slots may keep touched, so that a SET after an UNLINK need not ask the system. */
#define FSW_WARM_FRAMES 1024u
#define FSW_WARM_SLOTS 1024u

struct fsw_vault {
    struct fsw_donor_image *image;
    uint64_t limit;
    bool shut; /* nothing is taken: this host is short of memory */

    uint16_t *taken; /* a bit a slot, one word a page of descriptors, up to top */
    uint32_t taken_words;
    uint32_t hint; /* no word below has a cold slot */
    uint32_t warm; /* a stack, through next */
    uint32_t warm_slots;
    uint64_t warm_frames;
    uint64_t frames; /* touched, of the image */
    uint64_t charged;
    uint64_t measured; /* of this process, the image apart */
};

/* Finds nothing taken: rebuild does that. 0 or -ENOMEM. */
int fsw_vault_init(struct fsw_vault *vault, struct fsw_donor_image *image, uint64_t limit);
void fsw_vault_deinit(struct fsw_vault *vault);

/* Rebuilding: each descriptor below top is claimed, in order, with a value that its keyspace holds
 * from now on, or passed over; then rebuilt gives back all that was not claimed. */
struct fsw_value *fsw_vault_claim(struct fsw_vault *vault, uint32_t slot);
void fsw_vault_rebuilt(struct fsw_vault *vault);

/* Room for a value of that length in a slot, content arbitrary, one holder: the caller. within: it
 * will lie in the descriptor. NULL: at the limit, shut, or the system has no memory. */
struct fsw_value *fsw_vault_take(struct fsw_vault *vault, size_t length, bool within);
/* For fsw_value_release: nobody holds it. */
void fsw_vault_give(struct fsw_value *value);

static inline struct fsw_descriptor *fsw_vault_descriptor(struct fsw_value *value)
{
    return (struct fsw_descriptor *)((char *)value - offsetof(struct fsw_descriptor, value));
}

static inline uint32_t fsw_vault_slot(const struct fsw_vault *vault,
                                      const struct fsw_descriptor *descriptor)
{
    return (uint32_t)(descriptor - vault->image->descriptors);
}

/* Gives back to the system what is warm beyond the bounds, `most` slots at most (each costs some
 * microseconds). Whether there is more to do. */
bool fsw_vault_tidy(struct fsw_vault *vault, unsigned most);

/* Counts what others of this process take and give. */
void fsw_vault_charge(struct fsw_vault *vault, uint64_t bytes);
void fsw_vault_uncharge(struct fsw_vault *vault, uint64_t bytes);

/* What the process really has: more than all charges when the allocator keeps what was freed. */
void fsw_vault_measured(struct fsw_vault *vault, uint64_t bytes);

/* All that counts against the limit. */
uint64_t fsw_vault_used(const struct fsw_vault *vault);
/* Whether so many more bytes fit below the limit. What is warm gives way. */
bool fsw_vault_room(struct fsw_vault *vault, uint64_t bytes);

/* Proves V1, V2 and the sums. 0, or -EUCLEAN with the first that is broken. */
int fsw_vault_check(const struct fsw_vault *vault, struct fsw_error *err);

#endif

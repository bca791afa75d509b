/*
 * pool.h: the size-class allocator that holds objects in RAM, a user-space zsmalloc.
 *
 *      location (40 bits, units) = zspage << 14 | unit inside the zspage
 *
 *      zspage 7, class of 81 units   |  slot 0   |  slot 1   |  slot 2   | ...
 *      its frames                    | frame 90      | frame 12      | none ...
 *
 * Unlike zsmalloc's, a zspage holds frames only where objects lie: they are attached when a slot
 * needs them and detached, one by one, when the last object over them is gone. So a half-empty
 * zspage costs what lies in it, rounded to frames, and freeing gives memory back without
 * compaction.
 *
 *   P1  A slot's bit is set from alloc to free, and its frames stay attached that long.
 *   P2  A frame slot of a zspage is nonzero only while a set slot overlaps it.
 *   P3  zspage.used is the number of set bits; a zspage with none has no class and is not listed.
 *   P4  Objects are written once, between alloc and the moment their entry is published.
 *
 * Locks: a zspage belongs to its class's lock; the lists of all zspages (free ids, age order) to
 * lru_lock; frames have their own. Order: class, lru_lock, frames. None is held over a system call
 * but for the reserve's worst case (frames.h, F3).
 */
#ifndef FSW_POOL_H
#define FSW_POOL_H

#include "core/pool/class.h"
#include "core/pool/frames.h"

#define FSW_ZSPAGE_UNIT_BITS 14
#define FSW_FULLNESS_GROUPS 4u

struct fsw_zspage {
    uint64_t slots[FSW_SLOTS_MAX / 64]; /* set: allocated */
    uint32_t prev, next;                /* in its class's fullness list */
    uint32_t older, newer;              /* in the pool's age order */
    uint16_t class, used;
    uint8_t group;    /* fullness; its list */
    uint8_t attached; /* frames */
    uint8_t stamp;    /* age clock when the reclaim hand last passed, or when it was made */
    uint8_t stuck;    /* compaction's round that could move nothing here; 0: it has changed since */
};

struct fsw_class {
    pthread_mutex_t lock;
    uint32_t lists[FSW_FULLNESS_GROUPS + 1]; /* heads; the last one: full zspages */
    uint32_t looked_at;                      /* where compaction's last look ended; may be gone */
    struct fsw_class_stats *stats;           /* in the image */
} __attribute__((aligned(64)));

struct fsw_pool {
    struct fsw_image *image;
    struct fsw_frames frames;
    const struct fsw_class_table *table;
    struct fsw_class classes[FSW_CLASS_MAX];
    struct fsw_zspage *zspages; /* private; touched up to zspages_top */
    pthread_mutex_t lru_lock;
    uint32_t oldest, newest, free_ids;
    uint32_t zspages_ready;       /* ids below this have touched memory behind them */
    uint8_t round;                /* of compaction: 1 to 255; its caller's */
    const _Atomic uint8_t *clock; /* the device's age clock */
};

/* An object that reclaim came across. */
struct fsw_pool_object {
    uint64_t location;
    uint32_t page; /* from its header: proves nothing until the page's entry names the location */
};

int fsw_pool_init(struct fsw_pool *pool, struct fsw_image *image, uint64_t memory,
                  const _Atomic uint8_t *clock);
void fsw_pool_deinit(struct fsw_pool *pool);

/* A slot for an object of that many units; 0 if there is no frame for it. Never blocks for long. */
uint64_t fsw_pool_alloc(struct fsw_pool *pool, unsigned units);

/* The object at location is dead. Only for a location that alloc returned and nobody names. 0, or
 * -EIO for a location where no object begins (a damaged entry): nothing was freed. */
int fsw_pool_free(struct fsw_pool *pool, uint64_t location);

/* Copies an object in or out. The caller knows that the location is its own (P1). 0, or -EIO for a
 * location that no zspage backs (a damaged entry). */
int fsw_pool_write(struct fsw_pool *pool, uint64_t location, const void *object, unsigned units);
int fsw_pool_read(const struct fsw_image *image, uint64_t location, void *object, unsigned units);

/* The same for a huge object, whose header and page lie apart in the caller's memory. */
int fsw_pool_write_huge(struct fsw_pool *pool, uint64_t location, const void *header,
                        const void *page);
int fsw_pool_read_huge(const struct fsw_image *image, uint64_t location, void *header, void *page);

/* The page number in an object's header, which its owner may be about to write: whoever acts on it
 * asks the page's entry first. The slot's frames must stay meanwhile. */
int fsw_pool_peek(const struct fsw_image *image, uint64_t location, uint32_t *ret_page);

/* ---- for recovery (core/recover.c), before there is any other thread; pool_rebuild.c ---- */

/* Which ids were ever used, and have memory behind them. First of all. */
void fsw_pool_rebuild_ids(struct fsw_pool *pool);

/* The zspages as their classes and frames say, without an object. Claims their frames; what is
 * damaged there is cleared. Returns how many words were. */
unsigned fsw_pool_rebuild_begin(struct fsw_pool *pool);

/* An entry says that an object lies there. -EUCLEAN: none of that length can; -EEXIST: another entry
 * said so before. */
int fsw_pool_claim(struct fsw_pool *pool, uint64_t location, unsigned units, uint8_t age);

/* No object is claimed any more. */
void fsw_pool_disclaim_all(struct fsw_pool *pool);

/* All objects are claimed: what no object needs is let go, the lists are made, and the age order:
 * those first whose youngest object is oldest. `lap`: ticks that the reclaim hand took since it
 * passed the oldest. */
void fsw_pool_rebuild_end(struct fsw_pool *pool, unsigned lap);

/* ---- for compaction (core/compact.c); pool_pack.c. One caller at a time ---- */

/* What was stuck may be tried again. */
void fsw_pool_new_round(struct fsw_pool *pool);

/* Frames of a class that come free when each of its zspages is packed. */
uint32_t fsw_pool_freeable(const struct fsw_image *image, unsigned class_number);

/* A zspage that packing would make smaller, and its objects (FSW_SLOTS_MAX) that lie past where its
 * last object would be then: *ret_count of them. Returns its id; 0: the class has none. */
uint32_t fsw_pool_sparse(struct fsw_pool *pool, unsigned class_number,
                         struct fsw_pool_object *objects, unsigned *ret_count);

/* A slot in the packed part of that zspage, or 0. One that needs no new frame, if there is one: a
 * pool that has no frame left can still be packed. */
uint64_t fsw_pool_alloc_packed(struct fsw_pool *pool, uint32_t zspage, unsigned units);

/* Frames attached to that zspage; 0 if it is not of that class any more. */
uint32_t fsw_pool_attached(struct fsw_pool *pool, unsigned class_number, uint32_t zspage);

/* None of those objects could be moved: fsw_pool_sparse passes the zspage over until the next round,
 * or until something is allocated or freed there. */
void fsw_pool_stuck(struct fsw_pool *pool, unsigned class_number, uint32_t zspage);

/* Asks for a slot's cache lines, to be written soon. A hint: any location may be asked for, also one
 * that has been freed, and no lock is needed; no memory is taken. */
void fsw_pool_prefetch(const struct fsw_pool *pool, uint64_t location, unsigned units);
/* For those of what knows the slot, which is to be freed soon. Any location may be asked for. */
void fsw_pool_prefetch_slot(const struct fsw_pool *pool, uint64_t location);

/* The objects of the zspage that the hand has not seen for longest, which becomes the newest:
 * fills `objects` (FSW_SLOTS_MAX) and returns how many. *ret_stamp: the age clock when it passed
 * here last. 0: the pool is empty, or the zspage just emptied. */
unsigned fsw_pool_pass_oldest(struct fsw_pool *pool, struct fsw_pool_object *objects,
                              uint8_t *ret_stamp);

/* The same for the next zspage of huge objects after *hand, by number, which is where the hand is
 * then. 0: there is none behind it, and the hand is at the begin again. */
unsigned fsw_pool_pass_huge(struct fsw_pool *pool, uint32_t *hand, struct fsw_pool_object *objects,
                            uint8_t *ret_stamp);

/* Proves P2, P3 and all lists; for tests, with no other call running. 0, or -EUCLEAN with a line.
 */
int fsw_pool_check(struct fsw_pool *pool, struct fsw_error *err);

/* 1 if the slot is allocated, and `units` fit it. For checks. */
int fsw_pool_is_allocated(const struct fsw_pool *pool, uint64_t location, unsigned units);

#endif

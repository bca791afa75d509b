/*
 * context.h: what sealing a page needs besides the page: a codec's state and room for the object.
 *
 * A fixed set, two a CPU that is online, made ahead and borrowed for one page at a time: the data
 * path allocates nothing, and a hundred server threads cost no more memory than ten. Borrowing
 * waits only for someone who is compressing (microseconds), never for network, disk or space.
 */
#ifndef FSW_CONTEXT_H
#define FSW_CONTEXT_H

#include <semaphore.h>
#include <stdatomic.h>

#include "core/object.h"

struct fsw_context {
    _Alignas(64) char object[FSW_OBJECT_MAX + 48];
    _Atomic int busy;
    const struct fsw_codec *codec;
    uint8_t codec_id;
    int level;
    void *state; /* the codec's, NULL if it needs none */
};

struct fsw_contexts {
    struct fsw_context *all;
    unsigned room;          /* two a CPU that the host could have */
    _Atomic unsigned count; /* those in use: two a CPU that is online */
    uint8_t codec_id;
    int level;
    _Atomic unsigned waiters;
    sem_t returned;
};

int fsw_contexts_init(struct fsw_contexts *contexts, uint8_t codec_id, int level);
void fsw_contexts_deinit(struct fsw_contexts *contexts);

/* codec= changed: every context gets it as it comes home. Pages keep the codec of their objects.
 * -ENOMEM: some contexts have the old one still. Allocates; not for the data path. */
int fsw_contexts_set_codec(struct fsw_contexts *contexts, uint8_t codec_id, int level);

/* CPUs came or went: the set follows, and what reading needs (codec.h). Allocates; not for the data
 * path. */
void fsw_contexts_follow_cpus(struct fsw_contexts *contexts, unsigned cpus_online);

struct fsw_context *fsw_context_borrow(struct fsw_contexts *contexts);
void fsw_context_return(struct fsw_contexts *contexts, struct fsw_context *context);

#endif

/*
 * context.c: the set of contexts. A scan from where this thread found one last; the semaphore is
 * only for the thread that finds all of them busy.
 */
#include "core/context.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void drop_state(struct fsw_context *context)
{
    if (context->state != NULL)
        context->codec->state_free(context->state);
    context->state = NULL;
}

/* The context is the caller's. On failure it stays as it was. */
static int set_codec(struct fsw_context *context, uint8_t codec_id, int level)
{
    const struct fsw_codec *codec = fsw_codec_by_id(codec_id);
    void *state = NULL;

    if (codec->state_new != NULL) {
        state = codec->state_new(level);
        if (state == NULL)
            return -ENOMEM;
    }
    drop_state(context);
    context->codec = codec;
    context->codec_id = codec_id;
    context->level = level;
    context->state = state;
    return 0;
}

/* One reader at least for every codec: objects stay what they are when codec= changes. */
static int make_readers(uint8_t codec_id, unsigned count)
{
    int r = 0;

    for (unsigned id = 0; r == 0 && id < FSW_CODEC_MAX; id++) {
        const struct fsw_codec *codec = fsw_codec_by_id(id);
        if (codec != NULL && codec->set_readers != NULL)
            r = codec->set_readers(count, id == codec_id);
    }
    return r;
}

static unsigned wanted(const struct fsw_contexts *contexts, long cpus)
{
    unsigned count = cpus < 2 ? 4 : (unsigned)cpus * 2;
    return count < contexts->room ? count : contexts->room;
}

int fsw_contexts_init(struct fsw_contexts *contexts, uint8_t codec_id, int level)
{
    long possible = sysconf(_SC_NPROCESSORS_CONF);
    int r = 0;

    contexts->codec_id = codec_id;
    contexts->level = level;
    contexts->room = possible < 2 ? 4 : (unsigned)possible * 2;
    contexts->count = wanted(contexts, sysconf(_SC_NPROCESSORS_ONLN));
    contexts->all = aligned_alloc(64, contexts->room * sizeof contexts->all[0]);
    if (contexts->all == NULL)
        return -ENOMEM;
    memset(contexts->all, 0, contexts->room * sizeof contexts->all[0]);
    sem_init(&contexts->returned, 0, 0);
    for (unsigned i = 0; r == 0 && i < contexts->count; i++)
        r = set_codec(&contexts->all[i], codec_id, level);
    return r < 0 ? r : make_readers(codec_id, contexts->count);
}

void fsw_contexts_deinit(struct fsw_contexts *contexts)
{
    for (unsigned i = 0; contexts->all != NULL && i < contexts->room; i++)
        drop_state(&contexts->all[i]);
    free(contexts->all);
    contexts->all = NULL;
}

/* Whoever has it gives it back within a page. */
static void seize(struct fsw_context *context)
{
    int idle = 0;

    while (!atomic_compare_exchange_weak(&context->busy, &idle, 1)) {
        idle = 0;
        sched_yield();
    }
}

int fsw_contexts_set_codec(struct fsw_contexts *contexts, uint8_t codec_id, int level)
{
    int r = make_readers(codec_id, contexts->count);

    for (unsigned i = 0; r == 0 && i < contexts->count; i++) {
        seize(&contexts->all[i]);
        r = set_codec(&contexts->all[i], codec_id, level);
        fsw_context_return(contexts, &contexts->all[i]);
    }
    if (r == 0) {
        contexts->codec_id = codec_id;
        contexts->level = level;
    }
    return r;
}

void fsw_contexts_follow_cpus(struct fsw_contexts *contexts, unsigned cpus_online)
{
    unsigned now = contexts->count, then = wanted(contexts, cpus_online);

    for (; now < then; now++) { /* made before anybody can find it, but who found it before */
        seize(&contexts->all[now]);
        int r = set_codec(&contexts->all[now], contexts->codec_id, contexts->level);
        fsw_context_return(contexts, &contexts->all[now]);
        if (r < 0)
            return;
        atomic_store(&contexts->count, now + 1);
    }
    make_readers(contexts->codec_id, then); /* no memory now: again at the next look */
    for (; now > then; now--) {             /* out of sight before it goes */
        atomic_store(&contexts->count, now - 1);
        seize(&contexts->all[now - 1]);
        drop_state(&contexts->all[now - 1]);
        fsw_context_return(contexts, &contexts->all[now - 1]);
    }
}

static struct fsw_context *try_borrow(struct fsw_contexts *contexts)
{
    static _Thread_local unsigned hint;
    unsigned count = atomic_load_explicit(&contexts->count, memory_order_acquire);

    for (unsigned tries = 0; tries < count; tries++) {
        struct fsw_context *context = &contexts->all[(hint + tries) % count];
        int idle = 0;
        if (atomic_load_explicit(&context->busy, memory_order_relaxed) != 0 ||
            !atomic_compare_exchange_strong(&context->busy, &idle, 1))
            continue;
        if (context->state != NULL || context->codec->state_new == NULL) {
            hint += tries;
            return context;
        }
        fsw_context_return(contexts, context); /* its CPU went while we looked */
    }
    return NULL;
}

/* Who says that it waits looks once more before it does; who returns one looks for waiters after:
 * one of the two sees the other (both orders are sequentially consistent). */
struct fsw_context *fsw_context_borrow(struct fsw_contexts *contexts)
{
    struct fsw_context *context = try_borrow(contexts);

    while (context == NULL) {
        atomic_fetch_add(&contexts->waiters, 1);
        context = try_borrow(contexts);
        if (context == NULL)
            while (sem_wait(&contexts->returned) < 0) /* EINTR */
                ;
        atomic_fetch_sub(&contexts->waiters, 1);
        if (context == NULL)
            context = try_borrow(contexts);
    }
    return context;
}

void fsw_context_return(struct fsw_contexts *contexts, struct fsw_context *context)
{
    atomic_store(&context->busy, 0);
    if (atomic_load(&contexts->waiters) > 0)
        sem_post(&contexts->returned);
}

/*
 * context.c: the set of contexts. The semaphore says that one is idle; a scan from where this
 * thread found one last finds which.
 */
#include "core/context.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int fsw_contexts_init(struct fsw_contexts *contexts, const struct fsw_codec *codec, int level)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);

    contexts->codec = codec;
    contexts->count = cpus < 2 ? 4 : (unsigned)cpus * 2;
    contexts->all = aligned_alloc(64, contexts->count * sizeof contexts->all[0]);
    if (contexts->all == NULL)
        return -ENOMEM;
    memset(contexts->all, 0, contexts->count * sizeof contexts->all[0]);
    sem_init(&contexts->returned, 0, 0);
    for (unsigned i = 0; codec->state_new != NULL && i < contexts->count; i++) {
        contexts->all[i].state = codec->state_new(level);
        if (contexts->all[i].state == NULL)
            return -ENOMEM;
    }
    return 0;
}

void fsw_contexts_deinit(struct fsw_contexts *contexts)
{
    for (unsigned i = 0; contexts->all != NULL && i < contexts->count; i++)
        if (contexts->all[i].state != NULL)
            contexts->codec->state_free(contexts->all[i].state);
    free(contexts->all);
    contexts->all = NULL;
}

static struct fsw_context *try_borrow(struct fsw_contexts *contexts)
{
    static _Thread_local unsigned hint;

    for (unsigned tries = 0; tries < contexts->count; tries++) {
        struct fsw_context *context = &contexts->all[(hint + tries) % contexts->count];
        int idle = 0;
        if (atomic_load_explicit(&context->busy, memory_order_relaxed) == 0 &&
            atomic_compare_exchange_strong(&context->busy, &idle, 1)) {
            hint += tries;
            return context;
        }
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

/*
 * context.c: the set of contexts. The semaphore says that one is idle; a scan from where this
 * thread found one last finds which.
 */
#include "core/context.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int fsw_contexts_init(struct fsw_contexts *contexts, size_t state_bytes)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);

    contexts->count = cpus < 2 ? 4 : (unsigned)cpus * 2;
    contexts->all = aligned_alloc(64, contexts->count * sizeof contexts->all[0]);
    if (contexts->all == NULL)
        return -ENOMEM;
    memset(contexts->all, 0, contexts->count * sizeof contexts->all[0]);
    state_bytes = (state_bytes + 64) / 64 * 64;
    for (unsigned i = 0; i < contexts->count; i++) {
        contexts->all[i].state = aligned_alloc(64, state_bytes);
        if (contexts->all[i].state == NULL)
            return -ENOMEM;
        memset(contexts->all[i].state, 0, state_bytes);
    }
    sem_init(&contexts->idle, 0, contexts->count);
    return 0;
}

void fsw_contexts_deinit(struct fsw_contexts *contexts)
{
    for (unsigned i = 0; contexts->all != NULL && i < contexts->count; i++)
        free(contexts->all[i].state);
    free(contexts->all);
    contexts->all = NULL;
}

struct fsw_context *fsw_context_borrow(struct fsw_contexts *contexts)
{
    static _Thread_local unsigned hint;

    while (sem_wait(&contexts->idle) < 0) /* EINTR */
        ;
    for (;; hint++) {
        struct fsw_context *context = &contexts->all[hint % contexts->count];
        int idle = 0;
        if (atomic_load_explicit(&context->busy, memory_order_relaxed) == 0 &&
            atomic_compare_exchange_strong_explicit(&context->busy, &idle, 1, memory_order_acquire,
                                                    memory_order_relaxed))
            return context;
    }
}

void fsw_context_return(struct fsw_contexts *contexts, struct fsw_context *context)
{
    atomic_store_explicit(&context->busy, 0, memory_order_release);
    sem_post(&contexts->idle);
}

/*
 * crew.c: jobs live on their caller's stack. The list holds those that still have parts to take; a
 * caller leaves only when no member uses its job any more.
 */
#include "core/crew.h"

#include <errno.h>

#include "common/cleanup.h"

/* 1 if there was a part. */
static int run_one(struct fsw_crew_job *job)
{
    unsigned part = atomic_fetch_add(&job->next, 1);

    if (part >= job->parts)
        return 0;
    job->run(job->arg, part);
    return 1;
}

static struct fsw_crew_job *join_job(struct fsw_crew *crew)
{
    FSW_LOCK_SCOPE(&crew->lock);

    for (struct fsw_crew_job *job = crew->jobs; job != NULL && !crew->stop; job = job->later)
        if (atomic_load(&job->next) < job->parts) {
            job->users++;
            return job;
        }
    return NULL;
}

static void leave_job(struct fsw_crew *crew, struct fsw_crew_job *job)
{
    FSW_LOCK_SCOPE(&crew->lock);

    if (--job->users == 0)
        pthread_cond_broadcast(&crew->left);
}

static int is_stopped(struct fsw_crew *crew)
{
    FSW_LOCK_SCOPE(&crew->lock);
    return crew->stop;
}

static void *member(void *opaque)
{
    struct fsw_crew *crew = opaque;
    struct fsw_crew_job *job;

    for (;;) {
        atomic_fetch_add(&crew->idle, 1);
        while (sem_wait(&crew->work) < 0) /* EINTR */
            ;
        atomic_fetch_sub(&crew->idle, 1);
        if (is_stopped(crew))
            return NULL;
        while ((job = join_job(crew)) != NULL) {
            while (run_one(job))
                ;
            leave_job(crew, job);
        }
    }
}

static void post(struct fsw_crew *crew, struct fsw_crew_job *job)
{
    unsigned idle = atomic_load(&crew->idle), wanted = job->parts - 1;
    FSW_LOCK_SCOPE(&crew->lock);

    job->later = crew->jobs;
    crew->jobs = job;
    for (unsigned i = 0; i < idle && i < wanted; i++)
        sem_post(&crew->work);
}

/* Off the list, and not before the last member has left. */
static void take_back(struct fsw_crew *crew, struct fsw_crew_job *job)
{
    FSW_LOCK_SCOPE(&crew->lock);
    struct fsw_crew_job **link = &crew->jobs;

    while (*link != job)
        link = &(*link)->later;
    *link = job->later;
    while (job->users > 0)
        pthread_cond_wait(&crew->left, &crew->lock);
}

void fsw_crew_run(struct fsw_crew *crew, void (*run)(void *arg, unsigned part), void *arg,
                  unsigned parts)
{
    struct fsw_crew_job job = {.run = run, .arg = arg, .parts = parts};
    int alone = parts < 2 || atomic_load_explicit(&crew->idle, memory_order_relaxed) == 0;

    if (!alone)
        post(crew, &job);
    while (run_one(&job))
        ;
    if (!alone)
        take_back(crew, &job);
}

int fsw_crew_start(struct fsw_crew *crew, unsigned members)
{
    pthread_mutex_init(&crew->lock, NULL);
    pthread_cond_init(&crew->left, NULL);
    sem_init(&crew->work, 0, 0);
    for (; crew->count < members && crew->count < FSW_CREW_MAX; crew->count++) {
        int r = pthread_create(&crew->threads[crew->count], NULL, member, crew);
        if (r != 0)
            return -r;
        pthread_setname_np(crew->threads[crew->count], "fsw-crew");
    }
    return 0;
}

void fsw_crew_stop(struct fsw_crew *crew)
{
    if (crew->count == 0)
        return;
    pthread_mutex_lock(&crew->lock);
    crew->stop = 1;
    pthread_mutex_unlock(&crew->lock);
    for (unsigned i = 0; i < crew->count; i++)
        sem_post(&crew->work);
    for (unsigned i = 0; i < crew->count; i++)
        pthread_join(crew->threads[i], NULL);
    crew->count = 0;
    atomic_store(&crew->idle, 0);
}

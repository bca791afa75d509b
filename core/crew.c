/*
 * crew.c: jobs live where their owner put them: on the stack of one who waits, inside the request of
 * one who does not. The list holds those that have not ended. Everybody at work on a job is counted
 * in it, under the lock; the last to leave when no part is left has ended it.
 *
 * Which members work does not matter, only how many: one that finds enough at work goes back to
 * sleep. What is listed then is not forgotten: those at work look for a job before they rest.
 */
#include "core/crew.h"

#include <errno.h>

#include "common/cleanup.h"
#include "common/touch.h"

/* 1 if there was a part. */
static int run_one(struct fsw_crew_job *job)
{
    unsigned part = atomic_fetch_add(&job->next, 1);

    if (part >= job->parts)
        return 0;
    job->run(job->arg, part);
    return 1;
}

/* A member's: NULL if there is nothing to do, or enough are at it. */
static struct fsw_crew_job *join_job(struct fsw_crew *crew)
{
    FSW_LOCK_SCOPE(&crew->lock);

    if (crew->at_work >= atomic_load(&crew->limit))
        return NULL;
    for (struct fsw_crew_job *job = crew->jobs; job != NULL && !crew->stop; job = job->later)
        if (atomic_load(&job->next) < job->parts) {
            job->users++;
            crew->at_work++;
            return job;
        }
    return NULL;
}

static void unlink_job(struct fsw_crew *crew, struct fsw_crew_job *job)
{
    struct fsw_crew_job **link = &crew->jobs;

    while (*link != job)
        link = &(*link)->later;
    *link = job->later;
    if (crew->last == &job->later)
        crew->last = link;
    job->listed = 0;
}

/* 1 if that ended a job that nobody waits for. */
static int leave_locked(struct fsw_crew *crew, struct fsw_crew_job *job, unsigned members)
{
    FSW_LOCK_SCOPE(&crew->lock);

    crew->at_work -= members;
    if (--job->users > 0)
        return 0;
    if (job->done == NULL) {
        pthread_cond_broadcast(&crew->left);
        return 0;
    }
    if (!job->listed || atomic_load(&job->next) < job->parts)
        return 0;
    unlink_job(crew, job);
    return 1;
}

/* members: 1 if a member leaves, 0 if another does who helped. */
static void leave_job(struct fsw_crew *crew, struct fsw_crew_job *job, unsigned members)
{
    void (*done)(void *arg) = job->done;
    void *arg = job->arg;

    if (leave_locked(crew, job, members))
        done(arg);
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

    fsw_touch_stack();
    while (!is_stopped(crew)) {
        /* Who posts a job looks for idle ones after it is listed, and we look for a job after we
         * are idle: one of the two sees the other. */
        atomic_fetch_add(&crew->idle, 1);
        if ((job = join_job(crew)) == NULL) {
            while (sem_wait(&crew->work) < 0) /* EINTR */
                ;
            job = join_job(crew);
        }
        atomic_fetch_sub(&crew->idle, 1);
        for (; job != NULL; job = join_job(crew)) {
            while (run_one(job))
                ;
            leave_job(crew, job, 1);
        }
    }
    return NULL;
}

/* So many idle members may work besides those that do. */
static unsigned spare_locked(struct fsw_crew *crew)
{
    unsigned limit = atomic_load(&crew->limit), idle = atomic_load(&crew->idle);
    unsigned most = limit > crew->at_work ? limit - crew->at_work : 0;

    return idle < most ? idle : most;
}

static void post(struct fsw_crew *crew, struct fsw_crew_job *job)
{
    unsigned wanted = job->parts - (job->done == NULL);
    FSW_LOCK_SCOPE(&crew->lock);

    job->later = NULL;
    job->listed = 1;
    *crew->last = job;
    crew->last = &job->later;
    unsigned spare = spare_locked(crew);
    for (unsigned i = 0; i < spare && i < wanted; i++)
        sem_post(&crew->work);
}

/* Off the list, and not before the last member has left. */
static void take_back(struct fsw_crew *crew, struct fsw_crew_job *job)
{
    FSW_LOCK_SCOPE(&crew->lock);

    unlink_job(crew, job);
    while (job->users > 0)
        pthread_cond_wait(&crew->left, &crew->lock);
}

void fsw_crew_run(struct fsw_crew *crew, void (*run)(void *arg, unsigned part), void *arg,
                  unsigned parts)
{
    struct fsw_crew_job job = {.run = run, .arg = arg, .parts = parts};
    int alone = parts < 2 || atomic_load_explicit(&crew->idle, memory_order_relaxed) == 0 ||
                atomic_load_explicit(&crew->limit, memory_order_relaxed) == 0;

    if (!alone)
        post(crew, &job);
    while (run_one(&job))
        ;
    if (!alone)
        take_back(crew, &job);
}

void fsw_crew_begin(struct fsw_crew *crew, struct fsw_crew_job *job)
{
    post(crew, job);
}

/* A user of it, unless it has ended or nothing is left to take. */
static int join_this(struct fsw_crew *crew, struct fsw_crew_job *job)
{
    FSW_LOCK_SCOPE(&crew->lock);

    if (!job->listed || atomic_load(&job->next) >= job->parts)
        return 0;
    job->users++;
    return 1;
}

int fsw_crew_help(struct fsw_crew *crew, struct fsw_crew_job *job)
{
    if (!join_this(crew, job))
        return 0;
    while (run_one(job))
        ;
    leave_job(crew, job, 0);
    return 1;
}

int fsw_crew_start(struct fsw_crew *crew, unsigned members)
{
    crew->last = &crew->jobs;
    pthread_mutex_init(&crew->lock, NULL);
    pthread_cond_init(&crew->left, NULL);
    sem_init(&crew->work, 0, 0);
    atomic_store(&crew->limit, members);
    for (; crew->count < members && crew->count < FSW_CREW_MAX; crew->count++) {
        int r = pthread_create(&crew->threads[crew->count], NULL, member, crew);
        if (r != 0)
            return -r;
        pthread_setname_np(crew->threads[crew->count], "fsw-crew");
    }
    return 0;
}

void fsw_crew_follow_cpus(struct fsw_crew *crew, unsigned cpus_online)
{
    atomic_store(&crew->limit, cpus_online > 1 ? cpus_online - 1 : 0);
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

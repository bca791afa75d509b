/*
 * crew.h: large requests on all CPUs that are free.
 *
 * A request of many pages is cut into parts; the thread that got it works on them, and so does
 * every idle member of the crew that wakes in time. Nobody waits for a member that is busy
 * elsewhere: a host whose CPUs are all at work serves the request with one thread, as if there were
 * no crew.
 *
 * Members are made ahead, one less than the CPUs that the host could have, and of these so many work
 * as there are CPUs online besides the one of the thread with the request.
 *
 * A job is waited for (run), or begun and left: then its `done` is called by the thread that ends
 * it, and who began it can do other things, and help when he has nothing else to do.
 */
#ifndef FSW_CREW_H
#define FSW_CREW_H

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>

#define FSW_CREW_MAX 15u

struct fsw_crew_job {
    void (*run)(void *arg, unsigned part);
    void (*done)(void *arg); /* NULL: who posted it waits */
    void *arg;
    unsigned parts;
    _Atomic unsigned next; /* the first part that nobody has taken */
    unsigned users;        /* threads at work on it, but who waits for it; under the crew's lock */
    int listed;            /* not ended; under the crew's lock */
    struct fsw_crew_job *later;
};

struct fsw_crew {
    pthread_t threads[FSW_CREW_MAX];
    unsigned count;         /* of threads */
    _Atomic unsigned limit; /* so many of them may work, if there are so many */
    _Atomic unsigned idle;
    unsigned at_work;     /* members in a job; under the lock, and never above a limit that stays */
    pthread_mutex_t lock; /* the list, users, at_work, stop; held for a few instructions */
    pthread_cond_t left;  /* a member left a job */
    sem_t work;
    struct fsw_crew_job *jobs, **last; /* in the order they came */
    int stop;
};

/* So many members, FSW_CREW_MAX at most, who may all work. After any fork. Allocates. */
int fsw_crew_start(struct fsw_crew *crew, unsigned members);
/* CPUs came or went: as many members work as there are others than the caller's. Those that are too
 * many finish the job they are at. Does not block or allocate. */
void fsw_crew_follow_cpus(struct fsw_crew *crew, unsigned cpus_online);
/* Those at work on a job finish it; whoever runs one goes on alone. */
void fsw_crew_stop(struct fsw_crew *crew);

/* Calls run(arg, 0 .. parts-1), each once, on this thread and on idle members; returns when all
 * have returned. Does not allocate. */
void fsw_crew_run(struct fsw_crew *crew, void (*run)(void *arg, unsigned part), void *arg,
                  unsigned parts);

/* Leaves run(arg, 0 .. parts-1) to idle members and returns; the thread that ends it calls
 * done(arg), after which nobody touches the job. parts > 0; the job stays where it is until then.
 */
void fsw_crew_begin(struct fsw_crew *crew, struct fsw_crew_job *job);

/* Works on a job that was begun while it has parts to take. 0: it had none, or has ended (its
 * memory must still be a job's). */
int fsw_crew_help(struct fsw_crew *crew, struct fsw_crew_job *job);

#endif

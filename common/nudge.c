/*
 * nudge.c: one POSIX timer a thread, which stands still unless the thread is in need.
 */
#include "common/nudge.h"

#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

static _Thread_local timer_t timer;
static _Thread_local int has_timer;

static int installed;

static void wake(int number)
{
    (void)number;
}

static void install(void)
{
    const struct sigaction ours = {.sa_handler = wake, .sa_flags = SA_RESTART};
    struct sigaction theirs;

    installed = sigaction(SIGURG, NULL, &theirs) == 0 && theirs.sa_handler == SIG_DFL &&
                sigaction(SIGURG, &ours, NULL) == 0;
}

void fsw_nudge_prepare(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGURG};
    sigset_t urgent;

    pthread_once(&once, install);
    event.sigev_notify_thread_id = (pid_t)syscall(SYS_gettid);
    if (!installed || has_timer || timer_create(CLOCK_MONOTONIC, &event, &timer) < 0)
        return;
    has_timer = 1;
    sigemptyset(&urgent);
    sigaddset(&urgent, SIGURG);
    pthread_sigmask(SIG_UNBLOCK, &urgent, NULL);
}

static void set(long every_ns)
{
    const struct itimerspec time = {.it_value.tv_nsec = every_ns, .it_interval.tv_nsec = every_ns};

    if (has_timer)
        timer_settime(timer, 0, &time, NULL);
}

void fsw_nudge_begin(void)
{
    set(FSW_NUDGE_EVERY_NS);
}

void fsw_nudge_end(void)
{
    set(0);
}

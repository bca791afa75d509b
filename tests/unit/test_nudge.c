/*
 * test_nudge.c: whoever is nudged is woken, again and again, and nobody else is. (That it is what a
 * thread in need of memory wants, only a machine without memory can show: uml-survives.)
 */
#include "tests/unit/rig.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/nudge.h"

#define LONG_MS 30000
#define SHORT_MS (20 * (int)(FSW_NUDGE_EVERY_NS / 1000000))

static int is_woken(int ms)
{
    return poll(NULL, 0, ms) == -1 && errno == EINTR;
}

/* Also where all signals were blocked when it was started, as threads of servers are. */
static void *be_nudged(void *opaque)
{
    fsw_nudge_begin();
    assert_false(is_woken(SHORT_MS)); /* not prepared */
    fsw_nudge_end();
    fsw_nudge_prepare();
    assert_false(is_woken(SHORT_MS));
    for (unsigned round = 0; round < 3; round++) {
        fsw_nudge_begin();
        for (unsigned i = 0; i < 3; i++)
            assert_true(is_woken(LONG_MS));
        fsw_nudge_end();
        assert_false(is_woken(SHORT_MS));
    }
    return NULL;
}

static void a_thread_is_woken_while_it_asks_for_it(void **state)
{
    sigset_t all, before;
    pthread_t thread;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    assert_int_equal(pthread_create(&thread, NULL, be_nudged, NULL), 0);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_join(thread, NULL);
}

/* Nudged all the while, a call that can be started again goes on. */
static void what_can_go_on_goes_on(void **state)
{
    const struct timespec later = {.tv_nsec = SHORT_MS * 1000000};
    int ends[2];
    char byte;

    assert_int_equal(pipe(ends), 0);
    if (fork() == 0) {
        nanosleep(&later, NULL);
        _exit(write(ends[1], "x", 1) != 1);
    }
    fsw_nudge_prepare();
    fsw_nudge_begin();
    assert_int_equal(read(ends[0], &byte, 1), 1);
    fsw_nudge_end();
    wait(NULL);
    close(ends[0]);
    close(ends[1]);
}

static _Atomic int seen;

static void see(int number)
{
    seen++;
}

/* In a process of its own. */
static int nudges_beside_a_handler(void)
{
    const struct sigaction mine = {.sa_handler = see};
    struct sigaction now;

    sigaction(SIGURG, &mine, NULL);
    fsw_nudge_prepare();
    fsw_nudge_begin();
    return is_woken(SHORT_MS) || seen != 0 || sigaction(SIGURG, NULL, &now) < 0 ||
           now.sa_handler != see;
}

static void a_handler_of_somebody_else_stays(void **state)
{
    int status;
    pid_t child = fork();

    if (child == 0)
        _exit(nudges_beside_a_handler());
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

/* The one with a handler first: what is installed stays. */
RIG_MAIN(cmocka_unit_test(a_handler_of_somebody_else_stays),
         cmocka_unit_test(a_thread_is_woken_while_it_asks_for_it),
         cmocka_unit_test(what_can_go_on_goes_on))

/*
 * supervise.c: two servers at a time, one loop over what they say and how they end.
 */
#include "client/fuse/supervise.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/fuse/adopt.h"
#include "client/fuse/process.h"
#include "client/fuse/say.h"
#include "common/clock.h"
#include "common/rights.h"

#define SERVERS 2u
#define ARGUMENTS_MAX 32u
/* The next server, after one that lived less than SHORT_LIFE_NS. */
#define SHORT_LIFE_NS FSW_NS_PER_S
#define DELAY_FIRST_NS (50 * FSW_NS_PER_MS)
#define DELAY_MOST_NS (2 * FSW_NS_PER_S)

struct child {
    pid_t pid; /* 0: none */
    int control;
    int adopted; /* not a child, in truth: `control` is its pidfd, and tells of its end alone */
    int ready;
    uint64_t started;
};

struct supervisor {
    const char *name;
    const char *const *arguments;
    char program
        [PATH_MAX]; /* read anew for each server: an upgrade is another file there, and a kill */
    struct fsw_mount mount;
    struct child children[SERVERS];
    int signals;
    int was_ready; /* a server has served: from here on, never give up */
    int ended;
    int status;
    uint64_t delay, not_before;
};

extern char **environ;

/* ---- starting a server ---- */

static void list_fds(const struct fsw_mount *mount, char *text, size_t room)
{
    size_t used = (size_t)snprintf(text, room, "--fuse-fds=");

    for (unsigned i = 0; i < mount->count && used < room; i++)
        used += (size_t)snprintf(text + used, room - used, "%s%d", i > 0 ? "," : "", mount->fds[i]);
}

/* Everything is closed at exec but what is named here. */
static int spawn(struct supervisor *supervisor, int control, char **argv, pid_t *ret_pid)
{
    posix_spawn_file_actions_t files;
    posix_spawnattr_t how;
    sigset_t none, all;

    sigemptyset(&none);
    sigfillset(&all);
    posix_spawn_file_actions_init(&files);
    posix_spawnattr_init(&how);
    posix_spawnattr_setflags(&how, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setsigmask(&how, &none);
    posix_spawnattr_setsigdefault(&how, &all);
    for (unsigned i = 0; i < supervisor->mount.count; i++)
        posix_spawn_file_actions_adddup2(&files, supervisor->mount.fds[i],
                                         supervisor->mount.fds[i]);
    posix_spawn_file_actions_adddup2(&files, control, control);
    int r = posix_spawn(ret_pid, supervisor->program, &files, &how, argv, environ);
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&how);
    return -r;
}

static int start_server(struct supervisor *supervisor, struct child *child)
{
    char fds[160], control[32], *argv[ARGUMENTS_MAX + 4] = {supervisor->program, fds, control};
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return -errno;
    list_fds(&supervisor->mount, fds, sizeof fds);
    snprintf(control, sizeof control, "--control=%d", pair[1]);
    for (unsigned i = 0; i < ARGUMENTS_MAX && supervisor->arguments[i] != NULL; i++)
        argv[3 + i] = (char *)(uintptr_t)supervisor->arguments[i];
    int r = spawn(supervisor, pair[1], argv, &child->pid);
    close(pair[1]);
    if (r < 0) {
        close(pair[0]);
        child->pid = 0;
        return r;
    }
    child->control = pair[0];
    child->adopted = 0;
    child->ready = 0;
    child->started = fsw_now_ns();
    return 0;
}

static void pause_before_next(struct supervisor *supervisor)
{
    uint64_t longer = supervisor->delay == 0 ? DELAY_FIRST_NS : supervisor->delay * 2;

    supervisor->delay = longer < DELAY_MOST_NS ? longer : DELAY_MOST_NS;
    supervisor->not_before = fsw_now_ns() + supervisor->delay;
}

/* The first server alone: it makes the image; then always two, an adopted one among them. */
static void start_missing(struct supervisor *supervisor)
{
    unsigned wanted = supervisor->was_ready ? SERVERS : 1;

    for (unsigned i = 0; i < wanted && fsw_now_ns() >= supervisor->not_before; i++) {
        if (supervisor->children[i].pid != 0)
            continue;
        int r = start_server(supervisor, &supervisor->children[i]);
        if (r == 0)
            continue;
        fsw_say("starting %s: %s", supervisor->program, strerror(-r));
        pause_before_next(supervisor);
        if (!supervisor->was_ready)
            supervisor->ended = supervisor->status = 1;
    }
}

/* ---- what happens ---- */

static void hear_line(struct supervisor *supervisor, struct child *child, const char *text)
{
    if (strncmp(text, "failed ", 7) == 0)
        fsw_say("%s", text + 7);
    if (strcmp(text, "waiting") == 0 && supervisor->children[0].adopted)
        fsw_adopt_end_spares(supervisor->arguments[0], supervisor->name,
                             supervisor->children[0].pid);
    if (strncmp(text, "ready ", 6) != 0)
        return;
    child->ready = 1;
    if (supervisor->was_ready)
        fsw_say("server %d has taken over", (int)child->pid);
    supervisor->was_ready = 1;
}

static void hear(struct supervisor *supervisor, struct child *child)
{
    char text[FSW_CONTROL_MAX + 1];
    ssize_t n;

    while ((n = recv(child->control, text, sizeof text - 1, MSG_DONTWAIT)) > 0) {
        text[n] = '\0';
        hear_line(supervisor, child, text);
    }
}

static void say_death(const struct child *child, int status)
{
    const char *what = child->ready ? "server" : "spare";

    if (child->adopted)
        fsw_say("server %d has ended", (int)child->pid);
    else if (WIFSIGNALED(status))
        fsw_say("%s %d was killed by signal %d", what, (int)child->pid, WTERMSIG(status));
    else
        fsw_say("%s %d ended with %d", what, (int)child->pid, WEXITSTATUS(status));
}

static void died(struct supervisor *supervisor, struct child *child, int status)
{
    int served = child->ready;

    close(child->control);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) { /* the mount is gone */
        supervisor->ended = 1;
    } else if (!supervisor->was_ready) {
        supervisor->ended = supervisor->status = 1;
    } else {
        say_death(child, status);
        if (served && !supervisor->mount.can_resend) {
            fsw_say("what it was asked for is lost: this kernel can't ask again (Linux 6.9 can)");
            supervisor->ended = supervisor->status = 1;
        }
        if (fsw_now_ns() - child->started < SHORT_LIFE_NS)
            pause_before_next(supervisor);
        else
            supervisor->delay = 0;
    }
    child->pid = 0;
}

static int has_event(int fd)
{
    struct pollfd ready = {.fd = fd, .events = POLLIN};

    return poll(&ready, 1, 0) == 1 ? ready.revents : 0;
}

/* Its status is its parent's to know; that of a server whose mount is gone is 0. */
static int adopted_has_ended(const struct supervisor *supervisor, const struct child *child,
                             int *ret_status)
{
    int gone = has_event(supervisor->mount.fds[0]) & POLLERR;

    *ret_status = gone ? 0 : SIGKILL;
    return has_event(child->control) != 0;
}

static void reap(struct supervisor *supervisor)
{
    int status;

    for (unsigned i = 0; i < SERVERS; i++) {
        struct child *child = &supervisor->children[i];
        if (child->pid == 0 ||
            (child->adopted ? !adopted_has_ended(supervisor, child, &status)
                            : waitpid(child->pid, &status, WNOHANG) != child->pid))
            continue;
        if (!child->adopted)
            hear(supervisor, child); /* its last words */
        died(supervisor, child, status);
    }
}

static void take_signal(struct supervisor *supervisor)
{
    struct signalfd_siginfo info;

    if (read(supervisor->signals, &info, sizeof info) != sizeof info)
        return;
    if (info.ssi_signo != SIGCHLD)
        fsw_process_stop(&supervisor->mount); /* if it goes, the server ends, and so do we */
}

static void wait_for_something(struct supervisor *supervisor)
{
    struct pollfd ready[1 + SERVERS] = {{.fd = supervisor->signals, .events = POLLIN}};
    int pause = supervisor->not_before > fsw_now_ns() ? (int)(DELAY_MOST_NS / FSW_NS_PER_MS) : -1;

    if (pause > 0)
        pause = (int)((supervisor->not_before - fsw_now_ns()) / FSW_NS_PER_MS) + 1;
    for (unsigned i = 0; i < SERVERS; i++)
        ready[1 + i] = (struct pollfd){
            .fd = supervisor->children[i].pid != 0 ? supervisor->children[i].control : -1,
            .events = POLLIN};
    if (poll(ready, 1 + SERVERS, pause) < 0)
        return;
    for (unsigned i = 0; i < SERVERS; i++)
        if ((ready[1 + i].revents & POLLIN) && !supervisor->children[i].adopted)
            hear(supervisor, &supervisor->children[i]);
    if (ready[0].revents & POLLIN)
        take_signal(supervisor);
}

/* ---- from start to end ---- */

static int catch_signals(struct supervisor *supervisor)
{
    sigset_t signals;

    sigemptyset(&signals);
    sigaddset(&signals, SIGCHLD);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    supervisor->signals = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    return supervisor->signals < 0 ? -errno : 0;
}

/* A server that is there is left in peace, and counts as the first; else there is a new mount. */
static int take_mount(struct supervisor *supervisor, struct fsw_error *err)
{
    struct fsw_adopted adopted;
    int r =
        fsw_adopt(supervisor->arguments[0], supervisor->name, &supervisor->mount, &adopted, err);

    if (r == 0)
        return fsw_process_mount(supervisor->arguments[0], supervisor->name, &supervisor->mount,
                                 err);
    if (r < 0)
        return r;
    supervisor->children[0] = (struct child){.pid = adopted.pid,
                                             .control = adopted.pidfd,
                                             .adopted = 1,
                                             .ready = 1,
                                             .started = fsw_now_ns()};
    supervisor->was_ready = 1;
    fsw_say("server %d was nobody's: it is watched from now on", (int)adopted.pid);
    return 0;
}

static int set_up(struct supervisor *supervisor, struct fsw_error *err)
{
    ssize_t n = readlink("/proc/self/exe", supervisor->program, sizeof supervisor->program - 1);

    if (n < 0)
        return fsw_error(err, -errno, "/proc/self/exe: %s", strerror(errno));
    supervisor->program[n] = '\0';
    int r = catch_signals(supervisor);
    if (r < 0)
        return fsw_error(err, r, "signalfd: %s", strerror(-r));
    return take_mount(supervisor, err);
}

/* All of it, not only what was touched: it is small, and must run when nothing else can. */
static void harden(void)
{
    fsw_rights_check(fsw_warn);
    fsw_rights_take();
    mlockall(MCL_CURRENT | MCL_FUTURE);
}

static void end_rest(struct supervisor *supervisor)
{
    for (unsigned i = 0; i < SERVERS; i++)
        if (supervisor->children[i].pid != 0 && !supervisor->children[i].adopted) {
            kill(supervisor->children[i].pid, SIGKILL);
            waitpid(supervisor->children[i].pid, NULL, 0);
        }
    if (supervisor->status != 0)
        fsw_mount_close(&supervisor->mount);
}

int fsw_supervise(const char *name, const char *const *arguments)
{
    static struct supervisor supervisor;
    struct fsw_error err = {""};

    supervisor.name = name;
    supervisor.arguments = arguments;
    if (set_up(&supervisor, &err) < 0) {
        fsw_say("%s", err.text);
        return 1;
    }
    if (!supervisor.mount.can_resend)
        fsw_warn("this kernel can't ask for unanswered requests again (Linux 6.9 can): a crash of "
                 "the server loses the device, and the swap on it");
    harden();
    while (!supervisor.ended) {
        start_missing(&supervisor);
        wait_for_something(&supervisor);
        reap(&supervisor);
    }
    end_rest(&supervisor);
    return supervisor.status;
}

/*
 * server.c: a farswap-nbd process: started, listened to, ended.
 */
#include "client/attach/server.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/attach/watch.h"
#include "common/clock.h"

static void enter(struct fsw_server *server, enum fsw_server_state state)
{
    server->state = state;
    server->since = fsw_now_ns();
}

static void close_one(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

void fsw_server_init(struct fsw_server *server)
{
    memset(server, 0, sizeof *server);
    server->process = server->control = server->far_control = server->kernel_end = -1;
}

/* ---- start ---- */

/* A session of its own: a terminal's Ctrl-C is the supervisor's business. Signals as a fresh process
 * has them, but for SIGPIPE: a server may print when nobody listens any more. Memory locks aren't
 * inherited, PR_SET_IO_FLUSHER and the OOM score are. */
static int spawn(struct fsw_server *server)
{
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    sigset_t none, all;

    sigemptyset(&none);
    sigfillset(&all);
    sigdelset(&all, SIGPIPE);
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_adddup2(&files, server->far_control, FSW_CONTROL_FD);
    posix_spawn_file_actions_adddup2(&files, server->output, STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&files, server->output, STDERR_FILENO);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes,
                             POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    int r = posix_spawn(&server->spawned, server->path, &files, &attributes, server->arguments,
                        environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&files);
    return -r;
}

static void spawn_job(void *opaque)
{
    struct fsw_server *server = opaque;

    server->error = spawn(server);
}

int fsw_server_start(struct fsw_server *server, const char *path, char *const *arguments,
                     int output, struct fsw_worker *spawner)
{
    int ends[2];

    fsw_server_init(server);
    if (spawner->busy)
        return -EBUSY;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
        return -errno;
    server->control = ends[0];
    server->far_control = ends[1];
    snprintf(server->path, sizeof server->path, "%s", path);
    server->arguments = arguments;
    server->output = output;
    enter(server, FSW_SERVER_SPAWNING);
    return fsw_worker_give(spawner, spawn_job, server);
}

static void gone(struct fsw_server *server, const char *why)
{
    if (server->said[0] == '\0')
        snprintf(server->said, sizeof server->said, "%s", why);
    close_one(&server->control);
    close_one(&server->process);
    close_one(&server->kernel_end);
    server->pid = 0;
    enter(server, FSW_SERVER_GONE);
}

void fsw_server_spawned(struct fsw_server *server)
{
    close_one(&server->far_control);
    if (server->error < 0) {
        snprintf(server->said, sizeof server->said, "%.400s: %s", server->path,
                 strerror(-server->error));
        gone(server, "");
        return;
    }
    server->pid = server->spawned;
    server->process = (int)syscall(SYS_pidfd_open, server->pid, 0);
    fsw_watch_add(server->process, FSW_WATCH_LEVEL);
    fsw_watch_add(server->control, FSW_WATCH_LEVEL);
    enter(server, FSW_SERVER_STARTING);
    if (server->doomed || server->process < 0)
        fsw_server_kill(server);
}

/* ---- what it says ---- */

static void read_ready(struct fsw_server *server, const char *text)
{
    unsigned long long size = 0;

    if (sscanf(text, "ready size=%llu device=%32[0-9a-f] recovered=%d", &size, server->device,
               &server->recovered) < 2) {
        snprintf(server->said, sizeof server->said, "it said what nobody understands: %.200s",
                 text);
        fsw_server_kill(server);
        return;
    }
    server->size = size;
    enter(server, FSW_SERVER_READY);
}

static void understand(struct fsw_server *server, const char *text)
{
    if (strcmp(text, "waiting") == 0 && server->state == FSW_SERVER_STARTING)
        enter(server, FSW_SERVER_WAITING);
    else if (strncmp(text, "ready ", 6) == 0 && server->state < FSW_SERVER_READY)
        read_ready(server, text);
    else if (strcmp(text, "serving") == 0 && server->unanswered > 0 && --server->unanswered == 0)
        enter(server, FSW_SERVER_SERVING);
    else if (strncmp(text, "failed ", 7) == 0)
        snprintf(server->said, sizeof server->said, "%s", text + 7);
}

static void reap(struct fsw_server *server)
{
    siginfo_t info = {.si_pid = 0};
    char why[96];

    if (waitid(P_PID, (id_t)server->pid, &info, WEXITED | WNOHANG) < 0) {
        gone(server, "it is not our child any more");
        return;
    }
    if (info.si_pid == 0)
        return;
    if (info.si_code == CLD_EXITED)
        snprintf(why, sizeof why, "it ended with status %d", info.si_status);
    else
        snprintf(why, sizeof why, "it was killed by signal %d (%s)", info.si_status,
                 strsignal(info.si_status));
    gone(server, why);
}

int fsw_server_hear(struct fsw_server *server)
{
    enum fsw_server_state before = server->state;
    char text[FSW_CONTROL_MAX + 1];
    ssize_t n;

    if (server->state <= FSW_SERVER_SPAWNING || server->state == FSW_SERVER_GONE)
        return 0;
    while ((n = recv(server->control, text, FSW_CONTROL_MAX, MSG_DONTWAIT)) > 0) {
        text[n] = '\0';
        text[strcspn(text, "\n")] = '\0';
        understand(server, text);
    }
    reap(server);
    return server->state != before;
}

int fsw_server_serve(struct fsw_server *server, int fd)
{
    char text[] = "serve", ancillary[CMSG_SPACE(sizeof fd)] = {0};
    struct iovec line = {.iov_base = text, .iov_len = strlen(text)};
    struct msghdr message = {.msg_iov = &line,
                             .msg_iovlen = 1,
                             .msg_control = ancillary,
                             .msg_controllen = sizeof ancillary};
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);

    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(rights), &fd, sizeof fd);
    if (sendmsg(server->control, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
        return -errno;
    server->unanswered++;
    if (server->state == FSW_SERVER_SERVING)
        enter(server, FSW_SERVER_READY);
    return 0;
}

/* ---- end ---- */

static void signal_it(struct fsw_server *server, int number)
{
    if (server->process >= 0)
        syscall(SYS_pidfd_send_signal, server->process, number, NULL, 0);
    else if (server->pid > 0)
        kill(server->pid, number); /* a child that nobody has reaped: the number is still its own */
}

void fsw_server_kill(struct fsw_server *server)
{
    if (server->state == FSW_SERVER_SPAWNING)
        server->doomed = 1;
    else if (server->state != FSW_SERVER_NONE && server->state != FSW_SERVER_GONE)
        signal_it(server, SIGKILL);
}

int fsw_server_stop(struct fsw_server *server)
{
    siginfo_t info = {.si_pid = 0};

    signal_it(server, SIGSTOP);
    return waitid(P_PID, (id_t)server->pid, &info, WSTOPPED | WNOHANG | WNOWAIT) == 0 &&
           info.si_pid != 0;
}

void fsw_server_continue(struct fsw_server *server)
{
    signal_it(server, SIGCONT);
}

void fsw_server_forget(struct fsw_server *server)
{
    fsw_server_init(server);
}

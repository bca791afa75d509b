/*
 * desk.c: questions and orders by packets on a Unix socket.
 */
#include "client/attach/desk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "client/attach/sight.h"
#include "client/attach/watch.h"
#include "common/cleanup.h"
#include "common/clock.h"

#define SILENCE_NS (5 * FSW_NS_PER_S) /* a guest that asks nothing */

static int address_of(const char *name, struct sockaddr_un *ret_address, struct fsw_error *err)
{
    char path[PATH_MAX];

    fsw_run_path(name, "attach", path);
    memset(ret_address, 0, sizeof *ret_address);
    ret_address->sun_family = AF_UNIX;
    if (strlen(path) >= sizeof ret_address->sun_path)
        return fsw_error(err, -ENAMETOOLONG, "%s is too long for a socket", path);
    memcpy(ret_address->sun_path, path, strlen(path) + 1);
    return 0;
}

/* RUNDIR may not be there yet: it is made as the registry makes it. */
static int take_lock(const char *name, struct fsw_error *err)
{
    char path[PATH_MAX];

    fsw_run_path(name, "attach.lock", path);
    *strrchr(path, '/') = '\0';
    mkdir(path, 0700);
    fsw_run_path(name, "attach.lock", path);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return fsw_error(err, -errno, "%s: %s", path, strerror(errno));
    if (flock(fd, LOCK_EX | LOCK_NB) == 0)
        return fd;
    close(fd);
    return fsw_error(err, -EBUSY, "a supervisor of %s runs already (farswap-attach --status %s)",
                     name, name);
}

int fsw_desk_open(struct fsw_desk *desk, const char *name, struct fsw_error *err)
{
    struct sockaddr_un address;

    memset(desk, 0, sizeof *desk);
    for (unsigned i = 0; i < FSW_DESK_GUESTS; i++)
        desk->guests[i].fd = -1;
    int r = address_of(name, &address, err);
    if (r < 0)
        return r;
    desk->lock = take_lock(name, err);
    if (desk->lock < 0)
        return desk->lock;
    snprintf(desk->path, sizeof desk->path, "%s", address.sun_path);
    unlink(desk->path); /* a dead supervisor's: we hold the lock */
    desk->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    mode_t mask = umask(0177);
    r = desk->listener < 0 ? -1 : bind(desk->listener, (struct sockaddr *)&address, sizeof address);
    umask(mask);
    if (r < 0 || listen(desk->listener, FSW_DESK_GUESTS) < 0)
        return fsw_error(err, -errno, "%s: %s", desk->path, strerror(errno));
    fsw_watch_add(desk->listener, FSW_WATCH_EDGE);
    return 0;
}

void fsw_desk_close(struct fsw_desk *desk)
{
    unlink(desk->path);
    close(desk->listener);
    close(desk->lock);
}

static void leave(struct fsw_desk *desk, unsigned guest)
{
    close(desk->guests[guest].fd);
    desk->guests[guest].fd = -1;
    desk->guests[guest].waits = 0;
}

static void let_in(struct fsw_desk *desk)
{
    for (unsigned i = 0; i < FSW_DESK_GUESTS; i++) {
        if (desk->guests[i].fd >= 0)
            continue;
        int fd = accept4(desk->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0)
            return;
        desk->guests[i].fd = fd;
        desk->guests[i].waits = 0;
        desk->guests[i].since = fsw_now_ns();
        fsw_watch_add(fd, FSW_WATCH_EDGE);
    }
}

/* A guest who has gone away while its order is at work is only noticed when it is answered. */
int fsw_desk_question(struct fsw_desk *desk, unsigned *ret_guest, char question[FSW_DESK_QUESTION])
{
    let_in(desk);
    for (unsigned i = 0; i < FSW_DESK_GUESTS; i++) {
        if (desk->guests[i].fd < 0 || desk->guests[i].waits)
            continue;
        ssize_t n = recv(desk->guests[i].fd, question, FSW_DESK_QUESTION - 1, 0);
        if (n > 0) {
            question[n] = '\0';
            *ret_guest = i;
            return 1;
        }
        if (n == 0 || errno != EAGAIN || fsw_now_ns() - desk->guests[i].since > SILENCE_NS)
            leave(desk, i);
    }
    return 0;
}

void fsw_desk_keep(struct fsw_desk *desk, unsigned guest)
{
    desk->guests[guest].waits = 1;
}

void fsw_desk_answer(struct fsw_desk *desk, int guest, const char *answer)
{
    if (guest < 0 || desk->guests[guest].fd < 0)
        return;
    send(desk->guests[guest].fd, answer, strlen(answer), MSG_DONTWAIT | MSG_NOSIGNAL);
    leave(desk, (unsigned)guest);
}

/* ---- the other side ---- */

int fsw_desk_ask(const char *name, const char *question, unsigned seconds,
                 char answer[FSW_DESK_ANSWER], struct fsw_error *err)
{
    const struct timeval wait = {.tv_sec = seconds};
    struct sockaddr_un address;

    int r = address_of(name, &address, err);
    if (r < 0)
        return r;
    FSW_CLEANUP_CLOSE int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return fsw_error(err, -errno, "no socket: %s", strerror(errno));
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
        return errno == ENOENT || errno == ECONNREFUSED
                   ? fsw_error(err, -ENOENT, "no supervisor runs for %s", name)
                   : fsw_error(err, -errno, "%s: %s", address.sun_path, strerror(errno));
    ssize_t n = send(fd, question, strlen(question), MSG_NOSIGNAL) < 0
                    ? -1
                    : recv(fd, answer, FSW_DESK_ANSWER - 1, 0);
    if (n <= 0)
        return fsw_error(err, n == 0 ? -EPIPE : -errno,
                         n == 0 ? "the supervisor of %s ended before it answered"
                                : "the supervisor of %s does not answer",
                         name);
    answer[n] = '\0';
    return 0;
}

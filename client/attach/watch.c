/*
 * watch.c: one epoll descriptor. Nobody asks what it was that woke us.
 */
#include "client/attach/watch.h"

#include <errno.h>
#include <limits.h>
#include <stddef.h>
#include <sys/epoll.h>

#include "common/clock.h"

static int watch = -1;

int fsw_watch_open(void)
{
    watch = epoll_create1(EPOLL_CLOEXEC);
    return watch < 0 ? -errno : 0;
}

void fsw_watch_add(int fd, enum fsw_watch_how how)
{
    static const uint32_t events[] = {
        [FSW_WATCH_LEVEL] = EPOLLIN | EPOLLRDHUP,
        [FSW_WATCH_EDGE] = EPOLLIN | EPOLLRDHUP | EPOLLET,
        [FSW_WATCH_END] = EPOLLRDHUP,
    };
    struct epoll_event event = {.events = events[how]};

    if (fd >= 0)
        epoll_ctl(watch, EPOLL_CTL_ADD, fd, &event);
}

void fsw_watch_remove(int fd)
{
    if (fd >= 0)
        epoll_ctl(watch, EPOLL_CTL_DEL, fd, NULL);
}

void fsw_watch_wait(uint64_t until)
{
    struct epoll_event events[16];
    uint64_t now = fsw_now_ns();
    uint64_t left = until > now ? (until - now + FSW_NS_PER_MS - 1) / FSW_NS_PER_MS : 0;

    epoll_wait(watch, events, sizeof events / sizeof events[0],
               left < INT_MAX ? (int)left : INT_MAX);
}

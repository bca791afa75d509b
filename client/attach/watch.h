/*
 * watch.h: what wakes the supervisor.
 *
 * epoll, since poll() asks the kernel for memory each time it is called with more than a few
 * descriptors: when there is none, it waits for swap to make some, and swap waits for us (tried).
 * epoll asks once, when a descriptor is added.
 */
#ifndef FSW_ATTACH_WATCH_H
#define FSW_ATTACH_WATCH_H

#include <stdint.h>

enum fsw_watch_how {
    FSW_WATCH_LEVEL, /* wakes for as long as there is something */
    FSW_WATCH_EDGE,  /* wakes once, for what may stay as it is for a while */
    FSW_WATCH_END, /* wakes when the other end is gone; what there is to read is somebody else's */
};

/* One a process. 0 or negative errno. */
int fsw_watch_open(void);

/* fd: readable, or its other end gone. -1 is ignored, and so is a failure: the loop looks at
 * everything every now and then anyway. */
void fsw_watch_add(int fd, enum fsw_watch_how how);

/* Needed only for a descriptor whose file lives on after it is closed. */
void fsw_watch_remove(int fd);

/* Until something is there, or until fsw_now_ns() is `until`. */
void fsw_watch_wait(uint64_t until);

#endif

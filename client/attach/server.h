/*
 * server.h: one process of farswap-nbd and the control socket to it.
 *
 *     NONE → SPAWNING → STARTING → WAITING → READY → SERVING
 *                └─────────┴──────────┴────────┴────────┴──→ GONE → NONE (fsw_server_forget)
 *
 *   SPAWNING   a worker is at posix_spawn, since that may wait (disk, memory)
 *   STARTING   it runs and has said nothing yet
 *   WAITING    executed, touched and locked; waits for the image's lock
 *   READY      has the image
 *   SERVING    has answered for the socket that it was handed last
 *   GONE       ended, and reaped; `said` tells why, if it told
 *
 * A stopped supervisor leaves its servers alone: the end of the control socket is no reason for them
 * to end (but for one that waits).
 */
#ifndef FSW_ATTACH_SERVER_H
#define FSW_ATTACH_SERVER_H

#include <limits.h>
#include <stdint.h>
#include <sys/types.h>

#include "client/attach/worker.h"

#define FSW_CONTROL_MAX 512
#define FSW_CONTROL_FD 3 /* the server's number for it */

enum fsw_server_state {
    FSW_SERVER_NONE,
    FSW_SERVER_SPAWNING,
    FSW_SERVER_STARTING,
    FSW_SERVER_WAITING,
    FSW_SERVER_READY,
    FSW_SERVER_SERVING,
    FSW_SERVER_GONE,
};

struct fsw_server {
    enum fsw_server_state state;
    uint64_t since; /* of the state, fsw_now_ns */
    pid_t pid;
    int process; /* pidfd, or -1 */
    int control, far_control;
    int doomed;          /* killed while SPAWNING: dies as soon as it has a number */
    int output;          /* where it prints to; the caller's */
    pid_t spawned;       /* by posix_spawn; the worker's until the state is STARTING */
    int error;           /* of posix_spawn, likewise */
    int kernel_end;      /* of a socket that it was handed before it could serve, or -1 */
    unsigned unanswered; /* sockets handed over without an answer yet */
    uint64_t size;
    char device[33];
    int recovered;
    char path[PATH_MAX];
    char *const *arguments; /* the caller's; [0] is what it is called */
    char said[FSW_CONTROL_MAX + 64];
};

void fsw_server_init(struct fsw_server *server);

/* Has the worker start path with arguments; stdout and stderr are `output`. From NONE. 0, -EBUSY (the
 * worker is at work), or negative errno. */
int fsw_server_start(struct fsw_server *server, const char *path, char *const *arguments,
                     int output, struct fsw_worker *spawner);

/* The worker has ended its job. */
void fsw_server_spawned(struct fsw_server *server);

/* Reads what it said and whether it has ended. Does not block. 1 if the state changed. */
int fsw_server_hear(struct fsw_server *server);

/* Hands it a socket in transmission; the caller closes its own descriptor. The answer is SERVING, and
 * comes when it has the image: it may be handed one before. */
int fsw_server_serve(struct fsw_server *server, int fd);

/* SIGKILL; GONE follows. From any state. */
void fsw_server_kill(struct fsw_server *server);

/* SIGSTOP, and 1 once it has stopped: a server that is stopped never takes a lock. */
int fsw_server_stop(struct fsw_server *server);
void fsw_server_continue(struct fsw_server *server);

/* From GONE to NONE. */
void fsw_server_forget(struct fsw_server *server);

static inline int fsw_server_is(const struct fsw_server *server, enum fsw_server_state state)
{
    return server->state == state;
}

/* Has the image's lock. */
static inline int fsw_server_holds(const struct fsw_server *server)
{
    return server->state == FSW_SERVER_READY || server->state == FSW_SERVER_SERVING;
}

#endif

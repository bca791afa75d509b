/*
 * supervisor.h: one device and everything that keeps it alive. Private to the files that make up
 * the supervisor:
 *
 *     supervisor.c   start, the loop, what it waits for
 *     heal.c         servers: who serves, who waits to
 *     link.c         the kernel's socket
 *     upgrade.c      another program
 *     ending.c       detach, SIGTERM
 *     report.c       --status
 *
 * The loop is one thread. After each wake-up it looks at everything there is, whatever woke it, and
 * then each part does what its state asks for now ("step"): so an event that is lost, or that comes
 * twice, costs time at most. A step never waits, never allocates, and leaves the time at which it
 * wants to be called again (fsw_wake_at). What may wait is a job of a worker.
 *
 * Invariants:
 *  1. At most one server is active. It alone is handed sockets, and it has said READY, so it holds
 *     the image's lock.
 *  2. The kernel is given a socket only when the server has answered for it (SERVING): what came on
 *     an earlier one is then either published or never will be.
 *  3. The kernel's device is never given a server of another image: device id and size are compared,
 *     and the backend identifier by the kernel.
 *  4. A server that waits and might take the lock is the spare, or the upgrade's candidate while no
 *     spare could (it is stopped).
 */
#ifndef FSW_ATTACH_SUPERVISOR_H
#define FSW_ATTACH_SUPERVISOR_H

#include <limits.h>
#include <stdint.h>

#include "client/attach/desk.h"
#include "client/attach/dial.h"
#include "client/attach/kernel.h"
#include "client/attach/options.h"
#include "client/attach/probe.h"
#include "client/attach/server.h"
#include "client/attach/worker.h"
#include "common/clock.h"

#define FSW_SERVERS 6

/* Tries that get rarer: none of them is the last. */
struct fsw_backoff {
    uint64_t next; /* not before */
    unsigned failures;
};

enum fsw_link_state {
    FSW_LINK_DOWN,
    FSW_LINK_ASKED,   /* the server has the other end, and has not answered */
    FSW_LINK_OFFERED, /* the kernel was given this end, and has not taken it */
    FSW_LINK_UP,
    FSW_LINK_UNSEEN, /* up, but the kernel's socket is one that we have no descriptor of */
};

struct fsw_link {
    enum fsw_link_state state;
    int kernel_end; /* -1, or our descriptor of the kernel's socket: shows its death */
    uint64_t since, deadline, offer_next;
    uint64_t down_since; /* 0 while up */
    unsigned offers;
    struct fsw_backoff retry;
};

enum fsw_upgrade_state {
    FSW_UPGRADE_NONE,
    FSW_UPGRADE_STARTING,  /* the candidate is to say that it waits */
    FSW_UPGRADE_STOPPING,  /* the spare is to stop */
    FSW_UPGRADE_SWITCHING, /* the candidate is to serve */
};

struct fsw_upgrade {
    enum fsw_upgrade_state state;
    struct fsw_server *candidate, *held;
    char path[PATH_MAX];
    uint64_t deadline;
    int guest; /* who asked, -1: nobody */
};

enum fsw_ending_state { FSW_ENDING_NOT, FSW_ENDING_CLAIM, FSW_ENDING_NOW };

struct fsw_ending {
    enum fsw_ending_state state;
    int may_leave; /* SIGTERM: a device in use is left to its server */
    int guest;
    uint64_t deadline;
};

struct fsw_supervisor {
    const struct fsw_attach_options *options;
    struct fsw_desk desk;
    struct fsw_kernel kernel;
    struct fsw_kernel_config config; /* backend "" until it is known */
    int index;                       /* of the kernel's device, -1 before there is one */
    int takeover;                    /* the device was there before us */
    int usable;                      /* the first read was answered: nothing is fatal any more */

    struct fsw_server servers[FSW_SERVERS]; /* those without a role are on their way out */
    struct fsw_server *active, *spare;
    int had_server;
    uint64_t promoted; /* when the active one became that */
    int output[2];     /* a pipe: what servers print */
    char server_path[PATH_MAX];
    char **arguments;
    struct fsw_backoff server_retry;
    uint64_t holder_next;

    struct fsw_link link;
    struct fsw_dial dial;
    struct fsw_upgrade upgrade;
    struct fsw_ending ending;

    struct fsw_worker spawner, prober, dialer;
    struct fsw_server *spawning;
    struct fsw_probe probe;
    int probing; /* 1 the first read, 2 a claim */
    struct fsw_backoff probe_retry;

    int signals;
    uint64_t look_next; /* at the kernel's list of devices */
    uint64_t wake;
    int done, status;
    char problem[FSW_CONTROL_MAX + 128];
    uint64_t reconnects, restarts, upgrades, last_gap_ns;
};

/* Runs until the device is detached or left; the process's exit status. */
int fsw_supervise(const struct fsw_attach_options *options);

/* supervisor.c */
void fsw_wake_at(struct fsw_supervisor *supervisor, uint64_t when);
void fsw_backoff_failed(struct fsw_backoff *backoff, uint64_t least_ns, uint64_t most_ns);
/* The reason why it isn't well now; said once, and while it stays. Ends the supervisor while the
 * device was never usable. */
void fsw_problem(struct fsw_supervisor *supervisor, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void fsw_fatal(struct fsw_supervisor *supervisor, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* heal.c */
struct fsw_server *fsw_server_slot(struct fsw_supervisor *supervisor);
/* From a free slot; NULL if it can't be now. */
struct fsw_server *fsw_heal_start(struct fsw_supervisor *supervisor, const char *path);
void fsw_heal_step(struct fsw_supervisor *supervisor);

/* link.c */
void fsw_link_step(struct fsw_supervisor *supervisor);
/* What the socket leads to is gone, or is to go. */
void fsw_link_drop(struct fsw_supervisor *supervisor);
/* For a server that waits: its socket is made and handed over now, since that takes memory, and when
 * it is needed there may be none. */
void fsw_link_prepare(struct fsw_supervisor *supervisor, struct fsw_server *server);
/* The active server has changed: its socket is the next. */
void fsw_link_adopt(struct fsw_supervisor *supervisor);
/* The dialer has ended its job. */
void fsw_link_dialed(struct fsw_supervisor *supervisor);
static inline int fsw_link_is_up(const struct fsw_supervisor *supervisor)
{
    return supervisor->link.state >= FSW_LINK_UP;
}

/* upgrade.c */
void fsw_upgrade_ask(struct fsw_supervisor *supervisor, int guest, const char *path);
void fsw_upgrade_step(struct fsw_supervisor *supervisor);

/* ending.c */
void fsw_ending_ask(struct fsw_supervisor *supervisor, int guest, int force);
void fsw_ending_signal(struct fsw_supervisor *supervisor);
void fsw_ending_claimed(struct fsw_supervisor *supervisor);
void fsw_ending_step(struct fsw_supervisor *supervisor);

/* report.c */
void fsw_report(const struct fsw_supervisor *supervisor, char text[FSW_DESK_ANSWER]);

#endif

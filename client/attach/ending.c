/*
 * ending.c: the device goes, or we do.
 *
 * Before a device is taken away it is claimed, by an open that excludes swapon, mount, dm and md: so
 * nobody begins to use it while it goes. The claim may wait for the device, so a worker does it.
 *
 * SIGTERM is no order to fail anybody's requests: a device in use stays, and so does its server.
 * Only the one who watches it ends.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "client/attach/notify.h"
#include "client/attach/say.h"
#include "client/attach/supervisor.h"

#define CLAIM_NS (10 * FSW_NS_PER_S)

static void answer(struct fsw_supervisor *supervisor, const char *text)
{
    fsw_desk_answer(&supervisor->desk, supervisor->ending.guest, text);
    supervisor->ending = (struct fsw_ending){.state = FSW_ENDING_NOT, .guest = -1};
}

static void end(struct fsw_supervisor *supervisor, int status)
{
    supervisor->done = 1;
    supervisor->status = status;
    fsw_notify("STOPPING=1");
}

/* ---- the device goes ---- */

static void kill_all_but(struct fsw_supervisor *supervisor, const struct fsw_server *but)
{
    for (unsigned i = 0; i < FSW_SERVERS; i++)
        if (&supervisor->servers[i] != but)
            fsw_server_kill(&supervisor->servers[i]);
}

static void detach(struct fsw_supervisor *supervisor)
{
    char text[128] = "ok";
    int r =
        supervisor->index < 0 ? 0 : fsw_kernel_disconnect(&supervisor->kernel, supervisor->index);

    if (r < 0 && fsw_kernel_connected(&supervisor->kernel, supervisor->index) != 0) {
        snprintf(text, sizeof text, "error the kernel does not let go of /dev/nbd%d: %s",
                 supervisor->index, strerror(-r));
        answer(supervisor, text);
        return;
    }
    if (supervisor->index >= 0) {
        snprintf(text, sizeof text, "ok /dev/nbd%d is detached; the image of %s stays",
                 supervisor->index, supervisor->options->name);
        fsw_say("%s", text + 3);
    }
    kill_all_but(supervisor, NULL);
    answer(supervisor, text);
    end(supervisor, supervisor->status);
}

/* ---- we go ---- */

static void leave(struct fsw_supervisor *supervisor, const char *why)
{
    if (supervisor->options->connect != NULL)
        fsw_say("/dev/nbd%d stays connected, %s; nobody watches it until farswap-attach is started "
                "again",
                supervisor->index, why);
    else
        fsw_say(
            "/dev/nbd%d stays, %s; so does its server (process %d), and nobody watches it until "
            "farswap-attach is started again",
            supervisor->index, why, supervisor->active != NULL ? supervisor->active->pid : 0);
    kill_all_but(supervisor, supervisor->active);
    end(supervisor, 0);
}

static void in_use(struct fsw_supervisor *supervisor, const char *use)
{
    char text[FSW_USE_TEXT + 128];

    if (supervisor->ending.may_leave) {
        leave(supervisor, use);
        return;
    }
    snprintf(text, sizeof text, "error /dev/nbd%d stays: %s", supervisor->index, use);
    answer(supervisor, text);
}

/* ---- orders ---- */

static void claim(struct fsw_supervisor *supervisor)
{
    supervisor->ending.state = FSW_ENDING_CLAIM;
    supervisor->ending.deadline = fsw_now_ns() + CLAIM_NS;
    fsw_wake_at(supervisor, 0);
}

void fsw_ending_ask(struct fsw_supervisor *supervisor, int guest, int force)
{
    if (supervisor->ending.state != FSW_ENDING_NOT ||
        supervisor->upgrade.state != FSW_UPGRADE_NONE) {
        fsw_desk_answer(&supervisor->desk, guest, "error something else is at work: try again");
        return;
    }
    fsw_desk_keep(&supervisor->desk, (unsigned)guest);
    supervisor->ending.guest = guest;
    if (force || supervisor->index < 0)
        supervisor->ending.state = FSW_ENDING_NOW;
    else
        claim(supervisor);
}

/* A second signal does not wait for the claim. */
void fsw_ending_signal(struct fsw_supervisor *supervisor)
{
    if (supervisor->index < 0) {
        supervisor->ending.state = FSW_ENDING_NOW;
        return;
    }
    if (supervisor->ending.state == FSW_ENDING_CLAIM && supervisor->ending.may_leave) {
        leave(supervisor, "since nobody can tell whether it is in use");
        return;
    }
    supervisor->ending.may_leave = 1;
    if (supervisor->ending.state == FSW_ENDING_NOT)
        claim(supervisor);
}

/* The claim is held while the device goes. */
void fsw_ending_claimed(struct fsw_supervisor *supervisor)
{
    int claimed = supervisor->probe.result;

    if (supervisor->ending.state != FSW_ENDING_CLAIM) {
        if (claimed >= 0)
            close(claimed); /* too late: nobody waits for it any more */
    } else if (claimed < 0) {
        in_use(supervisor, supervisor->probe.text);
    } else {
        detach(supervisor);
        close(claimed);
    }
}

static void claiming(struct fsw_supervisor *supervisor)
{
    if (fsw_now_ns() > supervisor->ending.deadline) {
        in_use(supervisor, "since it does not answer");
        return;
    }
    fsw_wake_at(supervisor, supervisor->ending.deadline);
    if (supervisor->probing != 0)
        return;
    supervisor->probe.index = supervisor->index;
    if (fsw_worker_give(&supervisor->prober, fsw_probe_claim, &supervisor->probe) == 0)
        supervisor->probing = 2;
}

void fsw_ending_step(struct fsw_supervisor *supervisor)
{
    if (supervisor->ending.state == FSW_ENDING_CLAIM)
        claiming(supervisor);
    if (supervisor->ending.state == FSW_ENDING_NOW)
        detach(supervisor);
}

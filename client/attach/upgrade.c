/*
 * upgrade.c: the same image, another program.
 *
 *   STARTING   the new program runs, and is to say that it waits: then it knows the image's layout
 *   STOPPING   the old program's spare is stopped, so that it doesn't take the lock; it stays as
 *              the way back
 *   SWITCHING  the old server is killed; the new one gets the lock, says READY, is linked
 *
 * Until SWITCHING nothing has happened to the device. If the new one fails after that, the spare is
 * continued, and serves.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "client/attach/say.h"
#include "client/attach/supervisor.h"

#define START_NS (30 * FSW_NS_PER_S)
#define STOP_NS FSW_NS_PER_S
#define SWITCH_NS (60 * FSW_NS_PER_S)
#define LOOK_NS FSW_NS_PER_MS

static void enter(struct fsw_supervisor *supervisor, enum fsw_upgrade_state state, uint64_t ns)
{
    supervisor->upgrade.state = state;
    supervisor->upgrade.deadline = fsw_now_ns() + ns;
    fsw_wake_at(supervisor, 0);
}

static void finish(struct fsw_supervisor *supervisor, const char *answer)
{
    fsw_say("upgrade: %s", answer + strcspn(answer, " ") + 1);
    fsw_desk_answer(&supervisor->desk, supervisor->upgrade.guest, answer);
    supervisor->upgrade = (struct fsw_upgrade){.state = FSW_UPGRADE_NONE, .guest = -1};
}

void fsw_upgrade_ask(struct fsw_supervisor *supervisor, int guest, const char *path)
{
    struct fsw_upgrade *upgrade = &supervisor->upgrade;
    const char *refusal = NULL;

    if (supervisor->options->connect != NULL)
        refusal = "error the server runs on another host: upgrade it there";
    else if (upgrade->state != FSW_UPGRADE_NONE || supervisor->ending.state != FSW_ENDING_NOT)
        refusal = "error something else is at work: try again";
    else if (!fsw_link_is_up(supervisor) || !supervisor->usable)
        refusal = "error the device has no server right now: wait until it is attached";
    else if (supervisor->spawner.busy)
        refusal = "error a server is being started: try again";
    if (refusal != NULL) {
        fsw_desk_answer(&supervisor->desk, guest, refusal);
        return;
    }
    fsw_desk_keep(&supervisor->desk, (unsigned)guest);
    upgrade->guest = guest;
    snprintf(upgrade->path, sizeof upgrade->path, "%s",
             path[0] != '\0' ? path : supervisor->server_path);
    upgrade->candidate = fsw_heal_start(supervisor, upgrade->path);
    if (upgrade->candidate == NULL)
        finish(supervisor, "error no server can be started now");
    else
        enter(supervisor, FSW_UPGRADE_STARTING, START_NS);
}

/* ---- STARTING ---- */

static void refuse(struct fsw_supervisor *supervisor, const char *why)
{
    char answer[FSW_CONTROL_MAX + PATH_MAX + 64];

    snprintf(answer, sizeof answer, "error refused, nothing was changed: %s: %s",
             supervisor->upgrade.path, why);
    fsw_server_kill(supervisor->upgrade.candidate);
    finish(supervisor, answer);
}

static void starting(struct fsw_supervisor *supervisor)
{
    struct fsw_upgrade *upgrade = &supervisor->upgrade;

    if (fsw_server_is(upgrade->candidate, FSW_SERVER_GONE))
        refuse(supervisor, upgrade->candidate->said);
    else if (fsw_server_holds(upgrade->candidate))
        enter(supervisor, FSW_UPGRADE_STOPPING, STOP_NS); /* the old ones have just died */
    else if (fsw_now_ns() > upgrade->deadline)
        refuse(supervisor, "it does not say that it can serve this image");
    else if (fsw_server_is(upgrade->candidate, FSW_SERVER_WAITING)) {
        fsw_link_prepare(supervisor, upgrade->candidate);
        enter(supervisor, FSW_UPGRADE_STOPPING, STOP_NS);
    }
}

/* ---- STOPPING ---- */

static void switch_over(struct fsw_supervisor *supervisor)
{
    struct fsw_upgrade *upgrade = &supervisor->upgrade;

    upgrade->held = supervisor->spare;
    supervisor->spare = upgrade->candidate;
    if (supervisor->active != NULL)
        fsw_server_kill(supervisor->active);
    enter(supervisor, FSW_UPGRADE_SWITCHING, SWITCH_NS);
}

static void stopping(struct fsw_supervisor *supervisor)
{
    struct fsw_upgrade *upgrade = &supervisor->upgrade;
    struct fsw_server *spare = supervisor->spare;

    if (spare == NULL) {
        switch_over(supervisor);
    } else if (fsw_server_is(spare, FSW_SERVER_SPAWNING) ||
               fsw_server_is(spare, FSW_SERVER_STARTING)) {
        fsw_server_kill(spare); /* not worth waiting for: heal.c lets it go, and then we switch */
        supervisor->spare = NULL;
    } else if (fsw_server_stop(spare)) {
        switch_over(supervisor);
    } else if (fsw_now_ns() > upgrade->deadline) {
        fsw_server_kill(spare);
    }
    fsw_wake_at(supervisor, fsw_now_ns() + LOOK_NS);
}

/* ---- SWITCHING ---- */

static void done(struct fsw_supervisor *supervisor)
{
    struct fsw_upgrade *upgrade = &supervisor->upgrade;
    char answer[PATH_MAX + 128];

    if (upgrade->held != NULL)
        fsw_server_kill(upgrade->held);
    strcpy(supervisor->server_path, upgrade->path);
    supervisor->upgrades++;
    snprintf(answer, sizeof answer, "ok %s serves now; the device was without a server for %llu ms",
             upgrade->path, (unsigned long long)(supervisor->last_gap_ns / FSW_NS_PER_MS));
    finish(supervisor, answer);
}

/* heal.c has let the candidate go, or it is to go: the old program's spare gets the lock. */
static void go_back(struct fsw_supervisor *supervisor, const char *why)
{
    struct fsw_upgrade *upgrade = &supervisor->upgrade;
    char answer[FSW_CONTROL_MAX + PATH_MAX + 64];

    snprintf(answer, sizeof answer, "error it failed, the old program serves again: %s: %s",
             upgrade->path, why);
    if (upgrade->candidate != NULL && supervisor->spare == upgrade->candidate)
        supervisor->spare = NULL;
    fsw_server_kill(upgrade->candidate);
    if (upgrade->held != NULL) {
        supervisor->spare = upgrade->held;
        fsw_server_continue(upgrade->held);
    }
    supervisor->server_retry.next = 0;
    finish(supervisor, answer);
}

static void switching(struct fsw_supervisor *supervisor)
{
    struct fsw_upgrade *upgrade = &supervisor->upgrade;

    if (supervisor->active == upgrade->candidate && fsw_link_is_up(supervisor))
        done(supervisor);
    else if (fsw_server_is(upgrade->candidate, FSW_SERVER_GONE))
        go_back(supervisor, upgrade->candidate->said);
    else if (fsw_now_ns() > upgrade->deadline)
        go_back(supervisor, "it does not begin to serve");
    else
        fsw_wake_at(supervisor, upgrade->deadline);
}

void fsw_upgrade_step(struct fsw_supervisor *supervisor)
{
    if (supervisor->upgrade.state == FSW_UPGRADE_STARTING)
        starting(supervisor);
    if (supervisor->upgrade.state == FSW_UPGRADE_STOPPING)
        stopping(supervisor);
    if (supervisor->upgrade.state == FSW_UPGRADE_SWITCHING)
        switching(supervisor);
}

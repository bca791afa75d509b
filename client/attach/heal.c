/*
 * heal.c: there is always a server that serves, or one on its way to; and one that waits.
 *
 * Every server is started to wait for the image's lock. The lock is what makes it the active one:
 * when the active one dies, in whatever way, the kernel gives the lock to the spare, which says so.
 * Nothing has to be read from disk in between, and nobody else has to act.
 *
 * The next spare is started only when the device works again: what its start needs may then wait
 * for swap.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "client/attach/say.h"
#include "client/attach/sight.h"
#include "client/attach/supervisor.h"

#define RETRY_LEAST (100 * FSW_NS_PER_MS)
#define RETRY_MOST (5 * FSW_NS_PER_S)
#define QUICK_NS (2 * FSW_NS_PER_S)  /* a server that lives no longer is no good */
#define START_NS (60 * FSW_NS_PER_S) /* until a spare waits */
#define HOLDER_NS (100 * FSW_NS_PER_MS)
#define INTRUDER_NS FSW_NS_PER_S
#define STRANGER_NS (2 * FSW_NS_PER_S)

struct fsw_server *fsw_server_slot(struct fsw_supervisor *supervisor)
{
    for (unsigned i = 0; i < FSW_SERVERS; i++)
        if (supervisor->servers[i].state == FSW_SERVER_NONE)
            return &supervisor->servers[i];
    return NULL;
}

struct fsw_server *fsw_heal_start(struct fsw_supervisor *supervisor, const char *path)
{
    struct fsw_server *server = fsw_server_slot(supervisor);

    if (server == NULL || supervisor->spawner.busy)
        return NULL;
    int r = fsw_server_start(server, path, supervisor->arguments, supervisor->output[1],
                             &supervisor->spawner);
    if (r < 0) {
        fsw_problem(supervisor, "no server can be started: %s", strerror(-r));
        fsw_server_init(server);
        return NULL;
    }
    supervisor->spawning = server;
    return server;
}

/* ---- the active one ---- */

static void active_is_gone(struct fsw_supervisor *supervisor)
{
    fsw_say("the server is gone: %s", supervisor->active->said);
    supervisor->active = NULL;
    fsw_link_drop(supervisor);
    /* Whatever was wrong with spares before: now one is needed. But not of those that die at once. */
    if (fsw_now_ns() - supervisor->promoted > QUICK_NS)
        supervisor->server_retry = (struct fsw_backoff){0};
    else
        fsw_backoff_failed(&supervisor->server_retry, RETRY_LEAST, QUICK_NS);
    supervisor->holder_next = fsw_now_ns() + INTRUDER_NS;
}

static int is_same_device(struct fsw_supervisor *supervisor, const struct fsw_server *server)
{
    struct fsw_kernel_config *config = &supervisor->config;

    if (supervisor->index < 0 && config->size == 0) {
        strcpy(config->backend, server->device);
        config->size = server->size;
    }
    return strcmp(config->backend, server->device) == 0 && config->size == server->size;
}

/* The spare has the lock, so the one before it is gone, or about to be. */
static void promote(struct fsw_supervisor *supervisor)
{
    struct fsw_server *server = supervisor->spare;

    supervisor->spare = NULL;
    if (!is_same_device(supervisor, server)) {
        fsw_problem(supervisor,
                    "the image of %s is another one (%s, %llu bytes) than that of /dev/nbd%d (%s, "
                    "%llu bytes): what was swapped out is not there",
                    supervisor->options->name, server->device, (unsigned long long)server->size,
                    supervisor->index, supervisor->config.backend,
                    (unsigned long long)supervisor->config.size);
        fsw_backoff_failed(&supervisor->server_retry, RETRY_MOST, RETRY_MOST);
        fsw_server_kill(server);
        return;
    }
    if (supervisor->active != NULL)
        fsw_server_kill(supervisor->active);
    supervisor->restarts += supervisor->had_server || supervisor->takeover;
    supervisor->had_server = 1;
    supervisor->promoted = fsw_now_ns();
    supervisor->active = server;
    fsw_link_adopt(supervisor);
}

/* ---- the spare ---- */

static void spare_is_gone(struct fsw_supervisor *supervisor)
{
    struct fsw_server *spare = supervisor->spare;

    supervisor->spare = NULL;
    fsw_backoff_failed(&supervisor->server_retry, RETRY_LEAST, RETRY_MOST);
    fsw_problem(supervisor, "%s", spare->said);
}

static void start_spare(struct fsw_supervisor *supervisor)
{
    if (fsw_now_ns() < supervisor->server_retry.next)
        fsw_wake_at(supervisor, supervisor->server_retry.next);
    else
        supervisor->spare = fsw_heal_start(supervisor, supervisor->server_path);
}

/* By the name of its program, which may have been replaced meanwhile. */
static int is_server(const struct fsw_supervisor *supervisor, pid_t pid)
{
    const char *ours = strrchr(supervisor->server_path, '/') + 1;
    char program[PATH_MAX];

    fsw_sight_program(pid, program);
    const char *theirs = strrchr(program, '/');
    return theirs != NULL && strncmp(theirs + 1, ours, strlen(ours)) == 0;
}

/* Nobody of ours serves, and yet somebody has the lock. After a takeover it is the server of the
 * supervisor before us, and goes. Later it may be a server that somebody has started by hand, which
 * goes, too: the kernel waits for ours. A tool that looks at the image is left alone. Before a device
 * is ours, it is somebody's who did not expect us. */
static void end_holder(struct fsw_supervisor *supervisor)
{
    const char *name = supervisor->options->name;
    char program[PATH_MAX];

    if (fsw_now_ns() < supervisor->holder_next) {
        fsw_wake_at(supervisor, supervisor->holder_next);
        return;
    }
    supervisor->holder_next = fsw_now_ns() + HOLDER_NS;
    fsw_wake_at(supervisor, supervisor->holder_next);
    if (supervisor->had_server &&
        !is_server(supervisor, fsw_sight_holder(name, supervisor->spare->pid)))
        return;
    if (supervisor->takeover || supervisor->had_server) {
        if (fsw_sight_kill_holder(name, supervisor->spare->pid)) {
            fsw_say("ended the server that was there, to take over");
            if (supervisor->link.down_since == 0)
                supervisor->link.down_since = fsw_now_ns();
        }
        return;
    }
    pid_t holder = fsw_sight_holder(name, supervisor->spare->pid);
    if (holder == 0 || fsw_now_ns() - supervisor->spare->since < STRANGER_NS)
        return;
    fsw_sight_program(holder, program);
    fsw_fatal(supervisor, "device %s is being served by process %d (%s): end that first", name,
              holder, program);
}

static void look_at_spare(struct fsw_supervisor *supervisor)
{
    struct fsw_server *spare = supervisor->spare;

    if (fsw_server_is(spare, FSW_SERVER_GONE)) {
        spare_is_gone(supervisor);
    } else if (fsw_server_holds(spare)) {
        promote(supervisor);
    } else if (fsw_server_is(spare, FSW_SERVER_WAITING)) {
        fsw_link_prepare(supervisor, spare);
        if (supervisor->active == NULL)
            end_holder(supervisor);
    } else if (fsw_now_ns() - spare->since > START_NS) {
        fsw_problem(supervisor, "the spare server does not start: it is killed");
        fsw_server_kill(spare);
    }
}

/* ---- step ---- */

/* What servers print, line by line. */
static void relay(struct fsw_supervisor *supervisor)
{
    static char text[FSW_CONTROL_MAX];
    static size_t length;
    ssize_t n;

    while ((n = read(supervisor->output[0], text + length, sizeof text - 1 - length)) > 0) {
        char *line = text, *end;
        length += (size_t)n;
        text[length] = '\0';
        while ((end = strchr(line, '\n')) != NULL) {
            *end = '\0';
            fsw_say("server: %s", line);
            line = end + 1;
        }
        length = strlen(line);
        memmove(text, line, length);
        if (length == sizeof text - 1)
            length = 0; /* no line is so long */
    }
}

static void listen_to_all(struct fsw_supervisor *supervisor)
{
    if (fsw_worker_take(&supervisor->spawner))
        fsw_server_spawned(supervisor->spawning);
    for (unsigned i = 0; i < FSW_SERVERS; i++)
        fsw_server_hear(&supervisor->servers[i]);
    relay(supervisor);
}

static int has_role(const struct fsw_supervisor *supervisor, const struct fsw_server *server)
{
    return server == supervisor->active || server == supervisor->spare ||
           server == supervisor->upgrade.candidate || server == supervisor->upgrade.held;
}

static void forget_the_gone(struct fsw_supervisor *supervisor)
{
    for (unsigned i = 0; i < FSW_SERVERS; i++)
        if (fsw_server_is(&supervisor->servers[i], FSW_SERVER_GONE) &&
            !has_role(supervisor, &supervisor->servers[i]))
            fsw_server_forget(&supervisor->servers[i]);
}

void fsw_heal_step(struct fsw_supervisor *supervisor)
{
    if (supervisor->options->connect != NULL)
        return; /* its server is another host's */
    listen_to_all(supervisor);
    if (supervisor->active != NULL && fsw_server_is(supervisor->active, FSW_SERVER_GONE))
        active_is_gone(supervisor);
    if (supervisor->spare != NULL)
        look_at_spare(supervisor);
    if (supervisor->spare == NULL && supervisor->upgrade.state == FSW_UPGRADE_NONE &&
        (supervisor->active == NULL || fsw_link_is_up(supervisor)))
        start_spare(supervisor);
    forget_the_gone(supervisor);
}

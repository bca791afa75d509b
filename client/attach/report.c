/*
 * report.c: what --status prints. One line a fact, "name value".
 */
#include <stdio.h>
#include <unistd.h>

#include "client/attach/supervisor.h"

static const char *state_of(const struct fsw_supervisor *supervisor)
{
    return supervisor->ending.state != FSW_ENDING_NOT         ? "stopping"
           : fsw_link_is_up(supervisor) && supervisor->usable ? "attached"
           : supervisor->usable || supervisor->takeover       ? "reconnecting"
                                                              : "starting";
}

static void server_line(const struct fsw_supervisor *supervisor, char *text, size_t size)
{
    if (supervisor->options->connect != NULL)
        snprintf(text, size, "%s", supervisor->options->connect);
    else if (supervisor->active != NULL)
        snprintf(text, size, "%d %s", supervisor->active->pid, supervisor->active->path);
    else
        snprintf(text, size, "-");
}

static void spare_line(const struct fsw_supervisor *supervisor, char *text, size_t size)
{
    const struct fsw_server *spare = supervisor->spare;

    if (spare != NULL && spare->pid > 0)
        snprintf(text, size, "%d %s", spare->pid,
                 fsw_server_is(spare, FSW_SERVER_WAITING) ? "waiting" : "starting");
    else
        snprintf(text, size, "-");
}

void fsw_report(const struct fsw_supervisor *supervisor, char text[FSW_DESK_ANSWER])
{
    char device[32] = "-", server[PATH_MAX + 16], spare[48];

    if (supervisor->index >= 0)
        snprintf(device, sizeof device, "/dev/nbd%d", supervisor->index);
    server_line(supervisor, server, sizeof server);
    spare_line(supervisor, spare, sizeof spare);
    snprintf(text, FSW_DESK_ANSWER,
             "ok\nname %s\ndevice %s\nstate %s\nseconds %llu\nproblem %s\nsupervisor %d\n"
             "server %s\nspare %s\nbackend %s\nsize %llu\ntimeout %llu\nrestarts %llu\n"
             "reconnects %llu\nupgrades %llu\nlast_gap_ms %llu\n",
             supervisor->options->name, device, state_of(supervisor),
             (unsigned long long)((fsw_now_ns() - supervisor->link.since) / FSW_NS_PER_S),
             supervisor->problem[0] != '\0' ? supervisor->problem : "-", getpid(), server, spare,
             supervisor->config.backend[0] != '\0' ? supervisor->config.backend : "-",
             (unsigned long long)supervisor->config.size,
             (unsigned long long)supervisor->options->timeout,
             (unsigned long long)supervisor->restarts, (unsigned long long)supervisor->reconnects,
             (unsigned long long)supervisor->upgrades,
             (unsigned long long)(supervisor->last_gap_ns / FSW_NS_PER_MS));
}

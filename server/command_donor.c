/*
 * command_donor.c: the donor itself: how it is, how it is set, whom it serves. What takes values
 * away from others is for who came by the Unix socket.
 */
#include <inttypes.h>
#include <stdio.h>

#include "server/commands.h"
#include "server/glob.h"
#include "server/info.h"

void fsw_run_info(struct fsw_session *session, struct fsw_request *request, struct fsw_reply *reply)
{
    fsw_info(session->server, request, reply);
}

static bool any_matches(const struct fsw_request *request, const char *name)
{
    for (uint32_t i = 2; i < request->count; i++)
        if (fsw_glob_match(request->argument[i]->bytes, request->argument[i]->length, name,
                           strlen(name)))
            return true;
    return false;
}

/* CONFIG GET pattern...: what tools ask for. Options are set at the start only. */
void fsw_run_config(struct fsw_session *session, struct fsw_request *request,
                    struct fsw_reply *reply)
{
    char limit[24], clients[16], port[16];
    const char *const config[][2] = {
        {"maxmemory", limit}, {"maxmemory-policy", "noeviction"},
        {"save", ""},         {"appendonly", "no"},
        {"databases", "1"},   {"maxclients", clients},
        {"port", port},       {"timeout", "0"},
    };
    const size_t configs = sizeof config / sizeof config[0];
    size_t matching = 0;

    if (!fsw_is_word(request->argument[1], "GET") || request->count < 3) {
        fsw_reply_error(reply, "ERR only CONFIG GET pattern [pattern ...] is known here");
        return;
    }
    snprintf(limit, sizeof limit, "%" PRIu64, fsw_keyspace_vault(session->server->keyspace)->limit);
    snprintf(clients, sizeof clients, "%d", FSW_MAX_CLIENTS);
    snprintf(port, sizeof port, "%d", session->server->port);
    for (size_t i = 0; i < configs; i++)
        matching += any_matches(request, config[i][0]);
    fsw_reply_map(reply, matching);
    for (size_t i = 0; i < configs; i++) {
        if (!any_matches(request, config[i][0]))
            continue;
        fsw_reply_text(reply, config[i][0]);
        fsw_reply_text(reply, config[i][1]);
    }
}

/* ---- devices ---- */

static void name_and_number(struct fsw_reply *reply, const char *name, uint64_t number)
{
    fsw_reply_text(reply, name);
    fsw_reply_integer(reply, (int64_t)number);
}

static void tell_device(const struct fsw_devices *devices, unsigned device, struct fsw_reply *reply)
{
    char id[FSW_DEVICE_TEXT];

    fsw_devices_text(devices, device, id);
    fsw_reply_map(reply, 5);
    fsw_reply_text(reply, "device");
    fsw_reply_text(reply, id);
    name_and_number(reply, "keys", devices->use[device].keys);
    name_and_number(reply, "bytes", devices->use[device].bytes);
    name_and_number(reply, "idle", fsw_devices_idle(devices, device));
    fsw_reply_text(reply, "peer");
    fsw_reply_text(reply, devices->contacts[device].peer);
}

void fsw_run_devices(struct fsw_session *session, struct fsw_request *request,
                     struct fsw_reply *reply)
{
    const struct fsw_devices *devices = fsw_keyspace_devices(session->server->keyspace);
    size_t there = 0;

    for (unsigned device = 1; device < FSW_MAX_DEVICES; device++)
        there += fsw_devices_there(devices, device);
    fsw_reply_array(reply, there);
    for (unsigned device = 1; device < FSW_MAX_DEVICES; device++)
        if (fsw_devices_there(devices, device))
            tell_device(devices, device, reply);
}

/* ---- for admins ---- */

bool fsw_check_admin(const struct fsw_session *session, struct fsw_reply *reply)
{
    if (!session->admin)
        fsw_reply_error(reply, "NOPERM this is for the donor's admin: connect to its Unix socket "
                               "(farswapd --unix PATH)");
    return session->admin;
}

void fsw_run_forget(struct fsw_session *session, struct fsw_request *request,
                    struct fsw_reply *reply)
{
    struct fsw_keyspace *keyspace = session->server->keyspace;
    const struct fsw_value *id = request->argument[1];

    if (!fsw_check_admin(session, reply))
        return;
    unsigned device = fsw_devices_find(fsw_keyspace_devices(keyspace), id->bytes, id->length);
    if (device == 0)
        fsw_reply_error(reply, "ERR no such device; FARSWAP.DEVICES lists all");
    else
        fsw_reply_integer(reply, (int64_t)fsw_keyspace_forget(keyspace, device));
}

/* FLUSHALL [ASYNC|SYNC]: the memory goes back to the system later, in both. */
void fsw_run_flushall(struct fsw_session *session, struct fsw_request *request,
                      struct fsw_reply *reply)
{
    if (!fsw_check_admin(session, reply))
        return;
    if (request->count > 2 || (request->count == 2 && !fsw_is_word(request->argument[1], "ASYNC") &&
                               !fsw_is_word(request->argument[1], "SYNC"))) {
        fsw_reply_error(reply, FSW_SYNTAX_ERROR);
        return;
    }
    fsw_keyspace_clear(session->server->keyspace);
    fsw_reply_status(reply, "OK");
}

/*
 * info.c: one function a section, one table of sections.
 */
#include "server/info.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/parse.h"
#include "common/shm.h"
#include "server/harden.h"
#include "server/version.h"

/* FARSWAP.DEVICES tells all. */
#define DEVICES_SHOWN 64

struct text {
    size_t length;
    char bytes[16384]; /* all sections take 4 KiB, and 64 devices 9 */
};

__attribute__((format(printf, 2, 3))) static void add(struct text *text, const char *format, ...)
{
    size_t room = sizeof text->bytes - text->length;
    va_list args;

    va_start(args, format);
    int length = vsnprintf(text->bytes + text->length, room, format, args);
    va_end(args);
    if (length > 0)
        text->length += (size_t)length < room ? (size_t)length : room - 1;
}

static void section_server(const struct fsw_server *server, struct text *text)
{
    uint64_t seconds = (fsw_now_ns() - server->started) / FSW_NS_PER_S;

    /* What clients look at before they dare to use a command of that version. */
    add(text, "redis_version:%s\r\n", FSW_SERVER_SPEAKS);
    add(text, "farswapd_version:%s\r\n", FSW_SERVER_VERSION);
    add(text, "farswapd_name:%s\r\n", server->name);
    add(text, "redis_mode:standalone\r\n");
    add(text, "process_id:%ld\r\n", (long)getpid());
    add(text, "tcp_port:%d\r\n", server->port);
    add(text, "uptime_in_seconds:%" PRIu64 "\r\n", seconds);
    add(text, "uptime_in_days:%" PRIu64 "\r\n", seconds / 86400);
}

static void section_clients(const struct fsw_server *server, struct text *text)
{
    add(text, "connected_clients:%" PRIu64 "\r\n", server->clients);
    add(text, "maxclients:%d\r\n", FSW_MAX_CLIENTS);
    add(text, "paused_clients:%" PRIu64 "\r\n", server->clients_paused);
    add(text, "output_bytes_waiting:%" PRIu64 "\r\n", server->output_bytes);
}

static void add_size(struct text *text, const char *name, uint64_t bytes)
{
    char size[FSW_SIZE_TEXT];

    add(text, "%s:%" PRIu64 "\r\n", name, bytes);
    add(text, "%s_human:%s\r\n", name, fsw_format_size(bytes, size));
}

static void section_memory(const struct fsw_server *server, struct text *text)
{
    const struct fsw_vault *vault = fsw_keyspace_vault(server->keyspace);
    const struct fsw_pressure *pressure = &server->pressure;
    uint64_t image = fsw_shm_resident(vault->image->shmid);

    add_size(text, "used_memory", fsw_vault_used(vault));
    add(text, "used_memory_rss:%" PRIu64 "\r\n", image + fsw_own_memory());
    add(text, "used_memory_dataset:%" PRIu64 "\r\n", fsw_keyspace_value_bytes(server->keyspace));
    add(text, "image_memory:%" PRIu64 "\r\n", vault->frames * FSW_DONOR_PAGE);
    add(text, "image_memory_free:%" PRIu64 "\r\n", vault->warm_frames * FSW_DONOR_PAGE);
    add(text, "image_locked:%d\r\n", !vault->image->unlocked);
    add_size(text, "maxmemory", vault->limit);
    add(text, "maxmemory_policy:noeviction\r\n");
    add(text, "host_memory_short:%d\r\n", pressure->short_of);
    add(text, "host_memory_short_times:%" PRIu64 "\r\n", pressure->times);
    add(text, "host_memory_keep:%" PRIu64 "\r\n", pressure->keep);
    if (pressure->available != UINT64_MAX)
        add(text, "host_memory_available:%" PRIu64 "\r\n", pressure->available);
    add(text, "host_memory_stalls:%" PRIu64 "\r\n", pressure->triggers);
}

static void section_persistence(const struct fsw_server *server, struct text *text)
{
    const struct fsw_keyspace_found *found = fsw_keyspace_found(server->keyspace);

    add(text, "loading:0\r\n");
    add(text, "image_outlives_us:%d\r\n", server->named);
    add(text, "recovered_values:%" PRIu64 "\r\n", found->values);
    add(text, "recovered_stale_values:%" PRIu64 "\r\n", found->stale);
    add(text, "recovered_damaged_values:%" PRIu64 "\r\n", found->damaged);
}

static void section_devices(const struct fsw_server *server, struct text *text)
{
    const struct fsw_devices *devices = fsw_keyspace_devices(server->keyspace);
    char id[FSW_DEVICE_TEXT];
    unsigned there = 0;

    for (unsigned device = 1; device < FSW_MAX_DEVICES; device++) {
        if (!fsw_devices_there(devices, device) || there++ >= DEVICES_SHOWN)
            continue;
        fsw_devices_text(devices, device, id);
        add(text, "device_%s:keys=%" PRIu64 ",bytes=%" PRIu64 ",idle=%" PRIu64 ",peer=%s\r\n", id,
            devices->use[device].keys, devices->use[device].bytes,
            fsw_devices_idle(devices, device), devices->contacts[device].peer);
    }
    add(text, "devices:%u\r\n", there);
    add(text, "no_device:keys=%" PRIu64 ",bytes=%" PRIu64 "\r\n", devices->use[0].keys,
        devices->use[0].bytes);
}

static uint64_t limit_hits(const struct fsw_server *server, enum fsw_limit limit)
{
    return limit == FSW_LIMIT_DEVICES ? fsw_keyspace_devices(server->keyspace)->unnoticed
                                      : server->hits.of[limit];
}

static void section_stats(const struct fsw_server *server, struct text *text)
{
    const struct fsw_server_counters *counters = &server->counters;

#define ADD_COUNTER(name) add(text, #name ":%" PRIu64 "\r\n", counters->name);
    FSW_SERVER_COUNTERS(ADD_COUNTER)
#undef ADD_COUNTER
    add(text, "evicted_keys:0\r\n");
#define ADD_LIMIT(upper, lower, value, effect)                                                     \
    add(text, "limit_" #lower "_hits:%" PRIu64 "\r\n", limit_hits(server, FSW_LIMIT_##upper));
    FSW_LIMITS(ADD_LIMIT)
#undef ADD_LIMIT
}

static void section_keyspace(const struct fsw_server *server, struct text *text)
{
    uint64_t count = fsw_keyspace_count(server->keyspace);

    if (count > 0)
        add(text, "db0:keys=%" PRIu64 ",expires=0,avg_ttl=0\r\n", count);
}

static const struct {
    const char *name, *title;
    void (*write)(const struct fsw_server *server, struct text *text);
} sections[] = {
    {"server", "Server", section_server},       {"clients", "Clients", section_clients},
    {"memory", "Memory", section_memory},       {"persistence", "Persistence", section_persistence},
    {"stats", "Stats", section_stats},          {"devices", "Devices", section_devices},
    {"keyspace", "Keyspace", section_keyspace},
};

static bool wants(const struct fsw_request *request, const char *section)
{
    static const char *const all[] = {"all", "default", "everything"};

    for (uint32_t i = 1; i < request->count; i++) {
        const char *word = request->argument[i]->bytes; /* longer ones than any here end nowhere */
        if (strcasecmp(word, section) == 0)
            return true;
        for (unsigned j = 0; j < sizeof all / sizeof all[0]; j++)
            if (strcasecmp(word, all[j]) == 0)
                return true;
    }
    return request->count == 1;
}

void fsw_info(const struct fsw_server *server, const struct fsw_request *request,
              struct fsw_reply *reply)
{
    struct text text = {0};

    for (unsigned i = 0; i < sizeof sections / sizeof sections[0]; i++) {
        if (!wants(request, sections[i].name))
            continue;
        add(&text, "%s# %s\r\n", text.length > 0 ? "\r\n" : "", sections[i].title);
        sections[i].write(server, &text);
    }
    fsw_reply_verbatim(reply, text.bytes, text.length);
}

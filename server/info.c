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
#include "server/version.h"

struct text {
    size_t length;
    char bytes[8192]; /* all sections take 3 KiB */
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

static uint64_t resident_bytes(void)
{
    unsigned long long resident = 0;
    FILE *file = fopen("/proc/self/statm", "re");

    if (file == NULL)
        return 0;
    if (fscanf(file, "%*u %llu", &resident) != 1)
        resident = 0;
    fclose(file);
    return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void section_memory(const struct fsw_server *server, struct text *text)
{
    uint64_t used = fsw_keyspace_bytes(server->keyspace);
    uint64_t limit = fsw_keyspace_limit(server->keyspace);
    char size[FSW_SIZE_TEXT];

    add(text, "used_memory:%" PRIu64 "\r\n", used);
    add(text, "used_memory_human:%s\r\n", fsw_format_size(used, size));
    add(text, "used_memory_rss:%" PRIu64 "\r\n", resident_bytes());
    add(text, "maxmemory:%" PRIu64 "\r\n", limit);
    add(text, "maxmemory_human:%s\r\n", fsw_format_size(limit, size));
    add(text, "maxmemory_policy:noeviction\r\n");
}

static void section_stats(const struct fsw_server *server, struct text *text)
{
    const struct fsw_server_counters *counters = &server->counters;

#define ADD_COUNTER(name) add(text, #name ":%" PRIu64 "\r\n", counters->name);
    FSW_SERVER_COUNTERS(ADD_COUNTER)
#undef ADD_COUNTER
    add(text, "evicted_keys:0\r\n");
#define ADD_LIMIT(upper, lower, value, effect)                                                     \
    add(text, "limit_" #lower "_hits:%" PRIu64 "\r\n", server->hits.of[FSW_LIMIT_##upper]);
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
    {"memory", "Memory", section_memory},       {"stats", "Stats", section_stats},
    {"keyspace", "Keyspace", section_keyspace},
};

static bool wants(const struct fsw_request *request, const char *section)
{
    static const char *const all[] = {"all", "default", "everything"};

    for (uint32_t i = 1; i < request->count; i++) {
        const char *word = request->argument[i]->bytes;
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
    fsw_reply_bulk(reply, text.bytes, text.length);
}

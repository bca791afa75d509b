/*
 * door_nbd.c: farswap-attach, which answers for itself: --status and --detach are asked of it.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "client/cli/doors.h"
#include "client/cli/program.h"
#include "common/clock.h"

#define START_S 60
#define GONE_S 10
#define LOOK_US 20000

struct state {
    int attached;   /* in use, and watched */
    int supervised; /* a farswap-attach runs */
    char block[HOST_BLOCK];
};

static int run_attach(const char *option, const char *device, char output[PROGRAM_OUTPUT],
                      struct fsw_error *err)
{
    char path[PATH_MAX], name[FSW_NAME_MAX + 1], word[16];
    char *argv[] = {path, word, name, NULL};

    int r = program_find("farswap-attach", "attach", path, err);
    if (r < 0)
        return r;
    snprintf(name, sizeof name, "%s", device);
    snprintf(word, sizeof word, "%s", option);
    r = program_run(argv, output);
    return r < 0 ? fsw_error(err, r, "%s: %s", path, strerror(-r)) : r;
}

/* 1: there is something of that name. */
static int ask(const char *device, struct state *ret_state, struct fsw_error *err)
{
    char output[PROGRAM_OUTPUT];
    int r = run_attach("--status", device, output, err);

    memset(ret_state, 0, sizeof *ret_state);
    if (r < 0)
        return r;
    const char *line = strstr(output, "device /dev/");
    if (line != NULL)
        sscanf(line, "device %63s", ret_state->block);
    ret_state->supervised = strstr(output, "\nsupervisor ") != NULL;
    ret_state->attached = r == 0;
    return line != NULL || ret_state->supervised;
}

static int load_module(void)
{
    char output[PROGRAM_OUTPUT];
    char *argv[] = {"modprobe", "nbd", NULL};

    return access("/sys/module/nbd", F_OK) == 0 ? 0 : program_run(argv, output);
}

static int start(const char *device, const struct config *config, pid_t *ret_pid,
                 struct fsw_error *err)
{
    char path[PATH_MAX], log[PATH_MAX], name[FSW_NAME_MAX + 1];
    char *argv[CONFIG_WORDS + 3] = {path, name};

    if (load_module() != 0)
        return fsw_error(err, -ENODEV, "modprobe nbd failed: install the kernel's extra modules");
    int r = program_find("farswap-attach", "attach", path, err);
    if (r < 0)
        return r;
    snprintf(name, sizeof name, "%s", device);
    host_run_path(device, "log", log);
    for (unsigned i = 0; i < config->count; i++)
        argv[2 + i] = config->words[i];
    return program_start(path, argv, log, -1, ret_pid, err);
}

static int wait_attached(const char *device, pid_t pid, struct state *state, struct fsw_error *err)
{
    uint64_t deadline = fsw_now_ns() + START_S * FSW_NS_PER_S;
    char log[PATH_MAX], tail[256];

    for (;;) {
        int ended = program_ended(pid);
        int r = ask(device, state, err);
        if (r < 0 || state->attached)
            return r < 0 ? r : 0;
        if (ended)
            pid = 0;
        if (pid == 0 && !state->supervised) {
            host_run_path(device, "log", log);
            program_log_tail(log, tail);
            return fsw_error(err, -EIO, "it did not start: %s", tail);
        }
        if (fsw_now_ns() > deadline)
            return fsw_error(err, -ETIMEDOUT,
                             "farswap-attach is not ready after %d s; it goes on trying: do this "
                             "again later, or `farswap down %s`",
                             START_S, device);
        usleep(LOOK_US);
    }
}

static int up(const char *device, const struct config *config, char block[HOST_BLOCK],
              struct fsw_error *err)
{
    struct state state;
    pid_t pid = 0;
    int r = ask(device, &state, err);

    if (r < 0)
        return r;
    if (state.supervised && config->count > 0)
        door_say(device, "is served already: parameters are as they were (`farswap set` changes "
                         "some)");
    r = state.supervised ? 0 : start(device, config, &pid, err);
    if (r == 0 && !state.attached)
        r = wait_attached(device, pid, &state, err);
    if (r < 0)
        return r;
    memcpy(block, state.block, HOST_BLOCK);
    door_say(device, "served by farswap-nbd as %s, watched by farswap-attach", block);
    return 0;
}

/* Servers end a moment after their supervisor. Whoever serves it longer is somebody else's. */
static void wait_gone(const char *device)
{
    uint64_t deadline = fsw_now_ns() + GONE_S * FSW_NS_PER_S;
    struct fsw_record record;

    while (fsw_registry_read(device, -1, &record, NULL) == 0 && record.served &&
           fsw_now_ns() < deadline)
        usleep(LOOK_US);
}

static int down(const char *device, struct fsw_error *err)
{
    char output[PROGRAM_OUTPUT], log[PATH_MAX];
    struct state state;
    int r = ask(device, &state, err);

    if (r <= 0)
        return r;
    r = run_attach("--detach", device, output, err);
    if (r != 0) {
        const char *last = strrchr(output, '\n');
        return r < 0 ? r : fsw_error(err, -EBUSY, "%s", last != NULL ? last + 1 : output);
    }
    wait_gone(device);
    host_run_path(device, "log", log);
    unlink(log);
    return 1;
}

const struct door door_nbd = {.name = "nbd", .up = up, .down = down};

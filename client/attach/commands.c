/*
 * commands.c: what one asks a supervisor, and what can be done without one.
 */
#include "client/attach/commands.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "client/attach/desk.h"
#include "client/attach/dial.h"
#include "client/attach/say.h"
#include "client/attach/sight.h"
#include "core/registry.h"

#define SOON_S 10
#define ORDER_S 150 /* an upgrade may take all of its own deadlines */

/* The kernel's device of that name; -1 if there is none. */
static int find_device(const char *name)
{
    struct fsw_record record;
    char backend[FSW_BACKEND_MAX];
    int index = -1;

    if (fsw_registry_read(name, -1, &record, NULL) == 0) {
        fsw_device_id_format(&record.device, backend);
        index = fsw_sight_device(backend, NULL);
    }
    if (index < 0) {
        fsw_dial_prefix(name, backend);
        index = fsw_sight_device(backend, NULL);
    }
    return index;
}

static int complain(const struct fsw_error *err)
{
    fsw_say("%s", err->text);
    return 1;
}

/* ---- status ---- */

static int status_of_the_unattended(const char *name, const struct fsw_error *err)
{
    int index = find_device(name);
    pid_t server = fsw_sight_holder(name, 0);
    char program[PATH_MAX] = "";

    if (index < 0)
        return complain(err);
    if (server > 0)
        fsw_sight_program(server, program);
    printf("name %s\ndevice /dev/nbd%d\nstate unattended\n", name, index);
    if (server > 0)
        printf("server %d %s\n", server, program);
    else
        printf("server -\n");
    printf("size %llu\n", (unsigned long long)fsw_sight_size(index));
    return 1;
}

int fsw_command_status(const struct fsw_attach_options *options)
{
    char answer[FSW_DESK_ANSWER];
    struct fsw_error err = {""};

    int r = fsw_desk_ask(options->name, "status", SOON_S, answer, &err);
    if (r == -ENOENT)
        return status_of_the_unattended(options->name, &err);
    if (r < 0)
        return complain(&err);
    fputs(answer + strcspn(answer, "\n") + 1, stdout);
    return strstr(answer, "\nstate attached\n") != NULL ? 0 : 1;
}

/* ---- orders ---- */

static int order(const char *name, const char *question)
{
    char answer[FSW_DESK_ANSWER];
    struct fsw_error err = {""};

    int r = fsw_desk_ask(name, question, ORDER_S, answer, &err);
    if (r == -ENOENT)
        return r;
    if (r < 0)
        return complain(&err);
    int ok = strncmp(answer, "ok", 2) == 0;
    const char *text = answer + strcspn(answer, " ");
    if (ok && *text != '\0')
        printf("%s\n", text + 1);
    else if (!ok)
        fsw_say("%s", *text != '\0' ? text + 1 : "it failed");
    return !ok;
}

/* The claim is held until the device is gone. */
static int detach_unattended(const struct fsw_attach_options *options)
{
    struct fsw_kernel kernel;
    struct fsw_error err = {""};
    char use[FSW_USE_TEXT];
    int index = find_device(options->name), claim = -1;

    if (index < 0) {
        fsw_error(&err, -ENOENT, "%s is not attached", options->name);
        return complain(&err);
    }
    if (!options->force)
        claim = fsw_sight_claim(index, use);
    if (!options->force && claim < 0) {
        fsw_error(&err, claim, "/dev/nbd%d stays: %s", index, use);
        return complain(&err);
    }
    int r = fsw_kernel_open(&kernel, &err);
    if (r == 0 && (r = fsw_kernel_disconnect(&kernel, index)) < 0)
        fsw_error(&err, r, "the kernel does not let go of /dev/nbd%d: %s", index, strerror(-r));
    if (claim >= 0)
        close(claim);
    if (r < 0)
        return complain(&err);
    fsw_sight_kill_holder(options->name, 0);
    printf("/dev/nbd%d is detached; the image of %s stays\n", index, options->name);
    return 0;
}

int fsw_command_detach(const struct fsw_attach_options *options)
{
    int r = order(options->name, options->force ? "detach force" : "detach");

    return r == -ENOENT ? detach_unattended(options) : r;
}

int fsw_command_upgrade(const struct fsw_attach_options *options)
{
    char question[FSW_DESK_QUESTION];

    snprintf(question, sizeof question, "upgrade %s", options->server);
    int r = order(options->name, question);
    if (r == -ENOENT) {
        fsw_say("no supervisor runs: start farswap-attach again, with the new program");
        return 1;
    }
    return r;
}

/*
 * process.c: start, in the order that leaves nothing half done.
 *
 *      store opened and probed ─ rights, memory locked ─ buffers ─ image (a spare waits here) ─
 *      mount (its own) or resend (one that was handed to it) ─ threads
 *
 * A server on its own ends by SIGTERM only if nothing uses the mount: with a loop device over `disk`
 * that is swapped on, an end is a host that loses its pages.
 */
#include "client/fuse/process.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "client/fuse/say.h"
#include "client/fuse/serve.h"
#include "common/rights.h"

static struct fsw_server server;

int fsw_process_mount(const char *mountpoint, const char *name, struct fsw_mount *mount,
                      struct fsw_error *err)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);

    return fsw_mount_open(mount, mountpoint, name, cpus > 1 ? (unsigned)cpus : 1, err);
}

void fsw_process_stop(struct fsw_mount *mount)
{
    int r = fsw_mount_close(mount);

    if (r == -EBUSY)
        fsw_say("%s is in use and stays: swapoff and losetup --detach first", mount->path);
    else if (r < 0 && r != -EINVAL) /* somebody else has just unmounted it */
        fsw_say("unmounting %s: %s", mount->path, strerror(-r));
}

static void *stop_on_signal(void *opaque)
{
    struct fsw_mount *mount = opaque;
    sigset_t signals;
    int signal;

    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    while (sigwait(&signals, &signal) == 0)
        fsw_process_stop(mount);
    return NULL;
}

/* In every thread that is started from here on: they wait for the one that takes them. */
static void block_signals(void)
{
    sigset_t signals;

    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
}

/* Its own mount, or what an earlier server left of one. */
static int take_mount(struct fsw_process *process, struct fsw_error *err)
{
    struct fsw_mount *mount = &process->mount;

    if (!process->inherited)
        return fsw_process_mount(process->mountpoint, process->door.params.name, mount, err);
    /* If the kernel does not know it (before 6.9), nothing can be sent again; if the mount is gone
     * meanwhile, reading will tell. */
    fsw_mount_resend(mount);
    return 0;
}

static void watch_signals(struct fsw_process *process)
{
    pthread_t thread;

    if (pthread_create(&thread, NULL, stop_on_signal, &process->mount) == 0)
        pthread_detach(thread);
}

/* What a spare can do ahead. Its memory is locked before it waits, and so is its code. */
static int prepare(struct fsw_process *process, struct fsw_error *err)
{
    int r = fsw_door_probe(&process->door, err);

    if (r < 0 || !process->inherited)
        return r;
    fsw_rights_take();
    r = fsw_server_prepare(&server, &process->mount);
    if (r < 0)
        return fsw_error(err, r, "no memory for buffers");
    fsw_control_say(process->control, "waiting");
    return 0;
}

static int start(struct fsw_process *process, struct fsw_error *err)
{
    int r = fsw_door_open(&process->door, process->inherited, err);

    if (r < 0)
        return r;
    r = fsw_door_serve(&process->door, fsw_warn, err);
    if (r == 0)
        r = take_mount(process, err);
    if (r == 0 && !process->inherited) {
        fsw_door_warn(&process->door, fsw_warn);
        watch_signals(process);
        r = fsw_server_prepare(&server, &process->mount);
    }
    return r < 0 ? r : fsw_server_start(&server, process->door.device, err);
}

static void say_ready(const struct fsw_process *process)
{
    const struct fsw_device *device = process->door.device;
    uint64_t lost = 0;
    int recovered = fsw_device_is_recovered(device, &lost);

    if (lost > 0)
        fsw_say("recovery found %llu damaged words: their pages read as errors",
                (unsigned long long)lost);
    fsw_control_say(process->control, "ready size=%llu recovered=%d",
                    (unsigned long long)fsw_device_size(device), recovered);
}

int fsw_process_run(struct fsw_process *process)
{
    struct fsw_error err = {""};

    if (!process->inherited)
        block_signals();
    int r = prepare(process, &err);

    if (r == 0)
        r = start(process, &err);
    if (r < 0) {
        fsw_control_say(process->control, "failed %s", err.text);
        if (!process->inherited)
            fsw_say("%s", err.text);
        fsw_door_abandon(&process->door);
        return 1;
    }
    say_ready(process);
    fsw_server_wait(&server);
    fsw_door_close(&process->door);
    return 0;
}

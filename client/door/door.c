/*
 * door.c: from parameters to a device that can be served.
 */
#include "client/door/door.h"

#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/stat.h>

#include "client/store/store_open.h"
#include "common/rights.h"

void fsw_door_init(struct fsw_door *door)
{
    *door = (struct fsw_door){.store = NULL};
    fsw_params_init(&door->params);
}

int fsw_door_set(struct fsw_door *door, const char *key, const char *value, struct fsw_error *err)
{
    return fsw_params_set(&door->params, key, value, err);
}

int fsw_door_check(struct fsw_door *door, struct fsw_error *err)
{
    if (door->params.name[0] == '\0')
        return fsw_params_check(&door->params, err);
    int r = fsw_device_complete_params(&door->params, err);
    door->exists = r == 1;
    return r == 0 ? fsw_params_check(&door->params, err) : r < 0 ? r : 0;
}

static void close_store(struct fsw_door *door)
{
    if (door->store != NULL)
        door->store->ops->close(door->store);
    door->store = NULL;
}

int fsw_door_probe(struct fsw_door *door, struct fsw_error *err)
{
    const struct fsw_params *params = &door->params;
    const struct fsw_store_options options = {
        .uri = params->overflow,
        .password = params->overflow_password[0] ? params->overflow_password : NULL,
        .plaintext = params->overflow_plaintext,
        .later = door->exists,
        .encrypted = params->encrypted,
    };

    if (params->overflow[0] == '\0')
        return 0;
    int r = fsw_store_open(&options, &door->store, err);
    if (r < 0 || door->exists)
        return r;
    r = door->store->ops->probe(door->store, &door->warning);
    if (r < 0) {
        close_store(door);
        return fsw_error(err, r, "%s", door->warning.text);
    }
    return 0;
}

int fsw_door_open(struct fsw_door *door, int wait, struct fsw_error *err)
{
    int r = fsw_device_open(&door->params, FSW_OPEN_NEW_OR_EXISTING, wait, door->store,
                            &door->device, err);

    if (r < 0)
        close_store(door);
    else if (door->exists)
        door->unproved = door->store;
    door->store = NULL;
    fsw_params_wipe(&door->params);
    return r;
}

static void warn_of_password(const struct fsw_door *door, void (*warn)(const char *line))
{
    const char *path = door->params.overflow_password_file;
    char line[sizeof door->params.overflow_password_file + 128];
    struct stat file;

    if (path[0] == '\0' || stat(path, &file) < 0 || (file.st_mode & S_IROTH) == 0)
        return;
    snprintf(line, sizeof line,
             "everybody on this host can read the store's password in %s: chmod 600 it", path);
    warn(line);
}

void fsw_door_warn(const struct fsw_door *door, void (*warn)(const char *line))
{
    uint64_t lost;
    char line[160];

    fsw_rights_check(warn);
    warn_of_password(door, warn);
    if (door->warning.text[0] != '\0')
        warn(door->warning.text);
    if (fsw_device_is_recovered(door->device, &lost) && lost > 0) {
        snprintf(line, sizeof line,
                 "%llu words of the image were damaged: the pages they named are lost, and I/O "
                 "errors until they are written",
                 (unsigned long long)lost);
        warn(line);
    }
    if (!fsw_device_memory_locked(door->device))
        warn("can't lock the image (CAP_IPC_LOCK): the kernel may swap the pool out");
}

/* ---- the store of a device that was there before ---- */

static void probe(struct fsw_door *door)
{
    struct fsw_error err = {""};
    char line[sizeof err.text + 96];

    if (door->unproved->ops->probe(door->unproved, &err) < 0) {
        snprintf(line, sizeof line, "%s (pages that are there wait; local ones are served)",
                 err.text);
        door->warn(line);
    } else if (err.text[0] != '\0') {
        door->warn(err.text);
    }
}

static void *work_beside(void *opaque)
{
    struct fsw_door *door = opaque;

    if (door->unproved != NULL)
        probe(door);
    fsw_leftover_run(&door->leftover);
    return NULL;
}

/* Without this thread nobody is warned, and `farswap status` tells all the same. */
static void start_working(struct fsw_door *door)
{
    sigset_t all, before;

    fsw_leftover_init(&door->leftover, door->params.name, door->params.overflow, door->warn);
    if (door->unproved == NULL && !fsw_leftover_is_there(&door->leftover))
        return;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    door->working = pthread_create(&door->beside, NULL, work_beside, door) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* ---- from serve to the end ---- */

int fsw_door_serve(struct fsw_door *door, void (*warn)(const char *line), struct fsw_error *err)
{
    fsw_rights_take();
    fsw_device_after_mlockall(door->device);
    int r = fsw_device_start(door->device, err);
    if (r < 0) {
        fsw_door_abandon(door);
        return r;
    }
    door->warn = warn;
    start_working(door);
    return 0;
}

static void stop_working(struct fsw_door *door)
{
    if (door->working) {
        fsw_leftover_stop(&door->leftover);
        pthread_join(door->beside, NULL);
    }
    door->working = 0;
    door->unproved = NULL;
}

void fsw_door_close(struct fsw_door *door)
{
    stop_working(door);
    if (door->device != NULL)
        fsw_device_close(door->device);
    door->device = NULL;
}

void fsw_door_leave(struct fsw_door *door)
{
    if (door->working)
        pthread_detach(door->beside);
    door->working = 0;
}

void fsw_door_abandon(struct fsw_door *door)
{
    stop_working(door);
    if (door->device != NULL)
        fsw_device_discard_image(door->device);
    door->device = NULL;
}

/*
 * life.c: a device from opening to close: name, image, engine, threads, and back.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "core/engine.h"
#include "core/registry.h"

/* An image that is still there must not be forgotten; a file whose memory is gone may be. */
static int refuse_existing(const struct fsw_record *record, struct fsw_error *err)
{
    struct fsw_image image;

    int r = fsw_registry_attach(record, 0, &image, NULL);
    if (r == -ENOENT)
        return 0;
    if (r == 0)
        fsw_image_detach(&image);
    return fsw_error(
        err, -EEXIST,
        "device %s has an image already, with pages that somebody may need: `farswap destroy %s` "
        "destroys it, or choose another name=",
        record->name, record->name);
}

static int register_image(struct fsw_device *device, const struct fsw_params *params,
                          struct fsw_error *err)
{
    struct fsw_record record = {.shmid = device->image.shmid,
                                .device = device->image.super->device,
                                .overflow_plaintext = params->overflow_plaintext};

    memcpy(record.name, params->name, sizeof record.name);
    memcpy(record.overflow, params->overflow, sizeof record.overflow);
    memcpy(record.overflow_password_file, params->overflow_password_file,
           sizeof record.overflow_password_file);
    return fsw_registry_write(device->image.lock_fd, &record, err);
}

static int init_engine(struct fsw_device *device, const struct fsw_params *params)
{
    struct fsw_image *image = &device->image;

    memcpy(device->name, params->name, sizeof device->name);
    device->size = params->size;
    device->pages = params->size / FSW_PAGE_SIZE;
    device->seed = fsw_object_seed(&image->super->device);
    int r = fsw_pool_init(&device->pool, image, params->memory, &device->clock);
    if (r == 0)
        r = fsw_contexts_init(&device->contexts, params->codec, params->codec_level);
    if (r == 0)
        r = fsw_overflow_init(device);
    if (r < 0)
        return r;
    fsw_table_init(&device->table, image, &device->pool.frames);
    fsw_rows_init(&device->rows, image, &device->pool.frames);
    fsw_reclaim_set_limit(device);
    return 0;
}

/* The image exists and belongs to us: from here on a failure destroys it again. */
static int finish_create(struct fsw_device *device, const struct fsw_params *params,
                         struct fsw_error *err)
{
    int r = register_image(device, params, err);

    if (r == 0) {
        r = init_engine(device, params);
        if (r < 0)
            fsw_error(err, r, "no memory for the engine: %s", strerror(-r));
    }
    return r;
}

static int take_name(const char *name, int *ret_fd, struct fsw_error *err)
{
    struct fsw_record record;

    int r = fsw_registry_check_host(err);
    if (r == 0)
        r = fsw_registry_lock(name, ret_fd, err);
    if (r < 0)
        return r;
    if (fsw_registry_read(name, *ret_fd, &record, NULL) == 0)
        r = refuse_existing(&record, err);
    if (r < 0)
        close(*ret_fd);
    return r;
}

int fsw_device_create(const struct fsw_params *params, struct fsw_store *store,
                      struct fsw_device **ret_device, struct fsw_error *err)
{
    int fd, unlocked = 0;
    int r = take_name(params->name, &fd, err);
    if (r < 0)
        return r;

    struct fsw_device *device = aligned_alloc(64, (sizeof *device + 63) / 64 * 64);
    if (device == NULL) {
        close(fd);
        return fsw_error(err, -ENOMEM, "no memory");
    }
    memset(device, 0, sizeof *device);
    device->store = store;
    r = fsw_image_create(&device->image, params, &unlocked, err);
    if (r < 0) {
        fsw_registry_remove(params->name);
        close(fd);
        free(device);
        return r;
    }
    device->image.lock_fd = fd;
    r = finish_create(device, params, err);
    if (r < 0) {
        device->store = NULL; /* stays the caller's */
        fsw_device_discard_image(device);
        return r;
    }
    device->unlocked = unlocked;
    *ret_device = device;
    return 0;
}

int fsw_device_start(struct fsw_device *device, struct fsw_error *err)
{
    int r = 0;

    atomic_store(&device->image.super->holder, (int32_t)getpid());
    if (device->store != NULL)
        r = device->store->ops->start(device->store, &device->image.super->device, err);
    if (r < 0)
        return r;
    r = fsw_frames_start(&device->pool.frames);
    if (r == 0)
        r = fsw_overflow_start(device);
    if (r == 0)
        r = fsw_keeper_start(device);
    long cpus = sysconf(_SC_NPROCESSORS_ONLN); /* the thread with the request has one of them */
    if (r == 0)
        r = fsw_crew_start(&device->crew, cpus > 1 ? (unsigned)cpus - 1 : 0);
    return r < 0 ? fsw_error(err, r, "starting threads: %s", strerror(-r)) : 0;
}

static void stop(struct fsw_device *device)
{
    fsw_crew_stop(&device->crew);
    fsw_keeper_stop(device);
    fsw_overflow_stop(device);
    fsw_frames_stop(&device->pool.frames);
    fsw_overflow_deinit(device);
    fsw_contexts_deinit(&device->contexts);
    fsw_pool_deinit(&device->pool);
}

void fsw_device_close(struct fsw_device *device)
{
    int fd = device->image.lock_fd;

    stop(device);
    fsw_image_detach(&device->image);
    close(fd);
    free(device);
}

void fsw_device_discard_image(struct fsw_device *device)
{
    int fd = device->image.lock_fd;
    char name[sizeof device->name];

    memcpy(name, device->image.super->name, sizeof name);
    stop(device);
    fsw_image_wipe(&device->image, NULL);
    fsw_registry_remove(name);
    close(fd);
    free(device);
}

int fsw_device_memory_locked(const struct fsw_device *device)
{
    return !device->unlocked;
}

int fsw_device_is_shared(const struct fsw_device *device)
{
    struct shmid_ds segment;
    return shmctl(device->image.shmid, IPC_STAT, &segment) == 0 && segment.shm_nattch > 1;
}

int fsw_device_after_mlockall(struct fsw_device *device)
{
    return munlock(device->image.super, device->image.bytes) < 0 ? -errno : 0;
}

uint64_t fsw_device_size(const struct fsw_device *device)
{
    return device->size;
}

const struct fsw_device_id *fsw_device_id(const struct fsw_device *device)
{
    return &device->image.super->device;
}

void fsw_device_stats(struct fsw_device *device, uint64_t values[FSW_STAT_COUNT])
{
    fsw_image_stats(&device->image, values);
}

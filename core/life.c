/*
 * life.c: a device from opening to close: name, image, engine, threads, and back.
 *
 *      lock the name  >  attach its image, or make one  >  engine  >  recovery  >  threads
 *
 * The lock on the name is what makes a server the only one; it is taken first, and goes with the
 * process. An image that was there before is never changed until it was found to agree with what
 * was asked for.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/nudge.h"
#include "common/parse.h"
#include "common/shm.h"
#include "core/budget.h"
#include "core/crash.h"
#include "core/engine.h"
#include "core/predecessors.h"
#include "core/registry.h"

/* ---- the image of that name ---- */

/* Attaches it. 1: there is one; 0: there is none, or its memory is gone. */
static int find_image(const char *name, int fd, int writable, struct fsw_image *ret_image,
                      struct fsw_error *err)
{
    struct fsw_record record;

    if (fsw_registry_read(name, fd, &record, NULL) < 0)
        return 0;
    int r = fsw_registry_attach(&record, writable, ret_image, err);
    return r == -ENOENT ? 0 : r < 0 ? r : 1;
}

/* What was asked for against what there is. */
static int may_go_on(const struct fsw_params *params, enum fsw_open how, int exists,
                     struct fsw_error *err)
{
    if (exists && how == FSW_OPEN_NEW)
        return fsw_error(
            err, -EEXIST,
            "device %s has an image already, with pages that somebody may need: `farswap destroy "
            "%s` destroys it, or choose another name=",
            params->name, params->name);
    if (!exists && how == FSW_OPEN_EXISTING)
        return fsw_error(err, -ENOENT, "there is no device named %s (`farswap list` shows all)",
                         params->name);
    return 0;
}

static int check_size(const struct fsw_params *params, const struct fsw_superblock *super,
                      struct fsw_error *err)
{
    char asked[FSW_SIZE_TEXT], has[FSW_SIZE_TEXT];

    if (params->size == 0 || params->size == super->size)
        return 0;
    return fsw_error(err, -EINVAL,
                     "size=%s (%llu bytes), but device %s has an image of %s (%llu bytes): leave "
                     "size= away to go on with it, or choose another name=",
                     fsw_format_size(params->size, asked), (unsigned long long)params->size,
                     params->name, fsw_format_size(super->size, has),
                     (unsigned long long)super->size);
}

/* Pages that are away are found where they were left, and nowhere else. */
static int check_overflow(const struct fsw_params *params, const struct fsw_superblock *super,
                          struct fsw_error *err)
{
    if (strcmp(params->overflow, super->overflow) == 0)
        return 0;
    if (super->overflow[0] == '\0')
        return fsw_error(err, -EINVAL,
                         "overflow=%s, but the image of device %s was made without a store: leave "
                         "overflow= away to go on with it",
                         params->overflow, params->name);
    return fsw_error(err, -EINVAL,
                     "the image of device %s overflows to %s, where its pages are: say overflow=%s "
                     "to go on with it",
                     params->name, super->overflow, super->overflow);
}

/* What is resident already is not asked of the host again. */
static int check_memory(const struct fsw_params *params, const struct fsw_superblock *super,
                        struct fsw_error *err)
{
    uint64_t has = atomic_load(&super->memory_limit);
    struct fsw_params rest = *params;

    if (!fsw_params_given(params, "memory"))
        return 0;
    rest.size = super->size;
    int r = fsw_params_check_least(&rest, err);
    if (r == 0 && params->memory > has) {
        rest.memory -= has;
        r = fsw_params_check_available(&rest, err);
    }
    return r;
}

static int check_contradictions(const struct fsw_params *params, const struct fsw_superblock *super,
                                struct fsw_error *err)
{
    int r = check_size(params, super, err);

    if (r == 0)
        r = check_overflow(params, super, err);
    if (r == 0)
        r = check_memory(params, super, err);
    return r;
}

/* What may change, as it is from now on, in the image and for init_engine. */
static void settle_params(struct fsw_params *params, struct fsw_superblock *super)
{
    uint32_t codec = atomic_load(&super->codec);

    if (fsw_params_given(params, "memory"))
        atomic_store(&super->memory_limit, params->memory);
    else
        params->memory = atomic_load(&super->memory_limit);
    fsw_crash_point("open: memory= is settled, not codec=");
    if (fsw_params_given(params, "codec") || fsw_codec_by_id(codec & 0xff) == NULL)
        atomic_store(&super->codec, fsw_codec_word(params->codec, params->codec_level));
    if (fsw_params_given(params, "prefetch"))
        atomic_store(&super->prefetch, params->prefetch);
    if (fsw_params_given(params, "fetch_timeout"))
        atomic_store(&super->fetch_timeout, params->fetch_timeout);
    if (fsw_params_given(params, "watermarks"))
        atomic_store(&super->watermarks, params->watermarks);
    if (fsw_params_given(params, "write_wait"))
        atomic_store(&super->write_wait, params->write_wait);
    if (fsw_params_given(params, "read_age"))
        atomic_store(&super->read_age, params->read_age);
    if (fsw_params_given(params, "huge"))
        atomic_store(&super->huge, params->huge);
    if (fsw_params_given(params, "overflow_limit"))
        fsw_budget_set_day(super, params->overflow_limit);
    params->codec = (uint8_t)atomic_load(&super->codec);
    params->codec_level = fsw_codec_word_level(atomic_load(&super->codec));
    params->size = super->size;
}

/* ---- opening ---- */

static void fill_record(const struct fsw_device *device, const struct fsw_params *params,
                        struct fsw_record *ret_record)
{
    *ret_record = (struct fsw_record){.shmid = device->image.shmid,
                                      .device = device->image.super->device,
                                      .overflow_plaintext = params->overflow_plaintext};
    memcpy(ret_record->name, params->name, sizeof ret_record->name);
    memcpy(ret_record->overflow, params->overflow, sizeof ret_record->overflow);
    memcpy(ret_record->overflow_password_file, params->overflow_password_file,
           sizeof ret_record->overflow_password_file);
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
    if (r == 0 && device->store != NULL)
        r = fsw_windows_init(device, params->memory);
    if (r < 0)
        return r;
    fsw_table_init(&device->table, image, &device->pool.frames);
    fsw_rows_init(&device->rows, image, &device->pool.frames);
    fsw_reclaim_set_limit(device);
    return device->recovered ? fsw_recover(device) : 0;
}

/* Bytes of a store that encrypts are nothing to one that does not, and the other way round. */
static int settle_seal(struct fsw_device *device, struct fsw_error *err)
{
    struct fsw_superblock *super = device->image.super;
    unsigned seal = device->store == NULL ? 0 : device->store->seal;

    if (device->recovered && device->store != NULL && atomic_load(&super->seal) != seal)
        return fsw_error(err, -EINVAL,
                         "the pages of device %s are %sencrypted at its store: say "
                         "overflow-plaintext=%s to go on with it",
                         super->name, seal ? "not " : "", seal ? "yes" : "no");
    if (!device->recovered)
        atomic_store(&super->seal, seal);
    device->seal = seal / FSW_UNIT;
    return 0;
}

/* The image is there and belongs to us. */
static int finish_open(struct fsw_device *device, struct fsw_params *params, struct fsw_error *err)
{
    struct fsw_record record;
    int r = settle_seal(device, err);

    if (r < 0)
        return r;
    if (device->recovered)
        settle_params(params, device->image.super);
    fill_record(device, params, &record);
    r = fsw_registry_write(device->image.lock_fd, &record, err);
    if (r == 0 && !device->recovered)
        r = fsw_image_finish(&device->image, err);
    if (r < 0 && !device->recovered) /* else it has its files: a full disk must not keep it away */
        return r;
    fsw_device_after_mlockall(device);
    r = init_engine(device, params);
    return r < 0 ? fsw_error(err, r, "no memory for the engine: %s", strerror(-r)) : 0;
}

/* Attaches the image, or makes it. */
static int open_image(struct fsw_device *device, const struct fsw_params *params, enum fsw_open how,
                      struct fsw_error *err)
{
    struct fsw_image *image = &device->image;
    int fd = image->lock_fd;
    int r = find_image(params->name, fd, 1, image, err);

    if (r < 0 && how == FSW_OPEN_NEW)
        r = 1; /* whatever it is: it is somebody's */
    int exists = r == 1;
    if (r >= 0)
        r = may_go_on(params, how, exists, err);
    if (r == 0 && exists)
        r = check_contradictions(params, image->super, err);
    if (r == 0 && exists)
        device->unlocked = fsw_shm_lock(image->shmid) < 0;
    if (r == 0 && !exists && params->size == 0) /* the rest is for who asks a person */
        r = fsw_params_check(params, err);
    if (r == 0 && !exists)
        r = fsw_image_create(image, params, &device->unlocked, err);
    device->recovered = exists;
    image->lock_fd = fd; /* attaching and making both begin with none */
    return r;
}

static void let_image_go(struct fsw_device *device, const char *name)
{
    int fd = device->image.lock_fd;

    fsw_image_detach(&device->image);
    fsw_registry_unlock(name, fd);
    free(device);
}

int fsw_device_open(const struct fsw_params *given, enum fsw_open how, int wait,
                    struct fsw_store *store, struct fsw_device **ret_device, struct fsw_error *err)
{
    struct fsw_params params = *given;
    int fd, r = fsw_shm_check_host(err);

    fsw_params_wipe(&params); /* the store has it */
    if (r < 0)
        return r;
    struct fsw_device *device = aligned_alloc(64, (sizeof *device + 63) / 64 * 64);
    if (device == NULL)
        return fsw_error(err, -ENOMEM, "no memory");
    memset(device, 0, sizeof *device);
    r = (wait ? fsw_registry_wait : fsw_registry_lock)(params.name, &fd, err);
    if (r < 0) {
        free(device);
        return r;
    }
    device->image.lock_fd = fd;
    if (wait) /* somebody may be waiting for the pages that are in there */
        fsw_nudge_begin();
    r = open_image(device, &params, how, err);
    if (r < 0) {
        fsw_nudge_end();
        let_image_go(device, params.name);
        return r;
    }
    device->store = store;
    r = finish_open(device, &params, err);
    fsw_nudge_end();
    if (r < 0) {
        device->store = NULL; /* stays the caller's */
        fsw_device_discard_image(device);
        return r;
    }
    *ret_device = device;
    return 0;
}

int fsw_device_could_open(const struct fsw_params *params, struct fsw_error *err)
{
    struct fsw_image image;
    int r = find_image(params->name, -1, 0, &image, err);

    if (r != 1)
        return r;
    r = check_contradictions(params, image.super, err);
    fsw_image_detach(&image);
    return r;
}

static int complete_overflow(struct fsw_params *params, const struct fsw_record *record,
                             struct fsw_error *err)
{
    char file[sizeof record->overflow_password_file + 1];

    memcpy(params->overflow, record->overflow, sizeof params->overflow);
    if (!fsw_params_given(params, "overflow-plaintext"))
        params->overflow_plaintext = record->overflow_plaintext;
    if (fsw_params_given(params, "overflow-password") || record->overflow_password_file[0] == '\0')
        return 0;
    snprintf(file, sizeof file, "+%s", record->overflow_password_file);
    return fsw_params_set(params, "overflow-password", file, err);
}

int fsw_device_complete_params(struct fsw_params *params, struct fsw_error *err)
{
    struct fsw_record record;
    struct fsw_image image;

    if (fsw_registry_read(params->name, -1, &record, NULL) < 0)
        return 0;
    int r = fsw_registry_attach(&record, 0, &image, err);
    if (r <
        0) /* what can't be used is told; what can't be found, or not by us, is not our business */
        return r == -ENOTSUP || r == -EUCLEAN ? r : 0;
    if (!fsw_params_given(params, "size"))
        params->size = image.super->size;
    if (!fsw_params_given(params, "memory"))
        params->memory = atomic_load(&image.super->memory_limit);
    params->encrypted = atomic_load(&image.super->seal) != 0;
    fsw_image_detach(&image);
    if (!fsw_params_given(params, "overflow"))
        r = complete_overflow(params, &record, err);
    return r < 0 ? r : 1;
}

/* ---- from start to close ---- */

static int start_store(struct fsw_device *device, struct fsw_error *err)
{
    const struct fsw_superblock *super = device->image.super;
    struct fsw_store_identity identity = {
        .device = super->device,
        .sentinel = {fsw_sentinel(super, 0), fsw_sentinel(super, 1)},
        .planted = atomic_load(&super->planted),
        .recovered = device->recovered};

    memcpy(identity.key, super->store_key, sizeof identity.key);
    identity.gone_count =
        fsw_predecessors_at(device->name, super->overflow, identity.gone, FSW_GONE_MOST);
    int r = device->store->ops->start(device->store, &identity, err);
    explicit_bzero(&identity, sizeof identity);
    return r;
}

/* The thread with the request has one of the CPUs. */
static int start_crew(struct fsw_device *device)
{
    long possible = sysconf(_SC_NPROCESSORS_CONF);
    int r = fsw_crew_start(&device->crew, possible > 1 ? (unsigned)possible - 1 : 0);

    fsw_crew_follow_cpus(&device->crew, (unsigned)sysconf(_SC_NPROCESSORS_ONLN));
    return r;
}

int fsw_device_start(struct fsw_device *device, struct fsw_error *err)
{
    struct fsw_superblock *super = device->image.super;
    int r = 0;

    atomic_store(&super->holder, (int32_t)getpid());
    if (device->store != NULL)
        r = start_store(device, err);
    if (r < 0)
        return r;
    r = fsw_frames_start(&device->pool.frames);
    if (r == 0)
        r = fsw_overflow_start(device);
    if (r == 0)
        r = fsw_sweep_start(device);
    if (r == 0)
        r = start_crew(device);
    if (r == 0)
        r = fsw_keeper_start(device);
    return r < 0 ? fsw_error(err, r, "starting threads: %s", strerror(-r)) : 0;
}

static void stop(struct fsw_device *device)
{
    fsw_crew_stop(&device->crew);
    fsw_keeper_stop(device);
    fsw_sweep_stop(device);
    fsw_overflow_stop(device);
    fsw_frames_stop(&device->pool.frames);
    fsw_overflow_deinit(device);
    fsw_windows_deinit(device);
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

    if (device->recovered) {
        fsw_device_close(device);
        return;
    }
    char name[sizeof device->name];

    memcpy(name, device->image.super->name, sizeof name);
    stop(device);
    fsw_image_wipe(&device->image, NULL);
    fsw_registry_remove(name);
    close(fd);
    free(device);
}

int fsw_device_is_recovered(const struct fsw_device *device, uint64_t *ret_lost)
{
    if (ret_lost != NULL)
        *ret_lost = device->lost;
    return device->recovered;
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

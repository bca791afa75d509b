/*
 * farswap.c: the nbdkit plugin, a front door for any NBD client. Callbacks to the engine, nothing
 * else.
 *
 *   load        parameters get their defaults
 *   config      one key=value
 *   get_ready   before nbdkit forks, where messages are still seen: checks, store probed, image
 *               made
 *   after_fork  memory locked, threads started
 *
 * nbdkit before 1.33.11 aborts when a client drops with requests in flight ("sock >= 0" in
 * raw_send_socket), unless it serves one request a connection. It does so here; parallelism comes
 * from several connections, which multi-conn allows: every answer says that the page is in the
 * image.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include "client/store/store_open.h"
#include "common/rights.h"
#include "farswap/device.h"

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

static struct fsw_params params;
static struct fsw_device *device;
static int started; /* the server runs, or ran: pages may be in the image */

static void load(void)
{
    fsw_params_init(&params);
}

static void unload(void)
{
    if (device != NULL && started) {
        fsw_device_close(device);
        device = NULL;
    }
    fsw_params_wipe(&params);
}

/* nbdkit gave up after get_ready (its socket was taken, say), where it calls exit() and no
 * callback. Not so when it forked: then the child has the image as well. */
static void __attribute__((destructor)) leave_nothing_behind(void)
{
    if (device != NULL && !started && !fsw_device_is_shared(device))
        fsw_device_discard_image(device);
}

static int config(const char *key, const char *value)
{
    struct fsw_error err = {""};

    if (fsw_params_set(&params, key, value, &err) < 0) {
        nbdkit_error("%s", err.text);
        return -1;
    }
    return 0;
}

static int config_complete(void)
{
    struct fsw_error err = {""};

    if (fsw_params_check(&params, &err) < 0) {
        nbdkit_error("%s", err.text);
        return -1;
    }
    return 0;
}

/* nbdkit's debug output needs -v; a warning must be seen without. */
static void warn(const char *line)
{
    fprintf(stderr, "nbdkit: farswap: warning: %s\n", line);
}

/* Which nbdkit runs us, not which one we were built with: nbdkit has no call that says so, but
 * every version that has nbdkit_parse_delay is later than the fix. */
static int thread_model(void)
{
    return dlsym(RTLD_DEFAULT, "nbdkit_parse_delay") != NULL
               ? NBDKIT_THREAD_MODEL_PARALLEL
               : NBDKIT_THREAD_MODEL_SERIALIZE_REQUESTS;
}

static int open_store(struct fsw_store **ret_store, struct fsw_error *err)
{
    const struct fsw_store_options options = {
        .uri = params.overflow,
        .password = params.overflow_password[0] ? params.overflow_password : NULL,
        .plaintext = params.overflow_plaintext,
    };

    *ret_store = NULL;
    if (params.overflow[0] == '\0')
        return 0;
    int r = fsw_store_open(&options, ret_store, err);
    if (r < 0)
        return r;
    r = (*ret_store)->ops->probe(*ret_store, err);
    if (r < 0) {
        (*ret_store)->ops->close(*ret_store);
        *ret_store = NULL;
    }
    return r;
}

static int get_ready(void)
{
    struct fsw_error err = {""};
    struct fsw_store *store;
    int r = open_store(&store, &err);

    if (r == 0) {
        r = fsw_device_create(&params, store, &device, &err);
        if (r < 0 && store != NULL)
            store->ops->close(store);
    }
    fsw_params_wipe(&params);
    if (r < 0) {
        nbdkit_error("%s", err.text);
        return -1;
    }
    fsw_rights_check(warn);
    if (!fsw_device_memory_locked(device))
        warn("can't lock the image (CAP_IPC_LOCK): the kernel may swap the pool out");
    return 0;
}

static int after_fork(void)
{
    struct fsw_error err = {""};

    fsw_rights_take();
    fsw_device_after_mlockall(device);
    if (fsw_device_start(device, &err) < 0) {
        nbdkit_error("%s", err.text);
        fsw_device_discard_image(device);
        device = NULL;
        return -1;
    }
    started = 1;
    return 0;
}

static void *open_connection(int readonly)
{
    return NBDKIT_HANDLE_NOT_NEEDED;
}

static int64_t get_size(void *handle)
{
    return (int64_t)fsw_device_size(device);
}

static int block_size(void *handle, uint32_t *minimum, uint32_t *preferred, uint32_t *maximum)
{
    *minimum = 1;
    *preferred = FSW_PAGE_SIZE;
    *maximum = 64u << 20; /* nbdkit's own limit */
    return 0;
}

static int yes(void *handle)
{
    return 1;
}

static int can_fua(void *handle)
{
    return NBDKIT_FUA_NATIVE;
}

static int can_cache(void *handle)
{
    return NBDKIT_CACHE_NATIVE;
}

/* 0, or -1 with nbdkit's errno. */
static int answer(int r)
{
    if (r >= 0)
        return 0;
    nbdkit_set_error(-r);
    return -1;
}

static int do_read(void *handle, void *bytes, uint32_t count, uint64_t offset, uint32_t flags)
{
    return answer(fsw_device_read(device, bytes, offset, count));
}

static int do_write(void *handle, const void *bytes, uint32_t count, uint64_t offset,
                    uint32_t flags)
{
    return answer(fsw_device_write(device, bytes, offset, count));
}

static int do_trim(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
    return answer(fsw_device_discard(device, offset, count));
}

static int do_zero(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
    return answer(fsw_device_zero(device, offset, count));
}

static int do_flush(void *handle, uint32_t flags)
{
    return answer(fsw_device_flush(device));
}

/* Nothing is farther than one fetch, and a fetch does not move the page. */
static int do_cache(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
    return 0;
}

static struct nbdkit_plugin plugin = {
    .name = "farswap",
    .longname = "farswap: compressed swap that overflows to other machines",
    .version = FSW_VERSION,
    .description =
        "A swap-sized block device whose pages are kept compressed in locked shared memory and\n"
        "overflow, least recently used first, to a store.",
    .magic_config_key = "name",
    .load = load,
    .unload = unload,
    .config = config,
    .config_complete = config_complete,
    .config_help =
        "name=NAME              (required) name of the device and its image\n"
        "size=SIZE              (required) 4M to 16T, a multiple of 4096\n"
        "memory=SIZE|N%         most memory that the image may take (default 20%)\n"
        "codec=CODEC            lz4 (default), lz4:ACCELERATION, zstd, zstd:LEVEL or raw\n"
        "overflow=URI           resp://HOST[:PORT] or resp+unix:///PATH\n"
        "overflow-password=+FILE  file with the store's password\n"
        "overflow-plaintext=yes   allow a store that is not on this host, unencrypted",
    .thread_model = thread_model,
    .get_ready = get_ready,
    .after_fork = after_fork,
    .open = open_connection,
    .get_size = get_size,
    .block_size = block_size,
    .can_multi_conn = yes,
    .can_flush = yes,
    .can_trim = yes,
    .can_zero = yes,
    .can_fast_zero = yes,
    .can_fua = can_fua,
    .can_cache = can_cache,
    .pread = do_read,
    .pwrite = do_write,
    .trim = do_trim,
    .zero = do_zero,
    .flush = do_flush,
    .cache = do_cache,
    .errno_is_preserved = 0,
};

/* What the macro defines; nbdkit's header has no prototype of it. */
struct nbdkit_plugin *plugin_init(void);
NBDKIT_REGISTER_PLUGIN(plugin)

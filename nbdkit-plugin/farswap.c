/*
 * farswap.c: the nbdkit plugin, a front door for any NBD client. Callbacks to the engine, nothing
 * else.
 *
 *   load        parameters get their defaults
 *   config      one key=value
 *   get_ready   before nbdkit forks, where messages are still seen: store probed and image made, or
 *               gone on with one that is there
 *   after_fork  memory locked, threads started
 *
 * nbdkit before 1.33.11 aborts when a client drops with requests in flight ("sock >= 0" in
 * raw_send_socket), unless it serves one request a connection. It does so here; parallelism comes
 * from several connections, which multi-conn allows: every answer says that the page is in the
 * image.
 */
#include <dlfcn.h>
#include <stdio.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include "client/door/door.h"
#include "common/touch.h"

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL
#define LARGEST_SWAPPED (1280u << 10) /* a block device's default max_sectors_kb */

static struct fsw_door door;
static int started; /* the server runs, or ran: pages may be in the image */

static void load(void)
{
    fsw_door_init(&door);
}

static void unload(void)
{
    if (started)
        fsw_door_close(&door);
    fsw_params_wipe(&door.params);
}

/* nbdkit gave up after get_ready (its socket was taken, say), where it calls exit() and no
 * callback. Not so when it forked: then the child has the image as well. */
static void __attribute__((destructor)) leave_nothing_behind(void)
{
    if (door.device != NULL && !started && !fsw_device_is_shared(door.device))
        fsw_door_abandon(&door);
}

/* 0, or -1 after the line in err was said. */
static int said(int r, const struct fsw_error *err)
{
    if (r >= 0)
        return 0;
    nbdkit_error("%s", err->text);
    return -1;
}

static int config(const char *key, const char *value)
{
    struct fsw_error err = {""};

    return said(fsw_door_set(&door, key, value, &err), &err);
}

static int config_complete(void)
{
    struct fsw_error err = {""};

    return said(fsw_door_check(&door, &err), &err);
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

static int get_ready(void)
{
    struct fsw_error err = {""};
    int r = fsw_door_probe(&door, &err);

    if (r == 0)
        r = fsw_door_open(&door, 0, &err);
    if (r == 0)
        fsw_door_warn(&door, warn);
    return said(r, &err);
}

static int after_fork(void)
{
    struct fsw_error err = {""};
    int r = fsw_door_serve(&door, warn, &err);

    started = r == 0;
    fsw_touch_next_thread(LARGEST_SWAPPED); /* the first connection's */
    return said(r, &err);
}

/* On the connection's own thread, which nbdkit gives a buffer as large as the largest request so
 * far. */
static void *open_connection(int readonly)
{
    fsw_touch_stack();
    fsw_touch_heap(LARGEST_SWAPPED);
    return NBDKIT_HANDLE_NOT_NEEDED;
}

static int64_t get_size(void *handle)
{
    return (int64_t)fsw_device_size(door.device);
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
    return answer(fsw_device_read(door.device, bytes, offset, count));
}

static int do_write(void *handle, const void *bytes, uint32_t count, uint64_t offset,
                    uint32_t flags)
{
    return answer(fsw_device_write(door.device, bytes, offset, count));
}

static int do_trim(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
    return answer(fsw_device_discard(door.device, offset, count));
}

static int do_zero(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
    return answer(fsw_device_zero(door.device, offset, count));
}

static int do_flush(void *handle, uint32_t flags)
{
    return answer(fsw_device_flush(door.device));
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
        "size=SIZE              (required for a new device) 4M to 16T, a multiple of 4096\n"
        "memory=SIZE|N%         most memory that the image may take (default 20%)\n"
        "codec=CODEC            lz4 (default), lz4:ACCELERATION, zstd, zstd:LEVEL or raw\n"
        "overflow=URI           resp://HOST[:PORT] or resp+unix:///PATH\n"
        "overflow-password=+FILE  file with the store's password\n"
        "overflow-plaintext=yes   do not encrypt what leaves this host\n"
        "prefetch=auto|off|SIZE   what a read asks the store for besides its page\n"
        "fetch_timeout=SECONDS    a read that waits longer for the store fails (0: waits for "
        "ever)\n"
        "watermarks=auto|START:STOP  percent of memory= at which overflow starts and stops\n"
        "write_wait=SECONDS       how long a write waits when pool and store are full (default 1)\n"
        "read_age=young|half|keep  what a read does to a page's age (default young)\n"
        "huge=age|first|store     pages that don't compress leave by age (default), first, or "
        "soon\n"
        "overflow_limit=SIZE|off  most bytes that may leave for the store in 24 hours (default "
        "off)",
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

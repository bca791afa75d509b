/*
 * windows.c: finding, beginning and reusing windows, and who waits for them.
 */
#include "core/windows.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "common/cleanup.h"
#include "core/engine.h"

/* ---- buckets and the idle list (the lock is held) ---- */

static struct fsw_window **bucket_of(struct fsw_windows *windows, uint64_t id)
{
    return &windows->buckets[id % FSW_WINDOW_BUCKETS];
}

static void hide(struct fsw_windows *windows, struct fsw_window *window)
{
    struct fsw_window **link = bucket_of(windows, window->id);

    if (!window->findable)
        return;
    while (*link != window)
        link = &(*link)->same;
    *link = window->same;
    window->findable = 0;
}

static void show(struct fsw_windows *windows, struct fsw_window *window)
{
    struct fsw_window **bucket = bucket_of(windows, window->id);

    window->same = *bucket;
    *bucket = window;
    window->findable = 1;
}

static void leave_idle(struct fsw_windows *windows, struct fsw_window *window)
{
    *(window->older != NULL ? &window->older->newer : &windows->oldest) = window->newer;
    *(window->newer != NULL ? &window->newer->older : &windows->newest) = window->older;
}

/* What may yet be read is reused last, the rest at once. */
static void become_idle(struct fsw_windows *windows, struct fsw_window *window)
{
    int last = window->findable && window->taken < window->objects;

    window->older = last ? windows->newest : NULL;
    window->newer = last ? NULL : windows->oldest;
    *(window->older != NULL ? &window->older->newer : &windows->oldest) = window;
    *(window->newer != NULL ? &window->newer->older : &windows->newest) = window;
    if (windows->waiters > 0)
        pthread_cond_signal(&windows->idle);
}

/* One that nobody uses, and nobody finds; NULL: there is none. */
static struct fsw_window *take_idle(struct fsw_device *device)
{
    struct fsw_windows *windows = &device->windows;
    struct fsw_window *window = windows->oldest;

    if (window == NULL)
        return NULL;
    leave_idle(windows, window);
    hide(windows, window);
    fsw_stat_add(&device->image, FSW_STAT_PREFETCH_WASTED, window->objects - window->taken);
    return window;
}

/* ---- what came (of a window that nobody else touches) ---- */

/* Units of the object at `at`, by its seal or its header; 0: none can begin there. */
static uint32_t units_at(const struct fsw_window *window, uint32_t at, unsigned seal)
{
    const char *bytes = window->bytes + (at - window->from) * FSW_UNIT;
    struct fsw_object_header header;
    uint32_t units;

    if (seal != 0) {
        units = fsw_seal_units(bytes);
    } else {
        memcpy(&header, bytes, FSW_OBJECT_HEADER);
        units = (FSW_OBJECT_HEADER + header.length + FSW_UNIT - 1) / FSW_UNIT;
    }
    return units >= FSW_OBJECT_UNITS_MIN && units <= FSW_OBJECT_UNITS_MAX ? units : 0;
}

/* Where the last whole object ends, and *ret_objects: how many there are behind the first. No more than
 * a hint: each is proved by who reads it. */
static uint32_t survey(const struct fsw_window *window, unsigned seal, unsigned *ret_objects)
{
    uint32_t at = window->least, units;

    *ret_objects = 0;
    while (at < window->to && (units = units_at(window, at, seal)) != 0 &&
           seal + units <= window->to - at) {
        at += seal + units;
        ++*ret_objects;
    }
    return at;
}

/* ---- answers, on the store's thread ---- */

/* The window is here, with so many objects up to `end`. */
static void land(struct fsw_window *window, uint32_t end, unsigned objects)
{
    struct fsw_windows *windows = &window->device->windows;
    FSW_LOCK_SCOPE(&windows->lock);

    window->state = FSW_WINDOW_HERE;
    window->to = end;
    window->taken = window->taken < objects ? window->taken : objects;
    window->objects = objects;
    fsw_prefetch_came(&windows->prefetch, objects);
    if (objects == 0)
        hide(windows, window);
    if (window->users == 0)
        become_idle(windows, window);
}

static void get_done(struct fsw_store_request *request)
{
    struct fsw_window *window = request->owner;
    struct fsw_device *device = window->device;

    if (window->pinned && fsw_row_unpin(&device->rows, window->row))
        fsw_overflow_drop(device, window->row);
    uint32_t end = window->least;
    unsigned objects = 0;
    if (request->result == FSW_STORE_OK)
        end = survey(window, device->seal, &objects);
    fsw_stat_add(&device->image, FSW_STAT_PREFETCHED, objects);
    land(window, end, objects);
    /* Without the lock, so that who wakes finds it free; a window is not freed before its store is. */
    pthread_cond_broadcast(&window->landed);
}

/* ---- beginning (the lock is held) ---- */

/* What is known of the segment around an object that no window has. */
struct around {
    uint32_t end;                    /* of the segment, or where the next window begins */
    const struct fsw_window *before; /* the window that ends next before it */
};

static struct around look_around(struct fsw_windows *windows, uint64_t id, uint32_t from,
                                 uint32_t segment_end)
{
    struct around around = {.end = segment_end};

    for (struct fsw_window *window = *bucket_of(windows, id); window != NULL;
         window = window->same) {
        if (window->id != id)
            continue;
        if (window->from > from && window->from < around.end)
            around.end = window->from;
        if (window->from < from && from <= window->to + (window->to - window->from) &&
            (around.before == NULL || window->to > around.before->to))
            around.before = window;
    }
    return around;
}

static uint32_t units_to_ask(struct fsw_device *device, const struct fsw_place *place,
                             uint32_t from, uint32_t least)
{
    uint32_t segment = atomic_load(&device->image.rows[place->row].bytes) / FSW_UNIT;
    struct around around = look_around(&device->windows, place->id, from, segment);
    const struct fsw_window *before = around.before;
    struct fsw_prefetch_run run;
    uint32_t word = atomic_load_explicit(&device->image.super->prefetch, memory_order_relaxed);

    if (before != NULL)
        run = (struct fsw_prefetch_run){.bytes = (before->to - before->from) * FSW_UNIT,
                                        .objects = before->objects,
                                        .taken = before->taken};
    uint32_t units = fsw_prefetch_bytes(&device->windows.prefetch, word,
                                        before != NULL ? &run : NULL, FSW_WINDOW_BYTES) /
                     FSW_UNIT;
    if (units > FSW_WINDOW_BYTES / FSW_UNIT)
        units = FSW_WINDOW_BYTES / FSW_UNIT;
    if (units > around.end - from)
        units = around.end - from;
    return units > least ? units : least;
}

static void begin(struct fsw_device *device, struct fsw_window *window,
                  const struct fsw_place *place, uint64_t deadline)
{
    uint32_t from = place->offset - device->seal, least = place->units + device->seal;
    uint32_t units = units_to_ask(device, place, from, least);

    window->state = FSW_WINDOW_FLYING;
    window->id = place->id;
    window->row = place->row;
    window->from = from;
    window->to = from + units;
    window->least = from + least;
    window->objects = window->taken = 0;
    window->users = 0;
    memset(window->marks, 0, sizeof window->marks);
    window->losses = fsw_losses_noted(device);
    window->pinned = fsw_row_pin(&device->rows, place->row); /* the caller has one: it can be had */
    window->request = (struct fsw_store_request){
        .verb = FSW_STORE_GET,
        .row = place->row,
        .id = place->id,
        .bytes = window->bytes,
        .offset = from * FSW_UNIT,
        .length = units * FSW_UNIT,
        .copies = fsw_copies_of(device, place->row),
        .deadline = deadline,
        .done = get_done,
        .owner = window,
    };
    show(&device->windows, window);
}

/* ---- seeking ---- */

static struct fsw_window *find(struct fsw_windows *windows, const struct fsw_place *place,
                               unsigned seal)
{
    struct fsw_window *window = *bucket_of(windows, place->id);

    for (; window != NULL; window = window->same)
        if (window->id == place->id && window->from + seal <= place->offset &&
            place->offset + place->units <= window->to)
            return window;
    return NULL;
}

/* It is read, and was perhaps not before. */
static void mark(struct fsw_windows *windows, struct fsw_window *window,
                 const struct fsw_place *place)
{
    uint32_t nth = (place->offset - window->from) / FSW_OBJECT_UNITS_MIN;
    uint64_t bit = 1ull << nth % 64, *word = &window->marks[nth / 64];

    if (place->offset < window->least || *word & bit)
        return;
    *word |= bit;
    window->taken++;
    fsw_prefetch_hit(&windows->prefetch);
}

static void use(struct fsw_windows *windows, struct fsw_window *window,
                const struct fsw_place *place)
{
    mark(windows, window, place);
    if (window->state == FSW_WINDOW_HERE && window->users == 0)
        leave_idle(windows, window);
    window->users++;
}

struct fsw_window *fsw_windows_seek(struct fsw_device *device, const struct fsw_place *place,
                                    uint64_t deadline, enum fsw_found *ret_found)
{
    struct fsw_windows *windows = &device->windows;
    FSW_LOCK_SCOPE(&windows->lock);
    struct fsw_window *window = find(windows, place, device->seal);

    *ret_found = FSW_FOUND_NONE;
    if (window != NULL) {
        *ret_found = window->state == FSW_WINDOW_FLYING ? FSW_FOUND_FLYING : FSW_FOUND_HERE;
        use(windows, window, place);
    } else if ((window = take_idle(device)) != NULL) {
        *ret_found = FSW_FOUND_BEGUN;
        begin(device, window, place, deadline);
        window->users++;
    }
    return window;
}

struct fsw_window *fsw_windows_seek_here(struct fsw_device *device, const struct fsw_place *place)
{
    struct fsw_windows *windows = &device->windows;
    FSW_LOCK_SCOPE(&windows->lock);
    struct fsw_window *window = find(windows, place, device->seal);

    if (window == NULL || window->state == FSW_WINDOW_FLYING)
        return NULL;
    use(windows, window, place);
    return window;
}

void fsw_windows_wait_idle(struct fsw_device *device, uint64_t deadline)
{
    struct fsw_windows *windows = &device->windows;
    struct timespec until = fsw_timespec(deadline);
    FSW_LOCK_SCOPE(&windows->lock);

    if (windows->oldest != NULL)
        return;
    windows->waiters++;
    if (deadline == 0)
        pthread_cond_wait(&windows->idle, &windows->lock);
    else
        pthread_cond_timedwait(&windows->idle, &windows->lock, &until);
    windows->waiters--;
}

/* ---- using ---- */

int fsw_window_wait(struct fsw_window *window, uint64_t deadline,
                    struct fsw_store_request *ret_request)
{
    struct fsw_windows *windows = &window->device->windows;
    struct timespec until = fsw_timespec(deadline);
    int r = 0;
    FSW_LOCK_SCOPE(&windows->lock);

    while (window->state == FSW_WINDOW_FLYING && r == 0)
        r = deadline == 0 ? pthread_cond_wait(&window->landed, &windows->lock)
                          : pthread_cond_timedwait(&window->landed, &windows->lock, &until);
    if (window->state == FSW_WINDOW_FLYING)
        return -EINPROGRESS;
    *ret_request = window->request;
    return 0;
}

const char *fsw_window_object(const struct fsw_window *window, const struct fsw_place *place)
{
    if (place->offset + place->units > window->to)
        return NULL;
    return window->bytes + (place->offset - window->from) * FSW_UNIT;
}

void fsw_window_distrust(struct fsw_window *window)
{
    struct fsw_windows *windows = &window->device->windows;
    FSW_LOCK_SCOPE(&windows->lock);

    hide(windows, window);
}

void fsw_window_leave(struct fsw_window *window)
{
    struct fsw_windows *windows = &window->device->windows;
    FSW_LOCK_SCOPE(&windows->lock);

    if (--window->users == 0 && window->state == FSW_WINDOW_HERE)
        become_idle(windows, window);
}

/* ---- birth and death ---- */

static unsigned how_many(uint64_t memory)
{
    uint64_t count = memory / FSW_WINDOWS_PART / FSW_WINDOW_BYTES;

    if (count < FSW_WINDOWS_MIN)
        return FSW_WINDOWS_MIN;
    return count > FSW_WINDOWS_MAX ? FSW_WINDOWS_MAX : (unsigned)count;
}

static size_t bytes_of(unsigned count)
{
    return count * (sizeof(struct fsw_window) + FSW_WINDOW_BYTES);
}

int fsw_windows_init(struct fsw_device *device, uint64_t memory)
{
    struct fsw_windows *windows = &device->windows;
    unsigned count = how_many(memory);
    pthread_condattr_t monotonic;
    char *at =
        mmap(NULL, bytes_of(count), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (at == MAP_FAILED)
        return -ENOMEM;
    madvise(at, bytes_of(count), MADV_DONTDUMP);
    memset(at, 0, bytes_of(count));
    pthread_mutex_init(&windows->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&windows->idle, &monotonic);
    windows->all = (struct fsw_window *)at;
    windows->count = count;
    at += count * sizeof(struct fsw_window);
    for (unsigned i = 0; i < count; i++) {
        windows->all[i].device = device;
        windows->all[i].bytes = at + (size_t)i * FSW_WINDOW_BYTES;
        pthread_cond_init(&windows->all[i].landed, &monotonic);
        become_idle(windows, &windows->all[i]);
    }
    pthread_condattr_destroy(&monotonic);
    return 0;
}

void fsw_windows_deinit(struct fsw_device *device)
{
    struct fsw_windows *windows = &device->windows;

    if (windows->all != NULL)
        munmap(windows->all, bytes_of(windows->count));
    windows->all = NULL;
}

/*
 * policy: how well reclaim chooses who leaves. Traces are replayed through the real engine, with a pool of
 * a part of the set and a store in this process's memory, and beside it through exact LRU, FIFO and
 * random replacement with as many pages.
 *
 *      policy [--pages N] [--accesses N] [--part N] [--seed N] [--read-age young|half|keep] [TRACE ...]
 *
 * A trace of one's own is a file of lines "r PAGE" or "w PAGE", as bench/record makes them of real
 * programs; its set is the pages that it names. The others are made here:
 *
 *      zipf    Zipf's law with exponent 0.99, pages in random order
 *      scan    zipf, and every now and then a run over an eighth of the set
 *      loop    the whole set, round and round
 *      mix     three in four of zipf, the rest anywhere
 *
 *      disk    zipf, one in four written, the rest only read
 *
 * All but the last are swap as the kernel does it: a page that is needed is read, and written again when
 * it leaves. One that is only read stays where it is, here and in the others. A hit is a page that is in the pool when it is needed. The others have as many pages as the
 * engine's pool had, on the average of the run.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/shm.h>
#include <unistd.h>

#include "core/engine.h"

static struct {
    uint64_t pages, accesses, part, seed;
    const char *read_age;
} options = {.read_age = "young", .pages = 32768, .accesses = 400000, .part = 4, .seed = 1};

static uint64_t chance(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

static void *must_have(void *memory)
{
    if (memory == NULL) {
        fprintf(stderr, "policy: no memory\n");
        exit(1);
    }
    return memory;
}

/* ---- traces ---- */

struct trace {
    const char *name;
    uint32_t *pages;     /* top bit: a write, as recorded; else read and written again */
    uint64_t count, set; /* set: how many pages there are */
    int recorded;        /* reads are only reads */
};

#define WRITE (1u << 31)

/* The page of each rank, and the sums of their shares. */
static uint32_t *order;
static double *shares;

static void make_zipf(uint64_t *state)
{
    double sum = 0;

    order = must_have(malloc(options.pages * sizeof *order));
    shares = must_have(malloc(options.pages * sizeof *shares));
    for (uint32_t i = 0; i < options.pages; i++) {
        shares[i] = sum += 1 / pow(i + 1, 0.99);
        order[i] = i;
    }
    for (uint32_t i = 0; i < options.pages; i++) {
        uint32_t j = i + (uint32_t)(chance(state) % (options.pages - i)), page = order[i];
        order[i] = order[j];
        order[j] = page;
    }
}

static uint32_t zipf(uint64_t *state)
{
    double at = (double)(chance(state) >> 11) * 0x1p-53 * shares[options.pages - 1];
    uint64_t low = 0, high = options.pages - 1;

    while (low < high) {
        uint64_t middle = (low + high) / 2;
        if (shares[middle] < at)
            low = middle + 1;
        else
            high = middle;
    }
    return order[low];
}

static uint32_t next_access(const char *name, uint64_t i, uint64_t *state)
{
    static uint64_t run, at; /* pages left of a scan */

    if (strcmp(name, "loop") == 0)
        return (uint32_t)(i % options.pages);
    if (strcmp(name, "mix") == 0 && chance(state) % 4 == 0)
        return (uint32_t)(chance(state) % options.pages);
    if (strcmp(name, "scan") == 0 && run == 0 && chance(state) % options.pages == 0)
        run = options.pages / 8;
    if (run == 0)
        return zipf(state);
    run--;
    return (uint32_t)(at++ % options.pages);
}

static void make_trace(struct trace *trace)
{
    uint64_t state = options.seed;

    trace->count = options.accesses;
    trace->set = options.pages;
    trace->recorded = strcmp(trace->name, "disk") == 0;
    trace->pages = must_have(malloc(trace->count * sizeof trace->pages[0]));
    for (uint64_t i = 0; i < trace->count; i++)
        trace->pages[i] = next_access(trace->name, i, &state) |
                          (trace->recorded && chance(&state) % 4 == 0 ? WRITE : 0);
}

static void read_trace(struct trace *trace)
{
    FILE *file = fopen(trace->name, "re");
    unsigned page;
    char verb;

    if (file == NULL) {
        perror(trace->name);
        exit(1);
    }
    trace->recorded = 1;
    while (fscanf(file, " %c %u", &verb, &page) == 2) {
        if (trace->count % 65536 == 0)
            trace->pages =
                must_have(realloc(trace->pages, (trace->count + 65536) * sizeof trace->pages[0]));
        page &= ~WRITE;
        trace->set = page < trace->set ? trace->set : page + 1;
        trace->pages[trace->count++] = page | (verb == 'w' ? WRITE : 0);
    }
    fclose(file);
}

/* ---- a store that answers at once ---- */

struct kept {
    struct fsw_store base;
    char **bytes;
    uint64_t room;
};

static enum fsw_store_result keep(struct kept *kept, struct fsw_store_request *request)
{
    if (request->id >= kept->room) {
        uint64_t room = request->id * 2 + 1024;
        kept->bytes = must_have(realloc(kept->bytes, room * sizeof kept->bytes[0]));
        memset(kept->bytes + kept->room, 0, (room - kept->room) * sizeof kept->bytes[0]);
        kept->room = room;
    }
    char **bytes = &kept->bytes[request->id];
    if (request->verb == FSW_STORE_PUT) {
        *bytes = must_have(malloc(request->length));
        memcpy(*bytes, request->bytes, request->length);
        request->copies = 1;
    } else if (request->verb == FSW_STORE_GET) {
        memcpy(request->bytes, *bytes + request->offset, request->length);
    } else {
        free(*bytes);
        *bytes = NULL;
    }
    return FSW_STORE_OK;
}

static void kept_submit(struct fsw_store *base, struct fsw_store_request *const *requests, size_t n)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

    for (size_t i = 0; i < n; i++) {
        pthread_mutex_lock(&lock);
        requests[i]->result = keep((struct kept *)base, requests[i]);
        pthread_mutex_unlock(&lock);
        requests[i]->done(requests[i]);
    }
}

static int kept_start(struct fsw_store *base, const struct fsw_store_identity *identity,
                      struct fsw_error *err)
{
    return 0;
}

static void kept_health(struct fsw_store *base, struct fsw_store_health *ret_health)
{
    *ret_health = (struct fsw_store_health){.connected = 1, .up = 1};
}

static void kept_lost(struct fsw_store *base, uint32_t copies, uint64_t sentinel) {}

static void kept_close(struct fsw_store *base) {}

static const struct fsw_store_ops kept_ops = {.scheme = "kept",
                                              .start = kept_start,
                                              .submit = kept_submit,
                                              .health = kept_health,
                                              .lost = kept_lost,
                                              .close = kept_close};

/* ---- the engine ---- */

static struct fsw_device *open_device(struct kept *kept, uint64_t pages)
{
    struct fsw_params params;
    struct fsw_error err = {""};
    struct fsw_device *device;

    fsw_params_init(&params);
    snprintf(params.name, sizeof params.name, "policy%d", getpid());
    params.size = pages * FSW_PAGE_SIZE;
    /* Pages below take half a page each. */
    params.memory = fsw_image_base_bytes(params.size) + fsw_image_table_bytes(params.size) +
                    params.size / 2 / options.part;
    if (fsw_params_set(&params, "read_age", options.read_age, &err) < 0) {
        fprintf(stderr, "policy: %s\n", err.text);
        exit(1);
    }
    kept->base = (struct fsw_store){.ops = &kept_ops, .copies = 1};
    if (fsw_device_open(&params, FSW_OPEN_NEW, 0, &kept->base, &device, &err) < 0) {
        fprintf(stderr, "policy: %s\n", err.text);
        exit(1);
    }
    shmctl(device->image.shmid, IPC_RMID, NULL);
    if (fsw_device_start(device, &err) < 0)
        exit(1);
    return device;
}

static void write_page(struct fsw_device *device, uint32_t page, uint64_t round)
{
    uint64_t words[FSW_PAGE_SIZE / 8] = {0}, state = page + (round << 32);

    for (unsigned i = 0; i < FSW_PAGE_SIZE / 16; i++)
        words[i] = chance(&state);
    if (fsw_device_write(device, words, (uint64_t)page * FSW_PAGE_SIZE, FSW_PAGE_SIZE) < 0) {
        fprintf(stderr, "policy: a write failed\n");
        exit(1);
    }
}

static int is_here(struct fsw_device *device, uint32_t page)
{
    fsw_entry *entry = fsw_table_find(&device->image, page);

    return entry != NULL && fsw_entry_state(fsw_entry_load(entry)) != FSW_STORE;
}

/* The share of hits in the second half of the run; *ret_pages: that the pool had then. */
static double replay(const struct trace *trace, uint64_t *ret_pages)
{
    struct kept kept = {.bytes = NULL};
    struct fsw_device *device = open_device(&kept, trace->set);
    char bytes[FSW_PAGE_SIZE];
    uint64_t hits = 0, asked = 0, pool = 0, looks = 0;

    for (uint32_t page = 0; page < trace->set; page++)
        write_page(device, page, 0);
    for (uint64_t i = 0; i < trace->count; i++) {
        uint32_t page = trace->pages[i] & ~WRITE;
        int counts = i >= trace->count / 2, written = (trace->pages[i] & WRITE) != 0;
        if (counts && !written) {
            hits += (uint64_t)is_here(device, page);
            asked++;
        }
        if (!written &&
            fsw_device_read(device, bytes, (uint64_t)page * FSW_PAGE_SIZE, sizeof bytes) < 0)
            exit(1);
        if (written || !trace->recorded)
            write_page(device, page, i);
        if (counts && i % 256 == 0) {
            pool += fsw_stat_get(&device->image, FSW_STAT_PAGES_POOL);
            looks++;
        }
    }
    *ret_pages = looks > 0 ? pool / looks : 0;
    fsw_device_discard_image(device);
    for (uint64_t id = 0; id < kept.room; id++)
        free(kept.bytes[id]);
    free(kept.bytes);
    return asked > 0 ? (double)hits / (double)asked : 0;
}

/* ---- the others ---- */

enum policy { LRU, FIFO, RANDOM };

/* Pages in a ring of a doubly linked list, the oldest first; slot 0 is its end. */
struct cache {
    uint32_t *next, *prev, *slots; /* slots: of pages that are there, for random */
    uint32_t *place;               /* of a page: 1 + its slot; 0: it is not there */
    uint64_t count, room, random;
};

static void unlink_page(struct cache *cache, uint32_t page)
{
    cache->next[cache->prev[page]] = cache->next[page];
    cache->prev[cache->next[page]] = cache->prev[page];
}

static void link_newest(struct cache *cache, uint32_t page)
{
    cache->prev[page] = cache->prev[0];
    cache->next[page] = 0;
    cache->next[cache->prev[0]] = page;
    cache->prev[0] = page;
}

static void remove_page(struct cache *cache, uint32_t page)
{
    uint32_t last = cache->slots[--cache->count];

    unlink_page(cache, page);
    cache->slots[cache->place[page] - 1] = last;
    cache->place[last] = cache->place[page];
    cache->place[page] = 0;
}

/* A page is used, and comes in if it may. 1: it was there. */
static int use(struct cache *cache, enum policy policy, uint32_t page, int comes_in)
{
    int hit = cache->place[page] != 0;

    if (hit && policy == LRU) {
        unlink_page(cache, page);
        link_newest(cache, page);
    }
    if (hit || !comes_in)
        return hit;
    if (cache->count == cache->room)
        remove_page(cache, policy == RANDOM ? cache->slots[chance(&cache->random) % cache->count]
                                            : cache->next[0]);
    link_newest(cache, page);
    cache->slots[cache->count++] = page;
    cache->place[page] = (uint32_t)cache->count;
    return 0;
}

/* The same accesses, pages counted from 1. */
static double simulate(const struct trace *trace, enum policy policy, uint64_t room)
{
    size_t n = trace->set + 1;
    struct cache cache = {.next = must_have(calloc(n, 4)),
                          .prev = must_have(calloc(n, 4)),
                          .slots = must_have(calloc(n, 4)),
                          .place = must_have(calloc(n, 4)),
                          .room = room > 0 ? room : 1,
                          .random = options.seed};
    uint64_t hits = 0, asked = 0;

    for (uint32_t page = 1; page <= trace->set; page++)
        use(&cache, policy, page, 1);
    for (uint64_t i = 0; i < trace->count; i++) {
        int written = (trace->pages[i] & WRITE) != 0;
        int hit = use(&cache, policy, (trace->pages[i] & ~WRITE) + 1, written || !trace->recorded);
        if (i >= trace->count / 2 && !written) {
            hits += (uint64_t)hit;
            asked++;
        }
    }
    free(cache.next);
    free(cache.prev);
    free(cache.slots);
    free(cache.place);
    return asked > 0 ? (double)hits / (double)asked : 0;
}

/* ---- the table ---- */

static void measure(struct trace *trace)
{
    uint64_t pages;
    double ours = replay(trace, &pages), lru = simulate(trace, LRU, pages);

    const char *name = strrchr(trace->name, '/');

    printf("%-14s %8llu %8.4f %8.4f %8.4f %8.4f %8.3f\n", name != NULL ? name + 1 : trace->name,
           (unsigned long long)pages, ours, lru, simulate(trace, FIFO, pages),
           simulate(trace, RANDOM, pages), lru > 0 ? ours / lru : 0);
    fflush(stdout);
    free(trace->pages);
}

static int is_made(const char *name)
{
    return strcmp(name, "zipf") == 0 || strcmp(name, "scan") == 0 || strcmp(name, "loop") == 0 ||
           strcmp(name, "mix") == 0 || strcmp(name, "disk") == 0;
}

static void measure_named(const char *name)
{
    struct trace trace = {.name = name};

    if (is_made(name))
        make_trace(&trace);
    else
        read_trace(&trace);
    measure(&trace);
}

int main(int argc, char **argv)
{
    static const char *const all[] = {"zipf", "scan", "loop", "mix", "disk"};
    const struct {
        const char *name;
        uint64_t *value;
    } known[] = {{"--pages", &options.pages},
                 {"--accesses", &options.accesses},
                 {"--part", &options.part},
                 {"--seed", &options.seed}};
    int at = 1;

    for (; at + 1 < argc && argv[at][0] == '-'; at += 2) {
        if (strcmp(argv[at], "--read-age") == 0)
            options.read_age = argv[at + 1];
        for (unsigned i = 0; i < 4; i++)
            if (strcmp(argv[at], known[i].name) == 0)
                *known[i].value = strtoull(argv[at + 1], NULL, 0);
    }
    uint64_t state = options.seed;
    make_zipf(&state);
    printf("%-14s %8s %8s %8s %8s %8s %8s\n", "trace", "pool", "farswap", "LRU", "FIFO", "random",
           "of LRU");
    for (int i = at; i < argc; i++)
        measure_named(argv[i]);
    for (unsigned i = 0; at >= argc && i < 5; i++)
        measure_named(all[i]);
    free(order);
    free(shares);
    return 0;
}

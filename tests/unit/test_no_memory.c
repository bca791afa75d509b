/*
 * test_no_memory.c: every allocation that a device asks for can fail, and the data path asks for
 * none.
 *
 * The test is linked with --wrap: what the engine asks the C library or the kernel for (memory,
 * threads, shared memory, pages touched ahead) comes by here. The n-th of these fails, for every n
 * until there is none left to fail: what failed says so in a line, leaves no image, thread or mapping
 * behind, takes nothing away that was there, and succeeds when it is tried again. Only the calling
 * thread's are counted, so that each n is the same place in every run.
 */
#include "handover.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <unistd.h>

#include "common/clock.h"
#include "core/registry.h"

/* ---- what fails ---- */

static _Thread_local unsigned asked;   /* so often; counted from arm() on */
static _Thread_local unsigned refused; /* this one is refused; 0: none is */
static _Thread_local int for_good;     /* and all after it */
static _Atomic int watching;           /* the crew */
static _Atomic unsigned crew_asked;

static void arm(unsigned n, int and_all_after)
{
    asked = 0;
    refused = n;
    for_good = and_all_after;
}

/* Returns how often something was asked for. */
static unsigned disarm(void)
{
    refused = 0;
    return asked;
}

static int is_refused(void)
{
    char name[16];

    asked++;
    if (atomic_load(&watching) && prctl(PR_GET_NAME, name) == 0 && strcmp(name, "fsw-crew") == 0)
        atomic_fetch_add(&crew_asked, 1);
    return refused != 0 && (asked == refused || (for_good && asked > refused));
}

#define WRAP(type, name, parameters, arguments, failure)                                           \
    type __real_##name parameters;                                                                 \
    type __wrap_##name parameters;                                                                 \
    type __wrap_##name parameters                                                                  \
    {                                                                                              \
        if (is_refused()) {                                                                        \
            errno = ENOMEM;                                                                        \
            return failure;                                                                        \
        }                                                                                          \
        return __real_##name arguments;                                                            \
    }

WRAP(void *, malloc, (size_t n), (n), NULL)
WRAP(void *, calloc, (size_t n, size_t size), (n, size), NULL)
WRAP(void *, aligned_alloc, (size_t to, size_t n), (to, n), NULL)
WRAP(void *, mmap, (void *at, size_t n, int rights, int flags, int fd, off_t offset),
     (at, n, rights, flags, fd, offset), MAP_FAILED)
WRAP(int, pthread_create,
     (pthread_t * thread, const pthread_attr_t *attr, void *(*run)(void *), void *arg),
     (thread, attr, run, arg), EAGAIN)
WRAP(int, shmget, (key_t key, size_t n, int flags), (key, n, flags), -1)
WRAP(void *, shmat, (int id, const void *at, int flags), (id, at, flags), (void *)-1)

int __real_madvise(void *at, size_t n, int advice);
int __wrap_madvise(void *at, size_t n, int advice);

int __wrap_madvise(void *at, size_t n, int advice)
{
    if (advice == MADV_POPULATE_WRITE && is_refused()) {
        errno = ENOMEM;
        return -1;
    }
    return __real_madvise(at, n, advice);
}

/* ---- what must not stay ---- */

static unsigned threads_here(void)
{
    DIR *folder = opendir("/proc/self/task");
    unsigned n = 0;

    for (struct dirent *entry; folder != NULL && (entry = readdir(folder)) != NULL;)
        n += entry->d_name[0] != '.';
    closedir(folder);
    return n;
}

static unsigned images_here(void)
{
    char line[256];
    unsigned n = 0, owner;
    FILE *file = fopen("/proc/sysvipc/shm", "re");

    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        n += sscanf(line, "%*d %*d %*o %*u %u", &owner) == 1 && (pid_t)owner == getpid();
    fclose(file);
    return n;
}

static unsigned images_mapped(void)
{
    char line[512];
    unsigned n = 0;
    FILE *file = fopen("/proc/self/maps", "re");

    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        n += strstr(line, "/SYSV") != NULL;
    fclose(file);
    return n;
}

struct traces {
    unsigned threads, images, mapped;
};

static struct traces traces_now(void)
{
    return (struct traces){threads_here(), images_here(), images_mapped()};
}

/* Threads that were joined may be in /proc for a moment yet. */
static struct traces traces_when(unsigned threads)
{
    uint64_t end = fsw_now_ns() + 60 * FSW_NS_PER_S;
    struct traces now = traces_now();

    while (now.threads > threads && fsw_now_ns() < end)
        now = traces_now();
    return now;
}

/* When no device is open. */
static unsigned threads_at_rest;

static void expect_traces(const struct traces *before, unsigned n)
{
    struct traces now = traces_when(before->threads);

    if (memcmp(&now, before, sizeof now) != 0)
        fail_msg("after failure %u: %u threads (%u before), %u images (%u), %u mapped (%u)", n,
                 now.threads, before->threads, now.images, before->images, now.mapped,
                 before->mapped);
}

/* ---- a device begins ---- */

static int begin(const struct fsw_params *params, enum fsw_open how, struct fsw_store *store,
                 struct fsw_device **ret_device)
{
    struct fsw_error err = {""};
    int r = fsw_device_open(params, how, 0, store, ret_device, &err);

    if (r == 0) {
        r = fsw_device_start(*ret_device, &err);
        unsigned armed = refused;
        refused = 0; /* it ends as it would with memory, and as it would without */
        if (r < 0 && armed % 2)
            fsw_device_discard_image(*ret_device);
        refused = armed;
        if (r < 0 && armed % 2 == 0)
            fsw_device_discard_image(*ret_device);
    }
    if (r < 0 && r != -ENOMEM && r != -EAGAIN)
        fail_msg("failure %u: %d, %s", refused, r, err.text);
    if (r < 0 && err.text[0] == '\0')
        fail_msg("failure %u says nothing", refused);
    return r;
}

static void a_device_is_made(int with_store, int and_all_after)
{
    struct fsw_params params = handover_params("made", HANDOVER_PAGES, MIB(8));
    struct traces before = traces_when(threads_at_rest);
    struct fsw_device *device;
    unsigned n = 0, failed = 0, places;
    int r;

    fsw_params_set(&params, "codec", "zstd", NULL);
    do {
        struct fsw_record record;
        arm(++n, and_all_after);
        r = begin(&params, FSW_OPEN_NEW, with_store ? keep_new() : NULL, &device);
        places = disarm();
        if (r == 0 && places >= n) /* it can do without */
            fsw_device_discard_image(device);
        if (r < 0)
            assert_true(fsw_registry_read("made", -1, &record, NULL) < 0);
        if (places >= n)
            expect_traces(&before, n);
        failed += r < 0;
    } while (places >= n);
    assert_int_equal(r, 0);
    assert_in_range(failed, with_store ? 20 : 12, n);
    struct rig rig = {.device = device};
    assert_int_equal(rig_write_page(&rig, 1, RIG_TEXT, 1), 0);
    rig_expect_page(&rig, 1, RIG_TEXT, 1);
    fsw_device_discard_image(device);
}

static void a_new_device_is_whole_or_not_there(void **state)
{
    for (int with_store = 0; with_store < 2; with_store++)
        for (int all = 0; all < 2; all++)
            a_device_is_made(with_store, all);
}

/* What is there stays there, however often it can't be gone on with. */
static void a_device_is_gone_on_with(int with_store, int and_all_after)
{
    struct fsw_store *store = with_store ? keep_new() : NULL;
    struct fsw_params params = handover_params("kept", HANDOVER_PAGES, MIB(8));
    struct rig rig;
    unsigned n = 0, failed = 0, places;
    int r;

    fsw_params_set(&params, "codec", "zstd", NULL);
    handover_leave(&rig, &params, store);
    handover_let_go(&rig);
    struct traces before = traces_when(threads_at_rest);
    do {
        arm(++n, and_all_after);
        r = begin(&params, FSW_OPEN_EXISTING, store, &rig.device);
        places = disarm();
        failed += r < 0;
        if (r == 0 && places >= n)
            fsw_device_close(rig.device);
        if (places >= n)
            expect_traces(&before, n);
        if (places >= n && n % 4 == 0)
            handover_check("kept");
    } while (places >= n);
    assert_int_equal(r, 0);
    assert_in_range(failed, with_store ? 15 : 9, n);
    rig.high = rig.device->reclaim.high;
    handover_expect(&rig);
    handover_let_go(&rig);
    handover_destroy("kept");
}

static void an_image_that_is_there_stays_whole(void **state)
{
    for (int with_store = 0; with_store < 2; with_store++)
        for (int all = 0; all < 2; all++)
            a_device_is_gone_on_with(with_store, all);
}

/* ---- codec= and CPUs change ---- */

static void write_and_read(struct rig *rig, uint64_t seed)
{
    for (uint64_t page = 0; page < 4; page++) {
        assert_int_equal(rig_write_page(rig, page, RIG_TEXT, seed + page), 0);
        rig_expect_page(rig, page, RIG_TEXT, seed + page);
    }
}

/* For a host that could have sixteen CPUs, and has two. */
static void have_room(struct fsw_contexts *contexts)
{
    fsw_contexts_deinit(contexts);
    contexts->room = 32;
    contexts->count = 0;
    contexts->all = aligned_alloc(64, contexts->room * sizeof contexts->all[0]);
    memset(contexts->all, 0, contexts->room * sizeof contexts->all[0]);
    fsw_contexts_follow_cpus(contexts, 2);
}

static void codec_and_cpus_that_cannot_be_followed_change_nothing(void **state)
{
    static const struct {
        const char *codec;
        unsigned cpus;
    } changes[] = {{"zstd:3", 2}, {"zstd", 9}, {"lz4", 16}, {"zstd:19", 16}, {"lz4:3", 5}};
    struct rig rig;
    unsigned failures = 0;

    rig_open(&rig, &(struct rig_options){.size = MIB(4), .memory = MIB(8), .codec = "zstd"});
    struct fsw_contexts *contexts = &rig.device->contexts;
    fsw_keeper_stop(rig.device);
    have_room(contexts);
    for (unsigned i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        unsigned n = 0, places;
        uint8_t id;
        int level, r;
        assert_int_equal(fsw_codec_parse(changes[i].codec, &id, &level, NULL), 0);
        do {
            n++;
            arm(n, n % 2);
            r = fsw_contexts_set_codec(contexts, id, level);
            fsw_contexts_follow_cpus(contexts, changes[i].cpus);
            places = disarm();
            failures += places >= n;
            for (unsigned c = 0; c < contexts->count; c++)
                assert_non_null(contexts->all[c].state);
            write_and_read(&rig, n);
        } while (places >= n);
        assert_int_equal(r, 0);
        assert_int_equal(contexts->count, 2 * changes[i].cpus);
        for (unsigned c = 0; c < contexts->room; c++) {
            assert_int_equal(contexts->all[c].state != NULL, c < contexts->count);
            if (c < contexts->count)
                assert_true(contexts->all[c].codec_id == id && contexts->all[c].level == level);
        }
    }
    assert_in_range(failures, 40, 1000);
    rig_close(&rig);
}

/* ---- the data path ---- */

static char bytes[32 * FSW_PAGE_SIZE];

/* Whole pages and parts, one and many, of contents that need more and less room than before. */
static void one_request(struct rig *rig, uint64_t *chance)
{
    uint64_t pages = rig->device->pages, page = rig_below(chance, pages - 32);
    uint64_t count = rig_below(chance, 4) ? 1 : 1 + rig_below(chance, 32);
    uint64_t at = page * FSW_PAGE_SIZE, length = count * FSW_PAGE_SIZE;

    if (rig_below(chance, 8) == 0) {
        at += 100;
        length -= 200;
    }
    switch (rig_below(chance, 8)) {
    case 0:
        assert_int_equal(fsw_device_discard(rig->device, at, length), 0);
        break;
    case 1:
    case 2:
    case 3:
        assert_int_equal(fsw_device_read(rig->device, bytes, at, length), 0);
        break;
    default:
        for (uint64_t i = 0; i < count; i++)
            rig_fill(bytes + i * FSW_PAGE_SIZE, (enum rig_kind)rig_below(chance, RIG_KINDS),
                     rig_random(chance));
        assert_int_equal(fsw_device_write(rig->device, bytes, at, length), 0);
    }
}

/* All goes, and comes again: more than what lies ready. */
static void refill(struct rig *rig)
{
    assert_int_equal(fsw_device_discard(rig->device, 0, rig->device->size), 0);
    for (uint64_t page = 0; page < rig->device->pages; page++)
        assert_int_equal(rig_write_page(rig, page, RIG_HALF, page), 0);
}

/* Minor faults so far of this thread, and of those that help it. */
static uint64_t request_faults(void)
{
    struct rusage usage;
    unsigned long faults, sum;
    char path[300], name[32];
    DIR *folder = opendir("/proc/self/task");

    getrusage(RUSAGE_THREAD, &usage);
    sum = (unsigned long)usage.ru_minflt;
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        snprintf(path, sizeof path, "/proc/self/task/%s/stat", entry->d_name);
        FILE *file = fopen(path, "re");
        if (file == NULL)
            continue;
        if (fscanf(file, "%*d (%31[^)]) %*c %*d %*d %*d %*d %*d %*u %lu", name, &faults) == 2 &&
            strcmp(name, "fsw-crew") == 0)
            sum += faults;
        fclose(file);
    }
    closedir(folder);
    return sum;
}

/* The looking itself faults in its first rounds, and the kernel may move a page at any time; who
 * touches memory for a request does so in each round. */
static void requests_ask_the_system_for_nothing(const char *codec)
{
    struct rig rig;
    uint64_t chance = rig_seed(), faults = 1, taken = 0;

    rig_open(&rig, &(struct rig_options){.size = MIB(16), .memory = MIB(32), .codec = codec});
    arm(0, 0);
    atomic_store(&watching, 1);
    for (unsigned i = 0; i < 800; i++)
        one_request(&rig, &chance);
    for (unsigned round = 0; round < 30 && faults > 0; round++) {
        uint64_t before = request_faults();
        struct fsw_frames *frames = &rig.device->pool.frames;
        uint64_t brought = frames->brought;
        refill(&rig);
        for (unsigned i = 0; i < 800; i++)
            one_request(&rig, &chance);
        assert_int_equal(asked, 0);
        assert_int_equal(atomic_load(&crew_asked), 0);
        faults = RIG_SLOW ? 0 : request_faults() - before;
        taken += frames->brought - brought;
    }
    atomic_store(&watching, 0);
    if (faults > 0)
        fail_msg("%s: %llu minor faults in each of 30 rounds", codec, (unsigned long long)faults);
    assert_true(taken > 0);
    rig_close(&rig);
}

static void the_data_path_neither_allocates_nor_faults(void **state)
{
    static const char *const codecs[] = {"lz4", "zstd", "raw"};

    threads_at_rest = threads_here(); /* it is the first test */
    for (unsigned i = 0; i < sizeof codecs / sizeof codecs[0]; i++)
        requests_ask_the_system_for_nothing(codecs[i]);
}

/* The first comes first: what others have made ahead would do for it. */
RIG_MAIN(cmocka_unit_test(the_data_path_neither_allocates_nor_faults),
         cmocka_unit_test(a_new_device_is_whole_or_not_there),
         cmocka_unit_test(an_image_that_is_there_stays_whole),
         cmocka_unit_test(codec_and_cpus_that_cannot_be_followed_change_nothing))

#include "rig.h"

#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/clock.h"

#define RIG_PATIENCE_NS (60 * FSW_NS_PER_S)

/* ---- the guardian ---- */

static char folder[64];
static volatile pid_t ward;

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *ftw)
{
    char line[64];
    int shmid;
    FILE *file = strstr(path, ".image") != NULL ? fopen(path, "re") : NULL;

    if (file != NULL) {
        if (fgets(line, sizeof line, file) != NULL && sscanf(line, "shmid=%d", &shmid) == 1)
            shmctl(shmid, IPC_RMID, NULL);
        fclose(file);
    }
    return remove(path);
}

static void end_ward(int signal_number)
{
    kill(ward, SIGKILL);
}

static void run_ward(int (*tests)(void))
{
    char path[96];

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    snprintf(path, sizeof path, "%s/run", folder);
    setenv("FARSWAP_RUNDIR", path, 1);
    snprintf(path, sizeof path, "%s/state", folder);
    setenv("FARSWAP_STATEDIR", path, 1);
    int failed = tests();
    fflush(NULL);
    exit(failed != 0);
}

int rig_main(int (*tests)(void))
{
    int status;

    /* In memory: an image is two fsyncs, and some tests make thousands. */
    snprintf(folder, sizeof folder, "%s/farswap-test-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    if (mkdtemp(folder) == NULL)
        return 99;
    ward = fork();
    if (ward == 0)
        run_ward(tests);
    signal(SIGTERM, end_ward);
    signal(SIGINT, end_ward);
    signal(SIGHUP, end_ward);
    while (ward > 0 && waitpid(ward, &status, 0) < 0 && errno == EINTR)
        ;
    nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    if (ward < 0 || !WIFEXITED(status))
        return 1;
    return WEXITSTATUS(status);
}

/* ---- chance ---- */

uint64_t rig_seed(void)
{
    const char *given = getenv("FARSWAP_TEST_SEED");
    uint64_t seed = 0;

    if (given != NULL)
        seed = strtoull(given, NULL, 0);
    else if (getrandom(&seed, sizeof seed, 0) != (ssize_t)sizeof seed)
        abort();
    printf("FARSWAP_TEST_SEED=%llu\n", (unsigned long long)seed);
    fflush(stdout);
    return seed;
}

/* splitmix64 */
uint64_t rig_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

uint64_t rig_below(uint64_t *state, uint64_t bound)
{
    return rig_random(state) % bound;
}

/* ---- contents ---- */

#define WORDS (FSW_PAGE_SIZE / 8)

/* The first `noisy` words of every 16 are noise, the others the same everywhere. */
static void fill_mixed(uint64_t words[WORDS], unsigned noisy, uint64_t seed)
{
    for (unsigned i = 0; i < WORDS; i++)
        words[i] = i % 16 < noisy ? rig_random(&seed) : 0x2020202020202020ull;
}

void rig_fill(void *page, enum rig_kind kind, uint64_t seed)
{
    uint64_t words[WORDS], state = seed;
    uint64_t word = rig_random(&state) | 1;

    switch (kind) {
    case RIG_ZERO:
        word = 0;
        break;
    case RIG_SAME32:
        word = (uint32_t)word | word << 32;
        break;
    case RIG_SAME64:
        word = (uint32_t)word | (~word) << 32;
        break;
    default:
        break;
    }
    for (unsigned i = 0; i < WORDS; i++)
        words[i] = word;
    if (kind == RIG_NEARLY_SAME)
        words[rig_below(&state, WORDS)] ^= 1ull << rig_below(&state, 64);
    else if (kind == RIG_TEXT)
        fill_mixed(words, 3, state);
    else if (kind == RIG_HALF)
        fill_mixed(words, 7, state);
    else if (kind == RIG_NEARLY_RAW)
        fill_mixed(words, 14, state);
    else if (kind == RIG_NOISE)
        fill_mixed(words, 16, state);
    memcpy(page, words, sizeof words);
}

/* ---- a device ---- */

static void must(int r, const struct fsw_error *err)
{
    if (r < 0)
        fail_msg("%s", err->text);
}

void rig_be_patient(struct fsw_device *device)
{
    device->pool.frames.wait_ns = RIG_PATIENCE_NS;
}

void rig_open(struct rig *rig, const struct rig_options *options)
{
    static unsigned number;
    struct fsw_params params;
    struct fsw_error err = {""};

    memset(rig, 0, sizeof *rig);
    fsw_params_init(&params);
    snprintf(params.name, sizeof params.name, "rig%u", number++);
    params.size = options->size;
    params.memory = options->memory;
    must(fsw_params_set(&params, "codec", options->codec ? options->codec : "lz4", &err), &err);
    if (options->with_store)
        must(fsw_params_set(&params, "write_wait", "60", &err), &err);
    if (options->with_store) {
        rig->store = teststore_new(options->seed);
        if (options->answer_at_once)
            teststore_answer_at_once(rig->store);
        if (options->seals || getenv("FARSWAP_TEST_SEALS") != NULL)
            teststore_seal(rig->store);
    }
    must(fsw_device_open(&params, FSW_OPEN_NEW, 0, rig->store ? teststore_base(rig->store) : NULL,
                         &rig->device, &err),
         &err);
    /* Gone with the last process that maps it, whatever happens. */
    shmctl(rig->device->image.shmid, IPC_RMID, NULL);
    rig_be_patient(rig->device);
    must(fsw_device_start(rig->device, &err), &err);
    rig->high = rig->device->reclaim.high;
    atomic_store(&rig->device->image.super->prefetch, options->prefetch);
}

void rig_abandon(struct rig *rig)
{
    if (rig->device != NULL)
        fsw_device_discard_image(rig->device);
    if (rig->store != NULL)
        teststore_free(rig->store);
    memset(rig, 0, sizeof *rig);
}

void rig_impatient(struct rig *rig)
{
    atomic_store(&rig->device->image.super->write_wait, 0);
}

void rig_close(struct rig *rig)
{
    rig_prove(rig);
    rig_abandon(rig);
}

void rig_evict(struct rig *rig, int on)
{
    struct fsw_overflow *overflow = &rig->device->overflow;

    pthread_mutex_lock(&overflow->lock);
    rig->device->reclaim.high = on ? UINT32_MAX : rig->high;
    atomic_store(&overflow->wanted, on);
    pthread_cond_signal(&overflow->wake);
    pthread_mutex_unlock(&overflow->lock);
}

static int pool_is_empty(struct rig *rig, void *opaque)
{
    struct fsw_overflow *overflow = &rig->device->overflow;
    FSW_LOCK_SCOPE(&overflow->lock);

    return rig_stat(rig, FSW_STAT_PAGES_POOL) == 0 && overflow->puts_out == 0;
}

void rig_evict_all(struct rig *rig)
{
    rig_evict(rig, 1);
    rig_wait(rig, pool_is_empty, NULL);
    rig_evict(rig, 0);
}

uint64_t rig_stat(struct rig *rig, enum fsw_stat stat)
{
    uint64_t values[FSW_STAT_COUNT];
    fsw_device_stats(rig->device, values);
    return values[stat];
}

void rig_wait(struct rig *rig, int (*done)(struct rig *rig, void *opaque), void *opaque)
{
    uint64_t deadline = fsw_now_ns() + RIG_PATIENCE_NS;
    const struct timespec pause = {.tv_nsec = 500 * 1000};

    while (!done(rig, opaque)) {
        if (fsw_now_ns() > deadline)
            fail_msg("waited a minute in vain");
        nanosleep(&pause, NULL);
    }
}

fsw_entry *rig_entry(struct rig *rig, uint64_t page)
{
    return fsw_table_find(&rig->device->image, page);
}

void rig_compact(struct rig *rig)
{
    struct fsw_keeper *keeper = &rig->device->keeper;

    atomic_fetch_add(&rig->device->image.super->compact_asked, 1);
    pthread_mutex_lock(&keeper->lock);
    pthread_cond_signal(&keeper->wake);
    pthread_mutex_unlock(&keeper->lock);
}

uint64_t rig_resident(const struct fsw_image *image)
{
    char line[512];
    unsigned long long resident = 0, found = 0;
    int shmid;
    FILE *file = fopen("/proc/sysvipc/shm", "re");

    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        if (sscanf(line, "%*d %d %*o %*u %*d %*d %*u %*u %*u %*u %*u %*u %*u %*u %llu", &shmid,
                   &resident) == 2 &&
            shmid == image->shmid) {
            found = resident;
            break;
        }
    if (file != NULL)
        fclose(file);
    return found;
}

int rig_write_page(struct rig *rig, uint64_t page, enum rig_kind kind, uint64_t seed)
{
    char bytes[FSW_PAGE_SIZE];

    rig_fill(bytes, kind, seed);
    return fsw_device_write(rig->device, bytes, page * FSW_PAGE_SIZE, FSW_PAGE_SIZE);
}

void rig_expect_page(struct rig *rig, uint64_t page, enum rig_kind kind, uint64_t seed)
{
    char expected[FSW_PAGE_SIZE], bytes[FSW_PAGE_SIZE];

    rig_fill(expected, kind, seed);
    assert_int_equal(fsw_device_read(rig->device, bytes, page * FSW_PAGE_SIZE, FSW_PAGE_SIZE), 0);
    if (memcmp(bytes, expected, FSW_PAGE_SIZE) != 0)
        fail_msg("page %llu is not what was written", (unsigned long long)page);
}

/* ---- proof ---- */

/* Everything that moves stands still until let_go(). */
static void stand_still(struct rig *rig)
{
    struct fsw_overflow *overflow = &rig->device->overflow;
    struct fsw_frames *frames = &rig->device->pool.frames;
    struct fsw_clean *clean = &rig->device->clean;
    uint64_t deadline = fsw_now_ns() + RIG_PATIENCE_NS;
    const struct timespec pause = {.tv_nsec = 500 * 1000};

    for (;;) {
        pthread_mutex_lock(&overflow->lock);
        pthread_mutex_lock(&clean->lock);
        pthread_mutex_lock(&frames->lock);
        uint64_t named = fsw_stat_get(&rig->device->image, FSW_STAT_TABLE_LEAVES) +
                         fsw_stat_get(&rig->device->image, FSW_STAT_POOL_FRAMES);
        if (!clean->busy && overflow->puts_out == 0 && overflow->drops.out == 0 &&
            overflow->drops.waiting == 0 && overflow->finished == NULL &&
            overflow->drops.finished == NULL && frames->filling == 0 && frames->used == named)
            return;
        pthread_mutex_unlock(&frames->lock);
        pthread_mutex_unlock(&clean->lock);
        pthread_mutex_unlock(&overflow->lock);
        if (fsw_now_ns() > deadline)
            fail_msg(
                "not at rest after a minute: %u puts, %u drops, row %u to drop, %u frames used, "
                "%llu named",
                overflow->puts_out, overflow->drops.out, overflow->drops.waiting,
                (unsigned)frames->used, (unsigned long long)named);
        nanosleep(&pause, NULL);
    }
}

static void let_go(struct rig *rig)
{
    pthread_mutex_unlock(&rig->device->pool.frames.lock);
    pthread_mutex_unlock(&rig->device->clean.lock);
    pthread_mutex_unlock(&rig->device->overflow.lock);
}

struct sums {
    uint64_t pages[4], pool_units, store_units, huge, leaves;
    uint32_t *live; /* what lives in each row's segment (rows.h) */
    uint8_t *seen;  /* frames that somebody names */
    char text[160];
};

#define PROVE(sums, condition, ...)                                                                \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            snprintf((sums)->text, sizeof(sums)->text, __VA_ARGS__);                               \
            return -1;                                                                             \
        }                                                                                          \
    } while (0)

static int prove_entry(struct fsw_device *device, uint64_t page, uint64_t value, struct sums *sums)
{
    const struct fsw_image *image = &device->image;
    unsigned units = fsw_entry_units(value);
    uint32_t row = fsw_entry_row(value), on_object;

    PROVE(sums, !(value & (FSW_ENTRY_LOCK | FSW_ENTRY_OVERFLOW)), "page %llu: lock or overflow bit",
          (unsigned long long)page);
    PROVE(sums, page < device->pages || value == 0, "an entry past the device's end");
    sums->pages[fsw_entry_state(value)]++;
    if (fsw_entry_state(value) == FSW_EMPTY)
        PROVE(sums, value == 0, "page %llu: empty and not zero", (unsigned long long)page);
    if (fsw_entry_state(value) == FSW_POOL) {
        char object[FSW_OBJECT_MAX];
        PROVE(sums, fsw_pool_is_allocated(&device->pool, fsw_entry_location(value), units),
              "page %llu: its object is not allocated", (unsigned long long)page);
        PROVE(sums, fsw_pool_read(image, fsw_entry_location(value), object, units) == 0,
              "page %llu: its object has no frame", (unsigned long long)page);
        memcpy(&on_object, object, sizeof on_object);
        PROVE(sums, on_object == (uint32_t)page, "page %llu: its object is page %u's",
              (unsigned long long)page, on_object);
        sums->pool_units += units;
        sums->huge += units == FSW_OBJECT_UNITS_MAX;
    } else if (fsw_entry_state(value) == FSW_STORE) {
        PROVE(sums,
              row != 0 && row < image->super->rows_top && fsw_row_state(image, row) == FSW_ROW_LIVE,
              "page %llu: its row is not live", (unsigned long long)page);
        PROVE(sums, (fsw_entry_offset_units(value) + units) * FSW_UNIT <= image->rows[row].bytes,
              "page %llu: past its segment's end", (unsigned long long)page);
        sums->store_units += units;
        sums->live[row] += fsw_live(1, units);
    }
    return 0;
}

static int prove_frame(struct fsw_device *device, uint32_t frame, struct sums *sums)
{
    PROVE(sums, frame < device->image.super->frames_top, "frame %u is past the top", frame);
    PROVE(sums, !sums->seen[frame], "frame %u is named twice (F1, I2)", frame);
    sums->seen[frame] = 1;
    return 0;
}

static int prove_table(struct fsw_device *device, struct sums *sums)
{
    const struct fsw_image *image = &device->image;

    for (uint64_t leaf = 0; leaf < image->super->leaves; leaf++) {
        if (image->directory[leaf] == 0)
            continue;
        sums->leaves++;
        PROVE(sums, fsw_leaf_frame(image, leaf, image->directory[leaf]) != 0,
              "leaf %llu: damaged directory word", (unsigned long long)leaf);
        if (prove_frame(device, fsw_leaf_frame(image, leaf, image->directory[leaf]), sums) < 0)
            return -1;
        fsw_entry *entry = fsw_table_find(image, leaf * FSW_LEAF_ENTRIES);
        for (unsigned i = 0; i < FSW_LEAF_ENTRIES; i++)
            if (prove_entry(device, leaf * FSW_LEAF_ENTRIES + i, entry[i], sums) < 0)
                return -1;
    }
    return 0;
}

static int prove_frames(struct fsw_device *device, struct sums *sums)
{
    struct fsw_frames *frames = &device->pool.frames;
    struct fsw_superblock *super = device->image.super;
    uint32_t untouched = 0, named = 0;

    for (uint32_t id = 1; id < super->zspages_top; id++)
        for (unsigned i = 0; i < FSW_ZSPAGE_FRAMES; i++) {
            uint32_t frame = device->image.zspages[id].frame[i];
            if (frame != 0 && prove_frame(device, frame, sums) < 0)
                return -1;
        }
    for (uint32_t frame = 0; frame < super->frames_top; frame++)
        named += sums->seen[frame];
    for (uint32_t i = 0; i < frames->nready; i++)
        if (prove_frame(device, frames->ready[i], sums) < 0)
            return -1;
    for (uint32_t frame = 0; frame < super->frames_top; frame++)
        if (frames->untouched[frame / 64] >> frame % 64 & 1) {
            untouched++;
            if (prove_frame(device, frame, sums) < 0)
                return -1;
        }
    PROVE(sums, untouched == frames->untouched_count, "%u frames untouched, %u counted", untouched,
          frames->untouched_count);
    PROVE(sums, named == frames->used, "%u frames named, %u used", named, (unsigned)frames->used);
    PROVE(sums, named + frames->nready + untouched + 1 == super->frames_top,
          "a frame is nowhere (F1): %u named, %u ready, %u untouched, top %u", named,
          (unsigned)frames->nready, untouched, (unsigned)super->frames_top);
    PROVE(sums, frames->used + frames->nready + frames->overhead <= frames->limit,
          "more than memory= (F2)");
    PROVE(sums, rig_resident(&device->image) <= (uint64_t)frames->limit * FSW_FRAME_SIZE,
          "the kernel counts %llu bytes resident, above memory= (F2)",
          (unsigned long long)rig_resident(&device->image));
    return 0;
}

static int prove_rows(struct rig *rig, struct sums *sums)
{
    const struct fsw_image *image = &rig->device->image;
    uint64_t bytes = 0;
    unsigned segments = 0;

    for (uint32_t row = 1; row < image->super->rows_top; row++) {
        enum fsw_row_state state = fsw_row_state(image, row);
        PROVE(sums, state == FSW_ROW_FREE || state == FSW_ROW_LIVE, "row %u: state %d at rest", row,
              (int)state);
        PROVE(sums, fsw_row_pins(image, row) == 0, "row %u: %u pins at rest", row,
              fsw_row_pins(image, row));
        PROVE(sums, sums->live[row] == (state == FSW_ROW_LIVE ? fsw_row_live_now(image, row) : 0),
              "row %u: %u live, %u entries name it; or their units differ: %u, %u", row,
              fsw_row_live_count(image, row), fsw_live_objects(sums->live[row]),
              fsw_live_units(fsw_row_live_now(image, row)), fsw_live_units(sums->live[row]));
        if (state != FSW_ROW_LIVE)
            continue;
        PROVE(sums, sums->live[row] > 0, "row %u: nothing lives in it and it is not dropped", row);
        segments++;
        bytes += image->rows[row].bytes;
    }
    PROVE(sums, segments == fsw_stat_get(image, FSW_STAT_SEGMENTS),
          "segments: %u rows, %llu counted", segments,
          (unsigned long long)fsw_stat_get(image, FSW_STAT_SEGMENTS));
    PROVE(sums, bytes == fsw_stat_get(image, FSW_STAT_STORE_BYTES),
          "store_bytes: %llu in rows, %llu counted", (unsigned long long)bytes,
          (unsigned long long)fsw_stat_get(image, FSW_STAT_STORE_BYTES));
    PROVE(sums, rig->store == NULL || segments == teststore_segments(rig->store),
          "%u live rows, %u segments at the store", segments, teststore_segments(rig->store));
    return 0;
}

static int prove_counters(struct fsw_device *device, const struct sums *sums, char *text,
                          size_t room)
{
    uint64_t values[FSW_STAT_COUNT], objects = 0;

    fsw_device_stats(device, values);
    for (uint32_t id = 1; id < device->image.super->zspages_top; id++)
        objects += device->pool.zspages[id].used;
    const struct {
        const char *name;
        uint64_t counted, walked;
    } lines[] = {
        {"pages_pool", values[FSW_STAT_PAGES_POOL], sums->pages[FSW_POOL]},
        {"objects in zspages", objects, sums->pages[FSW_POOL]},
        {"same_pages", values[FSW_STAT_PAGES_SAME], sums->pages[FSW_SAME]},
        {"pages_store", values[FSW_STAT_PAGES_STORE], sums->pages[FSW_STORE]},
        {"pages_stored", values[FSW_STAT_PAGES_STORED],
         sums->pages[FSW_POOL] + sums->pages[FSW_SAME] + sums->pages[FSW_STORE]},
        {"orig_data_size", values[FSW_STAT_ORIG_DATA_SIZE],
         values[FSW_STAT_PAGES_STORED] * FSW_PAGE_SIZE},
        {"compr_data_size", values[FSW_STAT_COMPR_DATA_SIZE], sums->pool_units * FSW_UNIT},
        {"store_data_size", values[FSW_STAT_STORE_DATA_SIZE], sums->store_units * FSW_UNIT},
        {"huge_pages", values[FSW_STAT_HUGE_PAGES], sums->huge},
        {"table_leaves", values[FSW_STAT_TABLE_LEAVES], sums->leaves},
        {"mem_used_total", values[FSW_STAT_MEM_USED_TOTAL],
         ((uint64_t)device->pool.frames.used + device->pool.frames.overhead) * FSW_FRAME_SIZE},
    };
    for (unsigned i = 0; i < sizeof lines / sizeof lines[0]; i++)
        if (lines[i].counted != lines[i].walked) {
            snprintf(text, room, "%s: %llu counted, %llu walked", lines[i].name,
                     (unsigned long long)lines[i].counted, (unsigned long long)lines[i].walked);
            return -1;
        }
    return 0;
}

void rig_prove(struct rig *rig)
{
    struct fsw_device *device = rig->device;
    struct fsw_error err = {""};

    fsw_keeper_stop(device); /* or it compacts what we look at */
    stand_still(rig);
    struct sums sums = {
        .live = calloc(device->image.super->rows_top + 1, sizeof(uint32_t)),
        .seen = calloc(device->image.super->frames_top + 1, 1),
    };
    int r = fsw_pool_check(&device->pool, &err);
    if (r < 0)
        snprintf(sums.text, sizeof sums.text, "%.150s", err.text);
    if (r == 0)
        r = prove_table(device, &sums);
    if (r == 0)
        r = prove_frames(device, &sums);
    if (r == 0)
        r = prove_rows(rig, &sums);
    if (r == 0)
        r = prove_counters(device, &sums, sums.text, sizeof sums.text);
    let_go(rig);
    atomic_store(&device->keeper.stop, 0);
    must(fsw_keeper_start(device), &err);
    free(sums.live);
    free(sums.seen);
    if (r < 0)
        fail_msg("%s", sums.text);
}

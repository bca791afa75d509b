/*
 * lives.c: the processes of a run, and what is looked at between them.
 */
#include "lives.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../unit/rig.h"
#include "common/clock.h"
#include "core/budget.h"
#include "core/check.h"
#include "core/registry.h"
#include "work.h"

#define COMPARE_NS (60 * FSW_NS_PER_S)
#define STAGE_SECONDS 300 /* then a stage hangs */

static const char *const stage_names[] = {"begin", "recover", "go on", "end"};

uint64_t lives_mix(const struct lane *lane, uint64_t a, uint64_t b)
{
    uint64_t state = lane->plan.seed ^ a * 0x9e3779b97f4a7c15ull ^ b << 48;
    return rig_random(&state);
}

static void device_name(const struct lane *lane, char name[FSW_NAME_MAX + 1])
{
    snprintf(name, FSW_NAME_MAX + 1, "crash%u", lane->number);
}

/* ---- in the processes that die ---- */

static int say(int r, const struct fsw_error *err)
{
    if (r < 0)
        fprintf(stderr, "%s\n", err->text);
    return r;
}

static int open_device(struct lane *lane, enum fsw_open how, struct fsw_device **ret_device)
{
    struct fsw_params params;
    struct fsw_error err = {""};

    fsw_params_init(&params);
    device_name(lane, params.name);
    params.size = MODEL_SIZE;
    params.memory = 2 * 1024 * 1024;
    int r = fsw_device_open(&params, how, 0, shelf_open(&lane->shelf), ret_device, &err);
    if (r == 0 && !fsw_device_is_recovered(*ret_device, NULL))
        work_shrink(*ret_device);
    if (r == 0)
        work_set_limit(*ret_device);
    if (r == 0)
        r = fsw_device_start(*ret_device, &err);
    return say(r, &err);
}

static int work(struct lane *lane, struct fsw_device *device, unsigned steps, uint64_t seed)
{
    struct work work = {.device = device,
                        .model = &lane->model,
                        .shelf = &lane->shelf,
                        .seed = seed,
                        .workers = lane->plan.workers,
                        .steps = steps};

    return work_run(&work);
}

static int begin(struct lane *lane, uint64_t n)
{
    struct fsw_device *device;

    points_arm(&lane->points, n);
    int r = open_device(lane, FSW_OPEN_NEW, &device);
    if (r == 0)
        r = work(lane, device, lane->plan.steps, lives_mix(lane, 1, 0));
    return r;
}

static int recover(struct lane *lane, uint64_t n)
{
    struct fsw_device *device;

    uint64_t points = lane->recovery_points;
    points_arm(&lane->points, points == 0 ? 0 : n % (points + 1));
    return open_device(lane, FSW_OPEN_NEW_OR_EXISTING, &device);
}

/* At rest, the store has one segment a LIVE row, and those that landed after they were dropped. Pages
 * may begin to leave between the two counts: then these meet a moment later. */
static int compare_store(struct lane *lane, struct fsw_device *device)
{
    uint64_t deadline = fsw_now_ns() + COMPARE_NS;
    const struct timespec pause = {.tv_nsec = 1000 * 1000};

    for (;;) {
        unsigned known = shelf_known(&lane->shelf);
        uint64_t segments = fsw_stat_get(&device->image, FSW_STAT_SEGMENTS);
        if (known == segments)
            return 0;
        if (fsw_now_ns() > deadline) {
            fprintf(stderr, "%u segments at the store, %llu LIVE rows\n", known,
                    (unsigned long long)segments);
            return -EUCLEAN;
        }
        nanosleep(&pause, NULL);
    }
}

/* Everything is there, and everything adds up. */
static int prove(struct lane *lane, struct fsw_device *device)
{
    struct rig rig = {.device = device, .high = device->reclaim.high};

    fsw_clean_stop(device);  /* what it puts now would not be counted yet */
    fsw_repair_stop(device); /* or it may have a row pinned */
    atomic_store(&lane->shelf.fail_in_thousand, 0);
    if (model_settle(&lane->model, device, 0, MODEL_PAGES) > 0)
        return -EIO;
    if (work_rest(device) < 0)
        return -ETIMEDOUT;
    rig_prove(&rig); /* ends the process if not */
    int r = compare_store(lane, device);
    device->clean.stop = device->repair.stop = 0;
    if (r == 0)
        r = fsw_repair_start(device);
    return r < 0 ? r : fsw_clean_start(device);
}

static int go_on(struct lane *lane, uint64_t n)
{
    struct fsw_device *device;

    points_arm(&lane->points, 0);
    int r = open_device(lane, FSW_OPEN_NEW_OR_EXISTING, &device);
    lane->recovery_points = atomic_load(&lane->points.reached);
    points_disarm();
    if (r == 0)
        r = prove(lane, device);
    points_arm(&lane->points, 1 + lives_mix(lane, 2, n) % 400);
    if (r == 0)
        r = work(lane, device, 30, lives_mix(lane, 3, n));
    return r;
}

static int end(struct lane *lane, uint64_t n)
{
    struct fsw_device *device;

    points_disarm();
    int r = open_device(lane, FSW_OPEN_NEW_OR_EXISTING, &device);
    if (r == 0)
        r = prove(lane, device);
    if (r == 0 && n % 4 == 0) {
        r = work_evict_all(device);
        if (r == 0)
            r = prove(lane, device);
    }
    if (r == 0)
        r = fsw_device_discard(device, 0, MODEL_SIZE);
    if (r == 0) {
        model_reset(&lane->model);
        r = prove(lane, device);
    }
    if (r == 0)
        fsw_device_close(device);
    return r;
}

/* ---- between them ---- */

static void print_problem(const char *line, void *opaque)
{
    fprintf(stderr, "%s\n", line);
}

static int nothing_was_acknowledged(const struct model *model)
{
    for (unsigned page = 0; page < MODEL_PAGES; page++)
        if (atomic_load(&model->used[page]))
            return 0;
    return 1;
}

static int is_maker(const struct lane *lane, int pid)
{
    for (unsigned i = 0; i < STAGES; i++)
        if (lane->pids[i] == pid)
            return 1;
    return 0;
}

/* Images that this run made, of which nobody knows any more (a process's number alone may have been
 * another's). Returns how many there were. */
static unsigned remove_orphans(const struct lane *lane)
{
    const char *format = "%*d %d %o %llu %d %*d %*d %*d %*d %*d %*d %*d %*d %lld";
    char line[512];
    int shmid, pid;
    unsigned long long bytes;
    long long made;
    unsigned count = 0, mode;
    FILE *file = fopen("/proc/sysvipc/shm", "re");

    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        if (sscanf(line, format, &shmid, &mode, &bytes, &pid, &made) == 5 && is_maker(lane, pid) &&
            bytes == lane->image_bytes && made >= lane->started && !(mode & SHM_DEST))
            count += shmctl(shmid, IPC_RMID, NULL) == 0;
    if (file != NULL)
        fclose(file);
    return count;
}

static int any_live_row(const struct fsw_image *image)
{
    for (uint32_t row = 1; row < atomic_load(&image->super->rows_top); row++)
        if (fsw_row_state(image, row) == FSW_ROW_LIVE)
            return 1;
    return 0;
}

/* Whoever takes a donor away asks the image, also while nobody serves it (core/repair.c, P1). */
static int tells_what_lacks(const struct lane *lane, const struct fsw_image *image)
{
    uint32_t all = (1u << lane->shelf.copies) - 1;

    if (fsw_stat_get(image, FSW_STAT_SEGMENTS_LACKING) > 0)
        return 1;
    for (uint32_t row = 1; row < atomic_load(&image->super->rows_top); row++)
        if (fsw_row_state(image, row) == FSW_ROW_LIVE &&
            atomic_load(&image->rows[row].copies) != all) {
            fprintf(stderr, "row %u lacks a copy, and segments_lacking is 0\n", row);
            return 0;
        }
    return 1;
}

static int is_nameless(const char *point)
{
    return strcmp(point, "image: memory, and no word in it") == 0 ||
           strcmp(point, "image: superblock written, no name") == 0;
}

/* Who died while a day began has left all of it, whatever was spent in the one before (core/budget.c, B2). */
static int has_its_day(const struct lane *lane, const struct fsw_superblock *super)
{
    unsigned begins = points_index("budget: a new day, nothing spent");
    uint64_t limit = atomic_load(&super->overflow_limit), left = fsw_budget_left(super);

    if (lane->points.last != begins || left == limit)
        return 1;
    fprintf(stderr, "a new day begins with %llu bytes left of %llu\n", (unsigned long long)left,
            (unsigned long long)limit);
    return 0;
}

/* What a process left, before anybody repairs it. 0, or what is wrong was printed. */
static int look_at_remains(struct lane *lane, int died)
{
    struct fsw_record record;
    struct fsw_image image;
    struct fsw_check_report report;
    char name[FSW_NAME_MAX + 1];
    struct fsw_error err = {""};

    device_name(lane, name);
    int r = fsw_registry_read(name, -1, &record, &err);
    if (r == 0)
        r = fsw_registry_attach(&record, 0, &image, &err);
    if (r == -ENOENT && nothing_was_acknowledged(&lane->model)) {
        lane->nameless += is_nameless(points_text(lane->points.last));
        return 0;
    }
    if (r < 0)
        return say(r, &err);
    r = fsw_image_check(&image, 0, print_problem, NULL, &report);
    if (r == 0 && report.problems > 0)
        r = -EUCLEAN;
    if (r == 0 && atomic_load(&image.super->planted) == 0 && any_live_row(&image)) {
        fprintf(stderr, "a row is LIVE, and the sentinel was never planted\n");
        r = -EUCLEAN;
    }
    if (r == 0 && !tells_what_lacks(lane, &image))
        r = -EUCLEAN;
    if (r == 0 && died && !has_its_day(lane, image.super))
        r = -EUCLEAN;
    shelf_process_died(&lane->shelf, atomic_load(&image.super->next_segment));
    lane->image_bytes = image.bytes;
    fsw_image_detach(&image);
    return r;
}

/* Nothing is left of the run then but what nobody could know: memory of a process that died before
 * it had written down the name. 0, or a line. */
static int destroy(const struct lane *lane)
{
    struct fsw_record record;
    struct fsw_image image;
    char name[FSW_NAME_MAX + 1];

    device_name(lane, name);
    if (fsw_registry_read(name, -1, &record, NULL) == 0 &&
        fsw_registry_attach(&record, 1, &image, NULL) == 0)
        fsw_image_wipe(&image, NULL);
    fsw_registry_remove(name);
    if (remove_orphans(lane) <= lane->nameless)
        return 0;
    fprintf(stderr, "an image was forgotten\n");
    return -EUCLEAN;
}

/* One process's life. 1: it died at its point; 0: it came to its end; else it failed. */
static int live(struct lane *lane, enum stage stage, uint64_t n)
{
    static int (*const run[STAGES])(struct lane *, uint64_t) = {begin, recover, go_on, end};
    int status;

    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        alarm(STAGE_SECONDS);
        _exit(run[stage](lane, n) < 0 ? 1 : 0);
    }
    lane->pids[stage] = pid;
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        return -ECHILD;
    if (WIFEXITED(status) && WEXITSTATUS(status) == POINTS_DIED) {
        lane->deaths[stage]++;
        return look_at_remains(lane, 1) < 0 ? -EUCLEAN : 1;
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return stage == END ? 0 : look_at_remains(lane, 0);
    if (WIFSIGNALED(status))
        fprintf(stderr, "%s: signal %d%s\n", stage_names[stage], WTERMSIG(status),
                WTERMSIG(status) == SIGALRM ? " (it hangs)" : "");
    return -EIO;
}

static void report_failure(struct lane *lane, uint64_t n, enum stage stage)
{
    fprintf(stderr,
            "FAILED at n %llu, in '%s'; the last death was at '%s' in thread %s\n"
            "(FARSWAP_TEST_SEED=%llu, --only %llu --workers %u --steps %u)\n",
            (unsigned long long)n, stage_names[stage], points_text(lane->points.last),
            lane->points.thread, (unsigned long long)lane->plan.seed, (unsigned long long)n,
            lane->plan.workers, lane->plan.steps);
    atomic_store(&lane->failed, 1);
}

int lives_run(struct lane *lane, uint64_t n)
{
    model_reset(&lane->model);
    shelf_reset(&lane->shelf, lives_mix(lane, 4, n), 1 + lives_mix(lane, 5, n) % 2);
    memset(lane->pids, 0, sizeof lane->pids);
    lane->nameless = 0;
    lane->started = time(NULL);
    lane->runs++;

    int died = live(lane, BEGIN, n), r = died;
    enum stage stage = BEGIN;
    while (r >= 0 && stage + 1 < STAGES)
        r = live(lane, ++stage, n);
    if (destroy(lane) < 0)
        r = -EUCLEAN;
    if (r < 0)
        report_failure(lane, n, stage);
    return r < 0 ? -1 : died;
}

/*
 * crash.c: the engine dies at each of its crash points, and what is left is made whole by another.
 *
 *      begin       a new device, work, death at the n-th point
 *      recover     another process opens what is left, and dies at a point of its recovery
 *      go on       a third one recovers, everything is compared with the model, work goes on, death
 *      end         the fourth recovers, compares, proves, empties the device, and lives
 *
 * for each n there is, so that everything dies everywhere, with each thread of the engine running.
 * What must hold after each death, before anybody repairs anything: the image's invariants
 * (core/check.h). After each recovery: acknowledged requests are there, those under way happened
 * page by page or did not; all that can be counted adds up (rig_prove); the store has one segment a
 * LIVE row. The store holds the engine to its contract across the deaths (shelf.h).
 *
 * Lanes do this in parallel, each with every so manieth n. Without arguments: every n of one worker's
 * work. Options:
 *      --workers N    so many threads (1)           --steps N   of each until it ends (60)
 *      --every K      only each K-th n (1)          --seconds N stop by then, however many are left
 *      --only N       this n alone, in one lane     --list      all points with their counts
 * FARSWAP_TEST_SEED repeats a run, as far as threads let one be repeated.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../unit/rig.h"
#include "common/clock.h"
#include "core/check.h"
#include "core/registry.h"
#include "points.h"
#include "work.h"

#define LANES 3u
#define NEVER (1ull << 62) /* no work has so many points */
#define TRIES 400u
#define STAGE_SECONDS (RIG_SLOW ? 120 : 20) /* then a stage hangs */

enum stage { BEGIN, RECOVER, GO_ON, END, STAGES };
static const char *const stage_names[] = {"begin", "recover", "go on", "end"};

static struct {
    unsigned workers, steps, every, seconds;
    uint64_t only, seed;
    int list;
} options = {.workers = 1, .steps = 60, .every = 1};

/* What a lane's processes share. */
struct lane {
    struct points points;
    struct model model;
    struct shelf shelf;
    unsigned number;
    uint64_t recovery_points; /* of the last recovery that lived */
    uint64_t runs, deaths[STAGES], skipped;
    pid_t pids[STAGES];
    uint64_t image_bytes;
    unsigned nameless; /* images of this run whose maker died before it named them */
    _Atomic int failed;
};

static uint64_t mix(uint64_t a, uint64_t b)
{
    uint64_t state = options.seed ^ a * 0x9e3779b97f4a7c15ull ^ b << 48;
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
        r = fsw_device_start(*ret_device, &err);
    return say(r, &err);
}

static int work(struct lane *lane, struct fsw_device *device, unsigned steps, uint64_t seed)
{
    struct work work = {.device = device,
                        .model = &lane->model,
                        .shelf = &lane->shelf,
                        .seed = seed,
                        .workers = options.workers,
                        .steps = steps};

    return work_run(&work);
}

static int begin(struct lane *lane, uint64_t n)
{
    struct fsw_device *device;

    points_arm(&lane->points, n);
    int r = open_device(lane, FSW_OPEN_NEW, &device);
    if (r == 0)
        r = work(lane, device, options.steps, mix(1, 0));
    return r;
}

static int recover(struct lane *lane, uint64_t n)
{
    struct fsw_device *device;

    uint64_t points = lane->recovery_points;
    points_arm(&lane->points, points == 0 ? 0 : n % (points + 1));
    return open_device(lane, FSW_OPEN_NEW_OR_EXISTING, &device);
}

/* At rest, the store has one segment a LIVE row, and those that landed after they were dropped. */
static int compare_store(struct lane *lane, struct fsw_device *device)
{
    unsigned known = shelf_known(&lane->shelf);
    uint64_t segments = fsw_stat_get(&device->image, FSW_STAT_SEGMENTS);

    if (known == segments)
        return 0;
    fprintf(stderr, "%u segments at the store, %llu LIVE rows\n", known,
            (unsigned long long)segments);
    return -EUCLEAN;
}

/* Everything is there, and everything adds up. */
static int prove(struct lane *lane, struct fsw_device *device)
{
    struct rig rig = {.device = device, .high = device->reclaim.high};

    atomic_store(&lane->shelf.fail_in_thousand, 0);
    if (model_settle(&lane->model, device) > 0)
        return -EIO;
    if (work_rest(device) < 0)
        return -ETIMEDOUT;
    rig_prove(&rig); /* ends the process if not */
    return compare_store(lane, device);
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
    points_arm(&lane->points, 1 + mix(2, n) % 400);
    if (r == 0)
        r = work(lane, device, 30, mix(3, n));
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

/* Images that this run made, of which nobody knows any more (a process's number alone may be
 * another's by now). Returns how many there were. */
static unsigned remove_orphans(const struct lane *lane)
{
    char line[512];
    int shmid, pid;
    unsigned long long bytes;
    unsigned count = 0, mode;
    FILE *file = fopen("/proc/sysvipc/shm", "re");

    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        if (sscanf(line, "%*d %d %o %llu %d", &shmid, &mode, &bytes, &pid) == 4 &&
            is_maker(lane, pid) && bytes == lane->image_bytes && !(mode & SHM_DEST))
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

static int is_nameless(const char *point)
{
    return strcmp(point, "image: memory, and no word in it") == 0 ||
           strcmp(point, "image: superblock written, no name") == 0;
}

/* What a death left, before anybody repairs it. 0, or what is wrong was printed. */
static int look_at_remains(struct lane *lane)
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
        return look_at_remains(lane) < 0 ? -EUCLEAN : 1;
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return stage == END ? 0 : look_at_remains(lane);
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
            lane->points.thread, (unsigned long long)options.seed, (unsigned long long)n,
            options.workers, options.steps);
    atomic_store(&lane->failed, 1);
}

/* 1: died at n and came through; 0: the work has no n-th point; -1: failed. */
static int run_one(struct lane *lane, uint64_t n)
{
    model_reset(&lane->model);
    shelf_reset(&lane->shelf, mix(4, n));
    memset(lane->pids, 0, sizeof lane->pids);
    lane->nameless = 0;
    lane->runs++;

    int died = live(lane, BEGIN, n), r = died;
    for (enum stage stage = RECOVER; r >= 0 && stage < STAGES; stage++) {
        r = live(lane, stage, n);
        if (r < 0) {
            report_failure(lane, n, stage);
            return -1;
        }
    }
    if (died < 0)
        report_failure(lane, n, BEGIN);
    if (died >= 0 && destroy(lane) < 0) {
        report_failure(lane, n, END);
        return -1;
    }
    return died;
}

/* ---- lanes ---- */

static struct lane *lanes[LANES];
static unsigned lane_count = LANES;

static int is_late(uint64_t started)
{
    return options.seconds != 0 && fsw_now_ns() - started > options.seconds * FSW_NS_PER_S;
}

static int any_failed(void)
{
    for (unsigned i = 0; i < lane_count; i++)
        if (atomic_load(&lanes[i]->failed))
            return 1;
    return 0;
}

/* Every K-th n of every lane-th, until the work ends before its n-th point. */
static int run_lane(struct lane *lane)
{
    uint64_t started = fsw_now_ns(), step = (uint64_t)lane_count * options.every;
    unsigned too_far = 0;

    if (options.only != 0)
        return run_one(lane, options.only) < 0;
    /* Threads make the number of points vary: three in a row are past the end. */
    for (uint64_t n = 1 + lane->number * options.every; too_far < 3 && !any_failed(); n += step) {
        if (is_late(started)) {
            lane->skipped = 1;
            break;
        }
        int r = run_one(lane, n);
        if (r < 0)
            return 1;
        too_far = r == 0 ? too_far + 1 : 0;
    }
    return 0;
}

static int start_lanes(pid_t pids[LANES])
{
    for (unsigned i = 0; i < lane_count; i++) {
        lanes[i] = mmap(NULL, sizeof *lanes[i], PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (lanes[i] == MAP_FAILED)
            return -ENOMEM;
        lanes[i]->number = i;
        lanes[i]->points.linger = options.workers > 1;
    }
    for (unsigned i = 0; i < lane_count; i++) {
        fflush(NULL);
        pids[i] = fork();
        if (pids[i] == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            _exit(run_lane(lanes[i]));
        }
    }
    return 0;
}

static void add_up(struct lane *sum, const struct lane *lane)
{
    for (unsigned i = 0; i < points_count(); i++) {
        atomic_fetch_add(&sum->points.died[i], lane->points.died[i]);
        atomic_fetch_add(&sum->points.passed[i], lane->points.passed[i]);
    }
    for (unsigned i = 0; i < STAGES; i++)
        sum->deaths[i] += lane->deaths[i];
    sum->runs += lane->runs;
    sum->skipped += lane->skipped;
}

/* Rare ones, which no n fell on: until something has died there. Other work each time. */
static int visit_the_rest(struct lane *lane)
{
    uint64_t seed = options.seed;
    int r = 0;

    for (unsigned i = 0; r >= 0 && i < points_count(); i++)
        for (unsigned tries = 0; r >= 0 && atomic_load(&lane->points.died[i]) == 0 && tries < TRIES;
             tries++) {
            options.seed = mix(5, tries);
            lane->points.target = i + 1;
            r = run_one(lane, NEVER);
            options.seed = seed;
        }
    lane->points.target = 0;
    return r;
}

static int report(int failed)
{
    struct lane *sum = lanes[0];
    int all = options.only == 0 && options.seconds == 0;

    for (unsigned i = 1; i < lane_count; i++)
        add_up(sum, lanes[i]);
    if (!failed && all)
        failed = visit_the_rest(sum) < 0;
    printf("%llu runs; deaths: %llu in work on a new device, %llu in recovery, %llu in work after "
           "it%s\n",
           (unsigned long long)sum->runs, (unsigned long long)sum->deaths[BEGIN],
           (unsigned long long)sum->deaths[RECOVER], (unsigned long long)sum->deaths[GO_ON],
           sum->skipped ? "; the time was over before all n had come" : "");
    unsigned never = points_report(&sum->points, options.list);
    printf("%u points, none died at %u of them\n", points_count(), never);
    /* A point at which nothing ever died proves nothing. */
    return failed || (all && never > 0);
}

static int run_all(void)
{
    pid_t pids[LANES];
    int status, failed = 0;

    options.seed = rig_seed();
    if (options.only != 0)
        lane_count = 1;
    if (start_lanes(pids) < 0)
        return 1;
    for (unsigned i = 0; i < lane_count; i++)
        if (waitpid(pids[i], &status, 0) != pids[i] || !WIFEXITED(status) || WEXITSTATUS(status))
            failed = 1;
    return report(failed);
}

static void parse(int argc, char **argv)
{
    static const struct option longs[] = {
        {"workers", 1, NULL, 'w'}, {"steps", 1, NULL, 's'}, {"every", 1, NULL, 'e'},
        {"seconds", 1, NULL, 't'}, {"only", 1, NULL, 'o'},  {"list", 0, NULL, 'l'},
        {NULL, 0, NULL, 0},
    };
    int option;

    while ((option = getopt_long(argc, argv, "", longs, NULL)) >= 0) {
        uint64_t value = optarg != NULL ? strtoull(optarg, NULL, 0) : 1;
        switch (option) {
        case 'w':
            options.workers = value >= 1 && value <= WORKERS_MAX ? (unsigned)value : 1;
            break;
        case 's':
            options.steps = (unsigned)value;
            break;
        case 'e':
            options.every = value >= 1 ? (unsigned)value : 1;
            break;
        case 't':
            options.seconds = (unsigned)value;
            break;
        case 'o':
            options.only = value;
            break;
        case 'l':
            options.list = 1;
            break;
        default:
            exit(2);
        }
    }
}

int main(int argc, char **argv)
{
    parse(argc, argv);
    return rig_main(run_all);
}

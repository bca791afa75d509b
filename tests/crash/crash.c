/*
 * crash.c: the engine dies at each of its crash points (core/crash.h), and what is left is made whole by
 * another: run after run (lives.h), each dying at another n, in parallel lanes.
 *
 * Without arguments: every n of one worker's work, and then each point that no n fell on. A point at
 * which nothing ever died fails the test. Options:
 *      --workers N    so many threads (1)           --steps N   of each until it ends (60)
 *      --every K      only each K-th n (1; 4 with a sanitizer)
 *      --only N    this n alone, in one lane
 *      --list 1       all points with their counts
 *      --seconds N    for developers: any work of any number of workers, and any n of it, so long
 * FARSWAP_TEST_SEED repeats a run, as far as threads let one be repeated.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../unit/rig.h"
#include "common/clock.h"
#include "lives.h"
#include "work.h"

#define LANES 3u
#define NEVER (1ull << 62) /* no work has so many points */
#define TRIES 400u         /* until a rare point comes */

static struct {
    uint64_t workers, steps, every, seconds, only, list;
    uint64_t seed;
} options = {.workers = 1, .steps = 60, .every = RIG_SLOW ? 4 : 1};

static struct lane *lanes[LANES];
static unsigned lane_count = LANES;

static int any_failed(void)
{
    for (unsigned i = 0; i < lane_count; i++)
        if (atomic_load(&lanes[i]->failed))
            return 1;
    return 0;
}

static void set_plan(struct lane *lane, uint64_t seed, uint64_t workers, uint64_t steps)
{
    lane->plan =
        (struct plan){.seed = seed, .workers = (unsigned)workers, .steps = (unsigned)steps};
    lane->points.linger = workers > 1;
}

/* Other work each time, and any n of it, for as long as was asked for. */
static int run_at_random(struct lane *lane)
{
    uint64_t until = fsw_now_ns() + options.seconds * FSW_NS_PER_S;
    uint64_t state = options.seed + lane->number;

    while (fsw_now_ns() < until && !any_failed()) {
        uint64_t steps = 20 + rig_below(&state, 300);
        set_plan(lane, rig_random(&state), 1 + rig_below(&state, WORKERS_MAX), steps);
        if (lives_run(lane, 1 + rig_below(&state, 60 * steps)) < 0)
            return 1;
    }
    return 0;
}

/* Every K-th n of every lane-th, until the work ends before its n-th point. */
static int run_lane(struct lane *lane)
{
    uint64_t step = lane_count * options.every;
    unsigned too_far = 0;

    if (options.only != 0)
        return lives_run(lane, options.only) < 0;
    if (options.seconds != 0)
        return run_at_random(lane);
    /* Threads make the number of points vary: three in a row are past the end. */
    for (uint64_t n = 1 + lane->number * options.every; too_far < 3 && !any_failed(); n += step) {
        int r = lives_run(lane, n);
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
        set_plan(lanes[i], options.seed, options.workers, options.steps);
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
}

/* Rare ones, which no n fell on: until something has died there. Other work each time. */
static int visit_the_rest(struct lane *lane)
{
    int r = 0;

    for (unsigned i = 0; r >= 0 && i < points_count(); i++)
        for (unsigned tries = 0; r >= 0 && atomic_load(&lane->points.died[i]) == 0 && tries < TRIES;
             tries++) {
            set_plan(lane, options.seed + tries, 1 + tries % WORKERS_MAX, 3 * options.steps);
            lane->points.target = i + 1;
            r = lives_run(lane, NEVER);
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
           "it\n",
           (unsigned long long)sum->runs, (unsigned long long)sum->deaths[BEGIN],
           (unsigned long long)sum->deaths[RECOVER], (unsigned long long)sum->deaths[GO_ON]);
    unsigned never = points_report(&sum->points, options.list != 0);
    printf("%u points, none died at %u of them\n", points_count(), never);
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
    const struct {
        const char *name;
        uint64_t *value, least, most;
    } known[] = {
        {"--workers", &options.workers, 1, WORKERS_MAX},
        {"--steps", &options.steps, 1, 10000},
        {"--every", &options.every, 1, UINT32_MAX},
        {"--seconds", &options.seconds, 1, 86400},
        {"--only", &options.only, 1, NEVER},
        {"--list", &options.list, 0, 1},
    };

    for (int i = 1; i < argc; i += 2) {
        unsigned k = 0;
        while (k < sizeof known / sizeof known[0] && strcmp(argv[i], known[k].name) != 0)
            k++;
        uint64_t value = i + 1 < argc ? strtoull(argv[i + 1], NULL, 0) : 0;
        if (k == sizeof known / sizeof known[0] || i + 1 == argc || value < known[k].least ||
            value > known[k].most) {
            fprintf(stderr, "%s: see the top of tests/crash/crash.c\n", argv[i]);
            exit(2);
        }
        *known[k].value = value;
    }
}

int main(int argc, char **argv)
{
    parse(argc, argv);
    return rig_main(run_all);
}

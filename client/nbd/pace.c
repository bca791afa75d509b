/*
 * pace.c: trials, and what they decide. A trial is PAIRS pairs of slices, one without waiting and one
 * with, each of SLICE requests. Waiting begins when it wins clearly, goes on while it does not lose, and
 * a trial that changes nothing makes the next one come later.
 */
#include "client/nbd/pace.h"

#define SLICE 128u
#define PAIRS 8u
#define MARGIN 32u /* a win is one by that part: where there is no difference, chance has few */
#define WINS_TO_BEGIN 6u
#define WINS_TO_GO_ON 4u
/* Requests between trials. */
#define REST_LEAST 8192u
#define REST_MOST 65536u

void fsw_pace_init(struct fsw_pace *pace)
{
    *pace = (struct fsw_pace){.rest = REST_LEAST};
}

static void rest(struct fsw_pace *pace, int waits, unsigned requests)
{
    pace->waits = waits;
    pace->rest = requests;
    pace->trial = pace->requests = pace->most = pace->lean = 0;
}

static void begin_trial(struct fsw_pace *pace, uint64_t now)
{
    pace->trial = 2 * PAIRS;
    pace->wins = 0;
    pace->requests = 0;
    pace->began = now;
}

static void end_trial(struct fsw_pace *pace)
{
    int waits = pace->wins >= (pace->waits ? WINS_TO_GO_ON : WINS_TO_BEGIN);
    unsigned longer = pace->rest < REST_MOST ? pace->rest * 2 : REST_MOST;

    rest(pace, waits, waits == pace->waits ? longer : REST_LEAST);
}

/* Every other slice waits. */
static int slice_waits(const struct fsw_pace *pace)
{
    return (int)(pace->trial % 2);
}

static void end_slice(struct fsw_pace *pace, uint64_t now)
{
    uint64_t cost = ((now - pace->began) << 10) / pace->requests;

    if (slice_waits(pace)) /* the pair's second */
        pace->wins += cost < pace->other - pace->other / MARGIN;
    else
        pace->other = cost;
    pace->requests = 0;
    pace->began = now;
    if (--pace->trial == 0)
        end_trial(pace);
}

/* 1: waits are in vain. */
static int look_at_round(struct fsw_pace *pace, unsigned requests)
{
    pace->round = requests;
    if (pace->most < requests)
        pace->most = requests;
    if (pace->waited)
        pace->lean = requests < FSW_PACE_FEW ? pace->lean + 1 : 0;
    pace->waited = 0;
    return pace->lean >= FSW_PACE_LEAN_MOST;
}

/* Who waits is tried in any case: rounds after a wait say little of how many are under way. */
static int is_worth_a_trial(const struct fsw_pace *pace)
{
    return pace->waits || pace->most >= FSW_PACE_MANY;
}

void fsw_pace_note(struct fsw_pace *pace, unsigned requests, uint64_t now)
{
    if (requests == 0)
        return;
    pace->requests += requests;
    if (look_at_round(pace, requests))
        rest(pace, 0, REST_LEAST);
    else if (pace->trial > 0 && pace->requests >= SLICE)
        end_slice(pace, now);
    else if (pace->trial == 0 && pace->requests >= pace->rest && is_worth_a_trial(pace))
        begin_trial(pace, now);
}

int fsw_pace_wait(struct fsw_pace *pace)
{
    int wait = pace->trial > 0 ? slice_waits(pace) : pace->waits;

    pace->waited = wait && pace->round < FSW_PACE_MANY;
    return pace->waited;
}

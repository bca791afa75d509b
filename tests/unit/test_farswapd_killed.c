/*
 * test_farswapd_killed.c: a donor's image outlives its processes: killed at any time, and at any
 * instruction.
 */
#include "donor.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/clock.h"

/* A sanitizer makes ten instructions of one: fewer kills, then, in the same time. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define FEWER 10u
#else
#define FEWER 1u
#endif
#define ROUNDS (400u / FEWER)

/* What a test that fails leaves behind. */
static pid_t running;

static void child_of(pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
}

static void end_child(void)
{
    kill(running, SIGKILL);
    assert_int_equal(waitpid(running, NULL, 0), running);
    running = 0;
}

static pid_t fork_child(void)
{
    pid_t parent = getpid(), child = fork();

    assert_true(child >= 0);
    if (child == 0)
        child_of(parent);
    else
        running = child;
    return child;
}

/* ---- killed ---- */

static void test_killed_at_any_time(void **unused)
{
    struct journal *journal = journal_new();
    uint64_t in_the_middle = 0, stale = 0;
    struct donor donor;

    for (unsigned round = 0; round < ROUNDS; round++) {
        uint64_t before = journal->done;
        if (fork_child() == 0) {
            donor_stir(round + 1);
            donor_open(&donor);
            for (;;)
                journal_work(&donor, journal);
        }
        /* Some rounds end while it opens, the others among its first hundreds of operations. */
        uint64_t most = round % 8 > 0 ? donor_roll(600) : 0, end = fsw_now_ns() + 60 * FSW_NS_PER_S;
        while (journal->done < before + most)
            assert_true(fsw_now_ns() < end);
        struct timespec pause = {.tv_nsec = (long)donor_roll(100000)};
        nanosleep(&pause, NULL);
        end_child();
        in_the_middle += journal->busy;
        donor_open(&donor);
        stale += fsw_keyspace_found(donor.keyspace)->stale;
        assert_int_equal(fsw_keyspace_found(donor.keyspace)->damaged, 0);
        journal_compare(&donor, journal);
        donor_close(&donor);
        donor_stir(round);
    }
    print_message("%llu operations, %llu of %u kills in the middle of one, %llu left two values\n",
                  (unsigned long long)journal->done, (unsigned long long)in_the_middle, ROUNDS,
                  (unsigned long long)stale);
    assert_true(in_the_middle > ROUNDS / 8);
    journal_free(journal);
}

/* One operation, whose argument is there already, as after parsing. */
struct operation {
    unsigned k;
    struct what next;
};

static void operate(struct donor *donor, struct fsw_value *value, unsigned k)
{
    char key[FSW_MAX_KEY];
    size_t length = donor_key(k, key);

    raise(SIGSTOP);
    if (value != NULL)
        fsw_keyspace_set(donor->keyspace, key, length, value);
    else
        fsw_keyspace_del(donor->keyspace, key, length);
    _exit(0);
}

/* Runs the operation in a child, `steps` instructions of it. Whether it was not over then. */
static bool step_through(struct donor *donor, const struct operation *operation, uint64_t steps)
{
    pid_t child = fork_child();
    int status = 0;

    if (child == 0) {
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
            _exit(2);
        operate(donor, operation->next.there ? donor_value(donor, &operation->next) : NULL,
                operation->k);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    for (uint64_t i = 0; i < steps && WIFSTOPPED(status); i++) {
        assert_int_equal(ptrace(PTRACE_SINGLESTEP, child, NULL, NULL), 0);
        assert_int_equal(waitpid(child, &status, 0), child);
    }
    if (!WIFSTOPPED(status)) {
        assert_true(WIFEXITED(status));
        running = 0;
        if (WEXITSTATUS(status) == 2)
            skip(); /* nobody may trace here */
        return false;
    }
    end_child();
    return true;
}

struct steps {
    uint64_t kills, stale;
};

/* Brings the key to `before`, kills the operation after so many instructions, looks, and tells
 * whether the operation has happened. */
static bool kill_after(const struct operation *operation, const struct what *before, uint64_t steps,
                       struct steps *sum, bool *ret_over)
{
    struct donor donor;
    unsigned k = operation->k;

    donor_open(&donor); /* as it was the last time, what is free included: */
    donor_del(&donor, k);
    donor_close(&donor);
    donor_open(&donor);
    assert_true(before->there ? donor_set(&donor, k, before->content, before->length) == 0
                              : donor_del(&donor, k) >= 0);
    *ret_over = !step_through(&donor, operation, steps);
    donor_close(&donor);
    donor_open(&donor);
    assert_int_equal(fsw_keyspace_found(donor.keyspace)->damaged, 0);
    sum->kills += !*ret_over;
    sum->stale += fsw_keyspace_found(donor.keyspace)->stale;
    bool is_old = donor_has(&donor, k, before), is_new = donor_has(&donor, k, &operation->next);
    if (!is_old && !is_new)
        fail_msg("killed after %llu instructions: neither old nor new", (unsigned long long)steps);
    donor_close(&donor);
    return is_new;
}

/* With a stride over all of it; then each instruction about the one that made it happen. */
static void kill_everywhere(const struct operation *operation, const struct what *before,
                            struct steps *sum)
{
    const uint64_t stride = (41 + 2 * donor_roll(20)) * FEWER;
    uint64_t steps = donor_roll(stride), happened = 0;
    bool over = false;

    for (; !over; steps += stride) {
        bool is_new = kill_after(operation, before, steps, sum, &over);
        if (is_new && happened == 0)
            happened = steps;
        assert_int_equal(is_new, happened > 0); /* and does not unhappen */
    }
    assert_true(happened > 0);
    for (steps = happened > stride ? happened - stride : 0; steps < happened + stride;
         steps += FEWER)
        kill_after(operation, before, steps, sum, &over);
}

static void test_killed_at_any_instruction(void **unused)
{
    static const struct what whats[] = {{false, 0, 0},   {true, 1, 10}, {true, 2, 700},
                                        {true, 3, 3000}, {true, 4, 20}, {true, 5, 2000}};
    static const struct {
        unsigned from, to;
    } moves[] = {{0, 1}, {1, 4}, {1, 2}, {2, 3}, {3, 5}, {3, 0}};

    for (unsigned i = 0; i < sizeof moves / sizeof moves[0]; i++) {
        struct operation operation = {DONOR_NO_DEVICES_KEY, whats[moves[i].to]};
        struct steps sum = {0};
        kill_everywhere(&operation, &whats[moves[i].from], &sum);
        print_message("from %u to %u bytes: %llu kills, %llu left two values\n",
                      whats[moves[i].from].length, whats[moves[i].to].length,
                      (unsigned long long)sum.kills, (unsigned long long)sum.stale);
        /* The moment when there are two must have been seen, where there is one. */
        if (moves[i].from != 0 && moves[i].to != 0 && FEWER == 1)
            assert_true(sum.stale > 0);
    }
}

static int clean_up(void **unused)
{
    if (running > 0)
        end_child();
    return donor_clean_up(unused);
}

#define KEEPS_NOTHING(f) cmocka_unit_test_teardown(f, clean_up)

int main(void)
{
    const struct CMUnitTest tests[] = {
        KEEPS_NOTHING(test_killed_at_any_time),
        KEEPS_NOTHING(test_killed_at_any_instruction),
    };

    return cmocka_run_group_tests(tests, donor_set_up, donor_tear_down);
}

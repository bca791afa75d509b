/*
 * test_farswapd_image.c: a donor's image outlives its processes: killed at any instruction, damaged,
 * served twice, orphaned, removed.
 *
 * FSW_SEED chooses the random operations; the seed is printed.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/shm.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/clock.h"
#include "common/shm.h"
#include "server/claim.h"
#include "server/keyspace.h"

#define KEYS 200
#define MEMORY (16ull << 20)
#define NO_DEVICES_KEY 1000u

/* A sanitizer makes ten instructions of one: fewer kills, then, in the same time. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define FEWER 10u
#else
#define FEWER 1u
#endif
#define ROUNDS (400u / FEWER)

static uint64_t seed, state;
static char name[32], folder[64];

static uint64_t roll(uint64_t below)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (state >> 11) % below;
}

/* ---- one process's view ---- */

struct donor {
    struct fsw_donor_image image;
    struct fsw_keyspace *keyspace;
};

/* What a test that fails leaves behind. */
static struct donor *opened;
static pid_t running;

static void donor_open(struct donor *donor)
{
    struct fsw_error err = {""};

    if (fsw_donor_image_open(&donor->image, name, MEMORY, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(fsw_keyspace_open(&donor->image, MEMORY, &donor->keyspace), 0);
    opened = donor;
    if (fsw_keyspace_check(donor->keyspace, &err) < 0)
        fail_msg("after opening: %s", err.text);
    /* What the last process had taken and not published went back to the system. */
    assert_int_equal(fsw_shm_resident(donor->image.shmid) / FSW_DONOR_PAGE,
                     fsw_keyspace_vault(donor->keyspace)->frames);
}

static void donor_close(struct donor *donor)
{
    opened = NULL;
    fsw_keyspace_close(donor->keyspace);
    fsw_donor_image_close(&donor->image);
}

static size_t name_key(unsigned k, char key[FSW_MAX_KEY])
{
    if (k == NO_DEVICES_KEY)
        return (size_t)snprintf(key, FSW_MAX_KEY, "key");
    return (size_t)snprintf(key, FSW_MAX_KEY, "farswap:%032x:%016x", k % 3, k);
}

struct what {
    bool there;
    uint32_t content, length;
};

/* As the parser does it: large ones lie in a slot before they have a key. */
static struct fsw_value *make_value(struct donor *donor, const struct what *what)
{
    struct fsw_value *value =
        what->length > 1024
            ? fsw_vault_take(fsw_keyspace_vault(donor->keyspace), what->length, false)
            : fsw_value_new(what->length);

    for (uint32_t i = 0; value != NULL && i < what->length; i++)
        value->bytes[i] = (char)(what->content + i);
    return value;
}

static int set(struct donor *donor, unsigned k, uint32_t content, uint32_t length)
{
    struct fsw_value *value = make_value(donor, &(struct what){true, content, length});
    char key[FSW_MAX_KEY];

    if (value == NULL)
        return -ENOMEM;
    int r = fsw_keyspace_set(donor->keyspace, key, name_key(k, key), value);
    fsw_value_release(value);
    return r;
}

static int del(struct donor *donor, unsigned k)
{
    char key[FSW_MAX_KEY];

    return fsw_keyspace_del(donor->keyspace, key, name_key(k, key));
}

/* ---- what should be there ---- */

/* Shared with the child that will be killed. */
struct journal {
    struct what key[KEYS];
    volatile bool busy; /* with this: */
    unsigned k;
    struct what next;
    volatile uint64_t done;
};

static bool is_there(struct donor *donor, unsigned k, const struct what *what)
{
    char key[FSW_MAX_KEY];
    struct fsw_value *value = fsw_keyspace_get(donor->keyspace, key, name_key(k, key));

    if (value == NULL || !what->there)
        return (value != NULL) == what->there;
    if (value->length != what->length)
        return false;
    for (uint32_t i = 0; i < value->length; i++)
        if (value->bytes[i] != (char)(what->content + i))
            return false;
    return true;
}

/* All as it was acknowledged; the one that was under way is old or new, and is noted as what it is.
 */
static void compare(struct donor *donor, struct journal *journal)
{
    uint64_t there = 0;

    for (unsigned k = 0; k < KEYS; k++) {
        if (journal->busy && k == journal->k && is_there(donor, k, &journal->next))
            journal->key[k] = journal->next;
        else if (!is_there(donor, k, &journal->key[k]))
            fail_msg("key %u is neither what it was nor what it was to be", k);
        there += journal->key[k].there;
    }
    assert_int_equal(fsw_keyspace_count(donor->keyspace), there);
    journal->busy = false;
}

static uint32_t some_length(void)
{
    static const uint32_t borders[] = {0, 1, 127, 128, 4095, 4096, 4097, 65519, 65520, 65536};

    return roll(2) ? borders[roll(sizeof borders / sizeof borders[0])] : (uint32_t)roll(9000);
}

static void work(struct donor *donor, struct journal *journal)
{
    unsigned k = (unsigned)roll(KEYS);

    journal->k = k;
    journal->next = (struct what){roll(4) > 0, (uint32_t)roll(256), some_length()};
    journal->busy = true;
    atomic_signal_fence(memory_order_seq_cst);
    int r = journal->next.there ? set(donor, k, journal->next.content, journal->next.length)
                                : del(donor, k);
    atomic_signal_fence(memory_order_seq_cst);
    if (r >= 0)
        journal->key[k] = journal->next;
    journal->busy = false;
    journal->done++;
    if (roll(8) == 0)
        fsw_vault_tidy(fsw_keyspace_vault(donor->keyspace), 4);
}

static struct journal *journal_new(void)
{
    struct journal *journal =
        mmap(NULL, sizeof *journal, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    assert_true(journal != MAP_FAILED);
    return journal;
}

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
            state += round + 1;
            donor_open(&donor);
            for (;;)
                work(&donor, journal);
        }
        /* Some rounds end while it opens, the others among its first hundreds of operations. */
        uint64_t most = round % 8 > 0 ? roll(600) : 0, end = fsw_now_ns() + 30 * FSW_NS_PER_S;
        while (journal->done < before + most)
            assert_true(fsw_now_ns() < end);
        struct timespec pause = {.tv_nsec = (long)roll(100000)};
        nanosleep(&pause, NULL);
        end_child();
        in_the_middle += journal->busy;
        donor_open(&donor);
        stale += fsw_keyspace_found(donor.keyspace)->stale;
        assert_int_equal(fsw_keyspace_found(donor.keyspace)->damaged, 0);
        compare(&donor, journal);
        donor_close(&donor);
        state += round;
    }
    print_message("%llu operations, %llu of %u kills in the middle of one, %llu left two values\n",
                  (unsigned long long)journal->done, (unsigned long long)in_the_middle, ROUNDS,
                  (unsigned long long)stale);
    assert_true(in_the_middle > ROUNDS / 8);
    munmap(journal, sizeof *journal);
}

/* One operation, whose argument is there already, as after parsing. */
struct operation {
    unsigned k;
    struct what next;
};

static void operate(struct donor *donor, struct fsw_value *value, unsigned k)
{
    char key[FSW_MAX_KEY];
    size_t length = name_key(k, key);

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
        operate(donor, operation->next.there ? make_value(donor, &operation->next) : NULL,
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
    del(&donor, k);
    donor_close(&donor);
    donor_open(&donor);
    assert_true(before->there ? set(&donor, k, before->content, before->length) == 0
                              : del(&donor, k) >= 0);
    *ret_over = !step_through(&donor, operation, steps);
    donor_close(&donor);
    donor_open(&donor);
    assert_int_equal(fsw_keyspace_found(donor.keyspace)->damaged, 0);
    sum->kills += !*ret_over;
    sum->stale += fsw_keyspace_found(donor.keyspace)->stale;
    bool is_old = is_there(&donor, k, before), is_new = is_there(&donor, k, &operation->next);
    if (!is_old && !is_new)
        fail_msg("killed after %llu instructions: neither old nor new", (unsigned long long)steps);
    donor_close(&donor);
    return is_new;
}

/* With a stride over all of it; then each instruction about the one that made it happen. */
static void kill_everywhere(const struct operation *operation, const struct what *before,
                            struct steps *sum)
{
    const uint64_t stride = (41 + 2 * roll(20)) * FEWER;
    uint64_t steps = roll(stride), happened = 0;
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
        struct operation operation = {NO_DEVICES_KEY, whats[moves[i].to]};
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

/* Two LIVE descriptors of a key: the newer counts, wherever they lie. */
static void test_of_two_values_the_newer_counts(void **unused)
{
    struct donor donor;

    for (unsigned round = 0; round < 2; round++) {
        donor_open(&donor);
        assert_int_equal(fsw_keyspace_clear(donor.keyspace) > 0, round > 0);
        assert_int_equal(set(&donor, 1, 1, 5000), 0);
        assert_int_equal(set(&donor, 2, 2, 5000), 0);
        struct fsw_descriptor *first = NULL, *second = NULL;
        for (uint32_t slot = 1; slot < donor.image.super->top; slot++) {
            struct fsw_descriptor *here = fsw_donor_descriptor(&donor.image, slot);
            if (here->state == FSW_DESCRIPTOR_LIVE)
                *(first == NULL ? &first : &second) = here;
        }
        assert_non_null(second);
        struct fsw_descriptor *loser = round == 0 ? first : second;
        struct fsw_descriptor *winner = round == 0 ? second : first;
        char content = winner->value.bytes[0];
        loser->sequence = 3;
        winner->sequence = 4;
        memcpy(loser->text, winner->text, winner->key_length);
        loser->checksum = fsw_descriptor_checksum(loser);
        winner->checksum = fsw_descriptor_checksum(winner);
        donor_close(&donor);
        donor_open(&donor);
        assert_int_equal(fsw_keyspace_count(donor.keyspace), 1);
        assert_int_equal(fsw_keyspace_found(donor.keyspace)->stale, 1);
        unsigned k = content == 1 ? 1 : 2;
        char key[FSW_MAX_KEY];
        struct fsw_value *value = fsw_keyspace_get(donor.keyspace, key, name_key(k, key));
        assert_non_null(value);
        assert_int_equal(value->bytes[0], content);
        donor_close(&donor);
    }
}

/* ---- damaged ---- */

static void test_damaged_descriptors_are_dropped_and_nothing_else(void **unused)
{
    struct journal *journal = journal_new();
    struct donor donor;
    unsigned damaged = 0;

    donor_open(&donor);
    fsw_keyspace_clear(donor.keyspace);
    for (unsigned k = 0; k < KEYS; k++) {
        journal->key[k] = (struct what){true, k, some_length()};
        assert_int_equal(set(&donor, k, k, journal->key[k].length), 0);
    }
    for (uint32_t slot = 1; slot < donor.image.super->top; slot++) {
        struct fsw_descriptor *here = fsw_donor_descriptor(&donor.image, slot);
        unsigned k;
        if (here->state != FSW_DESCRIPTOR_LIVE || roll(3) > 0)
            continue;
        assert_int_equal(sscanf(here->text, "farswap:%*32[0-9a-f]:%16x", &k), 1);
        /* a bit of its truth */
        uint8_t *truth[] = {(uint8_t *)&here->state,    (uint8_t *)&here->sequence,
                            (uint8_t *)&here->checksum, (uint8_t *)&here->length,
                            &here->key_length,          (uint8_t *)here->text};
        *truth[roll(6)] ^= (uint8_t)(1 << roll(8));
        journal->key[k].there = false;
        damaged++;
    }
    donor_close(&donor);
    donor_open(&donor);
    assert_true(damaged > 20);
    assert_int_equal(fsw_keyspace_found(donor.keyspace)->damaged, damaged);
    compare(&donor, journal);
    for (unsigned i = 0; i < 2000; i++)
        work(&donor, journal);
    assert_int_equal(fsw_keyspace_check(donor.keyspace, NULL), 0);
    compare(&donor, journal);
    donor_close(&donor);
    donor_open(&donor);
    compare(&donor, journal);
    donor_close(&donor);
    munmap(journal, sizeof *journal);
}

/* Whatever is in the descriptors, opening ends and what it made of them is sound. */
static void test_noise_is_survived(void **unused)
{
    struct donor donor;

    for (unsigned round = 0; round < 200; round++) {
        donor_open(&donor);
        for (unsigned k = 0; k < KEYS; k++)
            set(&donor, k, k, some_length());
        size_t bytes = donor.image.super->top * sizeof(struct fsw_descriptor);
        size_t contacts = FSW_MAX_DEVICES * sizeof(struct fsw_contact);
        for (unsigned i = 0; i < 500; i++) {
            ((uint8_t *)donor.image.descriptors)[roll(bytes)] = (uint8_t)roll(256);
            ((uint8_t *)donor.image.contacts)[roll(contacts)] = (uint8_t)roll(256);
        }
        donor.image.super->sequence = roll(UINT64_MAX) >> roll(64);
        donor_close(&donor);
        donor_open(&donor);
        for (unsigned k = 0; k < KEYS; k++)
            assert_int_equal(set(&donor, k, k, 100), 0);
        assert_int_equal(fsw_keyspace_check(donor.keyspace, NULL), 0);
        donor_close(&donor);
    }
}

static int try_open(struct fsw_error *err)
{
    struct fsw_donor_image image;
    int r = fsw_donor_image_open(&image, name, MEMORY, err);

    if (r == 0)
        fsw_donor_image_close(&image);
    return r;
}

/* Any bit of what the superblock's checksum covers, and the tops. */
static void test_a_damaged_superblock_is_refused_and_can_be_removed(void **unused)
{
    struct fsw_donor_image image;
    struct fsw_error err = {""};
    const size_t from = offsetof(struct fsw_donor_super, layout);
    const size_t to = offsetof(struct fsw_donor_super, sequence);

    assert_int_equal(fsw_donor_image_open(&image, name, MEMORY, &err), 0);
    int shmid = image.shmid;
    fsw_donor_image_close(&image);
    uint8_t *super = shmat(shmid, NULL, 0);
    assert_true(super != (void *)-1);
    for (size_t at = from; at < to; at++) {
        uint8_t bit = (uint8_t)(1 << roll(8));
        super[at] ^= bit;
        int r = try_open(&err);
        if (r != -EUCLEAN && r != -ENOTSUP)
            fail_msg("byte %zu: %d %s", at, r, err.text);
        assert_non_null(strstr(err.text, "--destroy"));
        super[at] ^= bit;
    }
    _Atomic uint32_t *top = (void *)(super + offsetof(struct fsw_donor_super, top));
    uint32_t was = *top;
    *top = UINT32_MAX - 15;
    assert_int_equal(try_open(&err), -EUCLEAN);
    *top = was + 1;
    assert_int_equal(try_open(&err), -EUCLEAN);
    *top = was;
    assert_int_equal(try_open(&err), 0);
    *top = 1;
    assert_int_equal(fsw_donor_image_destroy(name, &err), 0);
    shmdt(super);
    struct shmid_ds segment;
    assert_int_equal(shmctl(shmid, IPC_STAT, &segment), -1);
    assert_int_equal(fsw_donor_image_destroy(name, &err), -ENOENT);
}

/* ---- whose it is ---- */

static void test_one_donor_a_name(void **unused)
{
    struct fsw_donor_image image;
    struct fsw_error err = {""};
    int fd;

    assert_int_equal(fsw_donor_image_open(&image, name, MEMORY, &err), 0);
    assert_int_equal(fsw_claim_lock(name, 0, &fd, &err), -EBUSY);
    assert_int_equal(fsw_donor_image_destroy(name, &err), -EBUSY);
    assert_non_null(strstr(err.text, "is being served"));
    fsw_donor_image_close(&image);
    assert_int_equal(fsw_donor_image_destroy(name, &err), 0);
}

static void test_without_its_file_an_image_is_found(void **unused)
{
    struct fsw_error err = {""};
    struct donor donor;
    char path[128];

    donor_open(&donor);
    assert_int_equal(set(&donor, 1, 7, 5000), 0);
    donor_close(&donor);
    snprintf(path, sizeof path, "%s/%s.donor", folder, name);
    assert_int_equal(unlink(path), 0);
    donor_open(&donor);
    assert_true(is_there(&donor, 1, &(struct what){true, 7, 5000}));
    donor_close(&donor);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(fsw_donor_image_destroy(name, &err), 0);
    assert_int_equal(fsw_donor_image_destroy(name, &err), -ENOENT);
    assert_int_equal(access(path, F_OK), -1);
}

/* A file that names memory which is gone, or is another's, is not believed. */
static void test_a_file_that_lies(void **unused)
{
    struct fsw_error err = {""};
    struct donor donor;
    int fd, other = shmget(IPC_PRIVATE, 1 << 20, IPC_CREAT | 0600);

    for (unsigned round = 0; round < 3; round++) {
        const int shmids[] = {other, 2147483647, -1};
        assert_int_equal(fsw_claim_lock(name, 0, &fd, &err), 0);
        assert_int_equal(fsw_claim_write(name, fd, shmids[round], &err), 0);
        close(fd);
        donor_open(&donor);
        assert_int_equal(fsw_keyspace_count(donor.keyspace), 0);
        assert_int_not_equal(donor.image.shmid, other);
        donor_close(&donor);
        assert_int_equal(fsw_donor_image_destroy(name, &err), 0);
    }
    assert_int_equal(shmctl(other, IPC_RMID, NULL), 0);
}

static void test_without_a_name_nothing_stays(void **unused)
{
    struct fsw_donor_image image;
    struct shmid_ds segment;

    assert_int_equal(fsw_donor_image_open(&image, NULL, MEMORY, NULL), 0);
    int shmid = image.shmid;
    assert_int_equal(shmctl(shmid, IPC_STAT, &segment), 0);
    assert_int_equal(segment.shm_nattch, 1);
    fsw_donor_image_close(&image);
    assert_int_equal(shmctl(shmid, IPC_STAT, &segment), -1);
}

static void test_memory_may_change_within_the_image(void **unused)
{
    struct fsw_donor_image image;
    struct fsw_error err = {""};
    struct donor donor;

    donor_open(&donor);
    for (unsigned k = 0; k < 100; k++)
        assert_int_equal(set(&donor, k, k, 65520), 0);
    donor_close(&donor);
    assert_int_equal(fsw_donor_image_open(&image, name, 1ull << 50, &err), -E2BIG);
    assert_non_null(strstr(err.text, "was made for"));
    /* With less than it holds: all is there, and nothing new is taken until there is room. */
    assert_int_equal(fsw_donor_image_open(&donor.image, name, 4 << 20, &err), 0);
    assert_int_equal(fsw_keyspace_open(&donor.image, 4 << 20, &donor.keyspace), 0);
    assert_int_equal(fsw_keyspace_count(donor.keyspace), 100);
    assert_int_equal(set(&donor, 100, 1, 1), -ENOMEM);
    for (unsigned k = 0; k < 100; k++)
        assert_true(is_there(&donor, k, &(struct what){true, k, 65520}));
    for (unsigned k = 0; k < 60; k++)
        del(&donor, k);
    assert_int_equal(set(&donor, 100, 1, 1), 0);
    donor_close(&donor);
}

static int setup(void **unused)
{
    snprintf(folder, sizeof folder, "/tmp/farswapd-image-XXXXXX");
    if (mkdtemp(folder) == NULL)
        return -1;
    snprintf(name, sizeof name, "test-%d", getpid());
    return setenv("FARSWAP_RUNDIR", folder, 1);
}

static int clean_up(void **unused)
{
    if (running > 0)
        end_child();
    if (opened != NULL)
        donor_close(opened);
    fsw_donor_image_destroy(name, NULL);
    return 0;
}

static int teardown(void **unused)
{
    clean_up(unused);
    return rmdir(folder);
}

#define KEEPS_NOTHING(f) cmocka_unit_test_teardown(f, clean_up)

int main(void)
{
    const struct CMUnitTest tests[] = {
        KEEPS_NOTHING(test_killed_at_any_time),
        KEEPS_NOTHING(test_killed_at_any_instruction),
        KEEPS_NOTHING(test_of_two_values_the_newer_counts),
        KEEPS_NOTHING(test_damaged_descriptors_are_dropped_and_nothing_else),
        KEEPS_NOTHING(test_noise_is_survived),
        KEEPS_NOTHING(test_a_damaged_superblock_is_refused_and_can_be_removed),
        KEEPS_NOTHING(test_one_donor_a_name),
        KEEPS_NOTHING(test_without_its_file_an_image_is_found),
        KEEPS_NOTHING(test_a_file_that_lies),
        KEEPS_NOTHING(test_without_a_name_nothing_stays),
        KEEPS_NOTHING(test_memory_may_change_within_the_image),
    };
    const char *text = getenv("FSW_SEED");
    seed = text != NULL ? strtoull(text, NULL, 0) : (uint64_t)time(NULL) * 2654435761u + 1;
    state = seed;
    printf("FSW_SEED=%llu\n", (unsigned long long)seed);
    fflush(stdout);
    return cmocka_run_group_tests(tests, setup, teardown);
}

/*
 * test_farswapd_image.c: a donor's image that is damaged, served twice, orphaned, removed.
 */
#include "donor.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/shm.h"
#include "gone.h"
#include "server/claim.h"

/* ---- damaged ---- */

/* Two LIVE descriptors of a key: the newer counts, wherever they lie. */
static void test_of_two_values_the_newer_counts(void **unused)
{
    struct donor donor;

    for (unsigned round = 0; round < 2; round++) {
        donor_open(&donor);
        assert_int_equal(fsw_keyspace_clear(donor.keyspace) > 0, round > 0);
        assert_int_equal(donor_set(&donor, 1, 1, 5000), 0);
        assert_int_equal(donor_set(&donor, 2, 2, 5000), 0);
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
        struct fsw_value *value = fsw_keyspace_get(donor.keyspace, key, donor_key(k, key));
        assert_non_null(value);
        assert_int_equal(value->bytes[0], content);
        donor_close(&donor);
    }
}

static void test_damaged_descriptors_are_dropped_and_nothing_else(void **unused)
{
    struct journal *journal = journal_new();
    struct donor donor;
    unsigned damaged = 0;

    donor_open(&donor);
    fsw_keyspace_clear(donor.keyspace);
    for (unsigned k = 0; k < DONOR_KEYS; k++) {
        journal->key[k] = (struct what){true, k, donor_some_length()};
        assert_int_equal(donor_set(&donor, k, k, journal->key[k].length), 0);
    }
    for (uint32_t slot = 1; slot < donor.image.super->top; slot++) {
        struct fsw_descriptor *here = fsw_donor_descriptor(&donor.image, slot);
        unsigned k;
        if (here->state != FSW_DESCRIPTOR_LIVE || donor_roll(3) > 0)
            continue;
        assert_int_equal(sscanf(here->text, "farswap:%*32[0-9a-f]:%16x", &k), 1);
        /* a bit of its truth */
        uint8_t *truth[] = {(uint8_t *)&here->state,    (uint8_t *)&here->sequence,
                            (uint8_t *)&here->checksum, (uint8_t *)&here->length,
                            &here->key_length,          (uint8_t *)here->text};
        *truth[donor_roll(6)] ^= (uint8_t)(1 << donor_roll(8));
        journal->key[k].there = false;
        damaged++;
    }
    donor_close(&donor);
    donor_open(&donor);
    assert_true(damaged > 20);
    assert_int_equal(fsw_keyspace_found(donor.keyspace)->damaged, damaged);
    journal_compare(&donor, journal);
    for (unsigned i = 0; i < 2000; i++)
        journal_work(&donor, journal);
    assert_int_equal(fsw_keyspace_check(donor.keyspace, NULL), 0);
    journal_compare(&donor, journal);
    donor_close(&donor);
    donor_open(&donor);
    journal_compare(&donor, journal);
    donor_close(&donor);
    journal_free(journal);
}

/* Whatever is in the descriptors, opening ends and what it made of them is sound. */
static void test_noise_is_survived(void **unused)
{
    struct donor donor;

    for (unsigned round = 0; round < 200; round++) {
        donor_open(&donor);
        for (unsigned k = 0; k < DONOR_KEYS; k++)
            donor_set(&donor, k, k, donor_some_length());
        size_t bytes = donor.image.super->top * sizeof(struct fsw_descriptor);
        size_t contacts = FSW_MAX_DEVICES * sizeof(struct fsw_contact);
        for (unsigned i = 0; i < 500; i++) {
            ((uint8_t *)donor.image.descriptors)[donor_roll(bytes)] = (uint8_t)donor_roll(256);
            ((uint8_t *)donor.image.contacts)[donor_roll(contacts)] = (uint8_t)donor_roll(256);
        }
        donor.image.super->sequence = donor_roll(UINT64_MAX) >> donor_roll(64);
        donor_close(&donor);
        donor_open(&donor);
        for (unsigned k = 0; k < DONOR_KEYS; k++)
            assert_int_equal(donor_set(&donor, k, k, 100), 0);
        assert_int_equal(fsw_keyspace_check(donor.keyspace, NULL), 0);
        donor_close(&donor);
    }
}

static int try_open(struct fsw_error *err)
{
    struct fsw_donor_image image;
    int r = fsw_donor_image_open(&image, donor_name(), DONOR_MEMORY, err);

    if (r == 0)
        fsw_donor_image_close(&image);
    return r;
}

/* As nobody has it: who opens it wants it alone. */
static void flip(int shmid, size_t at, uint8_t bits)
{
    uint8_t *super = shmat(shmid, NULL, 0);

    assert_true(super != (void *)-1);
    super[at] ^= bits;
    shmdt(super);
}

static void set_top(int shmid, uint32_t top)
{
    struct fsw_donor_super *super = shmat(shmid, NULL, 0);

    assert_true(super != (void *)-1);
    super->top = top;
    shmdt(super);
}

/* Any bit of what the superblock's checksum covers, the home, and the tops. */
static void test_a_damaged_superblock_is_refused_and_can_be_removed(void **unused)
{
    struct fsw_donor_image image;
    struct fsw_error err = {""};
    const size_t from = offsetof(struct fsw_donor_super, layout);
    const size_t to = offsetof(struct fsw_donor_super, sequence);
    const size_t home = offsetof(struct fsw_donor_super, home);
    const size_t home_end = home + sizeof image.super->home;

    assert_int_equal(fsw_donor_image_open(&image, donor_name(), DONOR_MEMORY, &err), 0);
    int shmid = image.shmid;
    uint32_t was = image.super->top;
    fsw_donor_image_close(&image);
    for (size_t at = from; at < home_end; at = at + 1 == to ? home : at + 1) {
        uint8_t bit = (uint8_t)(1 << donor_roll(8));
        flip(shmid, at, bit);
        int r = try_open(&err);
        if (r != -EUCLEAN && r != -ENOTSUP)
            fail_msg("byte %zu: %d %s", at, r, err.text);
        assert_non_null(strstr(err.text, "--destroy"));
        flip(shmid, at, bit);
    }
    set_top(shmid, UINT32_MAX - 15);
    assert_int_equal(try_open(&err), -EUCLEAN);
    set_top(shmid, was + 1);
    assert_int_equal(try_open(&err), -EUCLEAN);
    set_top(shmid, was);
    assert_int_equal(try_open(&err), 0);
    set_top(shmid, 1);
    assert_int_equal(fsw_donor_image_destroy(donor_name(), &err), 0);
    assert_true(shm_is_gone(shmid));
    assert_int_equal(fsw_donor_image_destroy(donor_name(), &err), -ENOENT);
}

/* ---- whose it is ---- */

static void test_one_donor_a_name(void **unused)
{
    struct fsw_donor_image image;
    struct fsw_error err = {""};
    int fd;

    assert_int_equal(fsw_donor_image_open(&image, donor_name(), DONOR_MEMORY, &err), 0);
    assert_int_equal(fsw_claim_lock(donor_name(), 0, &fd, &err), -EBUSY);
    assert_int_equal(fsw_donor_image_destroy(donor_name(), &err), -EBUSY);
    assert_non_null(strstr(err.text, "is being served"));
    fsw_donor_image_close(&image);
    assert_int_equal(fsw_donor_image_destroy(donor_name(), &err), 0);
}

static void test_without_its_file_an_image_is_found(void **unused)
{
    struct fsw_error err = {""};
    struct donor donor;
    char path[128];

    donor_open(&donor);
    assert_int_equal(donor_set(&donor, 1, 7, 5000), 0);
    donor_close(&donor);
    snprintf(path, sizeof path, "%s/%s.donor", donor_folder(), donor_name());
    assert_int_equal(unlink(path), 0);
    donor_open(&donor);
    assert_true(donor_has(&donor, 1, &(struct what){true, 7, 5000}));
    donor_close(&donor);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(fsw_donor_image_destroy(donor_name(), &err), 0);
    assert_int_equal(fsw_donor_image_destroy(donor_name(), &err), -ENOENT);
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
        assert_int_equal(fsw_claim_lock(donor_name(), 0, &fd, &err), 0);
        struct fsw_claim lie = {.shmid = shmids[round]};
        assert_int_equal(fsw_claim_write(donor_name(), fd, &lie, &err), 0);
        close(fd);
        donor_open(&donor);
        assert_int_equal(fsw_keyspace_count(donor.keyspace), 0);
        assert_int_not_equal(donor.image.shmid, other);
        donor_close(&donor);
        assert_int_equal(fsw_donor_image_destroy(donor_name(), &err), 0);
    }
    assert_int_equal(shmctl(other, IPC_RMID, NULL), 0);
}

/* ---- run directories ---- */

static char other_folder[80];

static void live_in(const char *folder)
{
    assert_int_equal(setenv("FARSWAP_RUNDIR", folder, 1), 0);
}

/* What there is of the name in a folder, and the folder; no image is where none was. */
static void leave(const char *folder)
{
    live_in(folder);
    fsw_donor_image_destroy(donor_name(), NULL);
    rmdir(folder);
}

static int clean_up_folders(void **unused)
{
    char path[100];

    donor_clean_up(unused);
    snprintf(path, sizeof path, "%s/link", other_folder); /* a test that failed leaves it, */
    unlink(path);
    leave(other_folder);
    mkdir(donor_folder(), 0700); /* or has moved this one away */
    live_in(donor_folder());
    return donor_clean_up(unused);
}

static int make_folders(void **unused)
{
    snprintf(other_folder, sizeof other_folder, "%s-other", donor_folder());
    return mkdir(other_folder, 0700);
}

static void lose_the_claim(const char *folder)
{
    char path[128];

    snprintf(path, sizeof path, "%s/%s.donor", folder, donor_name());
    assert_int_equal(unlink(path), 0);
}

static void write_claim(const char *folder, struct fsw_claim claim)
{
    int fd;

    live_in(folder);
    assert_int_equal(fsw_claim_lock(donor_name(), 0, &fd, NULL), 0);
    assert_int_equal(fsw_claim_write(donor_name(), fd, &claim, NULL), 0);
    close(fd);
}

static uint32_t home_of(const char *folder)
{
    uint32_t home;

    live_in(folder);
    assert_int_equal(fsw_claim_home(&home, NULL), 0);
    return home;
}

/* A value in the image of the name that belongs to a folder. */
static int put_in(const char *folder, uint32_t content)
{
    static struct donor donor; /* of which the clean-up knows, when this fails */

    live_in(folder);
    donor_open(&donor);
    assert_int_equal(donor_set(&donor, 1, content, 5000), 0);
    int shmid = donor.image.shmid;
    donor_close(&donor);
    return shmid;
}

/* content 0: none. */
static void expect_in(const char *folder, uint32_t content)
{
    static struct donor donor; /* of which the clean-up knows, when this fails */

    live_in(folder);
    donor_open(&donor);
    assert_true(donor_has(&donor, 1, &(struct what){content != 0, content, 5000}));
    donor_close(&donor);
}

/* A donor that is down, with or without its file, and another of its name elsewhere. */
static void test_another_folders_image_is_left_alone(void **unused)
{
    int shmid = put_in(donor_folder(), 7);

    for (unsigned round = 0; round < 4; round++) {
        live_in(other_folder);
        assert_int_equal(fsw_donor_image_destroy(donor_name(), NULL), -ENOENT);
        if (round >= 2) /* from before a reboot, say: the number is another folder's now */
            write_claim(other_folder,
                        (struct fsw_claim){shmid, round == 2 ? home_of(other_folder) : 0});
        expect_in(other_folder, 0);
        put_in(other_folder, 8);
        lose_the_claim(other_folder);
        if (round == 1)
            lose_the_claim(donor_folder());
        expect_in(donor_folder(), 7);
        expect_in(other_folder, 8);
        assert_int_equal(fsw_donor_image_destroy(donor_name(), NULL), 0);
    }
    expect_in(donor_folder(), 7);
    write_claim(other_folder, (struct fsw_claim){shmid, home_of(other_folder)});
    assert_int_equal(fsw_donor_image_destroy(donor_name(), NULL), -ENOENT);
    expect_in(donor_folder(), 7);
}

/* Made anew, reached by a link, moved away: with the image's new home in the end. */
static void test_a_folder_is_its_path(void **unused)
{
    char link_path[100];

    put_in(donor_folder(), 7);
    lose_the_claim(donor_folder());
    assert_int_equal(rmdir(donor_folder()), 0);
    expect_in(donor_folder(), 7);

    snprintf(link_path, sizeof link_path, "%s/link", other_folder);
    assert_int_equal(symlink(donor_folder(), link_path), 0);
    lose_the_claim(donor_folder());
    expect_in(link_path, 7);
    assert_int_equal(unlink(link_path), 0);

    assert_int_equal(rename(donor_folder(), other_folder), 0);
    expect_in(other_folder, 7);
    expect_in(donor_folder(), 0);
    lose_the_claim(other_folder);
    expect_in(other_folder, 7);
}

/* Homes are younger than images. */
static void test_an_image_of_no_home_is_its_names(void **unused)
{
    int shmid = put_in(donor_folder(), 7);
    struct fsw_donor_super *super = shmat(shmid, NULL, 0);

    super->home = 0;
    shmdt(super);
    lose_the_claim(donor_folder());
    expect_in(other_folder, 7);
    expect_in(donor_folder(), 0); /* it has one now */
}

/* ---- claims that don't see each other ---- */

#define RIVALS 4

static int exit_of(pid_t pid)
{
    int status;

    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* Another mapping, of whichever process, and no claim of it: a claim elsewhere that names the image
 * does not help, nor does it to have none. */
static void test_an_image_that_is_mapped_is_not_taken(void **unused)
{
    int shmid = put_in(donor_folder(), 7);
    struct fsw_error err = {""};

    write_claim(other_folder, (struct fsw_claim){shmid, home_of(donor_folder())});
    lose_the_claim(donor_folder());
    void *mapped = shmat(shmid, NULL, SHM_RDONLY);
    assert_true(mapped != (void *)-1);
    pid_t pid = fork(); /* each waits some seconds for it */
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(try_open(&err) == -EBUSY && strstr(err.text, "mapped by another process") ? 0 : 1);
    live_in(donor_folder());
    int destroyed = fsw_donor_image_destroy(donor_name(), &err), opened = exit_of(pid);
    shmdt(mapped);
    assert_int_equal(destroyed, -EBUSY);
    assert_non_null(strstr(err.text, "mapped by another process"));
    assert_int_equal(opened, 0);
    expect_in(donor_folder(), 7);
}

/* Opens the image when the others do, tells which it has, and keeps it until all told. */
static void be_a_rival(const char *folder, int start, int told, int end)
{
    struct fsw_donor_image image;
    char byte;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setenv("FARSWAP_RUNDIR", folder, 1);
    int r = read(start, &byte, 1) != 0 ? -EIO : -EBUSY;
    while (r == -EBUSY) /* another looks at it for long, where processors are busy */
        r = fsw_donor_image_open(&image, donor_name(), DONOR_MEMORY, NULL);
    if (r < 0 || write(told, &image.shmid, sizeof image.shmid) != sizeof image.shmid ||
        read(end, &byte, 1) != 0)
        _exit(1);
    _exit(0);
}

/* Lets rivals race for it, each with a claim of its own; how many have it. -1: one failed. */
static int let_them_race(int shmid, const struct fsw_claim *claim)
{
    int start[2], told[2], end[2], has, have = 0;
    char folders[RIVALS][100];
    pid_t pids[RIVALS];

    assert_true(pipe(start) == 0 && pipe(told) == 0 && pipe(end) == 0);
    for (unsigned i = 0; i < RIVALS; i++) {
        snprintf(folders[i], sizeof folders[i], "%s/%u", other_folder, i);
        write_claim(folders[i], *claim);
        pids[i] = fork();
        assert_true(pids[i] >= 0);
        if (pids[i] > 0)
            continue;
        close(start[1]);
        close(end[1]);
        be_a_rival(folders[i], start[0], told[1], end[0]);
    }
    close(start[1]);
    close(told[1]);
    for (unsigned i = 0; i < RIVALS && read(told[0], &has, sizeof has) == sizeof has; i++)
        have += has == shmid;
    close(end[1]);
    for (unsigned i = 0; i < RIVALS; i++) {
        if (exit_of(pids[i]) != 0)
            have = -1;
        leave(folders[i]);
    }
    live_in(donor_folder());
    close(start[0]);
    close(told[0]);
    close(end[0]);
    return have;
}

static void test_of_rivals_one_has_the_image(void **unused)
{
    for (unsigned round = 0; round < 300; round++) {
        int shmid = put_in(donor_folder(), 7);
        struct fsw_claim claim = {shmid, home_of(donor_folder())};
        assert_int_equal(let_them_race(shmid, &claim), 1);
        lose_the_claim(donor_folder()); /* the image was its last owner's, and went with that */
    }
}

static void test_without_a_name_nothing_stays(void **unused)
{
    struct fsw_donor_image image;

    assert_int_equal(fsw_donor_image_open(&image, NULL, DONOR_MEMORY, NULL), 0);
    int shmid = image.shmid;
    assert_true(fsw_shm_attached(shmid) >= 1);
    assert_true(shm_is_gone(shmid)); /* with us, however we end */
    fsw_donor_image_close(&image);
    assert_true(shm_is_gone(shmid));
}

static void test_memory_may_change_within_the_image(void **unused)
{
    struct fsw_donor_image image;
    struct fsw_error err = {""};
    struct donor donor;

    donor_open(&donor);
    for (unsigned k = 0; k < 100; k++)
        assert_int_equal(donor_set(&donor, k, k, 65520), 0);
    donor_close(&donor);
    assert_int_equal(fsw_donor_image_open(&image, donor_name(), 1ull << 50, &err), -E2BIG);
    assert_non_null(strstr(err.text, "was made for"));
    /* With less than it holds: all is there, and nothing new is taken until there is room. */
    assert_int_equal(fsw_donor_image_open(&donor.image, donor_name(), 4 << 20, &err), 0);
    assert_int_equal(fsw_keyspace_open(&donor.image, 4 << 20, &donor.keyspace), 0);
    assert_int_equal(fsw_keyspace_count(donor.keyspace), 100);
    assert_int_equal(donor_set(&donor, 100, 1, 1), -ENOMEM);
    for (unsigned k = 0; k < 100; k++)
        assert_true(donor_has(&donor, k, &(struct what){true, k, 65520}));
    for (unsigned k = 0; k < 60; k++)
        donor_del(&donor, k);
    assert_int_equal(donor_set(&donor, 100, 1, 1), 0);
    donor_close(&donor);
}

#define KEEPS_NOTHING(f) cmocka_unit_test_teardown(f, donor_clean_up)
#define IN_TWO_FOLDERS(f) cmocka_unit_test_setup_teardown(f, make_folders, clean_up_folders)

int main(void)
{
    const struct CMUnitTest tests[] = {
        KEEPS_NOTHING(test_of_two_values_the_newer_counts),
        KEEPS_NOTHING(test_damaged_descriptors_are_dropped_and_nothing_else),
        KEEPS_NOTHING(test_noise_is_survived),
        KEEPS_NOTHING(test_a_damaged_superblock_is_refused_and_can_be_removed),
        KEEPS_NOTHING(test_one_donor_a_name),
        KEEPS_NOTHING(test_without_its_file_an_image_is_found),
        KEEPS_NOTHING(test_a_file_that_lies),
        IN_TWO_FOLDERS(test_another_folders_image_is_left_alone),
        IN_TWO_FOLDERS(test_a_folder_is_its_path),
        IN_TWO_FOLDERS(test_an_image_of_no_home_is_its_names),
        IN_TWO_FOLDERS(test_an_image_that_is_mapped_is_not_taken),
        IN_TWO_FOLDERS(test_of_rivals_one_has_the_image),
        KEEPS_NOTHING(test_without_a_name_nothing_stays),
        KEEPS_NOTHING(test_memory_may_change_within_the_image),
    };

    return cmocka_run_group_tests(tests, donor_set_up, donor_tear_down);
}

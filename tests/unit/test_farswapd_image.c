/*
 * test_farswapd_image.c: a donor's image that is damaged, served twice, orphaned, removed.
 */
#include "donor.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/shm.h>
#include <unistd.h>
#include <cmocka.h>

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

/* Any bit of what the superblock's checksum covers, and the tops. */
static void test_a_damaged_superblock_is_refused_and_can_be_removed(void **unused)
{
    struct fsw_donor_image image;
    struct fsw_error err = {""};
    const size_t from = offsetof(struct fsw_donor_super, layout);
    const size_t to = offsetof(struct fsw_donor_super, sequence);

    assert_int_equal(fsw_donor_image_open(&image, donor_name(), DONOR_MEMORY, &err), 0);
    int shmid = image.shmid;
    fsw_donor_image_close(&image);
    uint8_t *super = shmat(shmid, NULL, 0);
    assert_true(super != (void *)-1);
    for (size_t at = from; at < to; at++) {
        uint8_t bit = (uint8_t)(1 << donor_roll(8));
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
    assert_int_equal(fsw_donor_image_destroy(donor_name(), &err), 0);
    shmdt(super);
    struct shmid_ds segment;
    assert_int_equal(shmctl(shmid, IPC_STAT, &segment), -1);
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
        assert_int_equal(fsw_claim_write(donor_name(), fd, shmids[round], &err), 0);
        close(fd);
        donor_open(&donor);
        assert_int_equal(fsw_keyspace_count(donor.keyspace), 0);
        assert_int_not_equal(donor.image.shmid, other);
        donor_close(&donor);
        assert_int_equal(fsw_donor_image_destroy(donor_name(), &err), 0);
    }
    assert_int_equal(shmctl(other, IPC_RMID, NULL), 0);
}

static void test_without_a_name_nothing_stays(void **unused)
{
    struct fsw_donor_image image;
    struct shmid_ds segment;

    assert_int_equal(fsw_donor_image_open(&image, NULL, DONOR_MEMORY, NULL), 0);
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
        KEEPS_NOTHING(test_without_a_name_nothing_stays),
        KEEPS_NOTHING(test_memory_may_change_within_the_image),
    };

    return cmocka_run_group_tests(tests, donor_set_up, donor_tear_down);
}

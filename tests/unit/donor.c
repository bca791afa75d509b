/*
 * donor.c: a donor's image as one process sees it.
 */
#include "donor.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/shm.h"

static uint64_t state;
static char name[32], folder[64];
/* What a test that fails leaves behind. */
static struct donor *opened;

const char *donor_name(void)
{
    return name;
}

const char *donor_folder(void)
{
    return folder;
}

uint64_t donor_roll(uint64_t below)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (state >> 11) % below;
}

void donor_stir(uint64_t by)
{
    state += by;
}

static uint64_t chosen_seed(void)
{
    const char *text = getenv("FSW_SEED");
    uint64_t seed = text != NULL ? strtoull(text, NULL, 0) : (uint64_t)time(NULL) * 2654435761u + 1;

    printf("FSW_SEED=%llu\n", (unsigned long long)seed);
    fflush(stdout);
    return seed;
}

int donor_set_up(void **unused)
{
    state = chosen_seed();
    snprintf(folder, sizeof folder, "/tmp/farswapd-image-XXXXXX");
    if (mkdtemp(folder) == NULL)
        return -1;
    snprintf(name, sizeof name, "test-%d", getpid());
    return setenv("FARSWAP_RUNDIR", folder, 1);
}

int donor_clean_up(void **unused)
{
    if (opened != NULL)
        donor_close(opened);
    fsw_donor_image_destroy(name, NULL);
    return 0;
}

int donor_tear_down(void **unused)
{
    donor_clean_up(unused);
    return rmdir(folder);
}

/* ---- one process's view ---- */

void donor_open(struct donor *donor)
{
    struct fsw_error err = {""};

    if (fsw_donor_image_open(&donor->image, name, DONOR_MEMORY, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(fsw_keyspace_open(&donor->image, DONOR_MEMORY, &donor->keyspace), 0);
    opened = donor;
    if (fsw_keyspace_check(donor->keyspace, &err) < 0)
        fail_msg("after opening: %s", err.text);
    /* What the last process had taken and not published went back to the system. */
    assert_int_equal(fsw_shm_resident(donor->image.shmid) / FSW_DONOR_PAGE,
                     fsw_keyspace_vault(donor->keyspace)->frames);
}

void donor_close(struct donor *donor)
{
    opened = NULL;
    fsw_keyspace_close(donor->keyspace);
    fsw_donor_image_close(&donor->image);
}

size_t donor_key(unsigned k, char key[FSW_MAX_KEY])
{
    if (k == DONOR_NO_DEVICES_KEY)
        return (size_t)snprintf(key, FSW_MAX_KEY, "key");
    return (size_t)snprintf(key, FSW_MAX_KEY, "farswap:%032x:%016x", k % 3, k);
}

/* As the parser does it: large ones lie in a slot before they have a key. */
struct fsw_value *donor_value(struct donor *donor, const struct what *what)
{
    struct fsw_value *value =
        what->length > 1024
            ? fsw_vault_take(fsw_keyspace_vault(donor->keyspace), what->length, false)
            : fsw_value_new(what->length);

    for (uint32_t i = 0; value != NULL && i < what->length; i++)
        value->bytes[i] = (char)(what->content + i);
    return value;
}

int donor_set(struct donor *donor, unsigned k, uint32_t content, uint32_t length)
{
    struct fsw_value *value = donor_value(donor, &(struct what){true, content, length});
    char key[FSW_MAX_KEY];

    if (value == NULL)
        return -ENOMEM;
    int r = fsw_keyspace_set(donor->keyspace, key, donor_key(k, key), value);
    fsw_value_release(value);
    return r;
}

int donor_del(struct donor *donor, unsigned k)
{
    char key[FSW_MAX_KEY];

    return fsw_keyspace_del(donor->keyspace, key, donor_key(k, key));
}

/* ---- what should be there ---- */

bool donor_has(struct donor *donor, unsigned k, const struct what *what)
{
    char key[FSW_MAX_KEY];
    struct fsw_value *value = fsw_keyspace_get(donor->keyspace, key, donor_key(k, key));

    if (value == NULL || !what->there)
        return (value != NULL) == what->there;
    if (value->length != what->length)
        return false;
    for (uint32_t i = 0; i < value->length; i++)
        if (value->bytes[i] != (char)(what->content + i))
            return false;
    return true;
}

void journal_compare(struct donor *donor, struct journal *journal)
{
    uint64_t there = 0;

    for (unsigned k = 0; k < DONOR_KEYS; k++) {
        if (journal->busy && k == journal->k && donor_has(donor, k, &journal->next))
            journal->key[k] = journal->next;
        else if (!donor_has(donor, k, &journal->key[k]))
            fail_msg("key %u is neither what it was nor what it was to be", k);
        there += journal->key[k].there;
    }
    assert_int_equal(fsw_keyspace_count(donor->keyspace), there);
    journal->busy = false;
}

uint32_t donor_some_length(void)
{
    static const uint32_t borders[] = {0, 1, 127, 128, 4095, 4096, 4097, 65519, 65520, 65536};

    return donor_roll(2) ? borders[donor_roll(sizeof borders / sizeof borders[0])]
                         : (uint32_t)donor_roll(9000);
}

void journal_work(struct donor *donor, struct journal *journal)
{
    unsigned k = (unsigned)donor_roll(DONOR_KEYS);

    journal->k = k;
    journal->next =
        (struct what){donor_roll(4) > 0, (uint32_t)donor_roll(256), donor_some_length()};
    journal->busy = true;
    atomic_signal_fence(memory_order_seq_cst);
    int r = journal->next.there ? donor_set(donor, k, journal->next.content, journal->next.length)
                                : donor_del(donor, k);
    atomic_signal_fence(memory_order_seq_cst);
    if (r >= 0)
        journal->key[k] = journal->next;
    journal->busy = false;
    journal->done++;
    if (donor_roll(8) == 0)
        fsw_vault_tidy(fsw_keyspace_vault(donor->keyspace), 4);
}

struct journal *journal_new(void)
{
    struct journal *journal =
        mmap(NULL, sizeof *journal, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    assert_true(journal != MAP_FAILED);
    return journal;
}

void journal_free(struct journal *journal)
{
    munmap(journal, sizeof *journal);
}

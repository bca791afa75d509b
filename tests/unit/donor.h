/*
 * donor.h: a donor's image as one process sees it, and what should be in it, whoever was killed.
 *
 * Each test program has a folder and a name of its own. FSW_SEED chooses the random operations; the
 * seed is printed.
 */
#ifndef FSW_TEST_DONOR_H
#define FSW_TEST_DONOR_H

#include <stdbool.h>
#include <stdint.h>

#include "server/keyspace.h"

#define DONOR_KEYS 200
#define DONOR_MEMORY (16ull << 20)
#define DONOR_NO_DEVICES_KEY 1000u /* the number of a key that is no segment's */

/* ---- the program's ---- */

/* Makes the folder and takes the seed. -1: there is no folder. */
int donor_set_up(void **unused);
/* For each test: what it left, however it ended. */
int donor_clean_up(void **unused);
int donor_tear_down(void **unused);

/* Of the image. */
const char *donor_name(void);
const char *donor_folder(void);

uint64_t donor_roll(uint64_t below);
/* Other numbers from here on, as after a fork. */
void donor_stir(uint64_t by);

/* ---- one process's view ---- */

struct donor {
    struct fsw_donor_image image;
    struct fsw_keyspace *keyspace;
};

/* Fails the test unless the image can be opened, adds up, and holds no memory that it does not use. */
void donor_open(struct donor *donor);
void donor_close(struct donor *donor);

struct what {
    bool there;
    uint32_t content, length;
};

/* The text of a key's number. */
size_t donor_key(unsigned k, char key[FSW_MAX_KEY]);
/* NULL: there is no room. The caller's to set, and to release. */
struct fsw_value *donor_value(struct donor *donor, const struct what *what);
int donor_set(struct donor *donor, unsigned k, uint32_t content, uint32_t length);
int donor_del(struct donor *donor, unsigned k);
bool donor_has(struct donor *donor, unsigned k, const struct what *what);

/* ---- what should be there ---- */

/* Shared with children. */
struct journal {
    struct what key[DONOR_KEYS];
    volatile bool busy; /* with this: */
    unsigned k;
    struct what next;
    volatile uint64_t done;
};

struct journal *journal_new(void);
void journal_free(struct journal *journal);
/* One random operation. */
void journal_work(struct donor *donor, struct journal *journal);
/* All as it was acknowledged; the one that was under way is old or new, and is noted as what it is. */
void journal_compare(struct donor *donor, struct journal *journal);

uint32_t donor_some_length(void);

#endif

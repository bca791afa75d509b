/*
 * test_store_disk.h: a file store on a small disk of the program's own: an ext4 of 16 MiB on a loop device,
 * in a mount namespace, which can be frozen.
 */
#ifndef FSW_TEST_STORE_DISK_H
#define FSW_TEST_STORE_DISK_H

#include "test_store_fixture.h"

/* Where the disk is mounted, and the store's file on it, which a test may change for a while. */
extern char disk_folder[96], disk_path[128];

/* main()'s whole body: makes the disk, runs the tests, and removes it. Without the right to mount: says
 * so, and is skipped. */
#define disk_run(tests) disk_run_group(#tests, tests, sizeof(tests) / sizeof((tests)[0]))
int disk_run_group(const char *name, const struct CMUnitTest *tests, size_t count);

/* For cmocka: a store that is open; started; and started on a file that is not read past the page cache. */
#define DISK_TEST(name, setup) cmocka_unit_test_setup_teardown(name, setup, disk_teardown)
int disk_setup_idle(void **state);
int disk_setup(void **state);
int disk_setup_buffered(void **state);
int disk_teardown(void **state);

/* A store in that file. */
struct fsw_store *disk_open(void);

/* Whoever writes there waits from now on until it is thawed, or the test is dead. */
void disk_freeze(void);
void disk_thaw(void); /* harmless if none is frozen */

#endif

/*
 * test_store_disk.h: a small disk of a test's own: an ext4 of 16 MiB on a loop device, which can be frozen.
 * For a process in a mount namespace of its own.
 */
#ifndef FSW_TEST_STORE_DISK_H
#define FSW_TEST_STORE_DISK_H

/* Makes the folder and mounts the disk there; its image lies beside it. Fails the test if it can't. */
void disk_make(const char *folder);

/* Whoever writes there waits from now on until it is thawed, or the test is dead. One at a time. */
void disk_freeze(const char *folder);
void disk_thaw(void); /* harmless if none is frozen */

#endif

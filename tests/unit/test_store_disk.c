/*
 * test_store_disk.c: a file store on a small disk of the program's own.
 *
 * A frozen file system outlives its mount: whatever becomes of the test, somebody thaws it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "test_store_disk.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/store/file.h"

#define SKIPPED 77

char disk_folder[96], disk_path[128];

static struct server home; /* of which only the directory is used */
static int frozen = -1;    /* closed, it is thawed */
static pid_t thawer;

static void make_disk(void)
{
    char text[768];
    const char *folder = disk_folder;

    snprintf(disk_folder, sizeof disk_folder, "%s/disk", home.dir);
    snprintf(disk_path, sizeof disk_path, "%s/overflow", disk_folder);
    snprintf(
        text, sizeof text,
        "mkdir %s && truncate -s 16M %s.image && mke2fs -q -t ext4 -O ^has_journal %s.image && "
        "mount -o loop %s.image %s",
        folder, folder, folder, folder, folder);
    if (system(text) != 0)
        fail_msg("%s", text);
}

int disk_run_group(const char *name, const struct CMUnitTest *tests, size_t count)
{
    int failed;

    if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) {
        fprintf(stderr, "skipped: no mount namespace: %s\n", strerror(errno));
        return SKIPPED;
    }
    server_directory(&home);
    make_disk();
    failed = _cmocka_run_group_tests(name, tests, count, NULL, NULL);
    umount(disk_folder);
    server_stop(&home);
    return failed;
}

void disk_freeze(void)
{
    int ends[2];
    char byte;

    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    frozen = open(disk_folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(frozen >= 0);
    thawer = fork();
    assert_true(thawer >= 0);
    if (thawer == 0) {
        close(ends[1]);
        while (read(ends[0], &byte, 1) < 0)
            ;
        ioctl(frozen, FITHAW, 0);
        _exit(0);
    }
    close(ends[0]);
    assert_int_equal(ioctl(frozen, FIFREEZE, 0), 0);
    close(frozen);
    frozen = ends[1];
}

void disk_thaw(void)
{
    if (frozen < 0)
        return;
    close(frozen);
    waitpid(thawer, NULL, 0);
    frozen = -1;
}

struct fsw_store *disk_open(void)
{
    char uri[160];

    snprintf(uri, sizeof uri, "file:%s", disk_path);
    return store_open(uri, NULL);
}

int disk_setup_idle(void **state)
{
    struct fixture *f = *state = fixture_new(NULL);

    f->store = disk_open();
    return 0;
}

int disk_setup(void **state)
{
    struct fixture *f;

    disk_setup_idle(state);
    f = *state;
    store_start(f->store, &f->device);
    wait_connected(f->store, 1);
    return 0;
}

int disk_setup_buffered(void **state)
{
    struct fixture *f;

    disk_setup_idle(state);
    f = *state;
    ((struct file_store *)f->store)->direct = 0;
    store_start(f->store, &f->device);
    return 0;
}

int disk_teardown(void **state)
{
    disk_thaw();
    fixture_end(*state);
    unlink(disk_path);
    return 0;
}

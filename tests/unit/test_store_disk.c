/*
 * test_store_disk.c: a small disk of a test's own.
 *
 * A frozen file system outlives its mount: whatever becomes of the test, somebody thaws it.
 */
#include "test_store_disk.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

static int frozen = -1; /* closed, it is thawed */
static pid_t thawer;

void disk_make(const char *folder)
{
    char text[768];

    snprintf(
        text, sizeof text,
        "mkdir %s && truncate -s 16M %s.image && mke2fs -q -t ext4 -O ^has_journal %s.image && "
        "mount -o loop %s.image %s",
        folder, folder, folder, folder, folder);
    if (system(text) != 0)
        fail_msg("%s", text);
}

void disk_freeze(const char *folder)
{
    int ends[2];
    char byte;

    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    frozen = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
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

/*
 * proc.h: what /proc tells of other processes. It is a look: the next moment it may not be so, and the
 * number another process's. Reads files of the kernel's, which waits for no process.
 */
#ifndef FSW_PROC_H
#define FSW_PROC_H

#include <stddef.h>
#include <sys/types.h>

/* 1, and its parent: that process lives, as no zombie, and its name (of the kernel's 15 bytes) is this
 * one. 0: it does not, or can't be seen from here. */
int fsw_proc_is(pid_t pid, const char *name, pid_t *ret_parent);

/* The words of its command line, each with its NUL, as far as there is room (at least 1); the last
 * byte of all is a NUL. Their bytes, 0 if there are none. */
size_t fsw_proc_words(pid_t pid, char *words, size_t room);

/* Calls each for every process that can be seen, until it returns something else than 0, which is
 * returned. */
int fsw_proc_each(int (*each)(pid_t pid, void *opaque), void *opaque);

#endif

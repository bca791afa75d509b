/*
 * program.h: other programs, started with an argument vector and never through a shell.
 */
#ifndef FSW_CLI_PROGRAM_H
#define FSW_CLI_PROGRAM_H

#include <limits.h>
#include <sys/types.h>

#include "farswap/error.h"

#define PROGRAM_OUTPUT 2048

/* One of ours: beside this program, in the folder ../<room> where a build has it, or in PATH.
 * -ENOENT with a line. */
int program_find(const char *name, const char *room, char path[PATH_MAX], struct fsw_error *err);

/* Runs one to its end, at most a minute; a name without / is looked for in PATH and in the sbin
 * folders. output gets the first PROGRAM_OUTPUT - 1 bytes of what it printed, on either stream,
 * without the last newline. Returns its exit status, or a negative errno. */
int program_run(char *const argv[], char output[PROGRAM_OUTPUT]);

/* As program_run; any status but 0 is -EIO with "PROGRAM: its last line". */
int program_must(char *const argv[], char output[PROGRAM_OUTPUT], struct fsw_error *err);

/* Starts one that stays: a session of its own, no input, output into the file `log`, which is begun
 * anew. Of our other descriptors it inherits keep_fd alone (-1: none). */
int program_start(const char *path, char *const argv[], const char *log, int keep_fd,
                  pid_t *ret_pid, struct fsw_error *err);

/* SIGKILL for every process but this one that has the file open. What it can't look into, it leaves. */
void program_kill_holders(const char *path);

/* The file as another process has it open, with its locks; the caller closes it. -ENOENT: that one has
 * it not. */
int program_borrow(pid_t pid, const char *path);

/* 1 once a process that program_start started has ended. Does not wait. */
int program_ended(pid_t pid);

/* The last lines of a log, in one line, for an error. */
void program_log_tail(const char *log, char text[256]);

#endif

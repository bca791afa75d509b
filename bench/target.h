/*
 * target.h: what a bench writes to, in one way: an NBD server (URI) or a block device (path).
 *
 * One request at a time, and answers are waited for: the order of writes is the order of the calls,
 * which a comparison of contents needs. Every call ends the program with a line on stderr when it
 * fails: a bench has nothing to save.
 */
#ifndef BENCH_TARGET_H
#define BENCH_TARGET_H

#include <stddef.h>
#include <stdint.h>

#define PAGE 4096u

struct target;

struct target *target_open(const char *where);
void target_close(struct target *target);

uint64_t target_size(struct target *target);

/* bytes, offset and length must be aligned to a page: the block device is opened with O_DIRECT. */
void target_write(struct target *target, const void *bytes, uint64_t offset, size_t length);
void target_read(struct target *target, void *bytes, uint64_t offset, size_t length);
void target_discard(struct target *target, uint64_t offset, uint64_t length);

void die(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

#endif

/*
 * wire.h: NBD's transmission phase, from bytes to requests and from answers to bytes.
 *
 * Pure functions: no socket, no engine, no memory of their own. (The protocol: doc/proto.md of
 * NetworkBlockDevice/nbd.)
 */
#ifndef FSW_NBD_WIRE_H
#define FSW_NBD_WIRE_H

#include <stddef.h>
#include <stdint.h>

#define FSW_WIRE_REQUEST_BYTES 28u
#define FSW_WIRE_REPLY_BYTES 16u
/* A longer read or write is refused. NBD's own default. */
#define FSW_WIRE_PAYLOAD_MAX (32u << 20)
/* A write of at most so many bytes is found when it is there as a whole; of a longer one, its
 * header is. */
#define FSW_WIRE_SMALL_MAX 65535u

enum fsw_wire_type {
    FSW_WIRE_READ = 0,
    FSW_WIRE_WRITE = 1,
    FSW_WIRE_DISCONNECT = 2,
    FSW_WIRE_FLUSH = 3,
    FSW_WIRE_TRIM = 4,
    FSW_WIRE_CACHE = 5,
    FSW_WIRE_WRITE_ZEROES = 6,
};

enum fsw_wire_flag {
    FSW_WIRE_FUA = 1,
    FSW_WIRE_NO_HOLE = 2,
    FSW_WIRE_FAST_ZERO = 16,
};

/* Error numbers on the wire are Linux's, but only these. */
enum fsw_wire_error {
    FSW_WIRE_EPERM = 1,
    FSW_WIRE_EIO = 5,
    FSW_WIRE_ENOMEM = 12,
    FSW_WIRE_EINVAL = 22,
    FSW_WIRE_ENOSPC = 28,
    FSW_WIRE_ENOTSUP = 95,
};

struct fsw_wire_request {
    uint16_t flags, type;
    uint32_t length;
    uint64_t cookie, offset;
    uint32_t error;      /* not 0: it must be answered with this, and nothing else be done */
    const char *payload; /* a small write's, in the bytes that were given */
};

/* What a stream is at. Begins as {.size = bytes of the export}. A write that is refused is found
 * when its payload was skipped: a client does not expect an answer while it still sends. */
struct fsw_wire {
    uint64_t size;
    uint64_t skip;                   /* bytes of a payload that nobody wants */
    int refused;                     /* 1: and then the write that it belongs to */
    struct fsw_wire_request refusal; /* that */
};

enum fsw_wire_found {
    FSW_WIRE_MORE,    /* nothing; more bytes are needed */
    FSW_WIRE_REQUEST, /* one, whole */
    FSW_WIRE_LARGE,   /* a write; the `length` bytes after `used` are its payload */
};

/* The next request in the bytes. *ret_used: how many of them are done with (also for MORE). One that
 * is found without an error has not changed `wire`: it is found again in the same bytes.
 * -EPROTO: this is no request, and nothing after it can be trusted. */
int fsw_wire_next(struct fsw_wire *wire, const char *bytes, size_t length, size_t *ret_used,
                  struct fsw_wire_request *ret_request);

/* 1: the bytes begin with a request, which seems to be of that type, offset, and length. Nothing is
 * checked: a hint of what comes next. */
int fsw_wire_peek(const char *bytes, size_t length, struct fsw_wire_request *ret_request);

/* A simple reply, FSW_WIRE_REPLY_BYTES of them. */
void fsw_wire_reply(char *bytes, uint64_t cookie, uint32_t error);

/* The number for a result: 0 for 0, else what is nearest to -r. */
uint32_t fsw_wire_error_of(int r);

#endif

/*
 * limits.h: every limit that a peer can push against, in one place.
 *
 * A donor serves machines it does not know well. Each line of the table below bounds what one of
 * them can make us hold or do; each has a counter that INFO shows as limit_<name>_hits, so that an
 * admin sees who pushes. What all clients together can make us hold beside the values is about
 *     FSW_MAX_CLIENTS * (FSW_READ_BYTES + FSW_MAX_REQUEST + FSW_MAX_OUTPUT / 16) +
 *         FSW_MAX_OUTPUT_ALL,
 * and only of clients that know the password: before that, the FSW_MAX_STRANGER_ limits hold. All
 * of it counts against --memory. The three that are seconds are --patience, if that is given. There is
 * no limit to how many commands a client may send ahead: what we have not run waits in the kernel's
 * buffers, and then with the client.
 */
#ifndef FSW_SERVER_LIMITS_H
#define FSW_SERVER_LIMITS_H

#include <stdint.h>

/* One line a limit: X(enum suffix, name in INFO, value, what happens at it). */
#define FSW_LIMITS(X)                                                                              \
    X(CLIENTS, clients, 1024, "connection is told so and closed; the Unix socket has 16 more")     \
    X(KEY, key_bytes, 128, "SET is refused")                                                       \
    X(VALUE, value_bytes, 64 * 1024, "protocol error")                                             \
    X(ARGUMENTS, arguments, 1024, "protocol error")                                                \
    X(REQUEST, request_bytes, 256 * 1024, "protocol error")                                        \
    X(NESTING, nesting, 1, "protocol error")                                                       \
    X(HEADER, header_bytes, 32, "protocol error")                                                  \
    X(INLINE, inline_bytes, 1024, "protocol error")                                                \
    X(OUTPUT, output_bytes, 1024 * 1024, "we stop reading from that client until it reads")        \
    X(OUTPUT_ALL, output_bytes_of_all, 64 * 1024 * 1024,                                           \
      "a 16th of output_bytes is each one's limit")                                                \
    X(OUTPUT_SECONDS, output_seconds, 60, "closed (it took less than a 16th of output_bytes)")     \
    X(TURN, turn_us, 2000, "others have their turn before it goes on")                             \
    X(REQUEST_SECONDS, request_seconds, 60, "closed (a request that does not end)")                \
    X(SCAN, scan_count, 1024, "COUNT is lowered to it")                                            \
    X(STRANGER_VALUE, stranger_value_bytes, 1024, "protocol error (before AUTH)")                  \
    X(STRANGER_ARGUMENTS, stranger_arguments, 8, "protocol error (before AUTH)")                   \
    X(STRANGER_SECONDS, stranger_seconds, 60,                                                      \
      "closed (no AUTH, or no first command, in that time)")                                       \
    X(STRANGERS, strangers, 128, "the one who waits longest is closed")                            \
    X(DEVICES, devices, 1024, "what one more stores is counted under no device")                   \
    X(MEMORY, memory, 0, "SET is refused with -OOM (value: --memory)")

enum fsw_limit {
#define FSW_LIMIT_ENUM(upper, name, value, effect) FSW_LIMIT_##upper,
    FSW_LIMITS(FSW_LIMIT_ENUM)
#undef FSW_LIMIT_ENUM
        FSW_LIMIT_COUNT
};

/* FSW_MAX_CLIENTS and so on: the values as constants. */
enum {
#define FSW_LIMIT_VALUE(upper, name, value, effect) FSW_MAX_##upper = (value),
    FSW_LIMITS(FSW_LIMIT_VALUE)
#undef FSW_LIMIT_VALUE
};

/* Connections by the Unix socket beside FSW_MAX_CLIENTS: an admin must always get in. */
#define FSW_MAX_ADMINS 16

/* How often each was hit. */
struct fsw_limit_hits {
    uint64_t of[FSW_LIMIT_COUNT];
};

#endif

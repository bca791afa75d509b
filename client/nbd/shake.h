/*
 * shake.h: NBD's newstyle fixed handshake, the server's side, from bytes to bytes.
 *
 * Pure functions. One export: the device, named by its name or by nothing. Structured replies, TLS
 * and metadata are refused, so the transmission phase is simple replies.
 */
#ifndef FSW_NBD_SHAKE_H
#define FSW_NBD_SHAKE_H

#include <stddef.h>
#include <stdint.h>

/* Bytes that an answer to one option may take. */
#define FSW_SHAKE_OUT 512u
#define FSW_SHAKE_GREETING_BYTES 18u
/* Of an option's data; longer ones are skipped and refused. */
#define FSW_SHAKE_DATA_MAX 4096u
/* A client that has not gone on after so many is a nuisance. */
#define FSW_SHAKE_OPTIONS_MAX 64u

/* Flags of the export, and those that depend on the transport. */
enum fsw_shake_flag {
    FSW_SHAKE_HAS_FLAGS = 1,
    FSW_SHAKE_SEND_FLUSH = 4,
    FSW_SHAKE_SEND_FUA = 8,
    FSW_SHAKE_SEND_TRIM = 32,
    FSW_SHAKE_SEND_WRITE_ZEROES = 64,
    FSW_SHAKE_MULTI_CONN = 256,
    FSW_SHAKE_SEND_CACHE = 1024,
    FSW_SHAKE_SEND_FAST_ZERO = 2048,
};

#define FSW_SHAKE_DESCRIPTION 63

/* Begins as {.name, .size, .multi_conn, .description}. */
struct fsw_shake {
    const char *name;
    uint64_t size;
    int multi_conn; /* 1: a client may use several connections as one */
    /* Says which device it is, so that a client that comes back can tell; or NULL. At most
     * FSW_SHAKE_DESCRIPTION bytes. */
    const char *description;

    int greeted, no_zeroes;
    unsigned options;
    uint64_t skip; /* bytes of an option that is too long */
};

enum fsw_shake_found {
    FSW_SHAKE_MORE, /* more bytes are needed */
    FSW_SHAKE_NEXT, /* an option was answered */
    FSW_SHAKE_GO,   /* transmission begins as soon as the answer is sent */
    FSW_SHAKE_END,  /* send the answer and close */
};

/* What the server says first, FSW_SHAKE_GREETING_BYTES of it. */
void fsw_shake_greet(char *out);

/* One step. *ret_used: bytes that are done with; out has room for FSW_SHAKE_OUT bytes, of which
 * *ret_out are to be sent. -EPROTO: close without an answer. */
int fsw_shake_next(struct fsw_shake *shake, const char *bytes, size_t length, size_t *ret_used,
                   char *out, size_t *ret_out);

#endif

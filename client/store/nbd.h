/*
 * nbd.h: a store in an NBD export, a slot a row (slot.h), as its own files see it.
 *
 *     submit() ── inbox ──▶ thread ─┬─ gets ──────────▶ flights ── libnbd ══ server
 *      any thread   (lock)          └─ puts and drops ▶ (rows that are free)
 *
 * One connection, and one thread that polls it. A flight has a buffer of its own and outlives the
 * request that is given up at its deadline; so a row stays taken until the server has answered.
 *
 *   N1  At most one flight writes to a row.
 *   N2  A write that was under way when its connection was lost may land for as long as the server has
 *       it. Its row is quarantined until QUARANTINE_NS after the next connection was made; that
 *       connection was closed with a reset, so nothing is delivered later. At the start of a process
 *       that follows another, all rows are.
 *   N3  Nothing but the header is touched before the header is this device's.
 *   N4  What a slot is known to hold was seen on this connection: behind the next one may be another disk.
 *   N5  A put counts when the server has answered the write. It is not asked to flush: what its host had
 *       not written when it lost power is lost, as all that a donor has is. The page is then lost and never
 *       wrong, since a slot says whose it is; and a segment is read far more often than a host loses power,
 *       but freed from our memory by each put, which a flush would hold up by milliseconds.
 *   N6  An export of a device that is gone becomes this device's when its header does, on the thread. A
 *       forget() of that device leaves it to the thread: what it emptied later might be this device's.
 *
 *     nbd.c       the thread, its lists, the ops      nbd_conn.c    the connection, rows in quarantine
 *     nbd_sync.c  probe, list, forget                 nbd_flight.c  the flights
 *
 * Locks: inbox_lock for the first group below; all else is the thread's between start() and close().
 */
#ifndef FSW_STORE_NBD_H
#define FSW_STORE_NBD_H

#include <pthread.h>

#include "client/store/address.h"
#include "client/store/known.h"
#include "client/store/report.h"
#include "client/store/requests.h"
#include "client/store/resolver.h"
#include "client/store/slot.h"

/* Each has 64 KiB. */
#define NBD_READS 32u
#define NBD_WRITES 16u
#define NBD_FLIGHTS (NBD_READS + NBD_WRITES)
#define NBD_HELD 64u
#define NBD_DEFAULT_PORT "10809"

struct nbd_store;

enum nbd_step {
    NBD_READING,  /* GET: the range, and the head if it is not known. DROP: the head */
    NBD_CHECKING, /* GET that found nothing: does the header still show the sentinel? */
    NBD_WRITING,  /* PUT. DROP: zeroes over the head */
    NBD_TRIMMING, /* DROP: gives the slot's blocks back */
    NBD_HEADER,   /* no request: what a new connection shows */
    NBD_PLANTING, /* no request: the header is written */
};

struct nbd_flight {
    struct nbd_store *store;
    struct fsw_store_request *request; /* NULL: given up, or none */
    struct fsw_store_request task;     /* a copy of it */
    enum nbd_step step;
    unsigned busy, writes;
    unsigned parts; /* commands without an answer */
    int error;      /* errno of one that failed */
    int ended;      /* all are answered, and nobody has looked */
    uint32_t known; /* GET: the segment's length, 0: not known */
    char *buffer;   /* the slot's bytes, each at its offset */
};

struct nbd_held {
    uint32_t row;
    uint64_t until; /* 0: the next connection is not made yet */
};

enum nbd_state { NBD_RESTING, NBD_CONNECTING, NBD_GREETING, NBD_UP };

struct nbd_export {
    struct fsw_address address;
    char name[256]; /* of the export */
};

struct nbd_store {
    struct fsw_store base;
    struct nbd_export export;
    struct fsw_store_identity identity;

    pthread_mutex_t inbox_lock;
    struct fsw_requests inbox, before; /* lost() was called: since, and before */
    unsigned stopping, interrupted, replants;
    uint64_t replant_as; /* the sentinel */

    unsigned started;
    pthread_t thread;
    int wake; /* eventfd */
    struct fsw_requests gets, puts, resting;
    struct nbd_flight flights[NBD_FLIGHTS];

    struct nbd_handle *handle; /* NULL: resting */
    enum nbd_state state;
    struct fsw_address
        way; /* the export's, with the places of its name as soon as they are known */
    struct resolver resolver;
    unsigned place; /* of the way's, the one in use */
    unsigned ever;  /* was up before */
    uint64_t next_try, pause, patience_ends, heard;
    uint64_t sentinel; /* that the export has to show; 0: none, it was emptied */
    unsigned shown;    /* 1: on this connection it was seen to */
    uint64_t size;
    int can_trim, can_zero;
    uint64_t hold_all; /* no write before */
    struct nbd_held held[NBD_HELD];

    struct known known;
    struct report report;
};

/* rest is what follows "nbd://" (HOST[:PORT][/EXPORT]) or "nbd+unix://" (/EXPORT?socket=PATH). 0, or
 * -EINVAL or -ENOENT with one line in err. Blocks while a name is resolved, unless `later`, as
 * fsw_address_parse_tcp(). */
int nbd_export_parse_tcp(struct nbd_export *export, const char *rest, int later,
                         struct fsw_error *err);
int nbd_export_parse_unix(struct nbd_export *export, const char *rest, struct fsw_error *err);

/* Connects to nothing. 0 or -ENOMEM. */
int nbd_store_new(const struct nbd_export *export, struct fsw_store **ret_store);

/* ---- nbd_conn.c, on the thread ---- */

/* Begins to connect to the next place, once there is one. */
void nbd_conn_try(struct nbd_store *store);
/* The connection is gone, or is given up: what it had under way goes back to its list. */
void nbd_conn_down(struct nbd_store *store, const char *why);
/* Waits for answers, or for the eventfd, or for ms; then moves on what has ended. */
void nbd_conn_turn(struct nbd_store *store, int ms);
/* Puts requests on their way for as long as there are flights for them. */
void nbd_conn_pump(struct nbd_store *store);
/* It is up again when that is written. */
void nbd_conn_wait_for_header(struct nbd_store *store);

/* Leaves the sentinel in the header. 0 if it is under way. */
int nbd_conn_plant(struct nbd_store *store);

/* The export's header has come: whether it may be used. */
void nbd_conn_on_header(struct nbd_flight *flight);
/* It shows what it has to. */
void nbd_conn_become_up(struct nbd_store *store);

/* ---- nbd_flight.c, on the thread ---- */

/* One that is idle, for reads or for writes; NULL: none. */
struct nbd_flight *nbd_flight_idle(struct nbd_store *store, unsigned writes);
/* Takes it for a request, which may end at once. */
void nbd_flight_start(struct nbd_store *store, struct nbd_flight *flight,
                      struct fsw_store_request *request);
/* All its commands are answered: the next step, or the request's end. */
void nbd_flight_ended(struct nbd_flight *flight);
void nbd_flight_release(struct nbd_flight *flight);

/* For a step without a request, of row 0: begins it, then issues its command. */
void nbd_flight_begin(struct nbd_flight *flight, enum nbd_step step);
void nbd_flight_read(struct nbd_flight *flight, uint32_t from, uint32_t to);
void nbd_flight_write(struct nbd_flight *flight, uint32_t length);

/* ---- nbd.c, for the connection ---- */

void nbd_store_finish(struct nbd_store *store, struct fsw_store_request *request,
                      enum fsw_store_result result);
void nbd_store_rest(struct nbd_store *store, struct fsw_store_request *request);

/* Why the header forbids to use the export: 0, -EEXIST, -EINVAL, -EUCLEAN. *ret_sentinel: what it
 * shows; 0: none, or it is not this device's yet. */
int nbd_header_check(const struct nbd_store *store, const void *block, uint64_t *ret_sentinel,
                     struct fsw_error *err);

/* ---- nbd_sync.c ---- */

int nbd_sync_probe(struct fsw_store *base, struct fsw_error *err);
int nbd_sync_list(struct fsw_store *base, const struct fsw_device_id *device,
                  int (*each)(uint32_t row, uint64_t id, void *opaque), void *opaque,
                  struct fsw_error *err);
int nbd_sync_forget(struct fsw_store *base, const struct fsw_device_id *device, uint64_t *ret_count,
                    struct fsw_error *err);
/* Whether the store's device may have the export, as far as can be told now: as nbd_header_check, or
 * that it can't be reached. */
int nbd_sync_header(struct nbd_store *store, struct fsw_error *err);

#endif

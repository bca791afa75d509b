/*
 * hammer.c: clients of an NBD server that is killed again and again.
 *
 *      hammer SOCKET BYTES CLIENTS SEED
 *
 * Each client has a connection of its own with up to DEPTH requests of all kinds in flight, and pages of
 * its own. When the connection breaks it makes another as soon as somebody answers, and then each
 * request that got no answer is sent again, as the kernel does, or given up: then each of its pages
 * is read and must be old or new, whole.
 *
 * A line on stdin is answered by one with the numbers so far; at its end all is settled, everything
 * read and compared, and the exit status says if it was right.
 */
#include "hammer.h"

#include <errno.h>
#include <libnbd.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define DEPTH 12u
#define CHUNK_PAGES 32u
#define LONGEST (CHUNK_PAGES * PAGE)
#define CLIENTS_MAX 16u
#define PATIENCE_S 60 /* without an answer from anybody */

enum kind { READ, WRITE, TRIM, ZERO };
enum state { IDLE, SENT, UNANSWERED };

struct client;

struct request {
    struct client *client;
    enum kind kind;
    enum state state;
    uint64_t offset, length;
    char *bytes;
};

struct client {
    pthread_t thread;
    unsigned number;
    uint64_t random;
    struct nbd_handle *nbd;
    struct request requests[DEPTH];
    _Atomic int failed;
    char *scratch;
};

static struct versions versions;
static const char *socket_path;
static unsigned client_count;
static struct client clients[CLIENTS_MAX];
static _Atomic int stop;
static _Atomic uint32_t next_version;
static _Atomic uint64_t answered, connections, sent_again, settled_new, settled_old, no_space;

static uint64_t chance(struct client *client, uint64_t below)
{
    client->random ^= client->random << 13;
    client->random ^= client->random >> 7;
    client->random ^= client->random << 17;
    return client->random % below;
}

static void nap(unsigned us)
{
    nanosleep(&(struct timespec){.tv_nsec = us * 1000l}, NULL);
}

static int fail(struct client *client, const char *what)
{
    fprintf(stderr, "client %u: %s: %s\n", client->number, what,
            nbd_get_error() ? nbd_get_error() : "");
    client->failed = 1;
    return -1;
}

/* ---- connections ---- */

static int try_to_connect(struct client *client)
{
    client->nbd = nbd_create();
    if (client->nbd == NULL)
        return -1;
    if (nbd_connect_unix(client->nbd, socket_path) == 0) {
        atomic_fetch_add(&connections, 1);
        return 0;
    }
    nbd_close(client->nbd);
    client->nbd = NULL;
    return -1;
}

static int connect_again(struct client *client)
{
    time_t deadline = time(NULL) + PATIENCE_S;

    if (client->nbd != NULL)
        nbd_close(client->nbd);
    client->nbd = NULL;
    while (try_to_connect(client) < 0) {
        if (time(NULL) > deadline)
            return fail(client, "nobody answers");
        nap(1000);
    }
    return 0;
}

static int is_broken(const struct client *client)
{
    return client->nbd == NULL || nbd_aio_is_dead(client->nbd) || nbd_aio_is_closed(client->nbd);
}

/* ---- requests ---- */

static void mark_busy(const struct request *request, int by)
{
    for (uint64_t page = request->offset / PAGE;
         page <= (request->offset + request->length - 1) / PAGE; page++)
        versions.busy[page] = (uint8_t)(versions.busy[page] + by);
}

static int is_busy(const struct request *request)
{
    for (uint64_t page = request->offset / PAGE;
         page <= (request->offset + request->length - 1) / PAGE; page++)
        if (versions.busy[page])
            return 1;
    return 0;
}

static void ended(struct request *request)
{
    mark_busy(request, -1);
    request->state = IDLE;
}

/* libnbd's, when a request was answered or can't be any more. */
static int completed(void *opaque, int *error)
{
    struct request *request = opaque;
    struct client *client = request->client;

    if (*error != 0) { /* ENOSPC is an answer, and the pages are old or new as well */
        if (*error == ENOSPC)
            atomic_fetch_add(&no_space, 1);
        else if (!is_broken(client) && *error != ENOTCONN && *error != ESHUTDOWN) {
            fprintf(stderr, "client %u: request %d of %llu bytes at %llu: %s\n", client->number,
                    request->kind, (unsigned long long)request->length,
                    (unsigned long long)request->offset, strerror(*error));
            client->failed = 1;
        }
        request->state = UNANSWERED;
        return 1;
    }
    atomic_fetch_add(&answered, 1);
    if (request->kind != READ)
        versions_acknowledge(&versions, request->offset, request->length);
    else if (versions_compare(&versions, request->offset, request->length, request->bytes) < 0)
        client->failed = 1;
    ended(request);
    return 1;
}

static void submit(struct request *request)
{
    struct nbd_handle *nbd = request->client->nbd;
    nbd_completion_callback done = {.callback = completed, .user_data = request};
    int64_t cookie = -1;

    request->state = SENT;
    switch (request->kind) {
    case READ:
        cookie = nbd_aio_pread(nbd, request->bytes, request->length, request->offset, done, 0);
        break;
    case WRITE:
        cookie = nbd_aio_pwrite(nbd, request->bytes, request->length, request->offset, done, 0);
        break;
    case TRIM:
        cookie = nbd_aio_trim(nbd, request->length, request->offset, done, 0);
        break;
    case ZERO:
        cookie = nbd_aio_zero(nbd, request->length, request->offset, done, 0);
        break;
    }
    if (cookie < 0)
        request->state = UNANSWERED;
}

/* In a chunk of the client's own: whole pages mostly, sometimes from the middle of one. */
static void choose_range(struct client *client, struct request *request)
{
    uint64_t chunks = versions.sectors / PAGE_SECTORS / CHUNK_PAGES / client_count;
    uint64_t hot = chance(client, 2) ? chunks / 4 + 1 : chunks;
    uint64_t base = (chance(client, hot) * client_count + client->number) * LONGEST;
    uint64_t page = chance(client, CHUNK_PAGES), room = CHUNK_PAGES - page;
    uint64_t form = chance(client, 8);

    request->offset = base + page * PAGE;
    request->length = form < 5   ? PAGE
                      : form < 7 ? (1 + chance(client, room < 8 ? room : 8)) * PAGE
                                 : room * PAGE;
    if (chance(client, 8) == 0 && request->kind != TRIM) {
        uint64_t cut = chance(client, PAGE_SECTORS) * SECTOR;
        request->offset += cut;
        request->length -= cut;
        if (request->length > SECTOR && chance(client, 2))
            request->length -= SECTOR;
    }
}

static void choose_content(struct request *request)
{
    uint32_t version = request->kind == WRITE ? atomic_fetch_add(&next_version, 1) + 1 : 0;

    for (uint64_t done = 0; request->kind != READ && done < request->length; done += SECTOR) {
        uint64_t sector = (request->offset + done) / SECTOR;
        versions.under_way[sector] = version;
        if (request->kind == WRITE)
            versions_fill(&versions, sector, version, request->bytes + done);
    }
}

static void begin(struct request *request)
{
    static const enum kind kinds[] = {READ,  READ,  READ,  READ,  WRITE,
                                      WRITE, WRITE, WRITE, WRITE, TRIM};
    struct client *client = request->client;

    request->kind = kinds[chance(client, sizeof kinds / sizeof kinds[0])];
    if (request->kind == TRIM && chance(client, 3) == 0)
        request->kind = ZERO;
    choose_range(client, request);
    if (is_busy(request))
        return;
    mark_busy(request, 1);
    choose_content(request);
    submit(request);
}

/* ---- after a break ---- */

/* Given up: its pages are read, and are old or new. -EAGAIN: the connection broke again. */
static int settle(struct request *request)
{
    struct client *client = request->client;
    uint64_t first = request->offset / PAGE;
    uint64_t end = (request->offset + request->length + PAGE - 1) / PAGE, fresh = 0;

    if (request->kind != READ) {
        if (nbd_pread(client->nbd, client->scratch, (end - first) * PAGE, first * PAGE, 0) < 0)
            return is_broken(client) ? -EAGAIN : fail(client, "read after a break");
        if (versions_settle(&versions, request->offset, request->length, first, end - first,
                            client->scratch, &fresh) < 0)
            return fail(client, "after a break");
        atomic_fetch_add(&settled_new, fresh);
        atomic_fetch_add(&settled_old, end - first - fresh);
    }
    ended(request);
    return 0;
}

static void take_up(struct client *client)
{
    for (unsigned i = 0; i < DEPTH && !is_broken(client) && !client->failed; i++) {
        struct request *request = &client->requests[i];
        if (request->state != UNANSWERED)
            continue;
        if (chance(client, 2) || atomic_load(&stop)) {
            settle(request);
        } else {
            atomic_fetch_add(&sent_again, 1);
            submit(request);
        }
    }
}

static unsigned count(const struct client *client, enum state state)
{
    unsigned n = 0;

    for (unsigned i = 0; i < DEPTH; i++)
        n += client->requests[i].state == state;
    return n;
}

/* ---- a client's life ---- */

static void work(struct client *client)
{
    time_t last = time(NULL);
    uint64_t seen = 0;

    take_up(client);
    for (unsigned i = 0; i < DEPTH && !atomic_load(&stop) && !is_broken(client); i++)
        if (client->requests[i].state == IDLE)
            begin(&client->requests[i]);
    while (!client->failed && !is_broken(client) && count(client, SENT) == DEPTH) {
        nbd_poll(client->nbd, 100);
        if (atomic_load(&answered) != seen) {
            seen = atomic_load(&answered);
            last = time(NULL);
        } else if (time(NULL) - last > PATIENCE_S) {
            fail(client, "no answer");
        }
    }
    if (!is_broken(client))
        nbd_poll(client->nbd, count(client, SENT) > 0 ? 100 : 0);
}

/* Everything of this client's, from first to last. */
static int verify(struct client *client)
{
    uint64_t chunks = versions.sectors / PAGE_SECTORS / CHUNK_PAGES / client_count;

    for (uint64_t i = 0; i < chunks && !client->failed; i++) {
        uint64_t offset = (i * client_count + client->number) * LONGEST;
        while (nbd_pread(client->nbd, client->scratch, LONGEST, offset, 0) < 0)
            if (!is_broken(client) || connect_again(client) < 0) /* killed since we last looked */
                return fail(client, "read at the end");
        if (versions_compare(&versions, offset, LONGEST, client->scratch) < 0)
            return fail(client, "at the end");
    }
    return 0;
}

static void *live(void *opaque)
{
    struct client *client = opaque;

    while (!client->failed &&
           (!atomic_load(&stop) || count(client, IDLE) < DEPTH || is_broken(client))) {
        if (is_broken(client)) {
            for (unsigned i = 0; i < DEPTH; i++)
                if (client->requests[i].state == SENT)
                    client->requests[i].state = UNANSWERED;
            connect_again(client);
        } else {
            work(client);
        }
    }
    if (!client->failed)
        verify(client);
    if (client->nbd != NULL)
        nbd_close(client->nbd);
    return NULL;
}

static int start(struct client *client, unsigned number, uint64_t seed)
{
    client->number = number;
    client->random = (seed + number) * 0x9e3779b97f4a7c15ull | 1;
    client->scratch = malloc(LONGEST + 2 * PAGE);
    for (unsigned i = 0; i < DEPTH; i++) {
        client->requests[i].client = client;
        client->requests[i].bytes = malloc(LONGEST);
        if (client->requests[i].bytes == NULL || client->scratch == NULL)
            return -ENOMEM;
    }
    return -pthread_create(&client->thread, NULL, live, client);
}

static int any_failed(void)
{
    int failed = 0;

    for (unsigned i = 0; i < client_count; i++)
        failed |= clients[i].failed;
    return failed;
}

static void print_numbers(void)
{
    printf("answered=%llu connections=%llu again=%llu new=%llu old=%llu enospc=%llu failed=%d\n",
           (unsigned long long)answered, (unsigned long long)connections,
           (unsigned long long)sent_again, (unsigned long long)settled_new,
           (unsigned long long)settled_old, (unsigned long long)no_space, any_failed());
    fflush(stdout);
}

int main(int argc, char **argv)
{
    char line[64];

    if (argc != 5)
        return 2;
    socket_path = argv[1];
    client_count = (unsigned)atoi(argv[3]);
    if (client_count < 1 || client_count > CLIENTS_MAX ||
        versions_init(&versions, strtoull(argv[2], NULL, 0), strtoull(argv[4], NULL, 0)) < 0)
        return 2;
    for (unsigned i = 0; i < client_count; i++)
        if (start(&clients[i], i, strtoull(argv[4], NULL, 0)) < 0)
            return 2;
    while (fgets(line, sizeof line, stdin) != NULL)
        print_numbers();
    atomic_store(&stop, 1);
    for (unsigned i = 0; i < client_count; i++)
        pthread_join(clients[i].thread, NULL);
    print_numbers();
    return any_failed();
}

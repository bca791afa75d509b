/*
 * say.c: a ring of lines and the thread that writes them.
 *
 * `said` and `written` count lines since the start; said - written are in the ring.
 */
#include "client/attach/say.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "farswap/params.h"

#define LINES 64
#define LINE 1024

static char prefix[32 + FSW_NAME_MAX] = "farswap-attach: ";
static struct {
    pthread_mutex_t lock;
    pthread_cond_t more, less;
    pthread_t thread;
    int started;
    unsigned long said, written;
    char lines[LINES][LINE];
} ring = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, PTHREAD_COND_INITIALIZER};

void fsw_say_name(const char *name)
{
    snprintf(prefix, sizeof prefix, "farswap-attach: %.*s: ", FSW_NAME_MAX, name);
}

static void put(const char *line)
{
    if (write(STDERR_FILENO, line, strlen(line)) < 0)
        return; /* nobody can be told */
}

static void *write_lines(void *opaque)
{
    static char line[LINE];

    for (;;) {
        pthread_mutex_lock(&ring.lock);
        while (ring.written == ring.said)
            pthread_cond_wait(&ring.more, &ring.lock);
        memcpy(line, ring.lines[ring.written % LINES], LINE);
        pthread_mutex_unlock(&ring.lock);
        put(line);
        FSW_LOCK_SCOPE(&ring.lock);
        ring.written++;
        pthread_cond_signal(&ring.less);
    }
    return NULL;
}

int fsw_say_start(void)
{
    pthread_attr_t attributes;

    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 128 << 10);
    int r = pthread_create(&ring.thread, &attributes, write_lines, NULL);
    pthread_attr_destroy(&attributes);
    ring.started = r == 0;
    return -r;
}

void fsw_say_finish(void)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until); /* pthread_cond_timedwait's own */
    until.tv_sec++;
    FSW_LOCK_SCOPE(&ring.lock);
    while (ring.started && ring.written < ring.said &&
           pthread_cond_timedwait(&ring.less, &ring.lock, &until) == 0)
        ;
}

static void leave(const char *line)
{
    FSW_LOCK_SCOPE(&ring.lock);
    if (ring.said - ring.written == LINES)
        return;
    memcpy(ring.lines[ring.said++ % LINES], line, LINE);
    pthread_cond_signal(&ring.more);
}

void fsw_say(const char *format, ...)
{
    char line[LINE];
    va_list arguments;
    int n = snprintf(line, sizeof line, "%s", prefix);

    va_start(arguments, format);
    n += vsnprintf(line + n, sizeof line - (size_t)n, format, arguments);
    va_end(arguments);
    if (n > LINE - 2)
        n = LINE - 2;
    strcpy(line + n, "\n");
    if (ring.started)
        leave(line);
    else
        put(line);
}

/*
 * pressure.c: /proc/meminfo and /proc/pressure/memory, and what follows from them.
 */
#include "server/pressure.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"

#define KEEP_SHARE 20
#define KEEP_MAX (1ull << 30)

static void proc_path(const char *file, char path[PATH_MAX])
{
    const char *dir = secure_getenv("FARSWAPD_PROC");

    snprintf(path, PATH_MAX, "%s/%s", dir != NULL && *dir != '\0' ? dir : "/proc", file);
}

uint64_t fsw_meminfo(const char *field)
{
    size_t length = strlen(field);
    unsigned long long kib = 0;
    uint64_t found = UINT64_MAX;
    char path[PATH_MAX], line[128];

    proc_path("meminfo", path);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return found;
    while (found == UINT64_MAX && fgets(line, sizeof line, file) != NULL)
        if (strncmp(line, field, length) == 0 && line[length] == ':' &&
            sscanf(line + length + 1, "%llu kB", &kib) == 1)
            found = kib << 10;
    fclose(file);
    return found;
}

uint64_t fsw_pressure_keep_default(void)
{
    uint64_t total = fsw_meminfo("MemTotal");

    if (total == UINT64_MAX)
        return 0;
    return total / KEEP_SHARE < KEEP_MAX ? total / KEEP_SHARE : KEEP_MAX;
}

/* "some avg10=0.00 avg60=0.00 avg300=0.00 total=123"; 0: unknown. */
static uint64_t read_stall(void)
{
    char path[PATH_MAX];
    unsigned long long total = 0;

    proc_path("pressure/memory", path);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return 0;
    if (fscanf(file, "some avg10=%*f avg60=%*f avg300=%*f total=%llu", &total) != 1)
        total = 0;
    fclose(file);
    return total;
}

/* Whether tasks stalled for a sixteenth of the time since the last look. */
static bool stalled_since(const struct fsw_pressure *pressure, uint64_t now_ns, uint64_t stall_us)
{
    uint64_t passed_us = (now_ns - pressure->looked_ns) / 1000;

    if (pressure->looked_ns == 0 || stall_us <= pressure->stall_us)
        return false;
    return (stall_us - pressure->stall_us) * FSW_STALL_WINDOW_US >= passed_us * FSW_STALL_US;
}

static bool is_bad(const struct fsw_pressure *pressure)
{
    return pressure->available < pressure->keep ||
           (pressure->stalled && pressure->available / 4 < pressure->keep);
}

static bool is_calm(const struct fsw_pressure *pressure)
{
    return pressure->available >= pressure->keep + pressure->keep / 4 && !is_bad(pressure);
}

void fsw_pressure_step(struct fsw_pressure *pressure, uint64_t now_ns, uint64_t available,
                       uint64_t stall_us, bool triggered)
{
    pressure->stalled = triggered || stalled_since(pressure, now_ns, stall_us);
    pressure->available = available;
    pressure->stall_us = stall_us;
    pressure->looked_ns = now_ns;
    pressure->triggers += triggered;
    if (is_bad(pressure)) {
        pressure->times += !pressure->short_of;
        pressure->short_of = true;
        pressure->calm_ns = 0;
    } else if (!is_calm(pressure)) {
        pressure->calm_ns = 0;
    } else if (pressure->calm_ns == 0) {
        pressure->calm_ns = now_ns;
    } else if (now_ns - pressure->calm_ns >= FSW_CALM_SECONDS * FSW_NS_PER_S) {
        pressure->short_of = false;
    }
}

void fsw_pressure_look(struct fsw_pressure *pressure, bool triggered)
{
    if (pressure->keep == 0)
        return;
    fsw_pressure_step(pressure, fsw_now_ns(), fsw_meminfo("MemAvailable"), read_stall(), triggered);
}

int fsw_pressure_trigger(void)
{
    char path[PATH_MAX], text[64];
    int length = snprintf(text, sizeof text, "some %d %d", FSW_STALL_US, FSW_STALL_WINDOW_US);

    proc_path("pressure/memory", path);
    int fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    if (write(fd, text, (size_t)length + 1) < 0) {
        int r = -errno;
        close(fd);
        return r;
    }
    return fd;
}

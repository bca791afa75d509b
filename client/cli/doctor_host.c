/*
 * doctor_host.c: what farswap doctor looks at with no device in view: rules of shared memory,
 * namespaces, rights, the kernel's doors, its knobs.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "client/cli/doctor.h"
#include "client/cli/findings.h"
#include "client/cli/survival.h"
#include "common/rights.h"
#include "common/shm.h"

/* The kernel gives it this number on every host (proc_ns.h). */
#define USER_HOST_INODE 0xEFFFFFFDu

static void look_at_memory_rules(void)
{
    struct fsw_error err = {""};

    if (fsw_shm_check_host(&err) < 0)
        fail("shared memory: %s", err.text);
    else
        ok("shared memory outlives its processes here");
}

/* ---- namespaces ---- */

static int in_the_hosts_users(void)
{
    struct stat info;

    return stat("/proc/self/ns/user", &info) < 0 || info.st_ino == USER_HOST_INODE;
}

/* Settings of the whole machine are shown in the host's network namespace alone. */
static int in_the_hosts_network(void)
{
    return access("/proc/sys/net/core/netdev_max_backlog", F_OK) == 0 ||
           access("/proc/sys/net/core", F_OK) < 0;
}

static void look_at_namespaces(void)
{
    unsigned before = findings_warnings() + findings_failures();

    if (!in_the_hosts_users())
        fail("namespaces: this is a user namespace, in which nobody may swapon: run as the host's "
             "root");
    if (!in_the_hosts_network()) {
        if (doctor_has_nbd())
            fail("namespaces: this is a private network namespace, in which the kernel's nbd does "
                 "not answer: run in the host's (docker --net=host, Kubernetes hostNetwork: true), "
                 "or use --door fuse");
        else
            warn("namespaces: this is a private network namespace: donors are reached as far as "
                 "it reaches");
    }
    if (findings_warnings() + findings_failures() == before)
        ok("namespaces: user and network are the host's");
}

/* ---- rights ---- */

static void warn_of_right(const char *text)
{
    if (strncmp(text, "zswap", 5) == 0)
        warn("%s", text);
    else
        warn("rights: %s", text);
}

static void look_at_rights(void)
{
    unsigned before = findings_warnings();

    fsw_rights_check(warn_of_right); /* zswap is among them */
    if (findings_warnings() - before == (unsigned)fsw_zswap_in_front())
        ok("rights: memory can be locked, the OOM score and the I/O flag set");
    if (!fsw_zswap_in_front())
        ok("zswap is off: pages are compressed once");
}

/* ---- doors ---- */

static int module_exists(const char *name)
{
    char path[256], wanted[64], text[512];
    struct utsname host;
    int found = 0;

    snprintf(path, sizeof path, "/sys/module/%s", name);
    if (access(path, F_OK) == 0)
        return 1;
    if (uname(&host) < 0)
        return 0;
    snprintf(wanted, sizeof wanted, "/%s.ko", name);
    const char *const lists[] = {"modules.dep", "modules.builtin"};
    for (unsigned i = 0; i < 2 && !found; i++) {
        snprintf(path, sizeof path, "/lib/modules/%s/%s", host.release, lists[i]);
        FILE *file = fopen(path, "re");
        while (file != NULL && !found && fgets(text, sizeof text, file) != NULL) {
            text[strcspn(text, ":\n")] = '\0';
            found = strstr(text, wanted) != NULL;
        }
        if (file != NULL)
            fclose(file);
    }
    return found;
}

int doctor_has_nbd(void)
{
    return module_exists("nbd");
}

static void look_at_door(void)
{
    if (doctor_has_nbd())
        ok("nbd: this kernel has it");
    else if (access("/dev/fuse", R_OK | W_OK) < 0 && errno == EACCES)
        fail(
            "door: this kernel has no nbd module, and /dev/fuse is not for this user: run as root");
    else if (access("/dev/fuse", R_OK | W_OK) < 0)
        fail("door: this kernel has no nbd module, and /dev/fuse can't be used (%s): there is no "
             "way to "
             "give it a swap device. Install the kernel's extra modules, or load fuse",
             strerror(errno));
    else if (survival_kernel_asks_again())
        ok("door: no nbd module here; FUSE and a loop device do it, and this kernel asks again for "
           "what was in flight when a server is killed");
    else
        warn("door: no nbd module here, so FUSE and a loop device do it. This kernel (before 6.9) "
             "can't "
             "ask a new server for what was in flight: if the server is killed, what is swapped "
             "is lost. Install the kernel's extra modules for nbd");
}

/* ---- knobs ---- */

static void look_at_knobs(void)
{
    long swappiness, cluster;

    if (findings_number("/proc/sys/vm/swappiness", &swappiness)) {
        if (swappiness < 60)
            warn("vm.swappiness is %ld: the kernel drops file pages, which come back from disk, "
                 "before it uses "
                 "this swap, which is faster. For compressed swap 100 and more is usual: sysctl "
                 "vm.swappiness=100",
                 swappiness);
        else
            ok("vm.swappiness is %ld", swappiness);
    }
    if (findings_number("/proc/sys/vm/page-cluster", &cluster)) {
        if (cluster > 3)
            warn("vm.page-cluster is %ld: each fault reads %ld pages, most of them for nothing: "
                 "sysctl vm.page-cluster=3",
                 cluster, 1l << cluster);
        else
            ok("vm.page-cluster is %ld", cluster);
    }
}

void look_at_host(void)
{
    look_at_memory_rules();
    look_at_namespaces();
    look_at_rights();
    look_at_door();
    look_at_knobs();
}

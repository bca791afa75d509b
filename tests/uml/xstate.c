/*
 * xstate.c: lets linux.uml run on CPUs whose registers are larger than it knows (AMX and later).
 *
 * User Mode Linux 6.1 restores a process's registers by PTRACE_SETREGSET with a buffer that ends
 * after AVX-512. A host kernel takes the whole register file or nothing (EFAULT), so on a CPU with
 * AMX the guest's init dies: "ptrace set fp regs failed, errno = 14". Preloaded into linux.uml, this
 * reads the whole, lays what UML has over its beginning, and sets the whole. On other CPUs it
 * changes nothing. One thread calls it (UML has one CPU).
 */
#include <elf.h>
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/uio.h>

/* glibc's declaration names the request by an enum, which a definition has to follow. */
typedef enum __ptrace_request ptrace_request;
typedef long ptrace_function(ptrace_request, ...);

static long set_whole(ptrace_function *real, pid_t pid, const struct iovec *part)
{
    static char whole[65536];
    struct iovec iov = {.iov_base = whole, .iov_len = sizeof(whole)};

    if (real(PTRACE_GETREGSET, pid, NT_X86_XSTATE, &iov) < 0)
        return -1;
    memcpy(whole, part->iov_base, part->iov_len < iov.iov_len ? part->iov_len : iov.iov_len);
    return real(PTRACE_SETREGSET, pid, NT_X86_XSTATE, &iov);
}

long ptrace(ptrace_request request, ...)
{
    static ptrace_function *real;
    va_list arguments;

    if (real == NULL)
        real = (ptrace_function *)dlsym(RTLD_NEXT, "ptrace");
    va_start(arguments, request);
    pid_t pid = va_arg(arguments, pid_t);
    void *address = va_arg(arguments, void *);
    void *data = va_arg(arguments, void *);
    va_end(arguments);

    if (request == PTRACE_SETREGSET && (long)address == NT_X86_XSTATE)
        return set_whole(real, pid, data);
    return real(request, pid, address, data);
}

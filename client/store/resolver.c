/*
 * resolver.c: getaddrinfo_a(3).
 */
#include "client/store/resolver.h"

#include <errno.h>
#include <string.h>

int resolver_begin(struct resolver *resolver, const struct fsw_address *address)
{
    struct gaicb *question = &resolver->question;

    if (resolver->asking)
        return 0;
    fsw_address_question(address, &resolver->where);
    resolver->hints = (struct addrinfo){.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    *question = (struct gaicb){.ar_name = resolver->where.host,
                               .ar_service = resolver->where.port,
                               .ar_request = &resolver->hints};
    resolver->asking = getaddrinfo_a(GAI_NOWAIT, &question, 1, NULL) == 0;
    return resolver->asking ? 0 : -EAGAIN;
}

int resolver_look(struct resolver *resolver, struct fsw_address *address, struct fsw_error *err)
{
    int r = gai_error(&resolver->question);

    if (r == EAI_INPROGRESS)
        return -EINPROGRESS;
    resolver->asking = 0;
    if (r != 0)
        return fsw_error(err, -ENOENT, "its host %s can't be found: %s", resolver->where.host,
                         gai_strerror(r));
    r = fsw_address_keep(address, resolver->question.ar_result, err);
    freeaddrinfo(resolver->question.ar_result);
    return r;
}

void resolver_end(struct resolver *resolver)
{
    const struct gaicb *question = &resolver->question;

    if (!resolver->asking)
        return;
    if (gai_cancel(&resolver->question) == EAI_NOTCANCELED)
        while (gai_error(&resolver->question) == EAI_INPROGRESS)
            gai_suspend(&question, 1, NULL);
    if (gai_error(&resolver->question) == 0)
        freeaddrinfo(resolver->question.ar_result);
    resolver->asking = 0;
}

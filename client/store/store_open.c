/*
 * store_open.c: which stores a text names, and what is around them:
 *
 *     one     [crypt] (resp or file)
 *     two     [crypt] mirror (resp or file, resp or file)
 */
#include "client/store/store_open.h"

#include <errno.h>
#include <string.h>

#include "client/store/address.h"
#include "client/store/crypt.h"
#include "client/store/file.h"
#include "client/store/mirror.h"
#include "client/store/nbd.h"
#include "client/store/nbd_lib.h"
#include "client/store/resp.h"
#include "common/cleanup.h"

/* Far more than any server takes; bounds what the greeting puts into a buffer. */
#define PASSWORD_MOST 1024

/* What follows if text begins with prefix, else NULL. */
static const char *after(const char *text, const char *prefix)
{
    size_t length = strlen(prefix);

    return strncmp(text, prefix, length) == 0 ? text + length : NULL;
}

static int open_resp(const struct fsw_address *address, const char *password,
                     struct fsw_store **ret_store, struct fsw_error *err)
{
    int r;

    if (password != NULL && strlen(password) > PASSWORD_MOST)
        return fsw_error(err, -EINVAL, "the store's password is longer than %d characters",
                         PASSWORD_MOST);
    r = resp_store_new(address, password, ret_store);
    return r == 0 ? 0 : fsw_error(err, r, "no memory for the store's buffers");
}

/* Of a name that is not resolved yet: it stays on this host, as it did when the device was made. */
static int is_local(struct fsw_address *address, const struct fsw_store_options *options)
{
    address->stays = address->count == 0 && !options->encrypted && !options->plaintext;
    return address->local || address->stays;
}

static int open_nbd(const char *uri, const char *rest, const struct fsw_store_options *options,
                    struct fsw_store **ret_store, int *ret_local, struct fsw_error *err)
{
    struct nbd_export export;
    int r = after(uri, "nbd://") != NULL ? nbd_export_parse_tcp(&export, rest, options->later, err)
                                         : nbd_export_parse_unix(&export, rest, err);

    if (r < 0)
        return r;
    *ret_local = is_local(&export.address, options);
    r = nbd_lib_load(err);
    if (r < 0)
        return r;
    r = nbd_store_new(&export, ret_store);
    return r == 0 ? 0 : fsw_error(err, r, "no memory for the store's buffers");
}

/* The store itself; *ret_local: what goes there stays on this host. */
static int open_plain(const char *uri, const struct fsw_store_options *options,
                      struct fsw_store **ret_store, int *ret_local, struct fsw_error *err)
{
    struct fsw_address address;
    const char *rest;
    int r;

    if ((rest = after(uri, "file:")) != NULL) {
        *ret_local = slots_is_local(rest);
        return file_store_new(rest, ret_store, err);
    }
    if ((rest = after(uri, "nbd://")) != NULL || (rest = after(uri, "nbd+unix://")) != NULL)
        return open_nbd(uri, rest, options, ret_store, ret_local, err);
    if ((rest = after(uri, "resp://")) != NULL)
        r = fsw_address_parse_tcp(&address, rest, options->later, err);
    else if ((rest = after(uri, "resp+unix://")) != NULL)
        r = fsw_address_parse_unix(&address, rest, err);
    else
        return fsw_error(err, -EINVAL,
                         "overflow=%s is no store: allowed are resp://HOST[:PORT], "
                         "resp+unix:///PATH, file:PATH, nbd://HOST[:PORT][/EXPORT] and "
                         "nbd+unix:///[EXPORT]?socket=PATH, each also behind crypt+",
                         uri);
    if (r < 0)
        return r;
    *ret_local = is_local(&address, options);
    return open_resp(&address, options->password, ret_store, err);
}

static void close_all(struct fsw_store *const *stores, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        stores[i]->ops->close(stores[i]);
}

/* One of the URIs, without its crypt+. *encrypts is set if it asks for that, or leaves the host. */
static int open_one(const char *uri, const struct fsw_store_options *options,
                    struct fsw_store **ret_store, int *encrypts, struct fsw_error *err)
{
    const char *plain = after(uri, "crypt+");
    int local = 1, r;

    if (plain != NULL && options->plaintext)
        return fsw_error(
            err, -EINVAL,
            "overflow=%s says encrypted, and overflow-plaintext=yes not: leave one away", uri);
    r = open_plain(plain != NULL ? plain : uri, options, ret_store, &local, err);
    if (r == 0 && (plain != NULL || !(local || options->plaintext)))
        *encrypts = 1;
    return r;
}

/* All of them, in order. */
static int open_each(char *uris, const struct fsw_store_options *options, struct fsw_store **stores,
                     unsigned *ret_count, int *encrypts, struct fsw_error *err)
{
    char *at = uris, *rest;
    int r = 0;

    for (*ret_count = 0; r == 0 && at != NULL; at = rest) {
        rest = strchr(at, ' ');
        if (rest != NULL)
            *rest++ = '\0';
        if (*ret_count == MIRROR_COPIES)
            r = fsw_error(err, -EINVAL, "overflow=: at most %u stores", MIRROR_COPIES);
        else
            r = open_one(at, options, &stores[*ret_count], encrypts, err);
        *ret_count += r == 0;
    }
    if (r < 0)
        close_all(stores, *ret_count);
    return r;
}

/* What is around them. One encryption for both copies: they are the same bytes. */
static int wrap(struct fsw_store **stores, unsigned count, int encrypts,
                struct fsw_store **ret_store, struct fsw_error *err)
{
    struct fsw_store *store = stores[0];
    int r = 0;

    if (count == MIRROR_COPIES)
        r = mirror_store_new(stores, &store);
    if (r < 0)
        close_all(stores, count);
    else if (encrypts && (r = crypt_store_new(store, &store)) < 0)
        close_all(&store, 1);
    *ret_store = store;
    return r == 0 ? 0 : fsw_error(err, r, "no memory for the store");
}

int fsw_store_open(const struct fsw_store_options *options, struct fsw_store **ret_store,
                   struct fsw_error *err)
{
    FSW_CLEANUP_FREE char *uris = strdup(options->uri);
    struct fsw_store *stores[MIRROR_COPIES];
    unsigned count;
    int encrypts = 0, r;

    if (uris == NULL)
        return fsw_error(err, -ENOMEM, "no memory for the store");
    r = open_each(uris, options, stores, &count, &encrypts, err);
    return r < 0 ? r : wrap(stores, count, encrypts, ret_store, err);
}

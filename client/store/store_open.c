/*
 * store_open.c: which store a URI names, and whether what goes there is encrypted.
 */
#include "client/store/store_open.h"

#include <errno.h>
#include <string.h>

#include "client/store/address.h"
#include "client/store/crypt.h"
#include "client/store/file.h"
#include "client/store/resp.h"

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

/* The store itself; *ret_local: what goes there stays on this host. */
static int open_plain(const char *uri, const char *password, struct fsw_store **ret_store,
                      int *ret_local, struct fsw_error *err)
{
    struct fsw_address address;
    const char *rest;
    int r;

    if ((rest = after(uri, "file:")) != NULL) {
        *ret_local = slots_is_local(rest);
        return file_store_new(rest, ret_store, err);
    }
    if ((rest = after(uri, "resp://")) != NULL)
        r = fsw_address_parse_tcp(&address, rest, err);
    else if ((rest = after(uri, "resp+unix://")) != NULL)
        r = fsw_address_parse_unix(&address, rest, err);
    else
        return fsw_error(err, -EINVAL,
                         "overflow=%s is no store: allowed are resp://HOST[:PORT], "
                         "resp+unix:///PATH and file:PATH, each also behind crypt+",
                         uri);
    *ret_local = r == 0 && address.local;
    return r < 0 ? r : open_resp(&address, password, ret_store, err);
}

static int encrypt(struct fsw_store **store, struct fsw_error *err)
{
    int r = crypt_store_new(*store, store);

    if (r == 0)
        return 0;
    (*store)->ops->close(*store);
    return fsw_error(err, r, "no memory for encryption");
}

int fsw_store_open(const struct fsw_store_options *options, struct fsw_store **ret_store,
                   struct fsw_error *err)
{
    const char *plain = after(options->uri, "crypt+");
    int local, r;

    if (plain != NULL && options->plaintext)
        return fsw_error(
            err, -EINVAL,
            "overflow=%s says encrypted, and overflow-plaintext=yes not: leave one away",
            options->uri);
    r = open_plain(plain != NULL ? plain : options->uri, options->password, ret_store, &local, err);
    if (r == 0 && (plain != NULL || !(local || options->plaintext)))
        r = encrypt(ret_store, err);
    return r;
}

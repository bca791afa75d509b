/*
 * seal.c: a segment's objects, each encrypted and authenticated on its own.
 */
#include "client/store/seal.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#define NONCE_BYTES 12
#define CLEAR_BYTES 4
#define TAG_BYTES 12
_Static_assert(CLEAR_BYTES + TAG_BYTES == FSW_SEAL_BYTES, "a seal is full");

struct seal {
    struct fsw_device_id device;
    EVP_CIPHER_CTX *closing, *opening;
};

/* ---- contexts ---- */

static EVP_CIPHER_CTX *context_new(const uint8_t *key, int encrypt)
{
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();

    if (context != NULL &&
        EVP_CipherInit_ex(context, EVP_aes_256_gcm(), NULL, key, NULL, encrypt) == 1)
        return context;
    EVP_CIPHER_CTX_free(context);
    return NULL;
}

struct seal *seal_new(const struct fsw_device_id *device, const uint8_t key[FSW_STORE_KEY_BYTES])
{
    struct seal *seal = calloc(1, sizeof *seal);

    if (seal == NULL)
        return NULL;
    seal->device = *device;
    seal->closing = context_new(key, 1);
    seal->opening = context_new(key, 0);
    if (seal->closing != NULL && seal->opening != NULL)
        return seal;
    seal_free(seal);
    return NULL;
}

void seal_free(struct seal *seal)
{
    if (seal == NULL)
        return;
    EVP_CIPHER_CTX_free(seal->closing);
    EVP_CIPHER_CTX_free(seal->opening);
    free(seal);
}

/* ---- one object ---- */

static void put_le(uint8_t *to, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        to[i] = (uint8_t)(value >> 8 * i);
}

/* Everything that is authenticated, before the object itself. */
static int begin(const struct seal *seal, EVP_CIPHER_CTX *context, uint64_t id, uint32_t offset,
                 const uint8_t *clear)
{
    uint8_t nonce[NONCE_BYTES];
    int n;

    put_le(nonce, id, 8);
    put_le(nonce + 8, offset, 4);
    return EVP_CipherInit_ex(context, NULL, NULL, NULL, nonce, -1) == 1 &&
           EVP_CipherUpdate(context, NULL, &n, seal->device.bytes, sizeof seal->device.bytes) ==
               1 &&
           EVP_CipherUpdate(context, NULL, &n, clear, CLEAR_BYTES) == 1;
}

static int close_one(struct seal *seal, uint64_t id, uint32_t offset, uint8_t *at, uint32_t length)
{
    EVP_CIPHER_CTX *context = seal->closing;
    uint8_t *object = at + FSW_SEAL_BYTES;
    int n;

    if (begin(seal, context, id, offset, at) &&
        EVP_CipherUpdate(context, object, &n, object, (int)length) == 1 &&
        EVP_CipherFinal_ex(context, object, &n) == 1 &&
        EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, TAG_BYTES, at + CLEAR_BYTES) == 1)
        return 0;
    return -EIO;
}

/* After a failure the object's bytes are nothing. */
static int open_one(struct seal *seal, uint64_t id, uint32_t offset, uint8_t *at, uint32_t length)
{
    EVP_CIPHER_CTX *context = seal->opening;
    uint8_t *object = at + FSW_SEAL_BYTES;
    int n;

    if (begin(seal, context, id, offset, at) &&
        EVP_CipherUpdate(context, object, &n, object, (int)length) == 1 &&
        EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, TAG_BYTES, at + CLEAR_BYTES) == 1 &&
        EVP_CipherFinal_ex(context, object, &n) == 1) {
        memset(at + CLEAR_BYTES, 0, TAG_BYTES);
        return 0;
    }
    return -EBADMSG;
}

/* ---- all of them ---- */

/* The length of the object whose seal is at `at`, if it is whole in what is left; else 0. */
static uint32_t object_length(const uint8_t *at, uint32_t left)
{
    if (left < FSW_SEAL_BYTES)
        return 0;
    uint32_t length = fsw_seal_units(at) * FSW_SEAL_BYTES;
    return at[2] == 0 && at[3] == 0 && length <= left - FSW_SEAL_BYTES ? length : 0;
}

static int is_whole(const uint8_t *bytes, uint32_t length)
{
    uint32_t at = 0, object;

    for (; at < length; at += FSW_SEAL_BYTES + object) {
        object = object_length(bytes + at, length - at);
        if (object == 0)
            return 0;
    }
    return 1;
}

int seal_close(struct seal *seal, uint64_t id, void *bytes, uint32_t length)
{
    uint8_t *p = bytes;
    int r = is_whole(bytes, length) ? 0 : -EINVAL;

    for (uint32_t at = 0, object; r == 0 && at < length; at += FSW_SEAL_BYTES + object) {
        object = object_length(p + at, length - at);
        r = close_one(seal, id, at, p + at, object);
    }
    return r;
}

int seal_open(struct seal *seal, uint64_t id, uint32_t offset, void *bytes, uint32_t length)
{
    uint8_t *p = bytes;

    for (uint32_t at = 0, object; at < length; at += FSW_SEAL_BYTES + object) {
        object = object_length(p + at, length - at);
        if (object != 0 && open_one(seal, id, offset + at, p + at, object) == 0)
            continue;
        memset(p + at, 0, length - at < FSW_SEAL_BYTES ? length - at : FSW_SEAL_BYTES);
        return at == 0 ? -EBADMSG : 0;
    }
    return 0;
}

/*
 * test_store_units.c: the parts of the stores that need no server: URIs, keys, the wire, lists.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "client/store/address.h"
#include "client/store/keys.h"
#include "client/store/requests.h"
#include "client/store/resp_wire.h"
#include "client/store/store_open.h"

/* ---- URIs ---- */

static const struct {
    const char *uri;
    int plaintext, code;
    const char *says; /* in the error */
} uris[] = {
    {"resp://127.0.0.1", 0, 0, ""},
    {"resp://127.0.0.1:6390", 0, 0, ""},
    {"resp://127.9.9.9:1", 0, 0, ""},
    {"resp://[::1]", 0, 0, ""},
    {"resp://[::1]:65535", 0, 0, ""},
    {"resp://[::ffff:127.0.0.1]:7", 0, 0, ""},
    {"resp://localhost:6390", 0, 0, ""},
    {"resp+unix:///run/farswapd.sock", 0, 0, ""},
    {"resp://10.0.0.2:6390", 1, 0, ""},
    {"resp://[2001:db8::1]", 1, 0, ""},
    {"file:/var/tmp/overflow", 0, 0, ""},
    {"redis://127.0.0.1", 0, -EINVAL,
     "resp://HOST[:PORT], resp+unix:///PATH, file:PATH, nbd://HOST"},
    {"crypt+resp://127.0.0.1", 1, -EINVAL, "overflow-plaintext=yes"},
    {"crypt+", 0, -EINVAL, "allowed are"},
    {"crypt+crypt+resp://127.0.0.1", 0, -EINVAL, "allowed are"},
    {"crypt+file:x", 0, -EINVAL, "absolute path"},
    {"resp://127.0.0.1 resp://127.0.0.1:1", 0, 0, ""},
    {"resp://127.0.0.1 file:/var/tmp/overflow", 0, 0, ""},
    {"file:/var/tmp/a file:/var/tmp/b file:/var/tmp/c", 0, -EINVAL, "at most 2"},
    {"file:/var/tmp/a redis://x", 0, -EINVAL, "redis://x is no store"},
    {"file:/var/tmp/a  file:/var/tmp/b", 0, -EINVAL, "overflow= is no store"},
    {"127.0.0.1:6390", 0, -EINVAL, "allowed are"},
    {"", 0, -EINVAL, "allowed are"},
    {"resp://", 0, -EINVAL, "HOST[:PORT]"},
    {"resp://:6390", 0, -EINVAL, "HOST[:PORT]"},
    {"resp://127.0.0.1:", 0, -EINVAL, "HOST[:PORT]"},
    {"resp://127.0.0.1:0", 0, -EINVAL, "port 1 to 65535"},
    {"resp://127.0.0.1:65536", 0, -EINVAL, "port 1 to 65535"},
    {"resp://127.0.0.1:6390x", 0, -EINVAL, "HOST[:PORT]"},
    {"resp://127.0.0.1:6390/0", 0, -EINVAL, "HOST[:PORT]"},
    {"resp://::1", 0, -EINVAL, "brackets"},
    {"resp://[::1", 0, -EINVAL, "brackets"},
    {"resp://[::1]x", 0, -EINVAL, "brackets"},
    {"resp://[]", 0, -EINVAL, "brackets"},
    {"resp://no-such-host.invalid", 1, -ENOENT, "can't be found"},
    {"resp+unix://run/x", 0, -EINVAL, "resp+unix:///PATH"},
    {"resp+unix://", 0, -EINVAL, "resp+unix:///PATH"},
    {"file:overflow", 0, -EINVAL, "absolute path"},
    {"file:", 0, -EINVAL, "absolute path"},
    {"file:/var/tmp/", 0, -EINVAL, "absolute path"},
};

static void test_uris(void **state)
{
    for (size_t i = 0; i < sizeof uris / sizeof *uris; i++) {
        struct fsw_store_options options = {.uri = uris[i].uri, .plaintext = uris[i].plaintext};
        struct fsw_error err = {""};
        struct fsw_store *store = NULL;
        int r = fsw_store_open(&options, &store, &err);

        if (r != uris[i].code || strstr(err.text, uris[i].says) == NULL)
            fail_msg("%s: %d \"%s\"", uris[i].uri, r, err.text);
        assert_null(strchr(err.text, '\n'));
        if (r == 0)
            store->ops->close(store);
    }
}

/* What is encrypted: what leaves the host, unless that was switched off; and what is asked for. */
static const struct {
    const char *uri;
    int plaintext, encrypted;
} leaving[] = {
    {"resp://127.0.0.1", 0, 0},
    {"resp://[::1]", 0, 0},
    {"resp+unix:///run/farswapd.sock", 0, 0},
    {"file:/var/tmp/overflow", 0, 0},
    {"resp://10.0.0.2:6390", 1, 0},
    {"resp://10.0.0.2:6390", 0, 1},
    {"resp://[2001:db8::1]", 0, 1},
    {"resp://128.0.0.1", 0, 1},
    {"resp://0.0.0.0", 0, 1},
    {"resp://[::ffff:10.0.0.2]", 0, 1},
    {"crypt+resp://127.0.0.1", 0, 1},
    {"crypt+resp+unix:///run/farswapd.sock", 0, 1},
    {"crypt+file:/var/tmp/overflow", 0, 1},
    {"resp://127.0.0.1 resp://127.0.0.1:1", 0, 0},
    {"resp://127.0.0.1 resp://10.0.0.2", 0, 1}, /* both copies are the same bytes */
    {"resp://10.0.0.2 file:/var/tmp/a", 1, 0},
    {"file:/var/tmp/a crypt+file:/var/tmp/b", 0, 1},
};

static void test_what_leaves_is_encrypted(void **state)
{
    for (size_t i = 0; i < sizeof leaving / sizeof *leaving; i++) {
        struct fsw_store_options options = {.uri = leaving[i].uri,
                                            .plaintext = leaving[i].plaintext};
        struct fsw_error err = {""};
        struct fsw_store *store;

        assert_int_equal(fsw_store_open(&options, &store, &err), 0);
        if (store->seal != (leaving[i].encrypted ? FSW_SEAL_BYTES : 0) ||
            (strcmp(store->ops->scheme, "crypt") == 0) != leaving[i].encrypted)
            fail_msg("%s is %sencrypted", leaving[i].uri, store->seal ? "" : "not ");
        assert_int_equal(store->copies, strchr(leaving[i].uri, ' ') ? 2 : 1);
        store->ops->close(store);
    }
}

/* Of a device that was there before. */
static void test_a_name_can_wait(void **state)
{
    static const char *const names[] = {"resp://no-such-host.invalid:77",
                                        "nbd://no-such-host.invalid/x"};
    struct fsw_store_options options = {.later = 1};
    struct fsw_error err = {""};
    struct fsw_address address;
    struct fsw_store *store;

    for (unsigned i = 0; i < 4; i++) {
        options.uri = names[i / 2];
        options.encrypted = i % 2;
        assert_int_equal(fsw_store_open(&options, &store, &err), 0);
        assert_int_equal(store->seal, options.encrypted ? FSW_SEAL_BYTES : 0);
        assert_int_equal(store->ops->probe(store, &err), -ENOENT);
        assert_non_null(strstr(err.text, "can't be found"));
        store->ops->close(store);
    }
    assert_int_equal(fsw_address_parse_tcp(&address, "localhost:77", 1, &err), 0);
    assert_int_equal(address.count, 0);
    address.stays = 1;
    assert_int_equal(fsw_address_resolve(&address, &err), 0);
    assert_true(address.count > 0 && address.local);
}

/* What was not encrypted because it stayed on this host goes to no other. */
static void test_what_stays_stays(void **state)
{
    struct sockaddr_in there = {.sin_family = AF_INET, .sin_addr = {htonl(0x0a000002)}};
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    struct addrinfo second = {.ai_addr = (struct sockaddr *)&here, .ai_addrlen = sizeof here};
    struct addrinfo first = {
        .ai_addr = (struct sockaddr *)&there, .ai_addrlen = sizeof there, .ai_next = &second};
    struct fsw_address address = {.text = "name:77", .stays = 1};
    struct fsw_error err = {""};

    assert_int_equal(fsw_address_keep(&address, &first, &err), 0);
    assert_int_equal(address.count, 1);
    assert_memory_equal(&address.places[0], &here, sizeof here);
    first.ai_next = NULL;
    address.count = 0;
    assert_int_equal(fsw_address_keep(&address, &first, &err), -ENOENT);
    assert_non_null(strstr(err.text, "not encrypted"));
    address.stays = 0;
    assert_int_equal(fsw_address_keep(&address, &first, &err), 0);
    assert_false(address.local);
}

static void test_uri_too_long(void **state)
{
    char uri[512];
    struct fsw_store_options options = {.uri = uri};
    struct fsw_error err;
    struct fsw_store *store;

    snprintf(uri, sizeof uri, "resp+unix:///%0107d", 0); /* sun_path holds 108 with the NUL */
    assert_int_equal(fsw_store_open(&options, &store, &err), -EINVAL);
    snprintf(uri, sizeof uri, "resp+unix:///%0106d", 0);
    assert_int_equal(fsw_store_open(&options, &store, &err), 0);
    store->ops->close(store);
    snprintf(uri, sizeof uri, "resp://%0400d", 0);
    assert_int_equal(fsw_store_open(&options, &store, &err), -EINVAL);
}

static void test_default_port(void **state)
{
    struct fsw_address address;
    char host[FSW_HOST_TEXT];
    int port;

    assert_int_equal(fsw_address_parse_tcp(&address, "127.0.0.1", 0, NULL), 0);
    assert_string_equal(address.text, "127.0.0.1:6390");
    fsw_place_text(&address.places[0], host, &port);
    assert_string_equal(host, "127.0.0.1");
    assert_int_equal(port, 6390);
    assert_int_equal(fsw_address_parse_tcp(&address, "[::1]:77", 1, NULL), 0);
    assert_string_equal(address.text, "[::1]:77");
    fsw_place_text(&address.places[0], host, &port);
    assert_string_equal(host, "::1");
    assert_int_equal(port, 77);
}

/* ---- keys ---- */

static void test_keys(void **state)
{
    static const struct fsw_device_id device = {{0x00, 0x01, 0xab, 0xff}}, other = {{0x01}};
    static const char expected[] = "farswap:0001abff000000000000000000000000:00000000deadbeef";
    char key[FSW_KEY_TEXT];
    size_t length = fsw_key_segment(key, &device, 0xdeadbeef);
    uint64_t id;

    assert_string_equal(key, expected);
    assert_int_equal(length, strlen(expected));
    assert_int_equal(length, FSW_KEY_TEXT - 1);
    assert_int_equal(fsw_key_parse(key, length, &device, &id), 0);
    assert_int_equal(id, 0xdeadbeef);
    assert_int_equal(fsw_key_parse(key, length, &other, &id), -EINVAL);
    assert_int_equal(fsw_key_parse(key, length - 1, &device, &id), -EINVAL);
    key[length - 1] = 'F';
    assert_int_equal(fsw_key_parse(key, length, &device, &id), -EINVAL);
    length = fsw_key_sentinel(key, &device);
    assert_string_equal(key, "farswap:0001abff000000000000000000000000:sentinel");
    assert_int_equal(fsw_key_parse(key, length, &device, &id), -EINVAL);
    length = fsw_key_segment(key, &device, UINT64_MAX);
    assert_int_equal(fsw_key_parse(key, length, &device, &id), 0);
    assert_int_equal(id, UINT64_MAX);
}

/* ---- the wire ---- */

/* Ours, byte for byte as hiredis writes it. */
static void test_command_is_what_hiredis_writes(void **state)
{
    static char value[FSW_SEGMENT_BYTES] = "\0\r\n$5\r\n";
    static const size_t lengths[] = {0, 1, 9, 10, 99, 100, 9999, 10000, FSW_SEGMENT_BYTES};

    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        struct resp_word words[] = {{"SET", 3}, {"k\0y", 3}, {value, lengths[i]}};
        const char *argv[] = {"SET", "k\0y", value};
        size_t argvlen[] = {3, 3, lengths[i]}, size = resp_command_size(words, 3);
        char *theirs, *ours = malloc(size);
        int length = redisFormatCommandArgv(&theirs, 3, argv, argvlen);

        assert_true((size_t)length <= size);
        assert_int_equal(resp_command_write(ours, words, 3), length);
        assert_memory_equal(ours, theirs, (size_t)length);
        redisFreeCommand(theirs);
        free(ours);
    }
}

#define LATER 100 /* a verdict in the place of a result */
#define EMPTY 101
#define ABSURD 102

static const struct {
    const char *wire;
    int put, get, drop; /* a result, or a verdict from above. GET is of 3 bytes */
} answers[] = {
    {"+OK\r\n", FSW_STORE_OK, ABSURD, ABSURD},
    {"+QUEUED\r\n", ABSURD, ABSURD, ABSURD},
    {":1\r\n", ABSURD, ABSURD, FSW_STORE_OK},
    {":0\r\n", ABSURD, ABSURD, FSW_STORE_OK},
    {"$3\r\nabc\r\n", ABSURD, FSW_STORE_OK, ABSURD},
    {"$2\r\nab\r\n", ABSURD, FSW_STORE_CORRUPT, ABSURD},
    {"$4\r\nabcd\r\n", ABSURD, FSW_STORE_CORRUPT, ABSURD},
    {"$0\r\n\r\n", ABSURD, EMPTY, ABSURD},
    {"$-1\r\n", ABSURD, EMPTY, ABSURD},
    {"-OOM command not allowed\r\n", FSW_STORE_FULL, LATER, LATER},
    {"-LOADING Redis is loading\r\n", LATER, LATER, LATER},
    {"-BUSY a script\r\n", LATER, LATER, LATER},
    {"-TRYAGAIN x\r\n", LATER, LATER, LATER},
    {"-MASTERDOWN x\r\n", LATER, LATER, LATER},
    {"-CLUSTERDOWN x\r\n", LATER, LATER, LATER},
    {"-READONLY x\r\n", LATER, LATER, LATER},
    {"-MISCONF x\r\n", LATER, LATER, LATER},
    {"-NOREPLICAS x\r\n", LATER, LATER, LATER},
    {"-ERR max number of clients reached\r\n", LATER, LATER, LATER},
    {"-NOAUTH x\r\n", FSW_STORE_REFUSED, LATER, LATER},
    {"-NOPERM x\r\n", FSW_STORE_REFUSED, LATER, LATER},
    {"-WRONGPASS x\r\n", FSW_STORE_REFUSED, LATER, LATER},
    {"-ERR unknown command\r\n", FSW_STORE_REFUSED, LATER, LATER},
    {"-WRONGTYPE x\r\n", FSW_STORE_REFUSED, FSW_STORE_CORRUPT, LATER},
    {"-\r\n", FSW_STORE_REFUSED, LATER, LATER},
};

static int judged(enum fsw_store_verb verb, const redisReply *reply)
{
    struct fsw_store_request request = {.verb = verb, .length = 3};
    enum fsw_store_result result = FSW_STORE_OK;

    switch (resp_judge(&request, reply, &result)) {
    case RESP_LATER:
        return LATER;
    case RESP_EMPTY:
        return EMPTY;
    case RESP_ABSURD:
        return ABSURD;
    case RESP_DONE:
        break;
    }
    return (int)result;
}

static void test_verdicts(void **state)
{
    redisReader *reader = resp_reader_new();

    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
        void *reply = NULL;

        redisReaderFeed(reader, answers[i].wire, strlen(answers[i].wire));
        assert_int_equal(redisReaderGetReply(reader, &reply), REDIS_OK);
        assert_non_null(reply);
        if (judged(FSW_STORE_PUT, reply) != answers[i].put ||
            judged(FSW_STORE_GET, reply) != answers[i].get ||
            judged(FSW_STORE_DROP, reply) != answers[i].drop)
            fail_msg("%s", answers[i].wire);
        freeReplyObject(reply);
    }
    redisReaderFree(reader);
}

static void test_reader_takes_no_arrays(void **state)
{
    static const char *const arrays[] = {"*1\r\n+OK\r\n", "*1000000000\r\n", "*0\r\n"};

    for (unsigned i = 0; i < 3; i++) {
        redisReader *reader = resp_reader_new();
        void *reply = NULL;

        redisReaderFeed(reader, arrays[i], strlen(arrays[i]));
        assert_int_equal(redisReaderGetReply(reader, &reply), REDIS_ERR);
        redisReaderFree(reader);
    }
}

/* ---- lists ---- */

static void assert_ids(struct fsw_requests *list, const char *ids)
{
    char seen[16] = "";
    size_t n = 0;

    FSW_FOR_EACH_REQUEST(request, list)
    seen[n++] = (char)request->id;
    assert_string_equal(seen, ids);
    for (const struct fsw_store_request *p = list->head.prev; p != &list->head; p = p->prev)
        assert_int_equal(p->id, ids[--n]);
    assert_int_equal(n, 0);
}

static void test_requests(void **state)
{
    struct fsw_store_request r[4] = {{.id = 'a'}, {.id = 'b'}, {.id = 'c'}, {.id = 'd'}};
    struct fsw_requests one, two;

    fsw_requests_init(&one);
    fsw_requests_init(&two);
    fsw_requests_splice(&one, &two);
    assert_ids(&one, "");
    assert_null(fsw_requests_pop(&one));
    fsw_requests_push_back(&one, &r[1]);
    fsw_requests_push_front(&one, &r[0]);
    fsw_requests_push_back(&two, &r[2]);
    fsw_requests_push_back(&two, &r[3]);
    fsw_requests_splice(&one, &two);
    assert_ids(&one, "abcd");
    assert_ids(&two, "");
    fsw_requests_splice(&two, &one);
    assert_ids(&two, "abcd");
    fsw_requests_remove(&r[1]);
    assert_ids(&two, "acd");
    assert_int_equal(fsw_requests_pop(&two)->id, 'a');
    assert_ids(&two, "cd");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_uris),
        cmocka_unit_test(test_what_leaves_is_encrypted),
        cmocka_unit_test(test_a_name_can_wait),
        cmocka_unit_test(test_what_stays_stays),
        cmocka_unit_test(test_uri_too_long),
        cmocka_unit_test(test_default_port),
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_command_is_what_hiredis_writes),
        cmocka_unit_test(test_verdicts),
        cmocka_unit_test(test_reader_takes_no_arrays),
        cmocka_unit_test(test_requests),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

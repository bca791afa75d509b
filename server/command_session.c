/*
 * command_session.c: the connection: who it is, what it speaks, who else is there.
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/clock.h"
#include "server/commands.h"
#include "server/version.h"

void fsw_run_ping(struct fsw_session *session, struct fsw_request *request, struct fsw_reply *reply)
{
    if (request->count > 2)
        fsw_reply_error(reply, "ERR wrong number of arguments for 'ping' command");
    else if (request->count == 2)
        fsw_reply_value(reply, request->argument[1], 0, request->argument[1]->length);
    else
        fsw_reply_status(reply, "PONG");
}

void fsw_run_echo(struct fsw_session *session, struct fsw_request *request, struct fsw_reply *reply)
{
    fsw_reply_value(reply, request->argument[1], 0, request->argument[1]->length);
}

void fsw_run_quit(struct fsw_session *session, struct fsw_request *request, struct fsw_reply *reply)
{
    session->closing = true;
    fsw_reply_status(reply, "OK");
}

void fsw_run_select(struct fsw_session *session, struct fsw_request *request,
                    struct fsw_reply *reply)
{
    int64_t index;

    if (fsw_argument_i64(request->argument[1], &index) < 0)
        fsw_reply_error(reply, FSW_NOT_AN_INTEGER);
    else if (index != 0)
        fsw_reply_error(reply, "ERR DB index is out of range");
    else
        fsw_reply_status(reply, "OK");
}

/* WAIT replicas milliseconds: there are none, so there is nothing to wait for. */
void fsw_run_wait(struct fsw_session *session, struct fsw_request *request, struct fsw_reply *reply)
{
    int64_t replicas, milliseconds;

    if (fsw_argument_i64(request->argument[1], &replicas) < 0 ||
        fsw_argument_i64(request->argument[2], &milliseconds) < 0)
        fsw_reply_error(reply, FSW_NOT_AN_INTEGER);
    else if (milliseconds < 0)
        fsw_reply_error(reply, "ERR timeout is negative");
    else
        fsw_reply_integer(reply, 0);
}

/* ---- who it is ---- */

/* Takes as long for a wrong password as for the right one. */
static bool is_password(const char *password, const struct fsw_value *tried)
{
    size_t length = strlen(password);
    unsigned char differs = length != tried->length;

    for (size_t i = 0; i < tried->length; i++)
        differs |= (unsigned char)(tried->bytes[i] ^ password[length > 0 ? i % length : 0]);
    return differs == 0;
}

/* Whether it is welcome now. user NULL: not named. */
static bool authenticate(struct fsw_session *session, const struct fsw_value *user,
                         const struct fsw_value *password, struct fsw_reply *reply)
{
    if (session->server->password == NULL) {
        fsw_reply_error(reply, "ERR AUTH <password> called without any password configured");
        return false;
    }
    if ((user == NULL || fsw_is_word(user, "default")) &&
        is_password(session->server->password, password)) {
        session->welcome = true;
        return true;
    }
    session->server->counters.auth_failures++;
    fsw_reply_error(reply, "WRONGPASS invalid username-password pair or user is disabled.");
    return false;
}

void fsw_run_auth(struct fsw_session *session, struct fsw_request *request, struct fsw_reply *reply)
{
    const struct fsw_value *user = request->count == 3 ? request->argument[1] : NULL;

    if (request->count > 3)
        fsw_reply_error(reply, FSW_SYNTAX_ERROR);
    else if (authenticate(session, user, request->argument[request->count - 1], reply))
        fsw_reply_status(reply, "OK");
}

/* A name is one word, or empty. */
static bool set_name(struct fsw_session *session, const struct fsw_value *name,
                     struct fsw_reply *reply)
{
    bool fits = name->length < sizeof session->name;

    for (uint32_t i = 0; fits && i < name->length; i++)
        fits = isgraph((unsigned char)name->bytes[i]);
    if (fits)
        memcpy(session->name, name->bytes, name->length + 1u);
    else
        fsw_reply_error(reply,
                        "ERR Client names cannot contain spaces, newlines or special characters, "
                        "nor more than %zu bytes.",
                        sizeof session->name - 1);
    return fits;
}

static void say_hello(struct fsw_session *session, struct fsw_reply *reply)
{
    fsw_reply_map(reply, 7);
    fsw_reply_text(reply, "server");
    fsw_reply_text(reply, "redis"); /* what clients look for */
    fsw_reply_text(reply, "version");
    fsw_reply_text(reply, FSW_SERVER_SPEAKS);
    fsw_reply_text(reply, "proto");
    fsw_reply_integer(reply, session->resp3 ? 3 : 2);
    fsw_reply_text(reply, "id");
    fsw_reply_integer(reply, (int64_t)session->id);
    fsw_reply_text(reply, "mode");
    fsw_reply_text(reply, "standalone");
    fsw_reply_text(reply, "role");
    fsw_reply_text(reply, "master");
    fsw_reply_text(reply, "modules");
    fsw_reply_array(reply, 0);
}

/* AUTH user password and SETNAME name, from `i` on. Whether all went well, else it is said. */
static bool hello_options(struct fsw_session *session, const struct fsw_request *request,
                          struct fsw_reply *reply)
{
    uint32_t i = 2;

    while (i < request->count) {
        struct fsw_value *const *argument = &request->argument[i];
        if (fsw_is_word(argument[0], "AUTH") && i + 2 < request->count) {
            if (!authenticate(session, argument[1], argument[2], reply))
                return false;
            i += 3;
        } else if (fsw_is_word(argument[0], "SETNAME") && i + 1 < request->count) {
            if (!set_name(session, argument[1], reply))
                return false;
            i += 2;
        } else {
            fsw_reply_error(reply, "ERR Syntax error in HELLO option '%.32s'", argument[0]->bytes);
            return false;
        }
    }
    return true;
}

/* HELLO [2|3 [AUTH user password] [SETNAME name]] */
void fsw_run_hello(struct fsw_session *session, struct fsw_request *request,
                   struct fsw_reply *reply)
{
    uint64_t version = session->resp3 ? 3 : 2;

    if (request->count > 1 && fsw_argument_u64(request->argument[1], 0, INT64_MAX, &version) < 0) {
        fsw_reply_error(reply, "ERR Protocol version is not an integer or out of range");
    } else if (version != 2 && version != 3) {
        fsw_reply_error(reply, "NOPROTO unsupported protocol version");
    } else if (hello_options(session, request, reply)) {
        if (session->welcome) {
            session->resp3 = reply->resp3 = version == 3;
            say_hello(session, reply);
        } else {
            fsw_reply_error(reply, "NOAUTH HELLO must be called with the client already "
                                   "authenticated, or with AUTH default <password>");
        }
    }
}

/* ---- who is there ---- */

static unsigned long long seconds(uint64_t from, uint64_t to)
{
    return (to - from) / FSW_NS_PER_S;
}

/* One line; text has FSW_CLIENT_LINE bytes. */
#define FSW_CLIENT_LINE 320
static size_t describe(const struct fsw_session *session, uint64_t now, char *text)
{
    int length = snprintf(
        text, FSW_CLIENT_LINE,
        "id=%llu addr=%s name=%s age=%llu idle=%llu flags=%s db=0 tot-cmds=%llu cmd=%s "
        "user=%s resp=%d\n",
        (unsigned long long)session->id, session->address, session->name,
        seconds(session->since, now), seconds(session->heard, now), session->admin ? "U" : "N",
        (unsigned long long)session->commands, session->command != NULL ? session->command : "NULL",
        session->welcome ? "default" : "(stranger)", session->resp3 ? 3 : 2);

    return (size_t)length < FSW_CLIENT_LINE ? (size_t)length : FSW_CLIENT_LINE - 1;
}

static void client_info(struct fsw_session *session, struct fsw_reply *reply)
{
    char line[FSW_CLIENT_LINE];

    fsw_reply_verbatim(reply, line, describe(session, fsw_now_ns(), line));
}

static void client_list(struct fsw_session *session, struct fsw_reply *reply)
{
    const struct fsw_server *server = session->server;
    char *text = malloc((server->clients + 1) * FSW_CLIENT_LINE);
    uint64_t now = fsw_now_ns();
    size_t length = 0;

    if (text == NULL) {
        fsw_reply_error(reply, "ERR out of memory");
        return;
    }
    for (const struct fsw_session *other = server->sessions; other != NULL; other = other->next)
        if (!other->killed)
            length += describe(other, now, text + length);
    fsw_reply_verbatim(reply, text, length);
    free(text);
}

/* The one with that id, or (id 0) with that address; NULL: there is none. */
static struct fsw_session *find_session(struct fsw_server *server, uint64_t id, const char *address)
{
    struct fsw_session *found = server->sessions;

    while (found != NULL &&
           (found->killed || (id > 0 ? found->id != id : strcmp(found->address, address) != 0)))
        found = found->next;
    return found;
}

/* Itself only by its address, as in redis: the answer is the last thing that it gets. */
static bool kill_session(struct fsw_session *session, struct fsw_session *victim, bool itself)
{
    if (victim == NULL || (victim == session && !itself) || session->server->kill == NULL)
        return false;
    if (victim == session)
        session->closing = true;
    else
        session->server->kill(victim);
    return true;
}

/* All but itself. */
static int64_t kill_all(struct fsw_session *session)
{
    struct fsw_session *next;
    int64_t killed = 0;

    for (struct fsw_session *other = session->server->sessions; other != NULL; other = next) {
        next = other->next;
        killed += !other->killed && kill_session(session, other, false);
    }
    return killed;
}

/* One host must not cut off all others. */
static void client_kill_type(struct fsw_session *session, const struct fsw_value *type,
                             struct fsw_reply *reply)
{
    if (!fsw_check_admin(session, reply))
        return;
    if (!fsw_is_word(type, "NORMAL"))
        fsw_reply_error(reply, "ERR Unknown client type '%.32s'; all are normal", type->bytes);
    else
        fsw_reply_integer(reply, kill_all(session));
}

/* KILL ID id, KILL ADDR address, KILL address, KILL TYPE normal. A swap host that had to connect anew kills its old
 * connection first, so that no put that is still under way there lands after what it does now. */
static void client_kill(struct fsw_session *session, const struct fsw_request *request,
                        struct fsw_reply *reply)
{
    struct fsw_value *const *argument = request->argument;
    struct fsw_server *server = session->server;
    uint64_t id;

    if (request->count == 3) {
        struct fsw_session *victim = find_session(server, 0, argument[2]->bytes);
        if (kill_session(session, victim, true))
            fsw_reply_status(reply, "OK");
        else
            fsw_reply_error(reply, "ERR No such client");
    } else if (request->count == 4 && fsw_is_word(argument[2], "ADDR")) {
        struct fsw_session *victim = find_session(server, 0, argument[3]->bytes);
        fsw_reply_integer(reply, kill_session(session, victim, false));
    } else if (request->count == 4 && fsw_is_word(argument[2], "TYPE")) {
        client_kill_type(session, argument[3], reply);
    } else if (request->count != 4 || !fsw_is_word(argument[2], "ID")) {
        fsw_reply_error(reply, FSW_SYNTAX_ERROR);
    } else if (fsw_argument_u64(argument[3], 1, INT64_MAX, &id) < 0) {
        fsw_reply_error(reply, "ERR client-id should be greater than 0");
    } else {
        fsw_reply_integer(reply, kill_session(session, find_session(server, id, ""), false));
    }
}

void fsw_run_client(struct fsw_session *session, struct fsw_request *request,
                    struct fsw_reply *reply)
{
    const struct fsw_value *what = request->argument[1];

    if (fsw_is_word(what, "KILL")) {
        client_kill(session, request, reply);
    } else if (fsw_is_word(what, "SETNAME") && request->count == 3) {
        if (set_name(session, request->argument[2], reply))
            fsw_reply_status(reply, "OK");
    } else if (request->count != 2) {
        fsw_reply_error(reply, FSW_SYNTAX_ERROR);
    } else if (fsw_is_word(what, "ID")) {
        fsw_reply_integer(reply, (int64_t)session->id);
    } else if (fsw_is_word(what, "GETNAME")) {
        if (session->name[0] == '\0')
            fsw_reply_nil(reply);
        else
            fsw_reply_text(reply, session->name);
    } else if (fsw_is_word(what, "INFO")) {
        client_info(session, reply);
    } else if (fsw_is_word(what, "LIST")) {
        client_list(session, reply);
    } else {
        fsw_reply_error(reply,
                        "ERR unknown subcommand '%.32s'; known are ID, GETNAME, SETNAME, "
                        "LIST, INFO and KILL",
                        what->bytes);
    }
}

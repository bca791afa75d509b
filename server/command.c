/*
 * command.c: the table of commands, and the way to them. What each does is in command_*.c.
 */
#include "server/command.h"

#include "common/clock.h"
#include "server/commands.h"

static fsw_command run_command;

/* ---- the table ---- */

enum { READS = 1, WRITES = 2, STRANGER = 4 /* also before AUTH */ };

static const struct command {
    const char *name;
    int arity; /* with the name; negative: at least */
    unsigned flags;
    int first_key, last_key; /* as COMMAND tells them; -1: the last argument */
    fsw_command *run;
    const char *summary;
} commands[] = {
    {"get", 2, READS, 1, 1, fsw_run_get, "Gives a value."},
    {"getrange", 4, READS, 1, 1, fsw_run_getrange, "Gives a range of a value's bytes."},
    {"strlen", 2, READS, 1, 1, fsw_run_strlen, "Tells how long a value is."},
    {"set", -3, WRITES, 1, 1, fsw_run_set, "Puts a value under a key. [NX|XX]"},
    {"unlink", -2, WRITES, 1, -1, fsw_run_del, "Drops keys; tells how many were there."},
    {"del", -2, WRITES, 1, -1, fsw_run_del, "Drops keys; tells how many were there."},
    {"exists", -2, READS, 1, -1, fsw_run_exists, "Tells how many of the keys are there."},
    {"scan", -2, READS, 0, 0, fsw_run_scan, "Lists keys, a few a call. [MATCH glob] [COUNT n]"},
    {"dbsize", 1, READS, 0, 0, fsw_run_dbsize, "Tells how many keys there are."},
    {"ping", -1, 0, 0, 0, fsw_run_ping, "Answers PONG, or the argument."},
    {"echo", 2, 0, 0, 0, fsw_run_echo, "Answers the argument."},
    {"auth", -2, STRANGER, 0, 0, fsw_run_auth, "Shows the password. [default] password"},
    {"hello", -1, STRANGER, 0, 0, fsw_run_hello,
     "Chooses RESP2 or RESP3. [2|3 [AUTH default password] [SETNAME name]]"},
    {"quit", -1, STRANGER, 0, 0, fsw_run_quit, "Ends the connection."},
    {"client", -2, 0, 0, 0, fsw_run_client,
     "Tells of connections, or ends one. ID | GETNAME | SETNAME name | LIST | INFO | KILL ID id"},
    {"select", 2, 0, 0, 0, fsw_run_select, "Chooses database 0, the only one."},
    {"wait", 3, 0, 0, 0, fsw_run_wait, "Answers 0: there are no replicas."},
    {"info", -1, 0, 0, 0, fsw_run_info, "Tells how the donor is. [section ...]"},
    {"config", -2, 0, 0, 0, fsw_run_config, "Tells how the donor is set. GET pattern ..."},
    {"flushall", -1, WRITES, 0, 0, fsw_run_flushall, "Drops all keys; by the Unix socket only."},
    {"farswap.devices", 1, 0, 0, 0, fsw_run_devices, "Lists the devices whose values are here."},
    {"farswap.forget", 2, WRITES, 0, 0, fsw_run_forget,
     "Drops all keys of a device; by the Unix socket only."},
    {"command", -1, 0, 0, 0, run_command, "Tells what commands there are. [COUNT|DOCS|INFO]"},
};
#define COMMANDS (sizeof commands / sizeof commands[0])

static const struct command *find_command(const struct fsw_value *name)
{
    for (size_t i = 0; i < COMMANDS; i++)
        if (fsw_is_word(name, commands[i].name))
            return &commands[i];
    return NULL;
}

static void describe(const struct command *command, struct fsw_reply *reply)
{
    unsigned access = command->flags & (READS | WRITES);

    fsw_reply_array(reply, 6);
    fsw_reply_text(reply, command->name);
    fsw_reply_integer(reply, command->arity);
    fsw_reply_set(reply, access != 0);
    if (access != 0)
        fsw_reply_status(reply, access == READS ? "readonly" : "write");
    fsw_reply_integer(reply, command->first_key);
    fsw_reply_integer(reply, command->last_key);
    fsw_reply_integer(reply, command->first_key > 0);
}

static void document(const struct command *command, struct fsw_reply *reply)
{
    fsw_reply_text(reply, command->name);
    fsw_reply_map(reply, 2);
    fsw_reply_text(reply, "summary");
    fsw_reply_text(reply, command->summary);
    fsw_reply_text(reply, "group");
    fsw_reply_text(reply, command->first_key > 0 ? "string" : "server");
}

/* COMMAND INFO name...: an element a name, nil for one we don't know. */
static void describe_named(const struct fsw_request *request, struct fsw_reply *reply)
{
    fsw_reply_array(reply, request->count - 2);
    for (uint32_t i = 2; i < request->count; i++) {
        const struct command *command = find_command(request->argument[i]);
        if (command != NULL)
            describe(command, reply);
        else
            fsw_reply_nil(reply);
    }
}

/* COMMAND DOCS name...: a pair for each name that we know. */
static void document_named(const struct fsw_request *request, struct fsw_reply *reply)
{
    size_t known = 0;

    for (uint32_t i = 2; i < request->count; i++)
        known += find_command(request->argument[i]) != NULL;
    fsw_reply_map(reply, known);
    for (uint32_t i = 2; i < request->count; i++) {
        const struct command *command = find_command(request->argument[i]);
        if (command != NULL)
            document(command, reply);
    }
}

static void run_command(struct fsw_session *session, struct fsw_request *request,
                        struct fsw_reply *reply)
{
    const struct fsw_value *what = request->count > 1 ? request->argument[1] : NULL;

    if (what != NULL && fsw_is_word(what, "COUNT")) {
        fsw_reply_integer(reply, COMMANDS);
    } else if (what != NULL && fsw_is_word(what, "DOCS") && request->count > 2) {
        document_named(request, reply);
    } else if (what != NULL && fsw_is_word(what, "DOCS")) {
        fsw_reply_map(reply, COMMANDS);
        for (size_t i = 0; i < COMMANDS; i++)
            document(&commands[i], reply);
    } else if (what != NULL && fsw_is_word(what, "INFO") && request->count > 2) {
        describe_named(request, reply);
    } else if (what == NULL || fsw_is_word(what, "INFO")) {
        fsw_reply_array(reply, COMMANDS);
        for (size_t i = 0; i < COMMANDS; i++)
            describe(&commands[i], reply);
    } else {
        fsw_reply_error(reply, "ERR only COMMAND [COUNT|DOCS|INFO] is known here");
    }
}

static void dispatch(struct fsw_session *session, const struct command *command,
                     struct fsw_request *request, struct fsw_reply *reply)
{
    int count = (int)request->count;

    if (!session->welcome && (command == NULL || !(command->flags & STRANGER))) {
        fsw_reply_error(reply, "NOAUTH Authentication required.");
    } else if (command == NULL) {
        session->server->counters.unknown_commands++;
        fsw_reply_error(
            reply, "ERR unknown command '%.*s'",
            (int)(request->argument[0]->length < 64 ? request->argument[0]->length : 64),
            request->argument[0]->bytes);
    } else if (command->arity > 0 ? count != command->arity : count < -command->arity) {
        fsw_reply_error(reply, "ERR wrong number of arguments for '%s' command", command->name);
    } else if (request->refused) {
        fsw_refuse_memory(session->server, reply);
    } else {
        command->run(session, request, reply);
    }
}

void fsw_command_run(struct fsw_session *session, struct fsw_request *request,
                     struct fsw_reply *reply)
{
    const struct command *command = find_command(request->argument[0]);

    session->server->counters.total_commands_processed++;
    session->commands++;
    session->heard = fsw_now_ns();
    if (command != NULL)
        session->command = command->name;
    reply->resp3 = session->resp3;
    dispatch(session, command, request, reply);
}

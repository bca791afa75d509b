/*
 * fuzz_farswapd_resp.c: libFuzzer against the donor's parser and commands.
 *
 * The first bytes of an input choose how the rest is cut into pieces. The stream goes through a
 * parser once whole and once in pieces, each with a keyspace of its own; replies must be the same
 * bytes, and nothing may be left over.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "server/command.h"

/* Some tell the time, and SCAN follows the random hash: they are only run. */
static bool is_comparable(const char *command)
{
    static const char *const differ[] = {"client", "farswap.devices", "info", "scan"};

    for (unsigned i = 0; i < sizeof differ / sizeof differ[0]; i++)
        if (strcasecmp(command, differ[i]) == 0)
            return false;
    return true;
}

/* Runs the stream in pieces of 1 + cut[i % 4] bytes (cut NULL: whole); returns the replies. */
static char *run(const uint8_t *bytes, size_t length, const uint8_t *cut, size_t *ret_length)
{
    struct fsw_server server = {.name = "fuzz"};
    struct fsw_session session = {.server = &server, .welcome = true, .admin = true};
    struct fsw_donor_image image;
    struct fsw_request *request;
    struct fsw_parser *parser;
    char *text = NULL;
    FILE *out = open_memstream(&text, ret_length);
    int r = 0;

    if (fsw_donor_image_open(&image, NULL, 4 << 20, NULL) < 0 ||
        fsw_keyspace_open(&image, 4 << 20, &server.keyspace) < 0 ||
        fsw_parser_new(&server.hits, fsw_keyspace_vault(server.keyspace), &parser) < 0)
        abort();
    fsw_parser_set_stranger(parser, false);
    for (size_t at = 0, piece, i = 0; r == 0 && at < length; at += piece, i++) {
        piece = cut == NULL ? length : 1u + cut[i % 4];
        if (piece > length - at)
            piece = length - at;
        fsw_parser_lend(parser, (const char *)bytes + at, piece);
        while ((r = fsw_parser_next(parser, &request)) > 0) {
            struct fsw_reply reply = {0};
            bool compare = is_comparable(request->argument[0]->bytes);
            fsw_command_run(&session, request, &reply);
            fsw_request_free(request);
            for (size_t p = 0; compare && p < reply.pieces; p++) {
                struct iovec piece_bytes = fsw_reply_piece(&reply, p);
                fwrite(piece_bytes.iov_base, 1, piece_bytes.iov_len, out);
            }
            fsw_reply_clear(&reply);
        }
    }
    fprintf(out, "%d %s\n", r, fsw_parser_error(parser));
    fclose(out);
    fsw_parser_free(parser);
    if (fsw_keyspace_check(server.keyspace, NULL) < 0)
        abort();
    fsw_keyspace_close(server.keyspace);
    fsw_donor_image_close(&image);
    if (fsw_value_cost_of_all() != 0)
        abort();
    return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    size_t whole_length, cut_length;
    char *whole, *cut;

    if (length < 4)
        return 0;
    whole = run(bytes + 4, length - 4, NULL, &whole_length);
    cut = run(bytes + 4, length - 4, bytes, &cut_length);
    if (whole_length != cut_length || memcmp(whole, cut, whole_length) != 0)
        abort();
    free(whole);
    free(cut);
    return 0;
}

/*
 * graph.h: the last values of something that is looked at once a second, and a line that shows
 * them.
 */
#ifndef FSW_CLI_GRAPH_H
#define FSW_CLI_GRAPH_H

#define GRAPH_SAMPLES 256u
#define GRAPH_TEXT (GRAPH_SAMPLES * 3 + 1) /* bytes, as UTF-8 */

/* Zeroed is empty. */
struct graph {
    double samples[GRAPH_SAMPLES];
    unsigned next, count;
};

void graph_add(struct graph *graph, double value);

/* `width` columns, at most GRAPH_SAMPLES, the newest value at the right; text has GRAPH_TEXT bytes.
 * The highest column is the greatest value shown; what is 0 is blank, and what is not, isn't. */
char *graph_draw(const struct graph *graph, unsigned width, int utf8, char *text);

#endif

/*
 * graph.c: a ring of samples, drawn with eighths of a block, or with letters that look heavier the
 * higher they stand for.
 */
#include "client/cli/graph.h"

#include <stdio.h>
#include <string.h>

#define STEPS 8

static const char *const blocks[STEPS + 1] = {" ",      "\u2581", "\u2582", "\u2583", "\u2584",
                                              "\u2585", "\u2586", "\u2587", "\u2588"};
static const char *const letters[STEPS + 1] = {" ", ".", ":", "-", "=", "+", "*", "#", "@"};

void graph_add(struct graph *graph, double value)
{
    graph->samples[graph->next] = value;
    graph->next = (graph->next + 1) % GRAPH_SAMPLES;
    if (graph->count < GRAPH_SAMPLES)
        graph->count++;
}

/* The value `back` looks ago; 0 is the last. */
static double sample(const struct graph *graph, unsigned back)
{
    if (back >= graph->count)
        return 0;
    return graph->samples[(graph->next + GRAPH_SAMPLES - 1 - back) % GRAPH_SAMPLES];
}

static unsigned step(double value, double most)
{
    if (!(value > 0))
        return 0;
    unsigned height = (unsigned)(value / most * STEPS + 0.5);
    return height < 1 ? 1 : height < STEPS ? height : STEPS;
}

char *graph_draw(const struct graph *graph, unsigned width, int utf8, char *text)
{
    const char *const *marks = utf8 ? blocks : letters;
    double most = 0;
    size_t used = 0;

    if (width > GRAPH_SAMPLES)
        width = GRAPH_SAMPLES;
    for (unsigned back = 0; back < width; back++)
        if (sample(graph, back) > most)
            most = sample(graph, back);
    for (unsigned back = width; back-- > 0;) {
        const char *mark = marks[step(sample(graph, back), most)];
        memcpy(text + used, mark, strlen(mark));
        used += strlen(mark);
    }
    text[used] = '\0';
    return text;
}

"""make_c: a large C program, for a compiler to work on. Started by capture.py.

    python3 make_c.py CORPUS.json FUNCTIONS > big.c

Functions of many shapes over structures, tables and strings, none like another, that call earlier
ones; and the headers that ordinary programs include.
"""

import json
import random
import sys

HEADERS = ["errno.h", "fcntl.h", "math.h", "netdb.h", "pthread.h", "regex.h", "signal.h", "stdio.h",
           "stdlib.h", "string.h", "sys/socket.h", "sys/stat.h", "time.h", "unistd.h"]


class Maker:
    def __init__(self, corpus, rng):
        self.rng = rng
        self.strings = [line.strip()[:60] for line in corpus["lines"]]
        self.words = sorted({w for line in corpus["lines"][:20000] for w in line.split()
                             if w.isidentifier() and w.islower() and 3 < len(w) < 12})

    def name(self):
        return self.rng.choice(self.words)

    def string(self):
        text = self.rng.choice(self.strings)
        return '"' + "".join(c for c in text if c.isalnum() or c in " .,:-_()") + '"'

    def value(self, depth=0):
        pick = self.rng.randrange(9 if depth < 3 else 4)
        if pick == 0:
            return str(self.rng.randrange(100000))
        if pick == 1:
            return f"r->f{self.rng.randrange(12)}"
        if pick < 4:
            return self.rng.choice(["a", "b", "c", "(long)strlen(r->name)", "table[a & 255]"])
        op = self.rng.choice(["+", "-", "*", "^", "&", "|", "<", "=="])
        return f"({self.value(depth + 1)} {op} {self.value(depth + 1)})"

    def statement(self, number, depth=0):
        pad = "    " * (depth + 1)
        pick = self.rng.randrange(8 if depth < 3 else 4)
        if pick == 0:
            return f"{pad}r->f{self.rng.randrange(12)} = {self.value()};\n"
        if pick == 1:
            return f"{pad}{self.rng.choice('abc')} += {self.value()};\n"
        if pick == 2:
            return f'{pad}snprintf(r->name, sizeof r->name, "%s %ld", {self.string()}, a);\n'
        if pick == 3 and number > 0:
            return (f"{pad}{self.rng.choice('abc')} ^= "
                    f"fn{self.rng.randrange(max(0, number - 300), number)}(r, {self.value()}, b);\n")
        block = "".join(self.statement(number, depth + 1) for _ in range(self.rng.randint(1, 4)))
        if pick == 4:
            return (f"{pad}for (long i{depth} = 0; i{depth} < ({self.value()} & 63); i{depth}++) {{\n"
                    f"{block}{pad}    table[(i{depth} + b) & 255] ^= c;\n{pad}}}\n")
        if pick == 5:
            cases = "".join(f"{pad}case {n}:\n{self.statement(number, depth + 1)}{pad}    break;\n"
                            for n in self.rng.sample(range(50), self.rng.randint(2, 6)))
            return f"{pad}switch ({self.value()} & 63) {{\n{cases}{pad}}}\n"
        return f"{pad}if ({self.value()}) {{\n{block}{pad}}}\n"

    def function(self, number):
        body = "".join(self.statement(number) for _ in range(self.rng.randint(4, 14)))
        return (f"/* {self.name()} {self.name()} */\n"
                f"long fn{number}(struct record *r, long a, long b)\n{{\n    long c = a - b;\n"
                f"{body}    return a ^ b ^ c;\n}}\n\n")


def main():
    with open(sys.argv[1]) as file:
        maker = Maker(json.load(file), random.Random(7))
    for header in HEADERS:
        print(f"#include <{header}>")
    print("struct record { char name[80]; " + "".join(f"long f{i}; " for i in range(12)) + "};")
    print("static long table[256];")
    for number in range(int(sys.argv[2])):
        sys.stdout.write(maker.function(number))


main()

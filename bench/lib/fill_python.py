"""fill_python: a python3 program that wants memory. Started by capture.py.

    python3 fill_python.py CORPUS.json RSS_BYTES

Indexes text and records in the ordinary ways (dicts of lists, json documents, tuples, sets, small
classes) until its anonymous memory is so large; then prints "ready" and waits for the end of stdin.
"""

import json
import random
import sys


class Article:
    def __init__(self, number, title, words, scores):
        self.number, self.title, self.words, self.scores = number, title, words, scores


def rss():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("RssAnon"))


def fill(corpus, limit, kept):
    rng = random.Random(7)
    number = 0
    index = kept.setdefault("index", {})
    while rss() < limit:
        for _ in range(200):
            number += 1
            start = rng.randrange(len(corpus["lines"]) - 12)
            text = corpus["lines"][start:start + rng.randint(2, 12)]
            words = " ".join(text).split()
            for place, word in enumerate(words):
                index.setdefault(word, []).append((number, place))
            record = dict(rng.choice(corpus["records"]), id=number, score=rng.random(),
                          tags=rng.sample(words, min(4, len(words))), body="\n".join(text))
            kept.setdefault("documents", {})[f"doc:{number}"] = json.loads(json.dumps(record))
            kept.setdefault("articles", []).append(
                Article(number, text[0][:40], set(words), [rng.gauss(0, 1) for _ in words]))
            if number % 4 == 0:  # as a cache of answers holds them
                kept.setdefault("json", []).append(json.dumps(record).encode())


with open(sys.argv[1]) as source:
    text_of = json.load(source)
everything = {}
fill(text_of, int(sys.argv[2]), everything)
print("ready", flush=True)
sys.stdin.read()

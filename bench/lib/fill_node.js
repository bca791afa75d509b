// fill_node: a node program that wants memory. Started by capture.py.
//
//     node fill_node.js CORPUS.json RSS_BYTES
//
// A word index (Map of arrays), documents, strings, closures, typed arrays, as a web backend keeps
// them, until its anonymous memory is so large; then prints "ready" and waits for the end of stdin.
'use strict';
const fs = require('fs');

const corpus = JSON.parse(fs.readFileSync(process.argv[2], 'utf8'));
const limit = Number(process.argv[3]);
let state = 88172645;

function draw(n) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % n;
}

function rss() {
    return Number(/RssAnon:\s+(\d+)/.exec(fs.readFileSync('/proc/self/status', 'utf8'))[1]) * 1024;
}

class Article {
    constructor(id, record, lines) {
        this.id = id;
        this.record = Object.assign({}, record, {score: draw(1000) / 7});
        this.text = lines.join('\n');
        this.words = this.text.split(/\s+/);
        this.lengths = Float64Array.from(this.words, word => word.length * 1.5);
        this.find = word => this.words.indexOf(word);
    }
}

const index = new Map(), articles = [], cache = {};
for (let id = 1; id % 200 !== 0 || rss() < limit; id++) {
    const start = draw(corpus.lines.length - 12);
    const article = new Article(id, corpus.records[draw(corpus.records.length)],
                                corpus.lines.slice(start, start + 2 + draw(10)));
    article.words.forEach((word, place) => {
        if (!index.has(word))
            index.set(word, []);
        index.get(word).push({id, place});
    });
    articles.push(article);
    if (id % 4 === 0) // as a cache of answers holds them
        cache['article:' + id] = JSON.stringify(article);
}
console.log('ready');
process.stdin.on('end', () => process.exit(index.size + articles.length > 0 ? 0 : 1)).resume();

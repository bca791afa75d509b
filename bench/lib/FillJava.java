// FillJava: a Java program that wants memory. Started by capture.py.
//
//     java FillJava.java CORPUS.txt RSS_BYTES
//
// A word index (HashMap of lists), records, builders and arrays, as a server keeps them, until its
// anonymous memory is so large; then prints "ready" and waits for the end of stdin.
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.TreeMap;

public class FillJava {
    static final class Posting {
        final int article, place;

        Posting(int article, int place) {
            this.article = article;
            this.place = place;
        }
    }

    static final class Article {
        final long id;
        final String title;
        final byte[] body;
        final Map<String, Object> fields = new HashMap<>();
        double score;

        Article(long id, String title, byte[] body, double score) {
            this.id = id;
            this.title = title;
            this.body = body;
            this.score = score;
        }
    }

    static long anonymous() throws IOException {
        for (String line : Files.readAllLines(Path.of("/proc/self/status")))
            if (line.startsWith("RssAnon"))
                return Long.parseLong(line.replaceAll("\\D", "")) << 10;
        return 0;
    }

    public static void main(String[] args) throws IOException {
        List<String> lines = Files.readAllLines(Path.of(args[0]));
        long limit = Long.parseLong(args[1]);
        Random random = new Random(7);
        Map<String, List<Posting>> index = new HashMap<>();
        TreeMap<Long, Article> articles = new TreeMap<>();

        for (int id = 1; id % 200 != 0 || anonymous() < limit; id++) {
            int start = random.nextInt(lines.size() - 12);
            String text = String.join("\n", lines.subList(start, start + 2 + random.nextInt(10)));
            String[] words = text.split("\\s+");
            for (int place = 0; place < words.length; place++)
                index.computeIfAbsent(words[place], w -> new ArrayList<>())
                    .add(new Posting(id, place));
            Article article = new Article(id, lines.get(start), text.getBytes(),
                                          random.nextGaussian());
            article.fields.put("words", words.length);
            article.fields.put("first", words[0]);
            article.fields.put("created", System.currentTimeMillis() - random.nextInt());
            articles.put((long) id, article);
        }
        System.out.println("ready");
        while (System.in.read() >= 0)
            ;
        System.exit(index.size() + articles.size() > 0 ? 0 : 1);
    }
}

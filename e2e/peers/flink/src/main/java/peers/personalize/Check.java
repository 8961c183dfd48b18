package peers.personalize;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import java.io.IOException;
import java.util.HashMap;
import java.util.Map;
import org.apache.kafka.clients.consumer.ConsumerRecord;

/**
 * Compares what the Flink job wrote with {@link Reference}: examples, positives, and a checksum of (id, label, reward). Exit 1
 * if they differ. With --partial the job has read all input but not been told of its end: impressions whose window is still
 * open at the last watermark may be missing, and nothing else.
 */
public final class Check {
    private static final JsonFactory JSON = new JsonFactory();
    private static final long WATERMARK_LAG_MS = 5_001;
    private static final long SKEW_MS = 300_000; // finished partitions hold the last watermark back

    private final Tally actual = new Tally();
    /** Expected negatives that were not written, for --partial: their keys, and when they were shown. */
    private final Map<Long, Long> missing = new HashMap<>();

    private Check() {}

    public static void main(String[] argv) {
        Args args = new Args(argv);
        String brokers = args.get("brokers", "127.0.0.1:9092");
        boolean partial = args.has("partial");
        Check check = new Check();
        Tally expected = new Tally();
        Reference reference = Reference.of(brokers, args.get("in", "events"));
        for (Reference.Shown s : reference.shown) {
            long key = key(s.event.id, s.flinkPositive, s.reward);
            expected.add(key, s.flinkPositive);
            if (partial && !s.flinkPositive) check.missing.put(key, s.event.ts);
        }
        Topics.read(brokers, args.get("out", "examples"), check::count);
        if (partial) check.addOpen(reference.latestTs);
        boolean same = expected.same(check.actual);
        System.out.println("expected " + expected + "\nactual   " + check.actual + "\n" + (same ? "SAME" : "DIFFERENT"));
        System.exit(same ? 0 : 1);
    }

    private void count(ConsumerRecord<byte[], byte[]> record) {
        String id = null;
        int label = 0;
        float reward = 0;
        try (JsonParser p = JSON.createParser(record.value())) {
            p.nextToken();
            for (String name = p.nextFieldName(); name != null; name = p.nextFieldName()) {
                p.nextToken();
                switch (name) {
                    case "id" -> id = p.getText();
                    case "label" -> label = p.getIntValue();
                    case "reward" -> reward = p.getFloatValue();
                    default -> p.skipChildren();
                }
            }
        } catch (IOException e) {
            throw new IllegalStateException(e);
        }
        long key = key(id, label == 1, reward);
        missing.remove(key);
        actual.add(key, label == 1);
    }

    private static long key(String id, boolean positive, float reward) {
        long h = Long.parseUnsignedLong(id, 16, 32, 16) * 2 + (positive ? 1 : 0);
        return Generate.mix(Generate.mix(h + 1) + Math.round(reward * 100));
    }

    /** Counts the negatives that were not written because their window is open at the last watermark. */
    private void addOpen(long latestTs) {
        long open = 0;
        for (Map.Entry<Long, Long> e : missing.entrySet()) {
            if (e.getValue() + PersonalizeFunction.ATTRIBUTION_MS <= latestTs - WATERMARK_LAG_MS - SKEW_MS) continue;
            actual.add(e.getKey(), false);
            open++;
        }
        System.out.println("still open: " + open);
    }
}

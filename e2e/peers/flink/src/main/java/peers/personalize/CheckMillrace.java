package peers.personalize;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import java.io.IOException;
import java.io.InputStream;

/**
 * Compares what {@code millrace examples --output json} lists, on standard input, with {@link Reference}: examples,
 * positives, and a checksum of (item, impression time, placement, platform, propensity, label). Exit 1 if they differ.
 * Millrace's examples name neither users nor event ids, so this is what identifies one. Says as well how many impressions
 * the two rules label otherwise.
 */
public final class CheckMillrace {
    private static final JsonFactory JSON = new JsonFactory();

    private CheckMillrace() {}

    public static void main(String[] argv) throws IOException {
        Args args = new Args(argv);
        Tally actual = listed(System.in);
        Tally expected = new Tally();
        long onlyFlink = 0, onlyMillrace = 0;
        for (Reference.Shown s : Reference.of(args.get("brokers", "127.0.0.1:9092"), args.get("in", "events")).shown) {
            Event e = s.event;
            long key = key("i" + e.item, e.ts * 1000, e.placement, e.platform, e.propensity, s.millracePositive);
            expected.add(key, s.millracePositive);
            if (s.flinkPositive && !s.millracePositive) onlyFlink++;
            if (s.millracePositive && !s.flinkPositive) onlyMillrace++;
        }
        boolean same = expected.same(actual);
        System.out.printf("positive by Flink's rule only: %d, by Millrace's only: %d, of %d%n", onlyFlink, onlyMillrace,
                expected.examples);
        System.out.println("expected " + expected + "\nactual   " + actual + "\n" + (same ? "SAME" : "DIFFERENT"));
        System.exit(same ? 0 : 1);
    }

    private static Tally listed(InputStream lines) throws IOException {
        Tally tally = new Tally();
        try (JsonParser p = JSON.createParser(lines)) {
            while (p.nextToken() != null) {
                String item = null, placement = null, platform = null;
                long impression = 0;
                float propensity = 0;
                boolean label = false;
                for (String name = p.nextFieldName(); name != null; name = p.nextFieldName()) {
                    p.nextToken();
                    switch (name) {
                        case "item" -> item = p.getText();
                        case "impression" -> impression = p.getLongValue();
                        case "placement" -> placement = p.getText();
                        case "platform" -> platform = p.getText();
                        case "propensity" -> propensity = p.getFloatValue();
                        case "label" -> label = p.getBooleanValue();
                        default -> p.skipChildren();
                    }
                }
                tally.add(key(item, impression, placement, platform, propensity, label), label);
            }
        }
        return tally;
    }

    /** Of FNV-1a, each part mixed in. */
    private static long key(String item, long micros, String placement, String platform, float propensity, boolean label) {
        long h = Generate.mix(micros);
        for (String text : new String[] {item, placement, platform}) {
            for (int i = 0; i < text.length(); i++) h = (h ^ text.charAt(i)) * 0x100000001b3L;
            h = Generate.mix(h);
        }
        return Generate.mix(Generate.mix(h ^ Float.floatToIntBits(propensity)) + (label ? 1 : 0));
    }
}

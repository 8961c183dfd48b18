package peers.personalize;

import java.io.BufferedOutputStream;
import java.io.OutputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import java.util.PriorityQueue;
import java.util.SplittableRandom;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Deterministic interaction stream: page views show slates of four Zipf items to a random user; some impressions
 * are clicked (more often in the user's own five categories) and some clicks lead to orders. Records leave in order
 * of arrival, which is up to three seconds after event time.
 */
public final class Generate {
    private static final long EPOCH_MS = 1_750_000_000_000L;
    private static final int SLATE = 4;
    private static final int OUT_OF_ORDER_MS = 3_000;
    private static final String[] TYPES = {"impression", "click", "order", "view"};
    private static final String[] PLACEMENTS = {"home", "search", "cart", "email"};
    private static final String[] PLATFORMS = {"web", "ios", "android"};

    private record Interaction(long arrival, long sequence, byte type, long ts, int user, int item, int placement,
            double value) implements Comparable<Interaction> {
        @Override
        public int compareTo(Interaction o) {
            return arrival != o.arrival ? Long.compare(arrival, o.arrival) : Long.compare(sequence, o.sequence);
        }
    }

    private final SplittableRandom random;
    private final int users;
    private final double[] itemCdf;
    private final PriorityQueue<Interaction> inFlight = new PriorityQueue<>();
    private long sequence;

    private Generate(long seed, int users, int items) {
        this.random = new SplittableRandom(seed);
        this.users = users;
        this.itemCdf = new double[items];
        double sum = 0;
        for (int i = 0; i < items; i++) itemCdf[i] = sum += 1 / Math.pow(i + 1, 1.05);
        for (int i = 0; i < items; i++) itemCdf[i] /= sum;
    }

    public static void main(String[] argv) throws Exception {
        Args args = new Args(argv);
        long count = args.getLong("events", 3_000_000);
        double perSecond = args.getInt("event-rate", 200); // in event time
        Generate g = new Generate(args.getLong("seed", 1), args.getInt("users", 100_000), args.getInt("items", 10_000));
        long[] byType = new long[4];
        long bytes = 0, started = System.nanoTime();
        try (Output out = args.has("file") ? fileOutput(Path.of(args.get("file", "")))
                : kafkaOutput(args.get("brokers", "127.0.0.1:9092"), args.get("topic", "events"))) {
            double clock = EPOCH_MS;
            for (long n = 0; n < count; ) {
                // a page view yields 4 impressions, 0.75 views, about 0.2 clicks and 0.04 orders
                clock += 1000 / perSecond * 5 * -StrictMath.log(1 - g.random.nextDouble());
                g.pageView((long) clock);
                while (n < count && g.inFlight.peek().arrival <= clock) {
                    Interaction x = g.inFlight.poll();
                    byte[] value = json(x);
                    out.write(("u" + x.user).getBytes(StandardCharsets.US_ASCII), value);
                    byType[x.type]++;
                    bytes += value.length;
                    n++;
                }
            }
        }
        System.out.printf("{\"events\":%d,\"impressions\":%d,\"clicks\":%d,\"orders\":%d,\"views\":%d,"
                + "\"mean_bytes\":%d,\"seconds\":%.1f}%n", count, byType[0], byType[1], byType[2], byType[3],
                bytes / count, (System.nanoTime() - started) / 1e9);
    }

    private void pageView(long ts) {
        int user = random.nextInt(users);
        int placement = random.nextInt(PLACEMENTS.length);
        for (int i = 0; i < SLATE; i++) {
            int item = zipfItem();
            add(Event.IMPRESSION, ts, user, item, placement, 0);
            if (random.nextDouble() < clickProbability(user, item)) {
                // 2 % of clicks come after the attribution window; all come after their impression has arrived
                long clickTs = ts + 4_000 + (random.nextInt(50) == 0
                        ? 600_000 + random.nextInt(300_000) : (long) (-90_000 * StrictMath.log(1 - random.nextDouble())));
                add(Event.CLICK, clickTs, user, item, placement, 0);
                if (random.nextInt(5) == 0) {
                    add(Event.ORDER, clickTs + 4_000 + random.nextInt(300_000), user, item, placement,
                            (500 + random.nextInt(20_000)) / 100.0);
                }
            }
        }
        if (random.nextInt(4) != 0) add(Event.VIEW, ts + 1_000 + random.nextInt(60_000), user, zipfItem(), placement, 0);
    }

    private static double clickProbability(int user, int item) {
        int category = item % UserProfile.CATEGORIES;
        for (int k = 0; k < 5; k++) {
            if (Long.remainderUnsigned(mix(user * 5L + k), UserProfile.CATEGORIES) == category) return 0.23;
        }
        return 0.03;
    }

    private void add(byte type, long ts, int user, int item, int placement, double value) {
        inFlight.add(new Interaction(ts + random.nextInt(OUT_OF_ORDER_MS), sequence++, type, ts, user, item, placement,
                value));
    }

    private int zipfItem() {
        double u = random.nextDouble();
        int low = 0, high = itemCdf.length - 1;
        while (low < high) {
            int middle = (low + high) >>> 1;
            if (itemCdf[middle] < u) low = middle + 1;
            else high = middle;
        }
        return low;
    }

    private static byte[] json(Interaction x) {
        boolean consent = Long.remainderUnsigned(mix(x.user + 7_777_777L), 20) != 0;
        StringBuilder s = new StringBuilder(256)
                .append("{\"v\":1,\"id\":\"").append(hex(mix(x.sequence))).append(hex(x.sequence))
                .append("\",\"type\":\"").append(TYPES[x.type]).append("\",\"ts\":").append(x.ts)
                .append(",\"user\":\"u").append(x.user).append("\",\"item\":\"i").append(x.item)
                .append("\",\"category\":\"c").append(x.item % UserProfile.CATEGORIES)
                .append("\",\"placement\":\"").append(PLACEMENTS[x.placement])
                .append("\",\"policy\":\"p").append(x.user % 3).append("\",\"propensity\":0.1,\"value\":").append(x.value)
                .append(",\"consent\":").append(consent)
                .append(",\"session\":\"s").append(x.user).append('-').append(x.ts / 1_800_000)
                .append("\",\"platform\":\"").append(PLATFORMS[x.user % 3]).append("\"}");
        return s.toString().getBytes(StandardCharsets.US_ASCII);
    }

    private static String hex(long v) {
        String h = Long.toHexString(v);
        return "0".repeat(16 - h.length()) + h;
    }

    /** SplitMix64 finalizer. */
    static long mix(long z) {
        z = (z ^ (z >>> 30)) * 0xbf58476d1ce4e5b9L;
        z = (z ^ (z >>> 27)) * 0x94d049bb133111ebL;
        return z ^ (z >>> 31);
    }

    private interface Output extends AutoCloseable {
        void write(byte[] key, byte[] value) throws Exception;
    }

    private static Output kafkaOutput(String brokers, String topic) {
        KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(
                Map.of("bootstrap.servers", brokers, "acks", "1", "linger.ms", "20", "batch.size", "262144",
                        "buffer.memory", "67108864", "enable.idempotence", "false",
                        "max.in.flight.requests.per.connection", "1"),
                new ByteArraySerializer(), new ByteArraySerializer());
        return new Output() {
            @Override
            public void write(byte[] key, byte[] value) {
                producer.send(new ProducerRecord<>(topic, key, value));
            }

            @Override
            public void close() {
                producer.close();
            }
        };
    }

    private static Output fileOutput(Path path) throws Exception {
        OutputStream stream = new BufferedOutputStream(Files.newOutputStream(path), 1 << 20);
        return new Output() {
            @Override
            public void write(byte[] key, byte[] value) throws Exception {
                stream.write(value);
                stream.write('\n');
            }

            @Override
            public void close() throws Exception {
                stream.close();
            }
        };
    }
}

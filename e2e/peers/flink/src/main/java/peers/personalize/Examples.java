package peers.personalize;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.HashSet;
import java.util.Map;
import java.util.Set;
import org.apache.kafka.clients.consumer.ConsumerRecord;

/** Counts the examples that records of an output topic hold: all, and those that were not there before. */
interface Examples {
    /** All examples so far. */
    long all();

    /** Those that no record held before. */
    long fresh();

    void take(ConsumerRecord<byte[], byte[]> record);

    static Examples of(String peer) {
        return switch (peer) {
            case "flink" -> new OfFlink();
            case "millrace" -> new OfMillrace();
            default -> throw new IllegalArgumentException("--peer flink or millrace");
        };
    }

    /** One example a record; it begins with its id. */
    final class OfFlink implements Examples {
        private static final int ID_AT = "{\"id\":\"".length(), ID_LENGTH = 32;
        private final Set<Long> ids = new HashSet<>();
        private long all;

        @Override
        public long all() {
            return all;
        }

        @Override
        public long fresh() {
            return ids.size();
        }

        @Override
        public void take(ConsumerRecord<byte[], byte[]> record) {
            String id = new String(record.value(), ID_AT, ID_LENGTH, StandardCharsets.US_ASCII);
            ids.add(Long.parseUnsignedLong(id, 16, 32, 16)); // the second half is the generator's sequence
            all++;
        }
    }

    /**
     * Frames, version 2, as worker/engine/src/frame/mod.rs says. A section's examples stand in ascending sequence, which is the
     * same when they are written again, so what is new is above all that its origin had before.
     */
    final class OfMillrace implements Examples {
        private static final int SECTIONS_AT = 12, HEAD_BYTES = 24;
        private static final int PARTITION_AT = 4, BYTES_AT = 61, SECTION_HEAD_BYTES = 65;
        private final Map<Integer, long[]> highest = new HashMap<>();
        private long all, fresh;

        @Override
        public long all() {
            return all;
        }

        @Override
        public long fresh() {
            return fresh;
        }

        @Override
        public void take(ConsumerRecord<byte[], byte[]> record) {
            ByteBuffer frame = ByteBuffer.wrap(record.value()).order(ByteOrder.LITTLE_ENDIAN);
            int at = HEAD_BYTES;
            for (int left = frame.getInt(SECTIONS_AT); left > 0; left--) {
                int partition = frame.getInt(at + PARTITION_AT), end = at + SECTION_HEAD_BYTES + frame.getInt(at + BYTES_AT);
                at += SECTION_HEAD_BYTES;
                while (at < end) {
                    example(partition, frame.getLong(at + 4), frame.getInt(at + 12));
                    at += 4 + frame.getInt(at);
                }
            }
        }

        private void example(int partition, long offset, int index) {
            all++;
            long[] top = highest.computeIfAbsent(partition, p -> new long[] {-1, -1});
            if (offset < top[0] || offset == top[0] && index <= top[1]) return;
            top[0] = offset;
            top[1] = index;
            fresh++;
        }
    }
}

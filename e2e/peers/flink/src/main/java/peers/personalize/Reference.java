package peers.personalize;

import java.io.IOException;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.consumer.ConsumerRecord;

/**
 * What the join of impressions with clicks and orders must give, by plain loops over one user's events at a time: once by
 * the rule of the Flink job, once by Millrace's.
 */
final class Reference {
    private static final long OUT_OF_ORDER_MS = 5_000;

    /** An impression, and what became of it. */
    static final class Shown {
        final Event event;
        /** By the Flink job's rule; its reward is that of the first click or order. */
        boolean flinkPositive;
        float reward;
        /** By Millrace's. */
        boolean millracePositive;

        Shown(Event event) {
            this.event = event;
        }
    }

    /** Impressions, clicks and orders of those who agreed, of each user in order of arrival. */
    private final Map<String, List<Event>> byUser = new HashMap<>();
    private final Map<Integer, Long> highest = new HashMap<>();
    private final Map<String, String> interned = new HashMap<>();
    final List<Shown> shown = new ArrayList<>();
    long latestTs;

    static Reference of(String brokers, String topic) {
        Reference reference = new Reference();
        Topics.read(brokers, topic, reference::keep);
        reference.byUser.values().forEach(reference::label);
        reference.byUser.clear();
        return reference;
    }

    /** A user's events share a partition, and partitions are read in order: arrival order per user is kept. */
    private void keep(ConsumerRecord<byte[], byte[]> record) {
        Event e;
        try {
            e = EventParser.parse(record.value());
        } catch (IOException bad) {
            throw new IllegalStateException(bad);
        }
        long before = highest.merge(record.partition(), e.ts, Math::max);
        // Millrace drops what is late, Flink does not; the generator makes none.
        if (e.ts < before - OUT_OF_ORDER_MS) throw new IllegalStateException("late: " + record);
        if (!e.consent) return;
        latestTs = Math.max(latestTs, e.ts);
        if (e.type == Event.VIEW) return;
        e.placement = interned.computeIfAbsent(e.placement, s -> s);
        e.platform = interned.computeIfAbsent(e.platform, s -> s);
        e.policy = interned.computeIfAbsent(e.policy, s -> s);
        e.user = interned.computeIfAbsent(e.user, s -> s);
        byUser.computeIfAbsent(e.user, u -> new ArrayList<>()).add(e);
    }

    private void label(List<Event> events) {
        Map<Event, Shown> impressions = new java.util.IdentityHashMap<>();
        for (Event e : events) {
            if (e.type != Event.IMPRESSION) continue;
            Shown s = new Shown(e);
            impressions.put(e, s);
            shown.add(s);
        }
        lastTouchOnce(events, impressions);
        List<Event> byTime = new ArrayList<>(events);
        byTime.sort(Comparator.comparingLong(e -> e.ts)); // stable: of equal times, in order of arrival
        latestEligible(byTime, impressions);
    }

    /** Flink: in order of arrival; the latest impression of the item in its window that has nothing yet. */
    private static void lastTouchOnce(List<Event> events, Map<Event, Shown> impressions) {
        List<Shown> open = new ArrayList<>();
        for (Event e : events) {
            if (e.type == Event.IMPRESSION) {
                open.add(impressions.get(e));
                continue;
            }
            Shown touched = null;
            for (Shown s : open) {
                if (isEligible(s.event, e) && (touched == null || s.event.ts >= touched.event.ts)) touched = s;
            }
            if (touched == null) continue;
            open.remove(touched);
            touched.flinkPositive = true;
            touched.reward = e.type == Event.ORDER ? e.value : 1f;
        }
    }

    /** Millrace: in order of event time; the latest impression of the item in its window, whether it has one or not. */
    private static void latestEligible(List<Event> byTime, Map<Event, Shown> impressions) {
        List<Shown> before = new ArrayList<>();
        for (Event e : byTime) {
            if (e.type == Event.IMPRESSION) {
                before.add(impressions.get(e));
                continue;
            }
            for (int i = before.size() - 1; i >= 0; i--) {
                if (!isEligible(before.get(i).event, e)) continue;
                before.get(i).millracePositive = true;
                break;
            }
        }
    }

    private static boolean isEligible(Event impression, Event outcome) {
        return impression.item == outcome.item && impression.ts <= outcome.ts
                && outcome.ts - impression.ts <= PersonalizeFunction.ATTRIBUTION_MS;
    }
}

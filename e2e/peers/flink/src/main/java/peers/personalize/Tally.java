package peers.personalize;

/** Number of examples, positives, and a checksum of all that does not depend on their order. */
final class Tally {
    long examples, positives, checksum;

    void add(long key, boolean positive) {
        examples++;
        if (positive) positives++;
        checksum += key;
    }

    boolean same(Tally o) {
        return examples == o.examples && positives == o.positives && checksum == o.checksum;
    }

    @Override
    public String toString() {
        return String.format("examples=%d positives=%d checksum=%016x", examples, positives, checksum);
    }
}

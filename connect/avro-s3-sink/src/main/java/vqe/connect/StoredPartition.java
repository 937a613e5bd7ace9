package vqe.connect;

import java.nio.charset.StandardCharsets;
import java.util.Map;
import java.util.Optional;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.connect.errors.ConnectException;

/**
 * What the storage says of a partition. The storage alone is believed; Kafka's committed offsets only tell where to look, and
 * where a chain begins of which the storage knows nothing.
 */
final class StoredPartition {
    /** How far before the first delivered offset the listing begins; an object found there ends it. */
    private static final long WINDOW = 20_000;

    private final ObjectStore store;
    private final ObjectNames names;

    StoredPartition(ObjectStore store, ObjectNames names) {
        this.store = store;
        this.names = names;
    }

    /** An object's range end and the topic that it is from. */
    record Range(String name, long end, Uuid topicId) { }

    /**
     * Where a partition's chain of objects goes on.
     *
     * @param frontier the name of the next object
     * @param begins whether nothing tells of any object before, so that the chain begins here
     */
    record Frontier(long frontier, boolean begins) { }

    /**
     * The frontier of a partition: behind its newest object, or where the note beside the objects says, whichever is further.
     *
     * <p>The listing alone does not tell: who moves old objects to cheaper storage may leave none, and the names of those that
     * were moved are in the tables' ledger, so that they must not be given again. Where there is neither an object nor a note, the
     * chain begins at the first offset that Kafka delivers; the note of that is written only if there is none, so that two tasks
     * which are delivered different offsets agree on one.
     *
     * @param delivered the first offset that Connect delivers
     * @param topicId the topic that there is now
     */
    Frontier open(TopicPartition tp, long delivered, Uuid topicId) throws OutageException {
        Optional<Range> newest = newest(tp, delivered);
        newest.ifPresent(range -> requireSameTopic(tp, range, topicId));
        long noted = noted(tp, topicId);
        if (newest.isEmpty() && noted < 0) {
            if (store.putIfAbsent(names.frontier(tp), text(delivered), note(delivered, topicId))) return new Frontier(delivered, true);
            noted = noted(tp, topicId);
        }
        long frontier = Math.max(noted, newest.map(range -> range.end() + 1).orElse(-1L));
        boolean begins = frontier < 0;
        if (begins) frontier = delivered;  // the note is a former topic's, whose objects an operator has moved away
        if (frontier > noted) note(tp, frontier, topicId);
        return new Frontier(frontier, begins);
    }

    /** Notes the frontier, for a start that finds no object. */
    void note(TopicPartition tp, long frontier, Uuid topicId) throws OutageException {
        store.put(names.frontier(tp), text(frontier), note(frontier, topicId));
    }

    /** The frontier that was noted for this topic; -1 if none was. */
    private long noted(TopicPartition tp, Uuid topicId) throws OutageException {
        String name = names.frontier(tp);
        Map<String, String> metadata = store.metadata(name);
        if (metadata == null) return -1;
        String frontier = metadata.get(ObjectNames.FRONTIER);
        String id = metadata.get(ObjectNames.TOPIC_ID);
        if (frontier == null || id == null) {
            throw new ConnectException("object " + name + " was not written by this connector (it carries no "
                + ObjectNames.FRONTIER + " or no " + ObjectNames.TOPIC_ID + "): move it away");
        }
        return Uuid.fromString(id).equals(topicId) ? Long.parseLong(frontier) : -1;
    }

    private static Map<String, String> note(long frontier, Uuid topicId) {
        return Map.of(ObjectNames.FRONTIER, Long.toString(frontier), ObjectNames.TOPIC_ID, topicId.toString());
    }

    /** For who looks into the object: S3 shows metadata to few. */
    private static byte[] text(long frontier) { return (frontier + "\n").getBytes(StandardCharsets.US_ASCII); }

    /**
     * The newest object of a partition.
     *
     * <p>Names sort by offset, and the newest object lies near the offset at which Connect resumes, so the listing starts
     * shortly before that and, while it finds nothing, from ever further back. A restart lists the last few objects and not
     * the whole history.
     *
     * @param delivered the first offset that Connect delivers
     */
    private Optional<Range> newest(TopicPartition tp, long delivered) throws OutageException {
        for (long window = WINDOW;; window *= 16) {
            boolean whole = window >= delivered || window > Long.MAX_VALUE / 32;
            String[] last = {null};
            store.list(names.folder(tp), whole ? names.folder(tp) : names.name(tp, delivered - window), name -> {
                if (names.isObject(tp, name)) last[0] = name;
            });
            if (last[0] != null) {
                Optional<Range> range = range(last[0]);
                if (range.isEmpty()) throw new OutageException(OutageException.Of.S3, last[0] + " is listed but not there", null);
                return range;
            }
            if (whole) return Optional.empty();
        }
    }

    /** What an object says of itself; empty if there is none of that name. */
    Optional<Range> range(String name) throws OutageException {
        Map<String, String> metadata = store.metadata(name);
        if (metadata == null) return Optional.empty();
        String end = metadata.get(ObjectNames.END_OFFSET);
        String topicId = metadata.get(ObjectNames.TOPIC_ID);
        if (end == null || topicId == null) {
            throw new ConnectException("object " + name + " was not written by this connector (it carries no "
                + ObjectNames.END_OFFSET + " or no " + ObjectNames.TOPIC_ID + "): move it away, or look at the setting "
                + SinkSettings.PREFIX);
        }
        return Optional.of(new Range(name, Long.parseLong(end), Uuid.fromString(topicId)));
    }

    /** Fails unless an object is from the topic that there is now. */
    static void requireSameTopic(TopicPartition tp, Range stored, Uuid now) {
        if (stored.topicId().equals(now)) return;
        throw recreated(tp, stored.topicId(), now, "object " + stored.name() + " is from the former");
    }

    static ConnectException recreated(TopicPartition tp, Uuid former, Uuid now, String evidence) {
        return new ConnectException("topic " + tp.topic() + " was created anew: its id was " + former + " and is now " + now + " ("
            + evidence + ", partition " + tp.partition() + "). Its offsets began again, so its records cannot go beside the"
            + " objects of the former topic. Nothing of the new topic was stored or skipped. Either use a new topic version, or move"
            + " the former topic's objects to another prefix, reset the connector's offsets for the topic and restart the task"
            + " (connect/README.md, \"A topic was created anew\")");
    }
}

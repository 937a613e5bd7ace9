package vqe.connect;

import java.util.Map;
import java.util.Optional;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.connect.errors.ConnectException;

/** What the storage says of a partition. The storage alone is believed; Kafka's committed offsets only tell where to look. */
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
     * The newest object of a partition.
     *
     * <p>Names sort by offset, and the newest object lies near the offset at which Connect resumes, so the listing starts
     * shortly before that and, while it finds nothing, from ever further back. A restart lists the last few objects and not
     * the whole history.
     *
     * @param delivered the first offset that Connect delivers
     */
    Optional<Range> newest(TopicPartition tp, long delivered) throws OutageException {
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

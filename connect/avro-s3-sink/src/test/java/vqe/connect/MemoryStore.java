package vqe.connect;

import java.util.HashMap;
import java.util.Map;
import java.util.TreeMap;
import java.util.function.Consumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.Uuid;

/** Object storage in memory, with the faults that the real one cannot be made to show. */
final class MemoryStore implements ObjectStore {
    record Stored(byte[] body, Map<String, String> metadata) { }

    final TreeMap<String, Stored> objects = new TreeMap<>();
    /** Notes of frontiers, apart from the objects as they are in the bucket. */
    final TreeMap<String, Stored> notes = new TreeMap<>();
    int listed;
    /** Calls that fail from now on before they have an effect. */
    int failing;
    /** Writes of objects that succeed from now on while their answers are lost. */
    int answersLost;

    @Override public void check() throws OutageException { fault(); }

    @Override
    public boolean putIfAbsent(String key, byte[] body, Map<String, String> metadata) throws OutageException {
        fault();
        boolean written = of(key).putIfAbsent(key, new Stored(body, new HashMap<>(metadata))) == null;
        if (written && answersLost > 0 && of(key) == objects) {
            answersLost--;
            throw new OutageException(OutageException.Of.S3, "connection reset", null);
        }
        return written;
    }

    @Override
    public void put(String key, byte[] body, Map<String, String> metadata) throws OutageException {
        fault();
        of(key).put(key, new Stored(body, new HashMap<>(metadata)));
    }

    private TreeMap<String, Stored> of(String key) { return key.startsWith(ObjectNames.FRONTIERS) ? notes : objects; }

    @Override
    public Map<String, String> metadata(String key) throws OutageException {
        fault();
        Stored stored = of(key).get(key);
        return stored == null ? null : stored.metadata;
    }

    @Override
    public void list(String prefix, String startAfter, Consumer<String> names) throws OutageException {
        fault();
        for (String name : objects.tailMap(startAfter, false).keySet()) {
            if (!name.startsWith(prefix)) break;
            listed++;
            names.accept(name);
        }
    }

    /** Puts a partition's note back to an offset. */
    void note(TopicPartition tp, long frontier, Uuid topicId) {
        notes.put(new ObjectNames("raw/").frontier(tp), new Stored(new byte[0],
            Map.of(ObjectNames.FRONTIER, Long.toString(frontier), ObjectNames.TOPIC_ID, topicId.toString())));
    }

    @Override public void close() { }

    private void fault() throws OutageException {
        if (failing > 0) {
            failing--;
            throw new OutageException(OutageException.Of.S3, "connection refused", null);
        }
    }
}

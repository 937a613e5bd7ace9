package vqe.connect;

import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.Future;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.Uuid;

/** Where a partition stands: the records of its next object, all under one schema, and dead letters not acknowledged yet. */
final class PartitionBuffer {
    private static final int HEADER = AvroS3SinkTask.HEADER;

    private record Held(long offset, byte[] value) { }

    /** A record on its way to the dead letter queue. */
    record DeadLetter(long offset, Future<Void> sent) { }

    final TopicPartition tp;
    final Uuid topicId;
    final List<DeadLetter> deadLetters = new ArrayList<>();

    private final ArrayDeque<Held> held = new ArrayDeque<>();
    private Registry.WriterSchema schema;
    private long frontier;
    private long next;
    private long bytes;
    private long since = -1;

    /** @param frontier the first offset that no stored object answers for */
    PartitionBuffer(TopicPartition tp, Uuid topicId, long frontier) {
        this.tp = tp;
        this.topicId = topicId;
        this.frontier = frontier;
        this.next = frontier;
    }

    /** The first offset that no stored object answers for: the name of the next object. */
    long frontier() { return frontier; }

    /** The first offset not taken yet. */
    long next() { return next; }

    boolean isEmpty() { return held.isEmpty(); }
    int records() { return held.size(); }
    long bytes() { return bytes; }
    Registry.WriterSchema schema() { return schema; }

    /** When the oldest record held came, in milliseconds; -1 if none is held. */
    long since() { return since; }

    /** The first offset that is neither stored nor acknowledged by the dead letter queue: what may be committed. */
    long safe() {
        long safe = held.isEmpty() ? next : held.getFirst().offset;
        for (DeadLetter letter : deadLetters) safe = Math.min(safe, letter.offset());
        return safe;
    }

    void add(long offset, byte[] value, Registry.WriterSchema writer, long now) {
        if (held.isEmpty()) {
            schema = writer;
            since = now;
        }
        held.addLast(new Held(offset, value));
        bytes += value.length;
        next = offset + 1;
    }

    /** Passes over offsets that Kafka does not deliver. */
    void skipTo(long offset) { next = offset; }

    void deadLetter(long offset, Future<Void> sent) {
        deadLetters.add(new DeadLetter(offset, sent));
        next = offset + 1;
    }

    /** What the object says of itself. */
    Map<String, String> metadata() {
        return Map.of(ObjectNames.FIRST_OFFSET, Long.toString(held.getFirst().offset),
            ObjectNames.END_OFFSET, Long.toString(held.getLast().offset), ObjectNames.RECORDS, Integer.toString(held.size()),
            ObjectNames.SCHEMA_ID, Integer.toString(schema.id()), ObjectNames.TOPIC_ID, topicId.toString());
    }

    byte[] container(AvroContainer.Codec codec) {
        Map<String, String> header = new HashMap<>();
        metadata().forEach((key, value) -> header.put("kafka." + key, value));
        AvroContainer container = new AvroContainer(schema.text(), codec, new TreeMap<>(header), sync());
        for (Held record : held) container.append(record.value, HEADER, record.value.length);
        return container.finish();
    }

    private byte[] sync() {
        try {
            return MessageDigest.getInstance("MD5").digest((topicId + "/" + tp).getBytes(StandardCharsets.UTF_8));
        } catch (NoSuchAlgorithmException e) {
            throw new IllegalStateException(e);  // every Java has it
        }
    }

    /** Lets go of what an object holds that ends at an offset, and goes on behind it. */
    void storedThrough(long end, long now) {
        while (!held.isEmpty() && held.getFirst().offset <= end) bytes -= held.removeFirst().value.length;
        frontier = end + 1;
        next = Math.max(next, frontier);
        since = held.isEmpty() ? -1 : now;
    }
}

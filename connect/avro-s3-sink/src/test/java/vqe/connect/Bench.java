package vqe.connect;

import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import org.apache.avro.Schema;
import org.apache.avro.file.DataFileStream;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.generic.GenericRecord;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.connect.errors.DataException;
import org.apache.kafka.connect.sink.ErrantRecordReporter;
import org.apache.kafka.connect.sink.SinkRecord;
import org.apache.kafka.connect.sink.SinkTaskContext;

/** A task on its bench: storage, registry, topics, clock and context in memory, records by number. */
final class Bench {
    static final String TOPIC = "vqe_iteration_v1";
    static final TopicPartition TP = new TopicPartition(TOPIC, 0);
    static final String SCHEMA = "{\"type\":\"record\", \"name\":\"R\",\"fields\":[ {\"name\":\"n\",\"type\":\"long\"} ]}";

    final MemoryStore store;
    final Map<Integer, String> schemas = new HashMap<>(Map.of(1, SCHEMA, 2, SCHEMA.replace("R", "S")));
    final List<Long> letters = new ArrayList<>();
    Uuid topicId = new Uuid(7, 7);
    boolean topicGone;
    long firstOffset;
    long now = 1_000_000;
    long timeout;
    boolean registryAway;
    CompletableFuture<Void> letterAnswer = CompletableFuture.completedFuture(null);
    AvroS3SinkTask task;
    private final Map<String, String> props;
    private final boolean queue;

    Bench(MemoryStore store, boolean queue, String... settings) {
        this.store = store;
        this.queue = queue;
        props = new HashMap<>(Map.of("registry.url", "http://r", "kafka.bootstrap.servers", "k:1", "avro.codec", "null",
            "flush.records", "10", "flush.ms", "1000", "name", "bench"));
        for (int i = 0; i < settings.length; i += 2) props.put(settings[i], settings[i + 1]);
        restart();
    }

    Bench(String... settings) { this(new MemoryStore(), true, settings); }

    /** Another worker's task on the same storage and topic. */
    Bench second() {
        Bench other = new Bench(store, queue);
        other.topicId = topicId;
        return other;
    }

    /** As after a crash: what was held is gone. */
    void restart() {
        task = new AvroS3SinkTask(store, new MemoryRegistry(), new MemoryTopics(), () -> now);
        task.initialize(context());
        task.start(props);
    }

    private final class MemoryRegistry implements Registry {
        private final Map<Integer, WriterSchema> known = new HashMap<>();

        @Override
        public WriterSchema byId(int id) throws OutageException {
            if (registryAway) throw new OutageException(OutageException.Of.REGISTRY, "refused", null);
            String text = schemas.get(id);
            if (text == null) throw new DataException("the registry has no schema " + id);
            return known.computeIfAbsent(id, i -> new WriterSchema(i, text, new DatumValidator(new Schema.Parser().parse(text))));
        }

        @Override public void check() { }
    }

    private final class MemoryTopics implements TopicLookup {
        @Override public Optional<Uuid> idOf(String topic) { return topicGone ? Optional.empty() : Optional.of(topicId); }
        @Override public long firstOffset(TopicPartition tp) { return firstOffset; }
        @Override public void close() { }
    }

    private SinkTaskContext context() {
        return (SinkTaskContext) java.lang.reflect.Proxy.newProxyInstance(getClass().getClassLoader(),
            new Class<?>[] {SinkTaskContext.class}, (proxy, method, args) -> switch (method.getName()) {
                case "timeout" -> {
                    timeout = (Long) args[0];
                    yield null;
                }
                case "errantRecordReporter" -> queue ? (ErrantRecordReporter) (record, error) -> {
                    letters.add(record.originalKafkaOffset());
                    return letterAnswer;
                } : null;
                default -> throw new UnsupportedOperationException(method.getName());
            });
    }

    static byte[] value(int schemaId, long n) {
        ByteBuffer value = ByteBuffer.allocate(15).put((byte) 0).putInt(schemaId);
        long rest = (n << 1) ^ (n >> 63);
        while ((rest & ~0x7fL) != 0) {
            value.put((byte) (rest & 0x7f | 0x80));
            rest >>>= 7;
        }
        value.put((byte) rest);
        return Arrays.copyOf(value.array(), value.position());
    }

    static SinkRecord record(long offset, byte[] value) { return new SinkRecord(TOPIC, 0, null, null, null, value, offset); }

    /** Delivers the records [from, to), each holding its offset, under schema 1. */
    void put(long from, long to) {
        List<SinkRecord> batch = new ArrayList<>();
        for (long n = from; n < to; n++) batch.add(record(n, value(1, n)));
        task.put(batch);
    }

    void put(SinkRecord... records) { task.put(List.of(records)); }

    /** Time goes by and Connect calls without records. */
    void pass(long ms) {
        now += ms;
        task.put(List.of());
    }

    /** Names of objects, as "first offset in the name - last offset in the metadata". */
    List<String> ranges() {
        List<String> ranges = new ArrayList<>();
        store.objects.forEach((name, stored) -> ranges.add(
            Long.parseLong(name.substring(name.lastIndexOf('+') + 1, name.length() - 5)) + "-"
                + stored.metadata().get(ObjectNames.END_OFFSET)));
        return ranges;
    }

    /** Every record stored, in the order of the objects' names, read by Avro's own reader. */
    List<Long> stored() {
        List<Long> all = new ArrayList<>();
        for (MemoryStore.Stored stored : store.objects.values()) {
            try (DataFileStream<GenericRecord> in = new DataFileStream<>(new ByteArrayInputStream(stored.body()),
                    new GenericDatumReader<>())) {
                in.forEach(record -> all.add((Long) record.get("n")));
            } catch (IOException e) {
                throw new UncheckedIOException(e);
            }
        }
        return all;
    }

    static List<Long> numbers(long from, long to) {
        List<Long> all = new ArrayList<>();
        for (long n = from; n < to; n++) all.add(n);
        return all;
    }

    Long committed() {
        OffsetAndMetadata offset = task.preCommit(Map.of()).get(TP);
        return offset == null ? null : offset.offset();
    }
}

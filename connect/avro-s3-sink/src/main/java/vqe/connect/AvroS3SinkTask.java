package vqe.connect;

import java.nio.ByteBuffer;
import java.util.Collection;
import java.util.Comparator;
import java.util.HashMap;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.function.LongSupplier;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.connect.errors.ConnectException;
import org.apache.kafka.connect.errors.DataException;
import org.apache.kafka.connect.errors.RetriableException;
import org.apache.kafka.connect.sink.ErrantRecordReporter;
import org.apache.kafka.connect.sink.SinkRecord;
import org.apache.kafka.connect.sink.SinkTask;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Stores each offset of its partitions exactly once.
 *
 * <h2>Why each offset is stored exactly once</h2>
 * The objects of a partition form a chain. The storage tells the <em>frontier</em>: one behind the {@code end-offset} of the
 * newest object, as the objects show and a note beside them that is written after each. The next object is named after the frontier, holds what is readable from there through its own
 * {@code end-offset}, and is written only if there is none of that name ({@code If-None-Match: *}). So
 * whatever happens, one writer extends the chain at a frontier, every other finds the name taken, reads that object's
 * {@code end-offset}, drops the records that it covers and goes on behind it:
 * <ul>
 * <li><b>Crash after a write, before the offset is committed.</b> Kafka delivers the range again; the task finds the frontier
 *     in the storage and skips what lies before it.
 * <li><b>The answer of a write is lost.</b> The next try finds the name taken, by an object that ends where ours does.
 * <li><b>Two tasks on one partition for a moment (a zombie).</b> Both are at the same frontier, whatever they hold; the first
 *     write wins, the other adopts it. A stale frontier only makes a name that is taken.
 * <li><b>A range is cut differently the second time</b> (by time, or after a restart). The name depends on where the
 *     range begins only, and the adopted end decides where the next one begins.
 * </ul>
 * Names do not depend on which records were readable, on gaps in the offsets, or on Kafka's committed offset, since two
 * tasks may see these differently (an unknown schema is registered meanwhile; retention deletes the head of the log). Objects
 * are never rewritten. What a task holds when it is stopped is dropped and read again.
 *
 * <p>Offsets of one topic say nothing of another topic of the same name, so each object carries Kafka's topic id. The id is
 * looked up when a partition is opened, after records were taken and before they are stored: if it is the same then, they
 * all are of that topic, for an id never returns. It is looked up as well when records come again, which is how a topic looks
 * that was deleted and created anew.
 *
 * <h2>Failures</h2>
 * What retrying cures ({@link OutageException}) is tried again without limit: Connect delivers the batch again, and records
 * taken already are skipped by offset. What it does not cure fails the task. Records that nobody could read go to the dead letter queue;
 * neither an object nor a commit passes such a record before the queue has acknowledged it.
 */
public class AvroS3SinkTask extends SinkTask {
    private static final Logger log = LoggerFactory.getLogger(AvroS3SinkTask.class);
    /** Magic byte 0, then the schema id. */
    static final int HEADER = 5;

    private final Map<TopicPartition, PartitionBuffer> partitions = new HashMap<>();
    /** Topic ids as looked up during the present call of put. */
    private final Map<String, Optional<Uuid>> idsNow = new HashMap<>();
    private final LongSupplier clock;
    /** How long the dead letter queue is waited for at a time: well under the time in which a consumer must poll. */
    long deadLetterWaitMs = 10_000;
    private int flushRecords;
    private long flushBytes;
    private long flushMs;
    private long bufferBytes;
    private AvroContainer.Codec codec;
    private ObjectNames names;
    private ObjectStore store;
    private StoredPartition stored;
    private Registry registry;
    private TopicLookup topics;
    private ErrantRecordReporter reporter;
    private SinkMetrics metrics;
    private Outages outages;

    /** For Connect, which makes tasks by reflection. */
    public AvroS3SinkTask() { clock = System::currentTimeMillis; }

    /** For tests, with their own systems. */
    AvroS3SinkTask(ObjectStore store, Registry registry, TopicLookup topics, LongSupplier clock) {
        this.clock = clock;
        this.store = store;
        this.registry = registry;
        this.topics = topics;
    }

    @Override
    public String version() { return AvroS3SinkConnector.VERSION; }

    SinkMetricsMXBean metrics() { return metrics; }

    @Override
    public void start(Map<String, String> props) {
        SinkSettings settings = new SinkSettings(props);
        // Read once: a look-up of a setting is dear next to the work on a record.
        flushRecords = settings.getInt(SinkSettings.FLUSH_RECORDS);
        flushBytes = settings.getLong(SinkSettings.FLUSH_BYTES);
        flushMs = settings.getLong(SinkSettings.FLUSH_MS);
        bufferBytes = settings.getLong(SinkSettings.BUFFER_BYTES);
        codec = settings.codec();
        names = new ObjectNames(settings.getString(SinkSettings.PREFIX));
        reporter = context.errantRecordReporter();
        String connector = props.getOrDefault("name", "avro-s3-sink");
        String task = props.getOrDefault(SinkSettings.TASK, "0");
        metrics = new SinkMetrics(clock);
        outages = new Outages(metrics, clock, settings.getLong(SinkSettings.RETRY_MS), settings.getLong(SinkSettings.RETRY_MAX_MS));
        if (store == null) {
            store = new S3ObjectStore(settings, settings.storageCredentials(System.getenv()));
            registry = new HttpRegistry(settings.getString(SinkSettings.REGISTRY_URL), settings.registryCredentials(System.getenv()),
                settings.getLong(SinkSettings.REGISTRY_UNKNOWN_MS), clock);
            topics = new AdminTopicLookup(settings.originalsWithPrefix(SinkSettings.KAFKA), connector + "-" + task + "-topics");
        }
        stored = new StoredPartition(store, names);
        check(store::check);
        check(registry::check);
        metrics.register(connector, task);
    }

    private interface Check {
        void run() throws OutageException;
    }

    /** Wrong settings fail the task now and not with the first record; an outage does not. */
    private void check(Check check) {
        try {
            check.run();
        } catch (OutageException e) {
            outages.failed(e);
        }
    }

    /** An outage: Connect keeps the batch and delivers it again. Without a stack trace, for Connect logs each. */
    private static final class TryAgain extends RetriableException {
        private static final long serialVersionUID = 1L;

        TryAgain(OutageException e) { super(e.system.title + " is away: " + e.getMessage()); }

        @Override public Throwable fillInStackTrace() { return this; }
    }

    @Override
    public void put(Collection<SinkRecord> records) {
        idsNow.clear();
        try {
            for (SinkRecord record : records) take(record, records);
            flushDue();
            for (PartitionBuffer p : partitions.values()) settleDeadLetters(p);
            context.timeout(untilDue());
        } catch (OutageException e) {
            context.timeout(outages.failed(e));
            throw new TryAgain(e);
        } finally {
            showHeld();
        }
    }

    private void take(SinkRecord record, Collection<SinkRecord> batch) throws OutageException {
        TopicPartition tp = new TopicPartition(record.originalTopic(), record.originalKafkaPartition());
        long offset = record.originalKafkaOffset();
        PartitionBuffer p = partitions.get(tp);
        if (p == null) partitions.put(tp, p = open(tp, offset));
        if (offset < p.next()) {
            requireTopic(p);
            metrics.skipped();
            return;
        }
        if (offset > p.next()) {
            reportLost(p.tp, p.next(), offset);
            p.skipTo(offset);
        }

        byte[] value = record.value() instanceof byte[] bytes ? bytes : null;
        Registry.WriterSchema schema;
        try {
            schema = read(value, batch);
        } catch (DataException e) {
            reject(p, record, offset, e);
            return;
        }
        if (!p.isEmpty() && (p.schema().id() != schema.id() || p.records() >= flushRecords
                || p.bytes() + value.length > flushBytes)) {
            flush(p);
            if (offset < p.next()) return;  // another task has stored it meanwhile
        }
        p.add(offset, value, schema, clock.getAsLong());
        makeRoom();
    }

    private PartitionBuffer open(TopicPartition tp, long offset) throws OutageException {
        Optional<Uuid> id = topicId(tp.topic());
        if (id.isEmpty()) throw new OutageException(OutageException.Of.KAFKA, "it does not know topic " + tp.topic(), null);
        StoredPartition.Frontier found = stored.open(tp, offset, id.get());
        outages.answered(OutageException.Of.S3);
        log.info("{} (topic id {}): {} offset {}, delivered from {}", tp, id.get(),
            found.begins() ? "nothing stored yet, begins at" : "stored up to", found.frontier(), offset);
        if (found.begins()) reportLost(tp, 0, offset);
        return new PartitionBuffer(tp, id.get(), found.frontier());
    }

    /** The writer schema, once the payload is known to be exactly one datum of it. */
    private Registry.WriterSchema read(byte[] value, Collection<SinkRecord> batch) throws OutageException {
        if (value == null) throw new DataException("no value: a tombstone, or the converter is not ByteArrayConverter");
        if (value.length < HEADER || value[0] != 0) throw new DataException("not framed by a schema registry's serializer");
        int id = schemaId(value);
        Registry.WriterSchema schema;
        try {
            schema = registry.byId(id);
            outages.answered(OutageException.Of.REGISTRY);
        } catch (OutageException e) {
            for (SinkRecord other : batch) {
                if (other.value() instanceof byte[] v && v.length >= HEADER && v[0] == 0) registry.expect(schemaId(v));
            }
            throw e;
        } catch (DataException e) {
            outages.answered(OutageException.Of.REGISTRY);  // its verdict
            throw e;
        }
        try {
            schema.validator().check(value, HEADER, value.length);
        } catch (DatumValidator.Invalid e) {
            throw new DataException("payload is not one datum of schema " + id + ": " + e.getMessage(), e);
        }
        return schema;
    }

    private static int schemaId(byte[] value) { return ByteBuffer.wrap(value, 1, 4).getInt(); }

    private void reject(PartitionBuffer p, SinkRecord record, long offset, DataException why) {
        String where = p.tp + " offset " + offset + ": " + why.getMessage();
        if (reporter == null) {
            throw new ConnectException("unreadable record at " + where + "; set errors.tolerance=all and a dead letter queue"
                + " (errors.deadletterqueue.topic.name) to go on without such records", why);
        }
        log.warn("dead letter: {}", where);
        p.deadLetter(offset, reporter.report(record, why));
        metrics.deadLetter();
    }

    private void settleDeadLetters(PartitionBuffer p) throws OutageException {
        while (!p.deadLetters.isEmpty()) {
            PartitionBuffer.DeadLetter letter = p.deadLetters.get(0);
            try {
                letter.sent().get(deadLetterWaitMs, TimeUnit.MILLISECONDS);
            } catch (TimeoutException e) {
                throw new OutageException(OutageException.Of.DLQ, "no acknowledgement for " + p.tp + " offset " + letter.offset(), null);
            } catch (ExecutionException e) {
                throw new ConnectException("the dead letter queue did not take " + p.tp + " offset " + letter.offset()
                    + ": look at errors.deadletterqueue.*", e.getCause());
            } catch (InterruptedException e) {
                Thread.currentThread().interrupt();
                throw new ConnectException("interrupted", e);
            }
            p.deadLetters.remove(0);
            outages.answered(OutageException.Of.DLQ);
        }
    }

    private void flushDue() throws OutageException {
        long now = clock.getAsLong();
        for (PartitionBuffer p : partitions.values()) {
            boolean due = !p.isEmpty() && (now - p.since() >= flushMs
                || p.records() >= flushRecords);
            if (due) flush(p);
        }
    }

    /** Milliseconds until put is to be called again, with records or without. */
    private long untilDue() {
        long due = flushMs;
        for (PartitionBuffer p : partitions.values()) {
            if (!p.isEmpty()) due = Math.min(due, p.since() + flushMs - clock.getAsLong());
        }
        return Math.max(50, due);
    }

    private void makeRoom() throws OutageException {
        long sum = 0;
        for (PartitionBuffer p : partitions.values()) sum += p.bytes();
        if (sum <= bufferBytes) return;
        flush(partitions.values().stream().max(Comparator.comparingLong(PartitionBuffer::bytes)).orElseThrow());
    }

    /** Extends the chain of stored objects by what is held, or by what another writer has put there. */
    private void flush(PartitionBuffer p) throws OutageException {
        settleDeadLetters(p);
        requireTopic(p);
        String name = names.name(p.tp, p.frontier());
        byte[] body = p.container(codec);
        Map<String, String> metadata = p.metadata();
        boolean written = store.putIfAbsent(name, body, metadata);
        long end = Long.parseLong(metadata.get(ObjectNames.END_OFFSET));
        if (written) {
            metrics.stored(p.records(), body.length);
            log.info("stored {}: {} records, {} bytes", name, p.records(), body.length);
        } else {
            StoredPartition.Range range = stored.range(name)
                .orElseThrow(() -> new OutageException(OutageException.Of.S3, name + " exists and is not there", null));
            StoredPartition.requireSameTopic(p.tp, range, p.topicId);
            metrics.adopted();
            log.warn("{} exists and ends at offset {} (ours: {}): another task, or a try whose answer was lost; going on behind it",
                name, range.end(), end);
            end = range.end();
        }
        stored.note(p.tp, end + 1, p.topicId);
        outages.answered(OutageException.Of.S3);
        p.storedThrough(end, clock.getAsLong());
    }

    /** Fails if the topic is not the one that the partition was opened for. A topic that is gone was it while it was there. */
    private void requireTopic(PartitionBuffer p) throws OutageException {
        Optional<Uuid> now = topicId(p.tp.topic());
        if (now.isPresent() && !now.get().equals(p.topicId)) {
            throw StoredPartition.recreated(p.tp, p.topicId, now.get(), "this task began with the former");
        }
    }

    /** The topic's id, looked up once for each call of put: the records at hand all came before that. */
    private Optional<Uuid> topicId(String topic) throws OutageException {
        Optional<Uuid> known = idsNow.get(topic);
        if (known == null) {
            known = topics.idOf(topic);
            idsNow.put(topic, known);
            outages.answered(OutageException.Of.KAFKA);
        }
        return known;
    }

    /** Offsets may be missing since their records were dead letters, or for transactions' sake; or since retention was faster. */
    private void reportLost(TopicPartition tp, long next, long offset) throws OutageException {
        if (offset <= next) return;
        long first = Math.min(topics.firstOffset(tp), offset);
        if (first <= next) return;
        metrics.lost(first - next);
        log.error("{}: Kafka has deleted offsets {} to {} before they were stored; they are lost. Look at the topic's retention",
            tp, next, first - 1);
    }

    private void showHeld() {
        long count = 0;
        long size = 0;
        long oldest = -1;
        for (PartitionBuffer p : partitions.values()) {
            if (p.isEmpty()) continue;
            count += p.records();
            size += p.bytes();
            oldest = oldest < 0 ? p.since() : Math.min(oldest, p.since());
        }
        metrics.holding(count, size, oldest);
    }

    @Override
    public Map<TopicPartition, OffsetAndMetadata> preCommit(Map<TopicPartition, OffsetAndMetadata> current) {
        Map<TopicPartition, OffsetAndMetadata> safe = new HashMap<>();
        partitions.forEach((tp, p) -> safe.put(tp, new OffsetAndMetadata(p.safe())));
        return safe;
    }

    @Override
    public void close(Collection<TopicPartition> revoked) {
        partitions.keySet().removeAll(revoked);
        if (partitions.isEmpty() && outages != null) outages.clear();
        if (metrics != null) showHeld();
    }

    @Override
    public void stop() {
        if (store != null) store.close();
        if (topics != null) topics.close();
        if (metrics != null) metrics.close();
    }
}

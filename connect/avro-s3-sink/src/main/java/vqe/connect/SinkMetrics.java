package vqe.connect;

import java.lang.management.ManagementFactory;
import java.util.function.LongSupplier;
import javax.management.JMException;
import javax.management.MBeanServer;
import javax.management.ObjectName;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** Counters and gauges of one task. One thread writes, any may read. */
final class SinkMetrics implements SinkMetricsMXBean, AutoCloseable {
    private static final Logger log = LoggerFactory.getLogger(SinkMetrics.class);

    private final LongSupplier clock;
    private ObjectName name;
    private volatile long objects;
    private volatile long adopted;
    private volatile long bytes;
    private volatile long records;
    private volatile long skipped;
    private volatile long dlq;
    private volatile long lost;
    private volatile long retries;
    private volatile long outageSince = -1;
    private volatile long buffered;
    private volatile long bufferedBytes;
    private volatile long oldest = -1;
    private volatile long lastSuccess;

    SinkMetrics(LongSupplier clock) { this.clock = clock; }

    /** Shows this bean under the connector's and the task's name. */
    void register(String connector, String task) {
        MBeanServer server = ManagementFactory.getPlatformMBeanServer();
        try {
            String shown = connector.matches("[A-Za-z0-9_.-]+") ? connector : ObjectName.quote(connector);
            ObjectName wanted = new ObjectName("vqe.connect:type=avro-s3-sink,connector=" + shown + ",task=" + task);
            // A task that was cancelled, not stopped, may have left its bean.
            if (server.isRegistered(wanted)) server.unregisterMBean(wanted);
            server.registerMBean(this, wanted);
            name = wanted;
        } catch (JMException e) {
            log.warn("no metrics over JMX", e);
        }
    }

    @Override
    public void close() {
        if (name == null) return;
        try {
            ManagementFactory.getPlatformMBeanServer().unregisterMBean(name);
        } catch (JMException e) {
            log.debug("the bean is gone already", e);
        }
        name = null;
    }

    void stored(int count, long size) {
        objects = objects + 1;
        records = records + count;
        bytes = bytes + size;
        lastSuccess = clock.getAsLong();
    }

    void adopted() {
        adopted = adopted + 1;
        lastSuccess = clock.getAsLong();
    }

    void skipped() { skipped = skipped + 1; }
    void deadLetter() { dlq = dlq + 1; }
    void lost(long offsets) { lost = lost + offsets; }
    void retry() { retries = retries + 1; }
    void outage(long since) { outageSince = since; }

    /** @param oldestSince milliseconds, or -1 if nothing is held */
    void holding(long count, long size, long oldestSince) {
        buffered = count;
        bufferedBytes = size;
        oldest = oldestSince;
    }

    private double secondsSince(long since) { return since < 0 ? 0 : Math.max(0, clock.getAsLong() - since) / 1000.0; }

    @Override public long getObjects() { return objects; }
    @Override public long getObjectsAdopted() { return adopted; }
    @Override public long getBytes() { return bytes; }
    @Override public long getRecords() { return records; }
    @Override public long getRecordsSkipped() { return skipped; }
    @Override public long getDlqRecords() { return dlq; }
    @Override public long getOffsetsLost() { return lost; }
    @Override public long getRetries() { return retries; }
    @Override public int getInOutage() { return outageSince < 0 ? 0 : 1; }
    @Override public double getOutageSeconds() { return secondsSince(outageSince); }
    @Override public long getRecordsBuffered() { return buffered; }
    @Override public long getBytesBuffered() { return bufferedBytes; }
    @Override public double getOldestUnflushedSeconds() { return secondsSince(oldest); }
    @Override public double getLastSuccessTimestampSeconds() { return lastSuccess / 1000.0; }
}

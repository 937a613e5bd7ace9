package vqe.connect;

/** What a task shows over JMX, as {@code vqe.connect:type=avro-s3-sink,connector=<name>,task=<number>}. Counts begin with the task. */
public interface SinkMetricsMXBean {
    /** Objects written. */
    long getObjects();

    /** Objects found in place of the one to write, and taken as they are. */
    long getObjectsAdopted();

    /** Bytes of the objects written. */
    long getBytes();

    /** Records in the objects written. */
    long getRecords();

    /** Records that came again and were stored already. */
    long getRecordsSkipped();

    /** Records that went to the dead letter queue. */
    long getDlqRecords();

    /** Offsets that Kafka deleted before they were stored. Anything but 0 is a loss. */
    long getOffsetsLost();

    /** Failed tries over all outages. */
    long getRetries();

    /** 1 while storage, registry, Kafka or the dead letter queue does not answer. */
    int getInOutage();

    /** Seconds since the present outage began; 0 without one. */
    double getOutageSeconds();

    /** Records taken and not stored yet. */
    long getRecordsBuffered();

    /** Bytes taken and not stored yet. */
    long getBytesBuffered();

    /** Age in seconds of the oldest record taken and not stored yet; 0 without one. */
    double getOldestUnflushedSeconds();

    /** Unix time in seconds when an object was last stored; 0 before the first. */
    double getLastSuccessTimestampSeconds();
}

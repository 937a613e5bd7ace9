package vqe.connect;

import java.util.Optional;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.Uuid;

/** What only Kafka can tell of a topic. */
interface TopicLookup extends AutoCloseable {
    /** The id that the topic has now, which no other topic ever had; empty if there is no such topic now. */
    Optional<Uuid> idOf(String topic) throws OutageException;

    /** The first offset that Kafka still has. */
    long firstOffset(TopicPartition tp) throws OutageException;

    @Override void close();
}

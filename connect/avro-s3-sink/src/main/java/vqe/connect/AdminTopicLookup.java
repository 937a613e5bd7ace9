package vqe.connect;

import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.ExecutionException;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.common.KafkaFuture;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.errors.AuthenticationException;
import org.apache.kafka.common.errors.AuthorizationException;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;
import org.apache.kafka.connect.errors.ConnectException;

/** Asks the cluster, with the settings under {@code kafka.}; the worker does not tell a plugin its own. */
final class AdminTopicLookup implements TopicLookup {
    private final Admin admin;

    AdminTopicLookup(Map<String, Object> settings, String clientId) {
        Map<String, Object> config = new HashMap<>(settings);
        config.putIfAbsent("client.id", clientId);
        config.putIfAbsent("request.timeout.ms", "10000");
        config.putIfAbsent("default.api.timeout.ms", "15000");
        admin = Admin.create(config);
    }

    @Override
    public Optional<Uuid> idOf(String topic) throws OutageException {
        try {
            return Optional.of(get(admin.describeTopics(List.of(topic)).topicNameValues().get(topic)).topicId());
        } catch (UnknownTopicOrPartitionException e) {
            return Optional.empty();
        }
    }

    @Override
    public long firstOffset(TopicPartition tp) throws OutageException {
        try {
            return get(admin.listOffsets(Map.of(tp, OffsetSpec.earliest())).partitionResult(tp)).offset();
        } catch (UnknownTopicOrPartitionException e) {
            return 0;
        }
    }

    private static <T> T get(KafkaFuture<T> future) throws OutageException {
        try {
            return future.get();
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            throw new ConnectException("interrupted", e);
        } catch (ExecutionException e) {
            Throwable cause = e.getCause();
            if (cause instanceof UnknownTopicOrPartitionException unknown) throw unknown;
            if (cause instanceof AuthenticationException || cause instanceof AuthorizationException) {
                throw new ConnectException("Kafka refuses to tell about topics (" + cause.getMessage()
                    + "): look at the settings kafka.*, and that this user may describe the topics", cause);
            }
            throw new OutageException(OutageException.Of.KAFKA, String.valueOf(cause.getMessage()), cause);
        }
    }

    @Override public void close() { admin.close(Duration.ofSeconds(2)); }
}

package vqe.connect;

import java.io.IOException;

/** A system that the sink needs does not answer, or says that it cannot for now: what retrying cures. */
final class OutageException extends IOException {
    private static final long serialVersionUID = 1L;

    /** The systems that may be away. */
    enum Of {
        S3("object storage"), REGISTRY("the schema registry"), KAFKA("Kafka"), DLQ("the dead letter queue");

        final String title;

        Of(String title) { this.title = title; }
    }

    final Of system;

    OutageException(Of system, String message, Throwable cause) {
        super(message, cause);
        this.system = system;
    }
}

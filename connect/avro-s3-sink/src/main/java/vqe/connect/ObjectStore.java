package vqe.connect;

import java.util.Map;
import java.util.function.Consumer;

/**
 * The five things the sink asks of object storage. Each throws {@link OutageException} for what retrying cures, and Connect's
 * {@code ConnectException}, which fails the task, for what it does not.
 */
interface ObjectStore extends AutoCloseable {
    /** Fails unless the bucket can be reached with these credentials. */
    void check() throws OutageException;

    /**
     * Writes an object unless one of that name exists.
     *
     * @return false if one exists; it may also be this very call's, when an earlier answer was lost
     */
    boolean putIfAbsent(String key, byte[] body, Map<String, String> metadata) throws OutageException;

    /** Writes an object, in place of one of that name if there is one. */
    void put(String key, byte[] body, Map<String, String> metadata) throws OutageException;

    /** The object's user metadata, or null if there is no such object. */
    Map<String, String> metadata(String key) throws OutageException;

    /** Hands over the names with a prefix that sort after another name, in order. */
    void list(String prefix, String startAfter, Consumer<String> names) throws OutageException;

    @Override void close();
}

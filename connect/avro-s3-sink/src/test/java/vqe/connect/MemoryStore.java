package vqe.connect;

import java.util.HashMap;
import java.util.Map;
import java.util.TreeMap;
import java.util.function.Consumer;

/** Object storage in memory, with the faults that the real one cannot be made to show. */
final class MemoryStore implements ObjectStore {
    record Stored(byte[] body, Map<String, String> metadata) { }

    final TreeMap<String, Stored> objects = new TreeMap<>();
    int listed;
    /** Calls that fail from now on before they have an effect. */
    int failing;
    /** Writes that succeed from now on while their answers are lost. */
    int answersLost;

    @Override public void check() throws OutageException { fault(); }

    @Override
    public boolean putIfAbsent(String key, byte[] body, Map<String, String> metadata) throws OutageException {
        fault();
        boolean written = objects.putIfAbsent(key, new Stored(body, new HashMap<>(metadata))) == null;
        if (written && answersLost > 0) {
            answersLost--;
            throw new OutageException(OutageException.Of.S3, "connection reset", null);
        }
        return written;
    }

    @Override
    public Map<String, String> metadata(String key) throws OutageException {
        fault();
        Stored stored = objects.get(key);
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

    @Override public void close() { }

    private void fault() throws OutageException {
        if (failing > 0) {
            failing--;
            throw new OutageException(OutageException.Of.S3, "connection refused", null);
        }
    }
}

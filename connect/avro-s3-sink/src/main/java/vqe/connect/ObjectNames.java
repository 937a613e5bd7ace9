package vqe.connect;

import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.apache.kafka.common.TopicPartition;

/**
 * Names of objects: {@code raw/<topic>/partition=<p>/<topic>+<p>+<first offset, 19 digits>.avro}; and of the note of each
 * partition's frontier: {@code frontiers/raw/<topic>/partition=<p>}.
 */
final class ObjectNames {
    /** What an object says of itself, as S3 user metadata and as entries of the container's header ({@code kafka.*}). */
    static final String END_OFFSET = "end-offset";
    static final String FIRST_OFFSET = "first-offset";
    static final String RECORDS = "records";
    static final String SCHEMA_ID = "schema-id";
    static final String TOPIC_ID = "topic-id";
    /** What the note of a frontier says, with the topic's id. */
    static final String FRONTIER = "frontier";
    /** Beside the objects' prefix and not under it, so that who moves objects away leaves the notes. */
    static final String FRONTIERS = "frontiers/";

    private final String prefix;

    ObjectNames(String prefix) { this.prefix = prefix; }

    String folder(TopicPartition tp) { return prefix + tp.topic() + "/partition=" + tp.partition() + "/"; }

    /** The note of a partition's frontier. */
    String frontier(TopicPartition tp) { return FRONTIERS + prefix + tp.topic() + "/partition=" + tp.partition(); }

    /** Nineteen digits hold every offset, so that names sort as offsets do. */
    String name(TopicPartition tp, long first) {
        return String.format("%s%s+%d+%019d.avro", folder(tp), tp.topic(), tp.partition(), first);
    }

    /** True for names of this form; others (a note, a test file) do not count. */
    boolean isObject(TopicPartition tp, String name) {
        Matcher rest = DIGITS.matcher(name);
        return rest.find() && name.equals(name(tp, Long.parseLong(rest.group(1))));
    }

    private static final Pattern DIGITS = Pattern.compile("\\+([0-9]{19})\\.avro$");
}

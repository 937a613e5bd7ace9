package vqe.connect;

import java.util.List;
import java.util.Map;
import java.util.regex.Pattern;
import org.apache.kafka.common.config.AbstractConfig;
import org.apache.kafka.common.config.ConfigDef;
import org.apache.kafka.common.config.ConfigDef.Importance;
import org.apache.kafka.common.config.ConfigDef.Range;
import org.apache.kafka.common.config.ConfigDef.Type;
import org.apache.kafka.common.config.ConfigDef.ValidString;
import org.apache.kafka.common.config.ConfigException;

/** The connector's settings, checked. Connect refuses a connector whose settings do not pass. */
final class SinkSettings extends AbstractConfig {
    static final String BUCKET = "s3.bucket";
    static final String PREFIX = "s3.prefix";
    static final String ENDPOINT = "s3.endpoint";
    static final String REGION = "s3.region";
    static final String PATH_STYLE = "s3.path.style";
    static final String ACCESS_KEY = "s3.access.key";
    static final String SECRET_KEY = "s3.secret.key";
    static final String CREDENTIALS_FILE = "s3.credentials.file";
    static final String CREDENTIALS_PROFILE = "s3.credentials.profile";
    static final String REGISTRY_URL = "registry.url";
    static final String REGISTRY_USER = "registry.user";
    static final String REGISTRY_PASSWORD = "registry.password";
    static final String REGISTRY_FILE = "registry.credentials.file";
    static final String REGISTRY_UNKNOWN_MS = "registry.unknown.schema.ms";
    static final String CODEC = "avro.codec";
    static final String FLUSH_RECORDS = "flush.records";
    static final String FLUSH_BYTES = "flush.bytes";
    static final String FLUSH_MS = "flush.ms";
    static final String BUFFER_BYTES = "buffer.bytes";
    static final String RETRY_MS = "retry.backoff.ms";
    static final String RETRY_MAX_MS = "retry.backoff.max.ms";
    /** Settings of the Kafka client that looks topic ids up: {@code kafka.bootstrap.servers} and whatever else it takes. */
    static final String KAFKA = "kafka.";
    /** Which of the connector's tasks this is; set by the connector itself. */
    static final String TASK = "vqe.task";

    private static final ConfigDef.Validator URL = (name, value) -> {
        if (!Pattern.matches("https?://[^/]+.*", String.valueOf(value))) {
            throw new ConfigException(name, value, "must be a URL, http://... or https://...");
        }
    };
    private static final ConfigDef.Validator URL_OR_EMPTY = (name, value) -> {
        if (!String.valueOf(value).isEmpty()) URL.ensureValid(name, value);
    };

    static final ConfigDef DEF = new ConfigDef()
        .define(BUCKET, Type.STRING, "local-vqe-results", Importance.HIGH, "Bucket; must exist.")
        .define(PREFIX, Type.STRING, "raw/", Importance.MEDIUM, "What every object's name starts with.")
        .define(ENDPOINT, Type.STRING, "", URL_OR_EMPTY, Importance.HIGH, "Endpoint URL of the storage; empty means AWS.")
        .define(REGION, Type.STRING, "us-east-1", Importance.MEDIUM, "Region used for signing.")
        .define(PATH_STYLE, Type.BOOLEAN, true, Importance.LOW, "Bucket in the path, not in the host name; MinIO needs it.")
        .define(ACCESS_KEY, Type.STRING, "", Importance.MEDIUM, "Access key; goes with " + SECRET_KEY + ".")
        .define(SECRET_KEY, Type.PASSWORD, "", Importance.MEDIUM, "Secret key; give it through a config provider.")
        .define(CREDENTIALS_FILE, Type.STRING, "", Importance.MEDIUM,
            "File with aws_access_key_id and aws_secret_access_key lines, with or without [profile] sections.")
        .define(CREDENTIALS_PROFILE, Type.STRING, "default", Importance.LOW, "Section of " + CREDENTIALS_FILE + ".")
        .define(REGISTRY_URL, Type.STRING, ConfigDef.NO_DEFAULT_VALUE, URL, Importance.HIGH,
            "Base URL of the registry's Confluent-compatible API.")
        .define(REGISTRY_USER, Type.STRING, "", Importance.MEDIUM, "User for basic authentication.")
        .define(REGISTRY_PASSWORD, Type.PASSWORD, "", Importance.MEDIUM, "Password for basic authentication.")
        .define(REGISTRY_FILE, Type.STRING, "", Importance.MEDIUM, "File with user and password lines, instead.")
        .define(REGISTRY_UNKNOWN_MS, Type.LONG, 10_000L, Range.atLeast(0), Importance.LOW,
            "How long an id that the registry does not know is asked for again before its records are dead letters.")
        .define(CODEC, Type.STRING, "deflate", ValidString.in("null", "deflate", "zstandard"), Importance.LOW,
            "How containers are packed: null, deflate or zstandard.")
        .define(FLUSH_RECORDS, Type.INT, 50_000, Range.atLeast(1), Importance.MEDIUM, "Most records in an object.")
        .define(FLUSH_BYTES, Type.LONG, 32L << 20, Range.atLeast(1), Importance.MEDIUM,
            "Bytes of records at which an object is closed.")
        .define(FLUSH_MS, Type.LONG, 10_000L, Range.atLeast(100), Importance.MEDIUM, "Age at which an object is closed.")
        .define(BUFFER_BYTES, Type.LONG, 128L << 20, Range.atLeast(1 << 20), Importance.MEDIUM,
            "Bytes that a task holds for all its partitions; above, the fullest is written.")
        .define(RETRY_MS, Type.LONG, 1_000L, Range.atLeast(10), Importance.LOW, "Wait before the second try in an outage; doubles.")
        .define(RETRY_MAX_MS, Type.LONG, 10_000L, Range.atLeast(10), Importance.LOW, "Longest wait between tries.")
        .define(KAFKA + "bootstrap.servers", Type.LIST, ConfigDef.NO_DEFAULT_VALUE, Importance.HIGH,
            "Brokers, for looking topic ids up. Every other setting of a Kafka admin client may follow with this prefix,"
                + " as in kafka.security.protocol.");

    SinkSettings(Map<String, String> props) {
        super(DEF, props, false);
        if (getString(BUCKET).isBlank()) throw new ConfigException(BUCKET, "", "must name a bucket");
        String prefix = getString(PREFIX);
        if (!prefix.isEmpty() && (!prefix.endsWith("/") || prefix.startsWith("/"))) {
            throw new ConfigException(PREFIX, prefix, "must be empty, or end with / and not start with one");
        }
        together(ACCESS_KEY, getString(ACCESS_KEY), SECRET_KEY, getPassword(SECRET_KEY).value());
        together(REGISTRY_USER, getString(REGISTRY_USER), REGISTRY_PASSWORD, getPassword(REGISTRY_PASSWORD).value());
        if (getLong(FLUSH_BYTES) > getLong(BUFFER_BYTES)) {
            throw new ConfigException(FLUSH_BYTES, getLong(FLUSH_BYTES), "must not be over " + BUFFER_BYTES);
        }
        String converter = props.getOrDefault("value.converter", "");
        if (!converter.isEmpty() && !converter.endsWith("ByteArrayConverter")) {
            throw new ConfigException("value.converter", converter, "must be ByteArrayConverter: records are stored as they are");
        }
        // With tolerance and no topic, Connect's reporter would drop the record and say so in a log at most.
        if ("all".equalsIgnoreCase(props.get("errors.tolerance"))
                && props.getOrDefault("errors.deadletterqueue.topic.name", "").isBlank()) {
            throw new ConfigException("errors.deadletterqueue.topic.name", "",
                "must name a topic when errors.tolerance is all, or unreadable records would be lost");
        }
    }

    private static void together(String a, String aValue, String b, String bValue) {
        if (aValue.isEmpty() != bValue.isEmpty()) {
            throw new ConfigException(aValue.isEmpty() ? a : b, "", "must be given: the other of " + a + " and " + b + " is");
        }
    }

    AvroContainer.Codec codec() { return AvroContainer.Codec.of(getString(CODEC)); }

    /** Storage credentials: the settings, else the file, else AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. */
    Credentials storageCredentials(Map<String, String> env) {
        if (!getString(ACCESS_KEY).isEmpty()) {
            return new Credentials(getString(ACCESS_KEY), getPassword(SECRET_KEY), null, ACCESS_KEY + " and " + SECRET_KEY);
        }
        if (!getString(CREDENTIALS_FILE).isEmpty()) {
            return Credentials.read(CREDENTIALS_FILE, getString(CREDENTIALS_FILE), getString(CREDENTIALS_PROFILE),
                List.of("aws_access_key_id", "access_key", "user"), List.of("aws_secret_access_key", "secret_key", "password"));
        }
        Credentials found = Credentials.env(env, "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY");
        if (found != null) return found;
        throw new ConfigException("no storage credentials: set " + ACCESS_KEY + " and " + SECRET_KEY + ", or "
            + CREDENTIALS_FILE + ", or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the worker's environment");
    }

    /** The registry's credentials, found in the same order; null if none are set. */
    Credentials registryCredentials(Map<String, String> env) {
        if (!getString(REGISTRY_USER).isEmpty()) {
            return new Credentials(getString(REGISTRY_USER), getPassword(REGISTRY_PASSWORD), null,
                REGISTRY_USER + " and " + REGISTRY_PASSWORD);
        }
        if (!getString(REGISTRY_FILE).isEmpty()) {
            return Credentials.read(REGISTRY_FILE, getString(REGISTRY_FILE), "default", List.of("user", "username"),
                List.of("password"));
        }
        return Credentials.env(env, "REGISTRY_USER", "REGISTRY_PASSWORD");
    }
}

package vqe.connect;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.Map;
import org.apache.kafka.common.config.ConfigException;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Settings that cannot work are refused, and name themselves. */
class SettingsTest {
    private static SinkSettings settings(String... more) {
        Map<String, String> props = new HashMap<>(Map.of("registry.url", "http://r", "kafka.bootstrap.servers", "k:1"));
        for (int i = 0; i < more.length; i += 2) props.put(more[i], more[i + 1]);
        return new SinkSettings(props);
    }

    private static void refused(String named, String... more) {
        String message = assertThrows(ConfigException.class, () -> settings(more)).getMessage();
        assertTrue(message.contains(named), message);
    }

    @Test
    void defaults() {
        assertEquals("local-vqe-results", settings().getString(SinkSettings.BUCKET));
        assertEquals("raw/", settings().getString(SinkSettings.PREFIX));
        assertEquals(AvroContainer.Codec.DEFLATE, settings().codec());
    }

    @Test
    void whatCannotWorkIsRefused() {
        refused("avro.codec", "avro.codec", "brotli");
        refused("s3.prefix", "s3.prefix", "raw");
        refused("s3.secret.key", "s3.access.key", "a");
        refused("registry.url", "registry.url", "localhost:8081");
        refused("flush.bytes", "flush.bytes", "2000000", "buffer.bytes", "1500000");
        refused("flush.records", "flush.records", "0");
        refused("errors.deadletterqueue.topic.name", "errors.tolerance", "all");
        refused("value.converter", "value.converter", "io.confluent.connect.avro.AvroConverter");
        assertThrows(ConfigException.class, () -> new SinkSettings(Map.of("registry.url", "http://r")));
    }

    @Test
    void credentialsComeFromTheSettingsThenTheFileThenTheEnvironment(@TempDir Path dir) throws Exception {
        Path plain = Files.writeString(dir.resolve("plain"), "# key\naws_access_key_id = A\nAWS_SECRET_ACCESS_KEY=b=c\n");
        Path aws = Files.writeString(dir.resolve("aws"),
            "[default]\naws_access_key_id=D\naws_secret_access_key=d\n[vqe]\naws_access_key_id=V\naws_secret_access_key=v\n");
        Map<String, String> env = Map.of("AWS_ACCESS_KEY_ID", "E", "AWS_SECRET_ACCESS_KEY", "e");
        assertEquals("E", settings().storageCredentials(env).name());
        Credentials read = settings("s3.credentials.file", plain.toString()).storageCredentials(env);
        assertEquals("A", read.name());
        assertEquals("b=c", read.secret().value());
        assertEquals("V", settings("s3.credentials.file", aws.toString(), "s3.credentials.profile", "vqe").storageCredentials(env).name());
        Credentials set = settings("s3.access.key", "S", "s3.secret.key", "hush").storageCredentials(env);
        assertEquals("S", set.name());
        assertFalse(set.toString().contains("hush"));
        assertThrows(ConfigException.class, () -> settings().storageCredentials(Map.of()));
        assertThrows(ConfigException.class, () -> settings("s3.credentials.file", dir.resolve("none").toString()).storageCredentials(env));
        assertThrows(ConfigException.class,
            () -> settings("s3.credentials.file", aws.toString(), "s3.credentials.profile", "x").storageCredentials(env));
        assertNull(settings().registryCredentials(Map.of()));
    }

    @Test
    void secretsAreNotPrinted() {
        assertFalse(settings("s3.access.key", "S", "s3.secret.key", "hush").values().toString().contains("hush"));
    }
}

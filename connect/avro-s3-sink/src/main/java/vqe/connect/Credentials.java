package vqe.connect;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import org.apache.kafka.common.config.ConfigException;
import org.apache.kafka.common.config.types.Password;

/**
 * A name and its secret. Neither is printed; {@code origin} says where they are from, for messages.
 *
 * @param session AWS session token, or null
 */
record Credentials(String name, Password secret, Password session, String origin) {

    /**
     * Reads {@code key = value} lines. Lines under a {@code [section]} count if it is the one asked for; lines above the first
     * section always count; {@code #} and {@code ;} begin a comment.
     */
    static Credentials read(String setting, String file, String section, List<String> names, List<String> secrets) {
        Map<String, String> values = new HashMap<>();
        try {
            boolean counts = true;
            for (String raw : Files.readAllLines(Path.of(file))) {
                String line = raw.strip();
                if (line.isEmpty() || line.startsWith("#") || line.startsWith(";")) continue;
                if (line.startsWith("[")) {
                    counts = line.equals("[" + section + "]");
                    continue;
                }
                int eq = line.indexOf('=');
                if (counts && eq > 0) {
                    values.put(line.substring(0, eq).strip().toLowerCase(Locale.ROOT), line.substring(eq + 1).strip());
                }
            }
        } catch (IOException e) {
            throw new ConfigException(setting, file, "cannot be read: " + e);
        }
        String session = values.get("aws_session_token");
        return new Credentials(pick(setting, file, section, values, names),
            new Password(pick(setting, file, section, values, secrets)), session == null ? null : new Password(session),
            setting + " (" + file + ")");
    }

    private static String pick(String setting, String file, String section, Map<String, String> values, List<String> keys) {
        return keys.stream().map(values::get).filter(v -> v != null && !v.isEmpty()).findFirst()
            .orElseThrow(() -> new ConfigException(setting, file, "has no " + keys.get(0) + " line for section " + section));
    }

    /** From environment variables; null if either is not set. */
    static Credentials env(Map<String, String> env, String name, String secret) {
        if (env.getOrDefault(name, "").isEmpty() || env.getOrDefault(secret, "").isEmpty()) return null;
        String session = name.startsWith("AWS_") ? env.get("AWS_SESSION_TOKEN") : null;
        return new Credentials(env.get(name), new Password(env.get(secret)), session == null ? null : new Password(session),
            "the environment's " + name + " and " + secret);
    }

    @Override public String toString() { return "credentials from " + origin; }
}

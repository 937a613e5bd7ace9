package vqe.connect;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Base64;
import java.util.HashMap;
import java.util.Map;
import java.util.function.LongSupplier;
import org.apache.avro.Schema;
import org.apache.kafka.connect.errors.ConnectException;
import org.apache.kafka.connect.errors.DataException;

/**
 * A registry with the Confluent API. Schemas never change, so they are kept for good.
 *
 * <p>An id that the registry does not know may be one that this replica of it does not know yet, so it is asked for again for
 * {@code registry.unknown.schema.ms} before its records are dead letters. The verdict then holds for a minute: a stream of such
 * records is not slowed more than once, and an id that is registered after all is found. A registry without any subject has
 * not yet read its own store, or has lost it: that is an outage, however long it lasts. A 404 that does not carry the
 * registry's own code for an unknown schema is a wrong address, and fails the task: else one slip in {@code registry.url}
 * would make a dead letter of every record.
 */
final class HttpRegistry implements Registry {
    private static final int UNKNOWN_SCHEMA = 40403;
    private static final long VERDICT_MS = 60_000;

    private final HttpClient http = HttpClient.newBuilder().connectTimeout(Duration.ofSeconds(5)).build();
    private final ObjectMapper json = new ObjectMapper();
    private final Map<Integer, WriterSchema> known = new HashMap<>();
    private final Map<Integer, DataException> unusable = new HashMap<>();
    private final Map<Integer, Long> unknownSince = new HashMap<>();
    private final Map<Integer, Long> unknownUntil = new HashMap<>();
    private final String url;
    private final String authorization;
    private final String origin;
    private final long patience;
    private final LongSupplier clock;

    HttpRegistry(String url, Credentials credentials, long patience, LongSupplier clock) {
        this.url = url.replaceAll("/+$", "");
        this.patience = patience;
        this.clock = clock;
        origin = credentials == null ? "none are set" : credentials.origin();
        authorization = credentials == null ? null : "Basic " + Base64.getEncoder().encodeToString(
            (credentials.name() + ":" + credentials.secret().value()).getBytes(StandardCharsets.UTF_8));
    }

    @Override
    public WriterSchema byId(int id) throws OutageException {
        WriterSchema schema = known.get(id);
        if (schema != null) return schema;
        if (unusable.containsKey(id)) throw unusable.get(id);
        long now = clock.getAsLong();
        if (unknownUntil.getOrDefault(id, Long.MIN_VALUE) > now) throw unknown(id);
        HttpResponse<String> response = get("/schemas/ids/" + id);
        if (response.statusCode() == 404) {
            requireOwnNotFound(response);
            requireSubjects();
            if (now - unknownSince.computeIfAbsent(id, i -> now) < patience && !unknownUntil.containsKey(id)) {
                throw new OutageException(OutageException.Of.REGISTRY, "it does not know schema " + id + " (yet)", null);
            }
            if (unknownUntil.size() > 10_000) unknownUntil.clear();  // garbage with ever new ids
            unknownUntil.put(id, now + VERDICT_MS);
            unknownSince.remove(id);
            throw unknown(id);
        }
        unknownSince.remove(id);
        unknownUntil.remove(id);
        try {
            schema = parse(id, response.body());
        } catch (DataException e) {
            unusable.put(id, e);
            throw e;
        }
        known.put(id, schema);
        return schema;
    }

    @Override
    public void expect(int id) throws OutageException {
        if (known.containsKey(id) || unusable.containsKey(id) || unknownSince.containsKey(id) || unknownUntil.containsKey(id)) return;
        try {
            byId(id);
        } catch (DataException e) {
            // Told to whoever asks for the id itself.
        } catch (OutageException e) {
            if (!unknownSince.containsKey(id)) throw e;
        }
    }

    private static DataException unknown(int id) { return new DataException("the registry has no schema " + id); }

    private WriterSchema parse(int id, String body) throws OutageException {
        JsonNode answer;
        try {
            answer = json.readTree(body);
        } catch (JsonProcessingException e) {
            throw new OutageException(OutageException.Of.REGISTRY, "its answer for schema " + id + " is not JSON", e);
        }
        String type = answer.path("schemaType").asText("AVRO");
        if (!type.equals("AVRO")) throw new DataException("schema " + id + " is " + type + ", not Avro");
        if (!answer.path("references").isEmpty()) throw new DataException("schema " + id + " refers to others; it must be whole");
        String text = answer.path("schema").asText();
        try {
            Schema schema = new Schema.Parser().setValidateDefaults(false).parse(text);
            return new WriterSchema(id, text, new DatumValidator(schema));
        } catch (RuntimeException e) {
            throw new DataException("schema " + id + " is not Avro", e);
        }
    }

    private void requireOwnNotFound(HttpResponse<String> response) {
        int code = 0;
        try {
            code = json.readTree(response.body()).path("error_code").asInt();
        } catch (JsonProcessingException e) {
            // A web server's page, say.
        }
        if (code != UNKNOWN_SCHEMA) {
            throw new ConnectException("no schema registry at " + url + " (it answers 404 to " + response.uri()
                + "): look at the setting " + SinkSettings.REGISTRY_URL);
        }
    }

    private void requireSubjects() throws OutageException {
        HttpResponse<String> response = get("/subjects");
        try {
            if (response.statusCode() == 200 && json.readTree(response.body()).isEmpty()) {
                throw new OutageException(OutageException.Of.REGISTRY, "it has no schema at all: it is starting, or has lost its store", null);
            }
        } catch (JsonProcessingException e) {
            throw new OutageException(OutageException.Of.REGISTRY, "its list of subjects is not JSON", e);
        }
    }

    /** Asks for what every registry has; a 404 means that the address is not one's. */
    @Override
    public void check() throws OutageException {
        if (get("/schemas/types").statusCode() == 404) {
            throw new ConnectException("no schema registry at " + url + ": look at the setting " + SinkSettings.REGISTRY_URL);
        }
    }

    /** @return an answer of 200 or 404 */
    private HttpResponse<String> get(String path) throws OutageException {
        HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(url + path)).timeout(Duration.ofSeconds(10));
        if (authorization != null) request.header("Authorization", authorization);
        HttpResponse<String> response;
        try {
            response = http.send(request.build(), HttpResponse.BodyHandlers.ofString());
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            throw new ConnectException("interrupted", e);
        } catch (IOException e) {
            throw new OutageException(OutageException.Of.REGISTRY, url + ": " + e, e);
        }
        int status = response.statusCode();
        if (status == 200 || status == 404) return response;
        if (status == 401 || status == 403) {
            throw new ConnectException("the schema registry at " + url + " refuses the credentials (HTTP " + status + "; " + origin
                + "): look at " + SinkSettings.REGISTRY_USER + ", " + SinkSettings.REGISTRY_PASSWORD + " and "
                + SinkSettings.REGISTRY_FILE);
        }
        if (status >= 500 || status == 429 || status == 408) {
            throw new OutageException(OutageException.Of.REGISTRY, url + " answers HTTP " + status, null);
        }
        throw new ConnectException("the schema registry at " + url + " answers HTTP " + status + " to " + path
            + ": look at the setting " + SinkSettings.REGISTRY_URL);
    }
}

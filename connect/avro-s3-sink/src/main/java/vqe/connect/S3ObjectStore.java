package vqe.connect;

import java.net.URI;
import java.time.Duration;
import java.util.Map;
import java.util.function.Consumer;
import org.apache.kafka.connect.errors.ConnectException;
import software.amazon.awssdk.auth.credentials.AwsBasicCredentials;
import software.amazon.awssdk.auth.credentials.AwsCredentials;
import software.amazon.awssdk.auth.credentials.AwsSessionCredentials;
import software.amazon.awssdk.auth.credentials.StaticCredentialsProvider;
import software.amazon.awssdk.core.exception.SdkException;
import software.amazon.awssdk.core.sync.RequestBody;
import software.amazon.awssdk.http.urlconnection.UrlConnectionHttpClient;
import software.amazon.awssdk.regions.Region;
import software.amazon.awssdk.services.s3.S3Client;
import software.amazon.awssdk.services.s3.S3ClientBuilder;
import software.amazon.awssdk.services.s3.model.S3Exception;

/** S3, or what speaks like it. */
final class S3ObjectStore implements ObjectStore {
    private final S3Client s3;
    private final String bucket;
    private final String where;
    private final String origin;

    S3ObjectStore(SinkSettings settings, Credentials credentials) {
        bucket = settings.getString(SinkSettings.BUCKET);
        String endpoint = settings.getString(SinkSettings.ENDPOINT);
        where = endpoint.isEmpty() ? "AWS " + settings.getString(SinkSettings.REGION) : endpoint;
        origin = credentials.origin();
        AwsCredentials aws = credentials.session() == null
            ? AwsBasicCredentials.create(credentials.name(), credentials.secret().value())
            : AwsSessionCredentials.create(credentials.name(), credentials.secret().value(), credentials.session().value());
        S3ClientBuilder builder = S3Client.builder()
            .httpClient(UrlConnectionHttpClient.builder().connectionTimeout(Duration.ofSeconds(5))
                .socketTimeout(Duration.ofSeconds(30)).build())
            .region(Region.of(settings.getString(SinkSettings.REGION)))
            .forcePathStyle(settings.getBoolean(SinkSettings.PATH_STYLE))
            .credentialsProvider(StaticCredentialsProvider.create(aws));
        if (!endpoint.isEmpty()) builder.endpointOverride(URI.create(endpoint));
        s3 = builder.build();
    }

    @Override
    public void check() throws OutageException {
        // A list, not a HEAD: a refusal of a HEAD has no body that says why.
        call(() -> s3.listObjectsV2(r -> r.bucket(bucket).maxKeys(1)));
    }

    @Override
    public boolean putIfAbsent(String key, byte[] body, Map<String, String> metadata) throws OutageException {
        try {
            call(() -> s3.putObject(r -> r.bucket(bucket).key(key).ifNoneMatch("*").contentType("application/avro")
                .metadata(metadata), RequestBody.fromBytes(body)));
            return true;
        } catch (Exists e) {
            return false;
        }
    }

    @Override
    public void put(String key, byte[] body, Map<String, String> metadata) throws OutageException {
        call(() -> s3.putObject(r -> r.bucket(bucket).key(key).contentType("text/plain").metadata(metadata),
            RequestBody.fromBytes(body)));
    }

    @Override
    public Map<String, String> metadata(String key) throws OutageException {
        try {
            return call(() -> s3.headObject(r -> r.bucket(bucket).key(key))).metadata();
        } catch (NotThere e) {
            return null;
        }
    }

    @Override
    public void list(String prefix, String startAfter, Consumer<String> names) throws OutageException {
        call(() -> {
            s3.listObjectsV2Paginator(r -> r.bucket(bucket).prefix(prefix).startAfter(startAfter)).contents()
                .forEach(object -> names.accept(object.key()));
            return null;
        });
    }

    @Override public void close() { s3.close(); }

    private interface Call<T> {
        T run();
    }

    private static final class Exists extends RuntimeException {
        private static final long serialVersionUID = 1L;
    }

    private static final class NotThere extends ConnectException {
        private static final long serialVersionUID = 1L;

        NotThere(String message) { super(message); }
    }

    private <T> T call(Call<T> call) throws OutageException {
        try {
            return call.run();
        } catch (S3Exception e) {
            throw judge(e);
        } catch (SdkException e) {
            throw new OutageException(OutageException.Of.S3, where + ": " + e.getMessage(), e);
        }
    }

    /** What an answer other than success means: an outage is thrown here, what fails the task is returned. */
    private RuntimeException judge(S3Exception e) throws OutageException {
        int status = e.statusCode();
        String code = e.awsErrorDetails() == null ? "" : String.valueOf(e.awsErrorDetails().errorCode());
        if (status == 412) return new Exists();
        // 409: another conditional write of this name is under way. 0: no answer at all.
        if (status == 0 || status >= 500 || status == 429 || status == 408 || status == 409 || code.equals("RequestTimeout")) {
            throw new OutageException(OutageException.Of.S3, where + " answers HTTP " + status + " " + code, e);
        }
        if (status == 404 && !code.equals("NoSuchBucket")) {
            return new NotThere("no object storage at " + where + " (HTTP 404 " + code + "): look at the setting "
                + SinkSettings.ENDPOINT);
        }
        String look = switch (code) {
            case "NoSuchBucket" -> "there is no bucket " + bucket + "; create it, or look at the setting " + SinkSettings.BUCKET;
            case "RequestTimeTooSkewed" -> "the clocks of this worker and the storage differ";
            case "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken" ->
                "the credentials are wrong (from " + origin + "): look at " + SinkSettings.ACCESS_KEY + ", "
                    + SinkSettings.SECRET_KEY + " and " + SinkSettings.CREDENTIALS_FILE;
            case "PermanentRedirect", "AuthorizationHeaderMalformed" -> "look at " + SinkSettings.REGION + " and " + SinkSettings.ENDPOINT;
            default -> status == 403
                ? "these credentials (from " + origin + ") may not list, read and write bucket " + bucket
                    + ": look at their policy and at " + SinkSettings.BUCKET
                : "look at the settings s3.*";
        };
        return new ConnectException("object storage at " + where + " refuses (HTTP " + status + " " + code + "): " + look, e);
    }
}

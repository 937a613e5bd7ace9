package vqe.connect;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.sun.net.httpserver.HttpServer;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import org.apache.kafka.common.config.types.Password;
import org.apache.kafka.connect.errors.ConnectException;
import org.apache.kafka.connect.errors.DataException;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/** What each answer of a registry means. */
class HttpRegistryTest {
    private static final String SCHEMA = "{\"schema\":\"{ \\\"type\\\":\\\"long\\\" }\"}";
    private static final String UNKNOWN = "{\"error_code\":40403,\"message\":\"Schema not found\"}";

    private HttpServer server;
    private int status = 200;
    private String body = SCHEMA;
    private String subjects = "[\"a-value\"]";
    private int asked;
    private String authorization;
    private long now;
    private HttpRegistry registry;

    @BeforeEach
    void serve() throws Exception {
        server = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0), 0);
        server.createContext("/", exchange -> {
            asked++;
            authorization = exchange.getRequestHeaders().getFirst("Authorization");
            boolean list = exchange.getRequestURI().getPath().endsWith("/subjects");
            byte[] answer = (list ? subjects : body).getBytes(StandardCharsets.UTF_8);
            exchange.sendResponseHeaders(list ? 200 : status, answer.length);
            exchange.getResponseBody().write(answer);
            exchange.close();
        });
        server.start();
        registry = new HttpRegistry("http://127.0.0.1:" + server.getAddress().getPort() + "/",
            new Credentials("u", new Password("p"), null, "a test"), 5_000, () -> now);
    }

    @AfterEach
    void stop() { server.stop(0); }

    @Test
    void theTextIsKeptAsItIsAndAskedForOnce() throws Exception {
        assertEquals("{ \"type\":\"long\" }", registry.byId(1).text());
        registry.byId(1);
        assertEquals(1, asked);
        assertEquals("Basic dTpw", authorization);
    }

    @Test
    void serverErrorsAreOutagesAndRefusalsAreNot() {
        for (int passing : new int[] {500, 502, 503, 429}) {
            status = passing;
            assertThrows(OutageException.class, () -> registry.byId(1));
        }
        for (int lasting : new int[] {401, 403, 400}) {
            status = lasting;
            String message = assertThrows(ConnectException.class, () -> registry.byId(1)).getMessage();
            assertTrue(message.contains("registry."), message);
        }
        server.stop(0);
        assertThrows(OutageException.class, () -> registry.byId(1));
    }

    @Test
    void anUnknownIdIsWaitedForThenRefusedThenAskedForAgain() throws Exception {
        status = 404;
        body = UNKNOWN;
        assertThrows(OutageException.class, () -> registry.byId(7));
        now += 4_999;
        assertThrows(OutageException.class, () -> registry.byId(7));
        now += 1;
        assertThrows(DataException.class, () -> registry.byId(7));
        int before = asked;
        assertThrows(DataException.class, () -> registry.byId(7));
        assertEquals(before, asked, "the verdict holds for a while");
        now += 60_001;
        assertThrows(DataException.class, () -> registry.byId(7), "without a second wait");
        now += 60_001;
        status = 200;
        body = SCHEMA;
        assertEquals(7, registry.byId(7).id());
    }

    @Test
    void aRegistryWithoutAnySubjectIsStartingHoweverLongThatTakes() throws Exception {
        status = 404;
        body = UNKNOWN;
        subjects = "[]";
        for (int minute = 0; minute < 5; minute++) {
            assertThrows(OutageException.class, () -> registry.byId(7));
            now += 60_000;
        }
        subjects = "[\"a-value\"]";
        assertThrows(OutageException.class, () -> registry.byId(7), "the wait begins now");
        status = 200;
        body = SCHEMA;
        assertEquals(7, registry.byId(7).id());
    }

    @Test
    void manyUnknownIdsWaitAtOnce() throws Exception {
        status = 404;
        body = UNKNOWN;
        for (int id = 1; id <= 50; id++) registry.expect(id);
        now += 5_000;
        for (int id = 1; id <= 50; id++) {
            int wanted = id;
            assertThrows(DataException.class, () -> registry.byId(wanted));
        }
    }

    @Test
    void aWrongAddressIsNotAnUnknownSchema() {
        status = 404;
        body = "<html>nothing here</html>";
        ConnectException e = assertThrows(ConnectException.class, () -> registry.byId(1));
        assertTrue(!(e instanceof DataException) && e.getMessage().contains("registry.url"), e.getMessage());
        assertThrows(ConnectException.class, () -> registry.check());
    }

    @Test
    void whatIsNotAWholeAvroSchemaIsUnreadable() {
        for (String answer : new String[] {"{\"schemaType\":\"JSON\",\"schema\":\"{}\"}", "{\"schema\":\"{}\"}",
            "{\"schema\":\"\\\"long\\\"\",\"references\":[{\"name\":\"x\"}]}"}) {
            body = answer;
            assertThrows(DataException.class, () -> registry.byId(answer.hashCode()));
        }
    }
}

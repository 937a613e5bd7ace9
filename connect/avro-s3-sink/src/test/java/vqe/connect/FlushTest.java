package vqe.connect;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.ByteArrayInputStream;
import java.util.List;
import org.apache.avro.file.DataFileStream;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.generic.GenericRecord;
import org.apache.kafka.connect.errors.ConnectException;
import org.apache.kafka.connect.errors.RetriableException;
import org.junit.jupiter.api.Test;

/** When an object is closed, what it is called and what it says. */
class FlushTest {
    @Test
    void byCountAndByTimeAndWithoutNewRecords() {
        Bench b = new Bench();
        b.put(0, 12);
        assertEquals(List.of("0-9"), b.ranges());
        assertTrue(b.timeout <= 1000, "wants to be called again in time");
        b.pass(500);
        assertEquals(1, b.ranges().size());
        b.pass(500);
        assertEquals(List.of("0-9", "10-11"), b.ranges());
        b.pass(5000);
        assertEquals(2, b.ranges().size(), "no empty objects");
    }

    @Test
    void bySize() {
        Bench b = new Bench("flush.bytes", "60", "flush.records", "1000");
        b.put(0, 30);  // of 6 bytes each
        assertEquals(List.of("0-9", "10-19"), b.ranges());
    }

    @Test
    void whenTheSchemaChanges() {
        Bench b = new Bench();
        b.put(0, 3);
        b.put(Bench.record(3, Bench.value(2, 3)));
        b.pass(1000);
        assertEquals(List.of("0-2", "3-3"), b.ranges());
        assertEquals("2", b.store.objects.lastEntry().getValue().metadata().get(ObjectNames.SCHEMA_ID));
    }

    @Test
    void whatIsHeldIsDroppedWhenThePartitionIsTaken() {
        Bench b = new Bench();
        b.put(0, 5);
        b.task.close(List.of(Bench.TP));
        b.pass(5000);
        assertEquals(List.of(), b.ranges());
        assertEquals(0, b.task.metrics().getRecordsBuffered());
        b.put(0, 5);
        b.pass(1000);
        assertEquals(List.of("0-4"), b.ranges());
    }

    @Test
    void namesMetadataAndHeader() throws Exception {
        Bench b = new Bench();
        b.put(0, 10);
        var entry = b.store.objects.firstEntry();
        assertEquals("raw/vqe_iteration_v1/partition=0/vqe_iteration_v1+0+0000000000000000000.avro", entry.getKey());
        var metadata = entry.getValue().metadata();
        assertEquals(java.util.Map.of("first-offset", "0", "end-offset", "9", "records", "10", "schema-id", "1", "topic-id",
            b.topicId.toString()), metadata);
        try (var in = new DataFileStream<GenericRecord>(new ByteArrayInputStream(entry.getValue().body()), new GenericDatumReader<>())) {
            assertEquals(Bench.SCHEMA, in.getMetaString("avro.schema"));
            assertEquals("9", in.getMetaString("kafka.end-offset"));
        }
        Bench again = new Bench();
        again.put(0, 10);
        assertArrayEquals(entry.getValue().body(), again.store.objects.firstEntry().getValue().body(), "the same each time");
    }

    @Test
    void everyCodecIsReadByAvroItself() throws Exception {
        for (String codec : List.of("null", "deflate", "zstandard")) {
            Bench b = new Bench("avro.codec", codec, "flush.records", "100000");
            b.put(0, 60_000);  // several blocks
            b.pass(1000);
            assertEquals(Bench.numbers(0, 60_000), b.stored(), codec);
        }
    }

    @Test
    void theTaskHoldsNoMoreThanItsShare() {
        Bench b = new Bench("buffer.bytes", String.valueOf(1 << 20), "flush.bytes", String.valueOf(1 << 20), "flush.records", "10000000");
        b.put(0, 200_000);
        assertTrue(b.task.metrics().getBytesBuffered() <= 1 << 20);
        assertEquals(1, b.ranges().size());
    }

    @Test
    void anOutageOfTheRegistryIsWaitedFor() {
        Bench b = new Bench();
        b.registryAway = true;
        assertThrows(RetriableException.class, () -> b.put(0, 3));
        b.registryAway = false;
        b.put(0, 3);
        b.pass(1000);
        assertEquals(Bench.numbers(0, 3), b.stored());
        assertEquals(1, b.task.metrics().getRetries());
    }

    @Test
    void withoutAQueueAnUnreadableRecordFailsTheTask() {
        Bench b = new Bench(new MemoryStore(), false);
        ConnectException e = assertThrows(ConnectException.class, () -> b.put(Bench.record(0, new byte[] {1, 2})));
        assertTrue(e.getMessage().contains("errors.tolerance"), e.getMessage());
    }
}

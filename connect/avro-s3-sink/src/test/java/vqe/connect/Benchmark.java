package vqe.connect;

import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.function.Consumer;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericData;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.io.BinaryDecoder;
import org.apache.avro.io.DecoderFactory;
import org.apache.kafka.connect.sink.SinkRecord;

/**
 * Measures, on one core: checking a record against decoding it, and the sink's own work per byte (check, container, codec).
 * Run by {@code mvn test-compile exec:java}-like means: the class path of the tests, {@code vqe.connect.Benchmark}.
 */
final class Benchmark {
    private Benchmark() { }

    private static final Schema SCHEMA = new Schema.Parser().parse("""
        {"type":"record","name":"Iteration","fields":[
          {"name":"run_id","type":{"type":"string","logicalType":"uuid"}},
          {"name":"recorded_at","type":{"type":"long","logicalType":"timestamp-micros"}},
          {"name":"iteration","type":"int"},{"name":"energy","type":"double"},
          {"name":"error","type":["null","double"],"default":null},
          {"name":"standard_error","type":["null","double"],"default":null},
          {"name":"gradient_norm","type":["null","double"],"default":null},
          {"name":"evaluations","type":"long"},{"name":"elapsed_seconds","type":"double"},
          {"name":"status","type":{"type":"enum","name":"S","symbols":["A","B"]}},
          {"name":"parameters","type":["null",{"type":"array","items":"double"}],"default":null},
          {"name":"labels","type":{"type":"map","values":"string"}}]}""");

    /** An iteration event with so many parameters, framed. */
    static byte[] event(Random r, int i, int parameters) throws Exception {
        GenericData.Record record = new GenericData.Record(SCHEMA);
        record.put("run_id", "0190b5a2-7c1e-7abc-8def-0123456789ab");
        record.put("recorded_at", 1_763_700_000_000_000L + i);
        record.put("iteration", i);
        record.put("energy", -1.1 - r.nextDouble() * 1e-3);
        record.put("gradient_norm", r.nextDouble());
        record.put("evaluations", (long) i * 3);
        record.put("elapsed_seconds", i * 0.013);
        record.put("status", new GenericData.EnumSymbol(SCHEMA.getField("status").schema(), "A"));
        List<Double> values = new ArrayList<>();
        for (int k = 0; k < parameters; k++) values.add(r.nextGaussian());
        record.put("parameters", values);
        record.put("labels", Map.of("host", "node-1", "engine", "sector"));
        byte[] body = DatumValidatorTest.encode(SCHEMA, record, false);
        return ByteBuffer.allocate(body.length + 5).put((byte) 0).putInt(1).put(body).array();
    }

    private static double nanos(List<byte[]> events, Consumer<byte[]> work) {
        double best = Double.MAX_VALUE;
        for (int round = 0; round < 12; round++) {
            long began = System.nanoTime();
            for (int k = 0; k < 20; k++) events.forEach(work);
            best = Math.min(best, (System.nanoTime() - began) / (20.0 * events.size()));
        }
        return best;
    }

    public static void main(String[] args) throws Exception {
        Random r = new Random(1);
        DatumValidator validator = new DatumValidator(SCHEMA);
        GenericDatumReader<Object> reader = new GenericDatumReader<>(SCHEMA);
        for (int parameters : new int[] {0, 40, 400}) {
            List<byte[]> events = new ArrayList<>();
            for (int i = 0; i < 2000; i++) events.add(event(r, i, parameters));
            BinaryDecoder[] reuse = {null};
            double decode = nanos(events, e -> {
                try {
                    reuse[0] = DecoderFactory.get().binaryDecoder(e, 5, e.length - 5, reuse[0]);
                    reader.read(null, reuse[0]);
                } catch (Exception x) {
                    throw new IllegalStateException(x);
                }
            });
            double walk = nanos(events, e -> {
                try {
                    validator.check(e, 5, e.length);
                } catch (DatumValidator.Invalid x) {
                    throw new IllegalStateException(x);
                }
            });
            System.out.printf("%3d parameters, %4d bytes: decode %6.0f ns, check %5.0f ns, ratio %.1f%n", parameters,
                events.get(0).length, decode, walk, decode / walk);
        }
        for (int parameters : new int[] {0, 40, 200}) {
            for (String codec : new String[] {"null", "deflate", "zstandard"}) sink(r, codec, parameters);
        }
    }

    private static void sink(Random r, String codec, int parameters) throws Exception {
        List<byte[]> events = new ArrayList<>();
        for (int i = 0; i < 5000; i++) events.add(event(r, i, parameters));
        for (int round = 0; round < 3; round++) {
            Bench bench = new Bench("avro.codec", codec, "flush.records", "50000");
            bench.schemas.put(1, SCHEMA.toString());
            long bytes = 0;
            long began = System.nanoTime();
            for (int offset = 0; offset < 100_000;) {
                List<SinkRecord> batch = new ArrayList<>(2000);
                for (int k = 0; k < 2000; k++, offset++) {
                    byte[] value = events.get(offset % events.size());
                    bytes += value.length;
                    batch.add(Bench.record(offset, value));
                }
                bench.task.put(batch);
            }
            double seconds = (System.nanoTime() - began) / 1e9;
            long packed = bench.store.objects.values().stream().mapToLong(o -> o.body().length).sum();
            if (round == 2) {
                System.out.printf("%3d parameters, %-9s: %.0f MB/s of records on one core, packed to %.2f%n", parameters, codec, bytes / seconds / 1e6, packed / (double) bytes);
            }
        }
    }
}

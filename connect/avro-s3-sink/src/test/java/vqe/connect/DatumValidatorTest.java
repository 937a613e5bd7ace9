package vqe.connect;

import static org.junit.jupiter.api.Assertions.assertDoesNotThrow;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericData;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.generic.GenericDatumWriter;
import org.apache.avro.io.BinaryDecoder;
import org.apache.avro.io.Decoder;
import org.apache.avro.io.DecoderFactory;
import org.apache.avro.io.Encoder;
import org.apache.avro.io.EncoderFactory;
import org.apache.avro.util.Utf8;
import org.junit.jupiter.api.Test;

/** The walk's verdict is the full decode's, on sound data, on damaged data and on noise. */
class DatumValidatorTest {
    private static Schema parse(String json) { return new Schema.Parser().parse(json.replace('\'', '"')); }

    /** Everything but booleans, the one type of which a full decode hides the bytes. */
    private static final Schema ALL = parse("{'type':'record','name':'A','fields':["
        + "{'name':'i','type':'int'},{'name':'l','type':'long'},{'name':'f','type':'float'},{'name':'d','type':'double'},"
        + "{'name':'s','type':'string'},{'name':'b','type':'bytes'},{'name':'x','type':{'type':'fixed','name':'X','size':7}},"
        + "{'name':'e','type':{'type':'enum','name':'E','symbols':['P','Q','R']}},"
        + "{'name':'u','type':['null','string','long',{'type':'array','items':'double'}]},"
        + "{'name':'a','type':{'type':'array','items':'string'}},{'name':'n','type':{'type':'array','items':'int'}},"
        + "{'name':'m','type':{'type':'map','values':'long'}},{'name':'next','type':['null','A']},"
        + "{'name':'t','type':{'type':'array','items':{'type':'record','name':'T','fields':["
        + "{'name':'p','type':'string'},{'name':'c','type':'double'},{'name':'z','type':'double'}]}}}]}");

    private static Object sample(Schema schema, Random r, int depth) {
        return switch (schema.getType()) {
            case NULL -> null;
            case BOOLEAN -> r.nextBoolean();
            case INT -> r.nextInt() >> r.nextInt(32);
            case LONG -> r.nextLong() >> r.nextInt(64);
            case FLOAT -> r.nextFloat();
            case DOUBLE -> r.nextDouble();
            case STRING -> text(r);
            case BYTES -> ByteBuffer.wrap(noise(r, r.nextInt(6)));
            case FIXED -> new GenericData.Fixed(schema, noise(r, schema.getFixedSize()));
            case ENUM -> new GenericData.EnumSymbol(schema, schema.getEnumSymbols().get(r.nextInt(schema.getEnumSymbols().size())));
            case UNION -> sample(schema.getTypes().get(depth > 3 ? 0 : r.nextInt(schema.getTypes().size())), r, depth);
            case ARRAY -> {
                List<Object> list = new ArrayList<>();
                for (int n = r.nextInt(4); n > 0; n--) list.add(sample(schema.getElementType(), r, depth + 1));
                yield list;
            }
            case MAP -> {
                Map<String, Object> map = new HashMap<>();
                for (int n = r.nextInt(3); n > 0; n--) map.put(text(r), sample(schema.getValueType(), r, depth + 1));
                yield map;
            }
            case RECORD -> {
                GenericData.Record record = new GenericData.Record(schema);
                for (Schema.Field f : schema.getFields()) record.put(f.pos(), sample(f.schema(), r, depth + 1));
                yield record;
            }
        };
    }

    private static String text(Random r) {
        StringBuilder text = new StringBuilder();
        for (int n = r.nextInt(5); n > 0; n--) text.appendCodePoint(new int[] {'a', 0x7f, 0xe9, 0x7ff, 0x20ac, 0xffff, 0x1f600}[r.nextInt(7)]);
        return text.toString();
    }

    private static byte[] noise(Random r, int length) {
        byte[] bytes = new byte[length];
        r.nextBytes(bytes);
        return bytes;
    }

    static byte[] encode(Schema schema, Object datum, boolean blocking) throws IOException {
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        Encoder encoder = blocking ? new EncoderFactory().configureBlockSize(64).blockingBinaryEncoder(out, null)
            : EncoderFactory.get().binaryEncoder(out, null);
        new GenericDatumWriter<>(schema).write(datum, encoder);
        encoder.flush();
        return out.toByteArray();
    }

    /** Avro's reader, made to look at strings, which it leaves undecoded. */
    private static final class Strict extends GenericDatumReader<Object> {
        Strict(Schema schema) { super(schema, schema, slow()); }

        /** The fast reader passes the methods below by. */
        private static GenericData slow() {
            GenericData data = new GenericData();
            data.setFastReaderEnabled(false);
            return data;
        }

        @Override
        protected Object readString(Object old, Decoder in) throws IOException {
            Utf8 text = in.readString(null);
            try {
                return StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(text.getBytes(), 0, text.getByteLength())).toString();
            } catch (CharacterCodingException e) {
                throw new IOException(e);
            }
        }

        @Override protected Object readString(Object old, Schema s, Decoder in) throws IOException { return readString(old, in); }
        @Override protected Object readMapKey(Object old, Schema s, Decoder in) throws IOException { return readString(old, in); }
    }

    private static boolean decodes(GenericDatumReader<Object> reader, byte[] bytes) {
        BinaryDecoder decoder = DecoderFactory.get().binaryDecoder(bytes, 0, bytes.length, null);
        try {
            reader.read(null, decoder);
            return decoder.isEnd();
        } catch (IOException | RuntimeException | OutOfMemoryError e) {
            return false;
        }
    }

    private static boolean walks(DatumValidator validator, byte[] bytes) { return fault(validator, bytes) == null; }

    private static String fault(DatumValidator validator, byte[] bytes) {
        try {
            validator.check(bytes, 0, bytes.length);
            return null;
        } catch (DatumValidator.Invalid e) {
            return e.getMessage();
        }
    }

    private static byte[] damage(byte[] bytes, Random r) {
        byte[] damaged = bytes.clone();
        switch (r.nextInt(5)) {
            case 0 -> damaged = Arrays.copyOf(damaged, r.nextInt(damaged.length + 1));
            case 1 -> {
                damaged = Arrays.copyOf(damaged, damaged.length + 1 + r.nextInt(3));
            }
            case 2 -> {
                if (damaged.length > 0) damaged[r.nextInt(damaged.length)] ^= (byte) (1 << r.nextInt(8));
            }
            case 3 -> {
                if (damaged.length > 0) damaged[r.nextInt(damaged.length)] = (byte) new int[] {0, 1, 2, 0x7f, 0x80, 0xff}[r.nextInt(6)];
            }
            default -> {
                if (damaged.length > 4) {
                    int at = r.nextInt(damaged.length - 2);
                    System.arraycopy(noise(r, 2), 0, damaged, at, 2);
                }
            }
        }
        return damaged;
    }

    /** Damage that makes huge counts costs the full decode much memory; it is rejected by both, and rare. */
    @Test
    void equalsTheFullDecodeOnDamagedData() throws Exception {
        Random r = new Random(20);
        DatumValidator validator = new DatumValidator(ALL);
        Strict strict = new Strict(ALL);
        GenericDatumReader<Object> plain = new GenericDatumReader<>(ALL);
        int accepted = 0;
        int rejected = 0;
        for (int i = 0; i < 60_000; i++) {
            byte[] bytes = encode(ALL, sample(ALL, r, 0), false);
            assertDoesNotThrow(() -> validator.check(bytes, 0, bytes.length), "sound data");
            byte[] damaged = damage(bytes, r);
            String fault = fault(validator, damaged);
            boolean walked = fault == null;
            // An empty array whose count turns negative has a byte size, which only the walk looks at.
            if (!DatumValidator.WRONG_BLOCK_SIZE.equals(fault)) {
                assertEquals(decodes(strict, damaged), walked, () -> fault + " " + Arrays.toString(damaged));
            }
            if (walked) {
                assertTrue(decodes(plain, damaged), "accepted what Avro rejects");
                accepted++;
            } else {
                rejected++;
            }
        }
        assertTrue(accepted > 5_000 && rejected > 5_000, accepted + " accepted, " + rejected + " rejected: both must be tried");
    }

    @Test
    void equalsTheFullDecodeOnNoise() {
        Random r = new Random(21);
        for (String json : List.of("'int'", "'long'", "'string'", "'bytes'", "'double'", "{'type':'array','items':'int'}",
            "{'type':'map','values':'string'}", "['null','int','string']", "{'type':'enum','name':'E','symbols':['A','B']}",
            "{'type':'array','items':{'type':'array','items':'long'}}")) {
            Schema schema = parse(json);
            DatumValidator validator = new DatumValidator(schema);
            Strict strict = new Strict(schema);
            for (int i = 0; i < 20_000; i++) {
                byte[] bytes = noise(r, r.nextInt(12));
                if (r.nextBoolean()) for (int k = 0; k < bytes.length; k++) bytes[k] &= 0x0f;  // small numbers go far
                String fault = fault(validator, bytes);
                if (DatumValidator.WRONG_BLOCK_SIZE.equals(fault)) continue;
                assertEquals(decodes(strict, bytes), fault == null, () -> fault + " " + json + Arrays.toString(bytes));
            }
        }
    }

    @Test
    void takesBlocksWithByteSizesAndRefusesWrongOnes() throws Exception {
        Random r = new Random(22);
        DatumValidator validator = new DatumValidator(ALL);
        GenericDatumReader<Object> plain = new GenericDatumReader<>(ALL);
        for (int i = 0; i < 20_000; i++) {
            byte[] bytes = encode(ALL, sample(ALL, r, 0), true);
            assertTrue(walks(validator, bytes));
            byte[] damaged = damage(bytes, r);
            assertTrue(!walks(validator, damaged) || decodes(plain, damaged));
        }
        Schema ints = parse("{'type':'array','items':'int'}");
        assertTrue(walks(new DatumValidator(ints), new byte[] {1, 2, 8, 0}));  // one item, one byte
        assertTrue(!walks(new DatumValidator(ints), new byte[] {1, 4, 8, 0}));  // one item, two bytes
    }

    @Test
    void refusesWhatReadersDisagreeOn() {
        DatumValidator bool = new DatumValidator(parse("'boolean'"));
        assertTrue(walks(bool, new byte[] {0}) && walks(bool, new byte[] {1}) && !walks(bool, new byte[] {2}));
        DatumValidator string = new DatumValidator(parse("'string'"));
        for (byte[] bad : new byte[][] {{2, (byte) 0x80}, {4, (byte) 0xc0, (byte) 0x80}, {6, (byte) 0xed, (byte) 0xa0, (byte) 0x80}, {2, (byte) 0xff}}) {
            assertTrue(!walks(string, bad), Arrays.toString(bad));
        }
    }

    @Test
    void endsOnBombs() {
        assertThrows(DatumValidator.Invalid.class, () -> check("{'type':'array','items':'null'}", varint(Long.MAX_VALUE >> 1)));
        assertThrows(DatumValidator.Invalid.class, () -> check("{'type':'array','items':'double'}", varint(1L << 60)));
        assertThrows(DatumValidator.Invalid.class, () -> check("{'type':'array','items':'null'}", varint(Long.MIN_VALUE)));
        assertThrows(DatumValidator.Invalid.class, () -> check("'string'", varint(Integer.MAX_VALUE)));
        assertThrows(DatumValidator.Invalid.class, () -> check("'bytes'", varint(-5)));
        byte[] deep = new byte[100_000];
        Arrays.fill(deep, (byte) 2);
        assertThrows(DatumValidator.Invalid.class,
            () -> check("{'type':'record','name':'N','fields':[{'name':'n','type':['null','N']}]}", deep));
        assertDoesNotThrow(() -> check("{'type':'array','items':'null'}", new byte[] {6, 0}));
    }

    private static void check(String schema, byte[] bytes) throws DatumValidator.Invalid {
        new DatumValidator(parse(schema)).check(bytes, 0, bytes.length);
    }

    private static byte[] varint(long n) {
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        long rest = (n << 1) ^ (n >> 63);
        while ((rest & ~0x7fL) != 0) {
            out.write((int) (rest & 0x7f | 0x80));
            rest >>>= 7;
        }
        out.write((int) rest);
        return out.toByteArray();
    }
}

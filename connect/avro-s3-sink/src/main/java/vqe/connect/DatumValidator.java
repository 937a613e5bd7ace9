package vqe.connect;

import java.util.ArrayList;
import java.util.IdentityHashMap;
import java.util.List;
import java.util.Map;
import org.apache.avro.Schema;

/**
 * Tells whether bytes are exactly one datum of a schema, by walking them without building objects.
 *
 * <p>A record that is appended to a container unseen may make the whole object unreadable, so each one is checked. A full
 * decode makes an object of every field to throw it away; the walk needs the lengths only. What it accepts, Avro's
 * {@code GenericDatumReader} accepts as well, to the last byte: number encodings of at most 5 and 10 bytes, lengths within the
 * payload, enum and union indexes within the schema, block counts, nothing left over. {@code GenericDatumReader.skip} does
 * not look at these.
 *
 * <p>In five places it is stricter than Java's reader, because other readers of the same object are: strings must be UTF-8
 * (Java decodes lazily, fastavro fails), a boolean is 0 or 1 (of 2, Java makes false and fastavro true), the byte size
 * that may precede a block must be right (projecting readers jump by it), a block of items that take no bytes may not claim
 * more than {@value #MAX_EMPTY_ITEMS} of them, and values nest at most {@value #MAX_DEPTH} deep (a reader's stack).
 */
final class DatumValidator {
    static final int MAX_EMPTY_ITEMS = 1 << 20;
    static final int MAX_DEPTH = 500;
    static final String WRONG_BLOCK_SIZE = "a block's byte size does not fit its items";

    /** What a payload's first fault is; carries no stack trace, for a stream of garbage is to be cheap. */
    static final class Invalid extends Exception {
        private static final long serialVersionUID = 1L;

        Invalid(String message) { super(message, null, false, false); }
    }

    private final Step root;

    DatumValidator(Schema schema) { root = new Compiler().compile(schema); }

    /** Checks {@code bytes[from, to)}. */
    void check(byte[] bytes, int from, int to) throws Invalid {
        Cursor in = new Cursor(bytes, from, to);
        root.walk(in);
        if (in.at != to) throw new Invalid((to - in.at) + " bytes are left over after the datum");
    }

    /** One node of the schema. */
    private abstract static class Step {
        /** Moves the cursor behind one value. */
        abstract void walk(Cursor in) throws Invalid;

        /** Bytes of every value where all are of one length, else -1. */
        int width() { return -1; }
    }

    private static final class Cursor {
        final byte[] bytes;
        final int end;
        int at;
        int depth;

        Cursor(byte[] bytes, int at, int end) {
            this.bytes = bytes;
            this.at = at;
            this.end = end;
        }

        void jump(long length) throws Invalid {
            if (length > end - at) throw new Invalid("ends within a value");
            at += (int) length;
        }

        /** As BinaryDecoder.readInt: at most 5 bytes, what does not fit in 32 bits is dropped. */
        int readInt() throws Invalid {
            int value = 0;
            for (int shift = 0; shift < 35; shift += 7) {
                if (at >= end) throw new Invalid("ends within a number");
                int b = bytes[at++];
                value |= (b & 0x7f) << shift;
                if (b >= 0) return (value >>> 1) ^ -(value & 1);
            }
            throw new Invalid("an int of over 5 bytes");
        }

        /** As BinaryDecoder.readLong: at most 10 bytes. */
        long readLong() throws Invalid {
            long value = 0;
            for (int shift = 0; shift < 70; shift += 7) {
                if (at >= end) throw new Invalid("ends within a number");
                int b = bytes[at++];
                value |= (b & 0x7fL) << shift;
                if (b >= 0) return (value >>> 1) ^ -(value & 1);
            }
            throw new Invalid("a long of over 10 bytes");
        }

        int readLength() throws Invalid {
            long length = readLong();
            if (length < 0) throw new Invalid("a length of " + length);
            if (length > end - at) throw new Invalid("a length of " + length + " with " + (end - at) + " bytes left");
            return (int) length;
        }

        void string() throws Invalid {
            int length = readLength();
            int stop = at + length;
            while (at < stop && bytes[at] >= 0) at++;
            if (at < stop) Utf8Check.check(bytes, at, stop);
            at = stop;
        }
    }

    private static final class Fixed extends Step {
        final int width;

        Fixed(int width) { this.width = width; }

        @Override void walk(Cursor in) throws Invalid { in.jump(width); }
        @Override int width() { return width; }
    }

    private static final Step INT = new Step() {
        @Override void walk(Cursor in) throws Invalid { in.readInt(); }
    };
    private static final Step LONG = new Step() {
        @Override void walk(Cursor in) throws Invalid { in.readLong(); }
    };
    private static final Step BYTES = new Step() {
        @Override void walk(Cursor in) throws Invalid { in.jump(in.readLength()); }
    };
    private static final Step STRING = new Step() {
        @Override void walk(Cursor in) throws Invalid { in.string(); }
    };
    private static final Step BOOLEAN = new Step() {
        @Override void walk(Cursor in) throws Invalid {
            in.jump(1);
            int b = in.bytes[in.at - 1];
            if (b != 0 && b != 1) throw new Invalid("a boolean of " + b);
        }
    };

    private static final class Enumerated extends Step {
        final int symbols;

        Enumerated(int symbols) { this.symbols = symbols; }

        @Override void walk(Cursor in) throws Invalid {
            int index = in.readInt();
            if (index < 0 || index >= symbols) throw new Invalid("enum index " + index + " of " + symbols);
        }
    }

    private static final class Union extends Step {
        Step[] branches;

        @Override void walk(Cursor in) throws Invalid {
            int index = in.readInt();
            if (index < 0 || index >= branches.length) {
                throw new Invalid("union index " + index + " of " + branches.length);
            }
            branches[index].walk(in);
        }
    }

    /** A record; fields that follow each other with fixed widths are one jump. */
    private static final class Fields extends Step {
        Step[] steps;
        int width = -1;

        @Override void walk(Cursor in) throws Invalid {
            if (++in.depth > MAX_DEPTH) throw new Invalid("nests deeper than " + MAX_DEPTH);
            for (Step step : steps) step.walk(in);
            in.depth--;
        }

        @Override int width() { return width; }
    }

    /** An array, or a map when the items have keys. */
    private static final class Blocks extends Step {
        final boolean keyed;
        Step item;

        Blocks(boolean keyed) { this.keyed = keyed; }

        @Override void walk(Cursor in) throws Invalid {
            if (++in.depth > MAX_DEPTH) throw new Invalid("nests deeper than " + MAX_DEPTH);
            int width = keyed ? -1 : item.width();
            for (long count = in.readLong(); count != 0; count = in.readLong()) {
                int stop = -1;
                if (count < 0) {
                    count = -count;
                    long size = in.readLong();
                    if (size < 0 || size > in.end - in.at) throw new Invalid(WRONG_BLOCK_SIZE);
                    stop = in.at + (int) size;
                }
                // Also catches -Long.MIN_VALUE, which is negative still.
                if (count < 0 || count > Math.max(in.end - in.at, MAX_EMPTY_ITEMS)) {
                    throw new Invalid("a block of " + count + " items with " + (in.end - in.at) + " bytes left");
                }
                if (width >= 0) {
                    in.jump(count * width);
                } else {
                    for (long i = 0; i < count; i++) {
                        if (keyed) in.string();
                        item.walk(in);
                    }
                }
                if (stop >= 0 && in.at != stop) throw new Invalid(WRONG_BLOCK_SIZE);
            }
            in.depth--;
        }
    }

    private static final class Compiler {
        private final Map<Schema, Step> named = new IdentityHashMap<>();

        Step compile(Schema schema) {
            Step known = named.get(schema);
            if (known != null) return known;  // a type that holds itself
            return switch (schema.getType()) {
                case NULL -> new Fixed(0);
                case BOOLEAN -> BOOLEAN;
                case INT -> INT;
                case LONG -> LONG;
                case FLOAT -> new Fixed(4);
                case DOUBLE -> new Fixed(8);
                case BYTES -> BYTES;
                case STRING -> STRING;
                case FIXED -> new Fixed(schema.getFixedSize());
                case ENUM -> new Enumerated(schema.getEnumSymbols().size());
                case UNION -> {
                    Union union = new Union();
                    union.branches = schema.getTypes().stream().map(this::compile).toArray(Step[]::new);
                    yield union;
                }
                case RECORD -> fields(schema);
                case ARRAY -> blocks(false, schema.getElementType());
                case MAP -> blocks(true, schema.getValueType());
            };
        }

        private Step blocks(boolean keyed, Schema item) {
            Blocks blocks = new Blocks(keyed);
            blocks.item = compile(item);
            return blocks;
        }

        private Step fields(Schema schema) {
            Fields fields = new Fields();
            named.put(schema, fields);
            List<Step> steps = new ArrayList<>();
            for (Schema.Field field : schema.getFields()) {
                Step step = compile(field.schema());
                Step last = steps.isEmpty() ? null : steps.get(steps.size() - 1);
                if (step.width() >= 0 && last != null && last.width() >= 0) {
                    steps.set(steps.size() - 1, new Fixed(Math.addExact(step.width(), last.width())));
                } else {
                    steps.add(step);
                }
            }
            fields.steps = steps.toArray(Step[]::new);
            if (steps.isEmpty()) fields.width = 0;
            if (steps.size() == 1) fields.width = steps.get(0).width();
            return fields;
        }
    }
}

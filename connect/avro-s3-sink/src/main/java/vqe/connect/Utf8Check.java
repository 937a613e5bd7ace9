package vqe.connect;

/** Well-formed UTF-8 as RFC 3629 has it: no overlong forms, no surrogates, nothing above U+10FFFF. */
final class Utf8Check {
    private Utf8Check() { }

    static void check(byte[] bytes, int from, int to) throws DatumValidator.Invalid {
        int i = from;
        while (i < to) {
            int lead = bytes[i++];
            if (lead >= 0) continue;
            int more;
            int low = 0x80;
            int high = 0xbf;
            switch (lead & 0xff) {
                case 0xe0 -> { more = 2; low = 0xa0; }
                case 0xed -> { more = 2; high = 0x9f; }
                case 0xf0 -> { more = 3; low = 0x90; }
                case 0xf4 -> { more = 3; high = 0x8f; }
                default -> {
                    int b = lead & 0xff;
                    more = b >= 0xc2 && b <= 0xdf ? 1 : b >= 0xe1 && b <= 0xef ? 2 : b >= 0xf1 && b <= 0xf3 ? 3 : 0;
                }
            }
            if (more == 0 || more > to - i) throw new DatumValidator.Invalid("a string that is not UTF-8");
            for (int k = 0; k < more; k++) {
                int b = bytes[i++] & 0xff;
                if (b < low || b > high) throw new DatumValidator.Invalid("a string that is not UTF-8");
                low = 0x80;
                high = 0xbf;
            }
        }
    }
}

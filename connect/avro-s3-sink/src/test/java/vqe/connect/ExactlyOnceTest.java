package vqe.connect;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.List;
import java.util.Random;
import java.util.TreeMap;
import java.util.concurrent.CompletableFuture;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.connect.errors.ConnectException;
import org.apache.kafka.connect.errors.RetriableException;
import org.junit.jupiter.api.Test;

/** Each offset is in exactly one object, whatever fails and however often. */
class ExactlyOnceTest {
    @Test
    void aCrashAfterTheWriteAndBeforeTheCommitStoresNothingTwice() {
        Bench b = new Bench();
        b.put(0, 10);
        assertEquals(List.of("0-9"), b.ranges());
        b.restart();
        b.put(0, 25);  // from an offset committed long ago
        b.pass(1000);
        assertEquals(List.of("0-9", "10-19", "20-24"), b.ranges());
        assertEquals(Bench.numbers(0, 25), b.stored());
        assertEquals(25, b.committed());
    }

    @Test
    void aLostAnswerToAWriteIsFoundOutAndCountedAsDone() {
        Bench b = new Bench();
        b.store.answersLost = 1;
        assertThrows(RetriableException.class, () -> b.put(0, 10));
        assertEquals(0, b.committed());
        b.put(0, 10);  // Connect delivers the batch again
        b.put(10, 20);
        assertEquals(List.of("0-9", "10-19"), b.ranges());
        assertEquals(Bench.numbers(0, 20), b.stored());
    }

    @Test
    void theRecordThatMetAnOutageIsTakenOnRedelivery() {
        Bench b = new Bench("flush.records", "5");
        b.put(0, 4);
        b.store.failing = 3;
        for (int i = 0; i < 3; i++) {
            assertThrows(RetriableException.class, () -> b.put(4, 12));
            assertTrue(b.timeout > 0);
            assertEquals(0, b.committed());
        }
        assertEquals(1, b.task.metrics().getInOutage());
        b.put(4, 12);
        b.pass(1000);
        assertEquals(Bench.numbers(0, 12), b.stored());
        assertEquals(3, b.task.metrics().getRetries());
        assertEquals(0, b.task.metrics().getInOutage());
    }

    @Test
    void aZombieThatWroteFirstIsAdoptedAndTheRestIsKept() {
        Bench mine = new Bench();
        Bench zombie = mine.second();
        mine.put(0, 7);
        zombie.put(0, 4);
        zombie.pass(1000);
        mine.put(7, 10);
        assertEquals(List.of("0-3"), mine.ranges());
        mine.pass(1000);
        assertEquals(List.of("0-3", "4-9"), mine.ranges());
        assertEquals(Bench.numbers(0, 10), mine.stored());
        zombie.put(4, 12);  // its name is taken in turn
        zombie.pass(1000);
        zombie.pass(1000);
        assertEquals(Bench.numbers(0, 12), mine.stored());
        assertEquals(1, mine.task.metrics().getObjectsAdopted());
    }

    @Test
    void aZombieThatReachedFurtherMakesUsSkipWhatItStored() {
        Bench mine = new Bench();
        Bench zombie = mine.second();
        mine.put(0, 3);
        zombie.put(0, 10);
        mine.pass(1000);
        assertEquals(10, mine.committed());
        mine.put(3, 15);
        mine.pass(1000);
        assertEquals(List.of("0-9", "10-14"), mine.ranges());
        assertEquals(Bench.numbers(0, 15), mine.stored());
    }

    /** Both see the same offsets unreadable or not by chance: the chain must not depend on the verdict. */
    @Test
    void aVerdictThatDiffersBetweenTwoTasksMakesNoOverlap() {
        Bench mine = new Bench();
        Bench zombie = mine.second();
        mine.put(0, 6);  // all readable here
        zombie.schemas.remove(1);
        zombie.put(0, 1);  // a dead letter there, before the schema is known
        zombie.schemas.put(1, Bench.SCHEMA);
        zombie.put(1, 4);
        zombie.pass(1000);
        mine.pass(1000);
        mine.pass(1000);
        assertEquals(List.of("0-3", "4-5"), mine.ranges());
        assertEquals(Bench.numbers(1, 6), mine.stored());
        assertEquals(List.of(0L), zombie.letters);
    }

    @Test
    void randomFaultsWithTwoTasksStoreEachOffsetOnce() {
        for (int seed = 0; seed < 300; seed++) {
            Random random = new Random(seed);
            Bench[] tasks = new Bench[2];
            tasks[0] = new Bench();
            tasks[1] = tasks[0].second();
            long[] at = new long[2];
            for (int step = 0; step < 60; step++) {
                int t = random.nextInt(2);
                Bench b = tasks[t];
                int fault = random.nextInt(8);
                if (fault == 0) b.store.failing = 1 + random.nextInt(3);
                if (fault == 1) b.store.answersLost = 1;
                long to = at[t] + random.nextInt(9);
                try {
                    b.put(at[t], to);
                    at[t] = to;
                    if (random.nextInt(3) == 0) b.pass(600);
                } catch (RetriableException e) {
                    // delivered again next time
                }
                if (random.nextInt(12) == 0) {
                    Long committed = b.committed();
                    b.store.failing = 0;
                    b.restart();
                    at[t] = committed == null ? 0 : random.nextLong(committed + 1);
                }
            }
            tasks[0].store.failing = 0;
            tasks[0].store.answersLost = 0;
            tasks[0].put(at[0], 800);
            for (int i = 0; i < 3; i++) tasks[0].pass(1000);
            assertEquals(Bench.numbers(0, 800), tasks[0].stored(), "seed " + seed);
        }
    }

    @Test
    void aTopicCreatedAnewFailsTheTaskAtItsStart() {
        Bench b = new Bench();
        b.put(0, 10);
        Uuid former = b.topicId;
        b.topicId = new Uuid(8, 8);
        b.restart();
        ConnectException e = assertThrows(ConnectException.class, () -> b.put(0, 3));
        assertTrue(!(e instanceof RetriableException));
        for (String word : List.of(Bench.TOPIC, former.toString(), b.topicId.toString(), "created anew", "reset the connector's offsets")) {
            assertTrue(e.getMessage().contains(word), word + " is not in: " + e.getMessage());
        }
    }

    @Test
    void aTopicCreatedAnewFailsARunningTaskBeforeItStoresOrSkips() {
        Bench b = new Bench();
        b.put(0, 15);
        b.topicId = new Uuid(8, 8);
        assertThrows(ConnectException.class, () -> b.put(0, 5));  // offsets that it has: would be skipped
        Bench c = new Bench();
        c.put(0, 15);
        c.topicId = new Uuid(8, 8);
        c.put(15, 17);  // offsets that go on by chance
        assertThrows(ConnectException.class, () -> c.pass(1000));
        assertEquals(List.of("0-9"), c.ranges());
    }

    @Test
    void whatWasTakenFromATopicThatIsGoneIsStored() {
        Bench b = new Bench();
        b.put(0, 5);
        b.topicGone = true;
        b.pass(1000);
        assertEquals(Bench.numbers(0, 5), b.stored());
    }

    @Test
    void aRestartListsTheLastObjectsOnly() {
        Bench b = new Bench("flush.records", "100");
        for (long n = 0; n < 200_000; n += 100) b.put(n, n + 100);
        assertEquals(2000, b.store.objects.size());
        b.restart();
        b.store.listed = 0;
        b.put(200_000, 200_100);
        assertTrue(b.store.listed <= 201, "listed " + b.store.listed);
        assertEquals(Bench.numbers(0, 200_100), b.stored());
    }

    @Test
    void aRestartFarBehindTheNewestObjectStillFindsIt() {
        Bench b = new Bench();
        b.put(0, 10);
        for (long n = 10; n < 100_000; n++) b.letters.add(n);
        b.restart();
        b.put(Bench.record(99_999, Bench.value(1, 99_999)));
        b.pass(1000);
        assertEquals(List.of("0-9", "10-99999"), b.ranges());
    }

    @Test
    void aPartitionWhoseObjectsWereMovedAwayGoesOnBehindThem() {
        Bench b = new Bench();
        b.put(0, 25);
        b.pass(1000);
        TreeMap<String, MemoryStore.Stored> moved = new TreeMap<>(b.store.objects);
        for (long from : new long[] {25, 20, 0}) {  // what Connect delivers: committed; committed a flush ago; connector created anew
            b.store.objects.clear();
            b.restart();
            b.put(from, 30);
            b.pass(1000);
            assertEquals(List.of("25-29"), b.ranges(), "delivered from " + from);
            assertEquals(Bench.numbers(25, 30), b.stored());
            b.store.objects.clear();
            b.store.note(Bench.TP, 25, b.topicId);
        }
        assertEquals(0, b.task.metrics().getOffsetsLost());
        assertEquals(3, moved.size());
        moved.remove(moved.lastKey());  // only the newest was moved
        b.store.objects.putAll(moved);
        b.restart();
        b.put(0, 30);
        b.pass(1000);
        assertEquals(List.of("0-9", "10-19", "25-29"), b.ranges());
    }

    @Test
    void aPartitionThatAnEarlierReleaseStoredIsNotedWhenItIsOpened() {
        Bench b = new Bench();
        b.put(0, 20);
        b.store.notes.clear();
        b.restart();
        b.put(20, 21);  // held, not stored
        b.store.objects.clear();
        b.restart();
        b.put(0, 30);
        assertEquals(List.of("20-29"), b.ranges());
        b.store.objects.clear();
        b.store.notes.clear();  // emptied before the upgrade: what Kafka delivers is behind all that was stored
        b.restart();
        b.put(30, 40);
        assertEquals(List.of("30-39"), b.ranges());
    }

    @Test
    void twoTasksThatFindNothingAgreeWhereTheChainBegins() {
        Bench mine = new Bench();
        Bench zombie = mine.second();
        mine.put(12, 15);
        zombie.put(10, 16);
        zombie.pass(1000);
        mine.pass(1000);
        mine.put(15, 20);
        mine.pass(1000);
        assertEquals(List.of("12-15", "16-19"), mine.ranges());
        assertEquals(Bench.numbers(12, 20), mine.stored());
    }

    @Test
    void aCrashBetweenAnObjectAndItsNoteIsMendedByTheObject() {
        Bench b = new Bench();
        b.put(0, 10);
        b.put(10, 15);
        b.store.answersLost = 1;
        assertThrows(RetriableException.class, () -> b.pass(1000));  // stored, and the note not written
        b.restart();
        b.put(10, 16);
        assertEquals(List.of("0-9", "10-14"), b.ranges());
        b.store.objects.clear();
        b.restart();
        b.put(0, 20);
        b.pass(1000);
        assertEquals(List.of("15-19"), b.ranges());
    }

    @Test
    void whatIsDeletedWithItsNoteIsLoadedAnew() {
        Bench b = new Bench();
        b.put(0, 20);
        b.store.objects.clear();
        b.store.notes.clear();
        b.restart();
        b.put(0, 20);
        assertEquals(Bench.numbers(0, 20), b.stored());
        Uuid former = b.topicId;
        b.topicId = new Uuid(8, 8);  // created anew, and the former's objects moved away
        assertTrue(!former.equals(b.topicId));
        b.store.objects.clear();
        b.restart();
        b.put(0, 10);
        assertEquals(List.of("0-9"), b.ranges());
    }

    @Test
    void offsetsThatRetentionDeletedAreCountedAsLost() {
        Bench b = new Bench();
        b.put(0, 10);
        b.firstOffset = 15;
        b.put(20, 30);
        assertEquals(5, b.task.metrics().getOffsetsLost());
        b.firstOffset = 0;
        b.put(40, 50);  // a gap, but nothing was deleted
        assertEquals(5, b.task.metrics().getOffsetsLost());
    }

    @Test
    void nothingPassesADeadLetterThatIsNotAcknowledged() {
        Bench b = new Bench();
        b.put(0, 3);
        b.letterAnswer = new CompletableFuture<>();
        CompletableFuture<Void> answer = b.letterAnswer;
        b.task.deadLetterWaitMs = 50;
        // The wait is bounded, so that the task keeps its place in the group.
        assertThrows(RetriableException.class, () -> b.put(Bench.record(3, new byte[] {9})));
        assertEquals(0, b.committed());
        answer.completeExceptionally(new IllegalStateException("topic is gone"));
        ConnectException e = assertThrows(ConnectException.class, () -> b.pass(1000));
        assertTrue(!(e instanceof RetriableException) && e.getMessage().contains("errors.deadletterqueue"), e.getMessage());
        assertEquals(List.of(), b.ranges());
    }

    @Test
    void aDeadLetterAloneLetsTheCommitGoOn() {
        Bench b = new Bench();
        b.put(Bench.record(0, new byte[] {9}), Bench.record(1, null));
        assertEquals(List.of(0L, 1L), b.letters);
        assertEquals(2, b.committed());
        b.put(2, 4);
        assertEquals(2, b.committed());
        b.pass(1000);
        assertEquals(List.of("0-3"), b.ranges());
        assertEquals(Bench.numbers(2, 4), b.stored());
    }
}

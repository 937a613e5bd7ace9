package vqe.connect;

import java.util.EnumMap;
import java.util.Map;
import java.util.function.LongSupplier;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** Counts every failed try, and logs an outage twice: when it begins and when it is over. */
final class Outages {
    private static final Logger log = LoggerFactory.getLogger(Outages.class);

    private static final class Outage {
        final long since;
        long tries;

        Outage(long since) { this.since = since; }
    }

    private final Map<OutageException.Of, Outage> open = new EnumMap<>(OutageException.Of.class);
    private final SinkMetrics metrics;
    private final LongSupplier clock;
    private final long firstWait;
    private final long maxWait;

    Outages(SinkMetrics metrics, LongSupplier clock, long firstWait, long maxWait) {
        this.metrics = metrics;
        this.clock = clock;
        this.firstWait = firstWait;
        this.maxWait = maxWait;
    }

    /** Notes a failed try. @return milliseconds to wait before the next */
    long failed(OutageException e) {
        Outage outage = open.get(e.system);
        if (outage == null) {
            outage = new Outage(clock.getAsLong());
            open.put(e.system, outage);
            log.warn("{} is away ({}); nothing is lost, trying again until it answers", e.system.title, e.getMessage(), e.getCause());
        }
        outage.tries++;
        metrics.retry();
        metrics.outage(open.values().stream().mapToLong(o -> o.since).min().getAsLong());
        return Math.min(maxWait, firstWait << Math.min(20, outage.tries - 1));
    }

    /** Notes that a system answered. */
    void answered(OutageException.Of system) {
        if (open.isEmpty()) return;
        Outage outage = open.remove(system);
        if (outage == null) return;
        log.warn("{} answers again after {} s and {} failed tries", system.title, (clock.getAsLong() - outage.since) / 1000, outage.tries);
        metrics.outage(open.values().stream().mapToLong(o -> o.since).min().orElse(-1));
    }

    /** Forgets open outages: nobody is waiting for those systems any more. */
    void clear() {
        open.clear();
        metrics.outage(-1);
    }
}

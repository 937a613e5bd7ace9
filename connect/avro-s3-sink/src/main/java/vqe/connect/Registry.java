package vqe.connect;

import org.apache.kafka.connect.errors.DataException;

/** Where writer schemas come from. */
interface Registry {
    /**
     * A registered schema.
     *
     * @param text as registered, every byte of it
     * @param validator checks payloads against it
     */
    record WriterSchema(int id, String text, DatumValidator validator) { }

    /**
     * The schema with an id.
     *
     * @throws DataException if it can never be: the registry does not know the id, or it is no Avro schema
     * @throws OutageException if the registry cannot tell now, or may know the id in a moment
     */
    WriterSchema byId(int id) throws OutageException;

    /** Starts the clock for an id that is about to be asked for, so that many unknown ids wait at once and not in turn. */
    default void expect(int id) throws OutageException { }

    /** Fails unless the registry takes these credentials at this address. */
    void check() throws OutageException;
}

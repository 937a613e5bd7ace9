package vqe.connect;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.kafka.common.config.Config;
import org.apache.kafka.common.config.ConfigDef;
import org.apache.kafka.common.config.ConfigException;
import org.apache.kafka.common.config.ConfigValue;
import org.apache.kafka.connect.connector.Task;
import org.apache.kafka.connect.sink.SinkConnector;

/** Copies registry-framed Avro records, byte for byte, into Avro container files on S3. */
public class AvroS3SinkConnector extends SinkConnector {
    static final String VERSION = "0.1.0";

    private Map<String, String> props;

    /** For Connect, which makes connectors by reflection. */
    public AvroS3SinkConnector() { }

    @Override
    public void start(Map<String, String> props) {
        new SinkSettings(props);
        this.props = props;
    }

    /** Adds to the checks of single settings those that look at several. */
    @Override
    public Config validate(Map<String, String> props) {
        Config config = super.validate(props);
        if (config.configValues().stream().allMatch(value -> value.errorMessages().isEmpty())) {
            try {
                new SinkSettings(props);
            } catch (ConfigException e) {
                ConfigValue first = config.configValues().stream().filter(v -> e.getMessage().contains(v.name())).findFirst()
                    .orElse(config.configValues().get(0));
                first.addErrorMessage(e.getMessage());
            }
        }
        return config;
    }

    @Override
    public List<Map<String, String>> taskConfigs(int maxTasks) {
        List<Map<String, String>> tasks = new ArrayList<>();
        for (int i = 0; i < maxTasks; i++) {
            Map<String, String> task = new HashMap<>(props);
            task.put(SinkSettings.TASK, Integer.toString(i));
            tasks.add(task);
        }
        return tasks;
    }

    @Override public void stop() { }
    @Override public Class<? extends Task> taskClass() { return AvroS3SinkTask.class; }
    @Override public ConfigDef config() { return SinkSettings.DEF; }
    @Override public String version() { return VERSION; }
}

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.processor.PunctuationType;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;

/**
 * The work of the ingest worker in the Processor API of Kafka Streams: validate, track executions, pre-aggregate
 * windows; exactly_once_v2, a commit every 100 ms. It does less than the worker: no definitions, no violations, no
 * histograms, no duplicates of events; and its open executions reach the changelog ten times a second, not with each commit.
 *
 * <p>Arguments: bootstrap servers, topic, application id, partials topic, traces topic, threads, state folder.
 */
public final class IngestBaseline {
  private static final ObjectMapper JSON = new ObjectMapper();
  private static final long WINDOW_US = 10_000_000;
  private static final Duration FLUSH = Duration.ofMillis(100);
  private static final Set<String> STEPS = Set.of("step.started", "step.completed", "step.failed");
  private static final Set<String> ENDS = Set.of("execution.completed", "execution.failed");

  public static void main(String[] args) throws InterruptedException {
    Topology topology = new Topology();
    topology.addSource("events", Serdes.ByteArray().deserializer(), Serdes.ByteArray().deserializer(), args[1]);
    topology.addProcessor("ingest", Ingest::new, "events");
    topology.addStateStore(
        Stores.keyValueStoreBuilder(Stores.inMemoryKeyValueStore("open"), Serdes.String(), Serdes.ByteArray()), "ingest");
    topology.addSink("partials", args[3], Serdes.ByteArray().serializer(), Serdes.ByteArray().serializer(), "ingest");
    topology.addSink("traces", args[4], Serdes.ByteArray().serializer(), Serdes.ByteArray().serializer(), "ingest");
    KafkaStreams streams = new KafkaStreams(topology, settings(args));
    CountDownLatch ended = new CountDownLatch(1);
    Runtime.getRuntime().addShutdownHook(new Thread(() -> { streams.close(Duration.ofSeconds(10)); ended.countDown(); }));
    streams.start();
    ended.await();
  }

  private static Properties settings(String[] args) {
    Properties settings = new Properties();
    settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, args[0]);
    settings.put(StreamsConfig.APPLICATION_ID_CONFIG, args[2]);
    settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, args[5]);
    settings.put(StreamsConfig.STATE_DIR_CONFIG, args[6]);
    settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
    settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, FLUSH.toMillis());
    settings.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
    settings.put(StreamsConfig.consumerPrefix("auto.offset.reset"), "earliest");
    settings.put(StreamsConfig.consumerPrefix("max.poll.records"), 5000);
    settings.put(StreamsConfig.producerPrefix("compression.type"), "lz4");
    settings.put(StreamsConfig.producerPrefix("linger.ms"), 5);
    return settings;
  }

  /** One run of a step. */
  private static final class Step {
    String step, component, status = "started", errorType;
    long startUs, endUs, durationUs;
  }

  /** One run of a chain. */
  private static final class Execution {
    String tenant, chain, execution, status = "open";
    long startUs, lastUs;
    boolean logged;
    final Map<String, Step> steps = new HashMap<>();
  }

  /** What came together for one window of one series since it was published last. */
  private static final class Window {
    String tenant, chain, step, component;
    long startUs, events, started, completed, failed, durationSumUs, durationMaxUs;
  }

  private record Key(String tenant, String execution) {}

  private record Series(String tenant, String chain, String step, String component, long startUs) {}

  private static final class Ingest implements Processor<byte[], byte[], byte[], byte[]> {
    private final Map<Key, Execution> executions = new HashMap<>();
    private final Map<Key, Execution> touched = new HashMap<>();
    private final Map<Series, Window> windows = new HashMap<>();
    private final List<Execution> finished = new ArrayList<>();
    private ProcessorContext<byte[], byte[]> context;
    private KeyValueStore<String, byte[]> open;

    @Override
    public void init(ProcessorContext<byte[], byte[]> context) {
      this.context = context;
      open = context.getStateStore("open");
      context.schedule(FLUSH, PunctuationType.WALL_CLOCK_TIME, this::flush);
    }

    @Override
    public void process(Record<byte[], byte[]> record) {
      JsonNode value = parsed(record.value());
      if (value == null) return;
      if (value.isArray()) value.forEach(this::take);
      else take(value);
    }

    private static JsonNode parsed(byte[] value) {
      try {
        return JSON.readTree(value);
      } catch (java.io.IOException error) {
        return null;
      }
    }

    private void take(JsonNode event) {
      if (!valid(event)) return;
      String type = event.get("type").textValue();
      long timeUs = event.get("time_unix_us").longValue();
      String tenant = text(event, "tenant", "default");
      if (!event.has("execution") || !event.has("chain")) {
        window(tenant, "", "", text(event, "component", ""), timeUs).events++;
        return;
      }
      Key key = new Key(tenant, event.get("execution").textValue());
      Execution execution = executions.computeIfAbsent(key, name -> begun(name, event, timeUs));
      execution.lastUs = Math.max(execution.lastUs, timeUs);
      touched.put(key, execution);
      if (STEPS.contains(type)) step(execution, event, type, timeUs);
      else end(key, execution, type, timeUs);
    }

    private static boolean valid(JsonNode event) {
      return event.isObject() && name(event, "type", true) && event.path("time_unix_us").isIntegralNumber()
          && event.get("time_unix_us").longValue() >= 0 && name(event, "tenant", false) && name(event, "chain", false)
          && name(event, "execution", false) && name(event, "step", false) && name(event, "component", false)
          && name(event, "span", false) && count(event, "duration_us") && count(event, "attempt");
    }

    private static boolean name(JsonNode event, String field, boolean needed) {
      JsonNode value = event.get(field);
      if (value == null || value.isNull()) return !needed;
      return value.isTextual() && !value.textValue().isEmpty() && value.textValue().length() <= 128;
    }

    private static boolean count(JsonNode event, String field) {
      JsonNode value = event.get(field);
      return value == null || value.isNull() || (value.isIntegralNumber() && value.longValue() >= 0);
    }

    private static String text(JsonNode event, String field, String otherwise) {
      JsonNode value = event.get(field);
      return value == null || value.isNull() ? otherwise : value.textValue();
    }

    private static Execution begun(Key key, JsonNode event, long timeUs) {
      Execution execution = new Execution();
      execution.tenant = key.tenant();
      execution.execution = key.execution();
      execution.chain = event.get("chain").textValue();
      execution.startUs = timeUs;
      return execution;
    }

    private void step(Execution execution, JsonNode event, String type, long timeUs) {
      String name = text(event, "step", "");
      String span = text(event, "span", name);
      Step step = execution.steps.computeIfAbsent(span, key -> new Step());
      step.step = name;
      step.component = text(event, "component", name);
      Window window = window(execution.tenant, execution.chain, name, step.component, timeUs);
      window.events++;
      if (type.equals("step.started")) {
        step.startUs = timeUs;
        window.started++;
        return;
      }
      step.endUs = timeUs;
      step.durationUs = event.path("duration_us").longValue();
      step.status = type.equals("step.failed") ? "failed" : "completed";
      step.errorType = text(event, "error_type", null);
      if (step.errorType == null) window.completed++;
      else window.failed++;
      window.durationSumUs += step.durationUs;
      window.durationMaxUs = Math.max(window.durationMaxUs, step.durationUs);
    }

    private void end(Key key, Execution execution, String type, long timeUs) {
      window(execution.tenant, execution.chain, "", "", timeUs).events++;
      if (!ENDS.contains(type)) return;
      execution.status = type;
      finished.add(execution);
      executions.remove(key);
    }

    private Window window(String tenant, String chain, String step, String component, long timeUs) {
      long startUs = timeUs - timeUs % WINDOW_US;
      return windows.computeIfAbsent(new Series(tenant, chain, step, component, startUs), series -> {
        Window window = new Window();
        window.tenant = tenant;
        window.chain = chain;
        window.step = step;
        window.component = component;
        window.startUs = startUs;
        return window;
      });
    }

    private void flush(long now) {
      if (windows.isEmpty()) return;
      ArrayNode deltas = JSON.createArrayNode();
      windows.values().forEach(window -> deltas.add(told(window)));
      forward("partials", deltas, now);
      ArrayNode traces = JSON.createArrayNode();
      finished.forEach(execution -> traces.add(told(execution)));
      forward("traces", traces, now);
      touched.forEach(this::log);
      windows.clear();
      finished.clear();
      touched.clear();
    }

    private void log(Key key, Execution execution) {
      String name = key.tenant() + '\u001f' + key.execution();
      if (execution.status.equals("open")) {
        open.put(name, bytes(told(execution)));
        execution.logged = true;
      } else if (execution.logged) {
        open.delete(name);
      }
    }

    private void forward(String sink, ArrayNode records, long now) {
      for (int from = 0; from < records.size(); from += 500) {
        ArrayNode batch = JSON.createArrayNode();
        for (int at = from; at < Math.min(records.size(), from + 500); at++) batch.add(records.get(at));
        context.forward(new Record<>(null, bytes(batch), now), sink);
      }
    }

    private static ObjectNode told(Window w) {
      return JSON.createObjectNode().put("tenant", w.tenant).put("chain", w.chain).put("step", w.step)
          .put("component", w.component).put("window_start_unix_us", w.startUs).put("events", w.events)
          .put("started", w.started).put("completed", w.completed).put("failed", w.failed)
          .put("duration_sum_us", w.durationSumUs).put("duration_max_us", w.durationMaxUs);
    }

    private static ObjectNode told(Execution x) {
      ObjectNode told = JSON.createObjectNode().put("tenant", x.tenant).put("chain", x.chain).put("execution", x.execution)
          .put("status", x.status).put("start_us", x.startUs).put("last_us", x.lastUs);
      ObjectNode steps = told.putObject("steps");
      x.steps.forEach((span, step) -> steps.putObject(span).put("step", step.step).put("component", step.component)
          .put("status", step.status).put("start_us", step.startUs).put("end_us", step.endUs).put("duration_us", step.durationUs));
      return told;
    }

    private static byte[] bytes(JsonNode node) {
      try {
        return JSON.writeValueAsBytes(node);
      } catch (com.fasterxml.jackson.core.JsonProcessingException error) {
        throw new IllegalStateException(error);
      }
    }
  }
}

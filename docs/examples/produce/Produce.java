import java.time.Instant;
import java.time.temporal.ChronoUnit;
import java.util.Map;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.StringSerializer;

/** One event by the Java client, whose default partitioner is murmur2: java Produce localhost:9092 flowchain.events.v1 */
public class Produce {
    public static void main(String[] arguments) throws Exception {
        long timeUs = ChronoUnit.MICROS.between(Instant.EPOCH, Instant.now());
        String execution = "order-java";
        String event = """
                {"type": "step.completed", "chain": "order_to_cash", "execution": "%s", "step": "charge_card", "time_unix_us": %d}
                """.formatted(execution, timeUs);
        Map<String, Object> config = Map.of("bootstrap.servers", arguments[0]);
        try (var producer = new KafkaProducer<>(config, new StringSerializer(), new StringSerializer())) {
            producer.send(new ProducerRecord<>(arguments[1], execution, event)).get();
        }
    }
}

// One event by kafkajs 2, whose default partitioner is murmur2: node produce.mjs localhost:9092 flowchain.events.v1
import kafkajs from "kafkajs";

const [servers, topic] = process.argv.slice(2);
const kafka = new kafkajs.Kafka({ brokers: [servers] });
const producer = kafka.producer({ createPartitioner: kafkajs.Partitioners.DefaultPartitioner });
const event = {
  type: "step.completed",
  chain: "order_to_cash",
  execution: "order-node",
  step: "charge_card",
  time_unix_us: Date.now() * 1000,
};
await producer.connect();
await producer.send({ topic, messages: [{ key: event.execution, value: JSON.stringify(event) }] });
await producer.disconnect();

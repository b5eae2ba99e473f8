"""One event by the Python client: python produce.py localhost:9092 flowchain.events.v1"""

import json
import sys
import time

from confluent_kafka import Producer

servers, topic = sys.argv[1:]
# librdkafka's own default is another partitioner: an execution has to be in the partition that all other clients choose.
producer = Producer({"bootstrap.servers": servers, "partitioner": "murmur2_random"})
event = {
    "type": "step.completed",
    "chain": "order_to_cash",
    "execution": "order-python",
    "step": "charge_card",
    "time_unix_us": time.time_ns() // 1000,
}
producer.produce(topic, json.dumps(event), key=event["execution"])
if producer.flush(30):
    sys.exit("Kafka has not taken the event")

